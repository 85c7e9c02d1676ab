"""``dkim-sign``: what it signs holds, for ``verify`` and for dkimpy; and it signs nobody else's mail."""

import base64
import os
from functools import cache
from pathlib import Path
from typing import Any, cast

import dkim  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.domain import Domains
from smtpserv.edit import AddField, DeleteField, Edit, InsertField, changed
from smtpserv.error import SMTPError, StartError
from smtpserv.filters import signing_key
from smtpserv.filters.checks import make_check
from smtpserv.filters.dkim_sign import LOCAL, DKIMSign
from smtpserv.filters.signer import FIELDS, Signer
from smtpserv.filters.signing_key import KeyFile, SigningKey
from smtpserv.filters.verify import Means, Verify
from smtpserv.header import MAX_HEADER, Header
from smtpserv.message import Content, Message, Peer, Session
from smtpserv.network import Networks
from smtpserv.plugins import find_filters, make_filter
from smtpserv.testing.memory import HandThread, make_message, run_now
from tests.server_tools import Reactor, captured_log
from tests.test_filters_verify import DNS, txt

SENT = (
    b"From: A <a@a.example>\r\nTo: b@b.example\r\nSubject: one\r\n two\r\n\r\nbody \r\nof  two lines\r\n\r\n"
)


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """A key that takes a moment to make."""
    return rsa.generate_private_key(65537, 2048)


def pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    """A private key as a file has it."""
    octets: bytes = key.private_bytes(Encoding.PEM, form, NoEncryption())
    return octets


def record(key: Any) -> bytes:
    """The record of the public key."""
    if isinstance(key, Ed25519PrivateKey):
        public = key.public_key().public_bytes_raw()
        return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(public)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


def holds(content: bytes, key: Any, domain: str = "a.example") -> bool:
    """Whether dkimpy says so of the first signature."""
    known = {f"s1._domainkey.{domain}.".encode(): record(key)}
    return bool(dkim.verify(content, dnsfunc=lambda name, timeout=5: known.get(name)))


def local(content: bytes, host: str = "127.0.0.1", identity: str | None = None) -> Message:
    """A message from a host."""
    message = make_message(content)
    session = Session("test", Peer(host), "EHLO", "client.example", identity=identity)
    return Message(session, message.envelope, message.content)


class SigningCase(SynchronousTestCase):
    """Signs messages."""

    check = staticmethod(make_check())

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.write(pem(rsa_key()))

    def write(self, octets: bytes, mode: int = 0o600) -> None:
        """The key file."""
        self.path.touch()
        self.path.chmod(0o600)
        self.path.write_bytes(octets)
        self.path.chmod(mode)

    def make(self, domains: str = "a.example", fields: Any = FIELDS, in_thread: Any = run_now) -> DKIMSign:
        """A filter."""
        signer = Signer("s1", KeyFile(str(self.path)), fields)
        return DKIMSign(Domains.parse(domains), Networks.parse(LOCAL), signer.sign, in_thread)

    def sign(self, message: Message, domains: str = "a.example", **choices: Any) -> Message:
        """The message behind the filter."""
        decision = self.make(domains, **choices).filter_message(message)
        edits = None if decision is None else self.successResultOf(decision)
        return message if edits is None else changed(message, edits)

    def assert_holds(self, content: bytes, key: Any = None, domain: str = "a.example") -> None:
        """dkimpy and our own filter say that the first signature holds."""
        key = key or rsa_key()
        self.assertTrue(holds(content, key, domain))
        answers = DNS()
        answers.answers = {f"s1._domainkey.{domain}": [txt(record(key))]}
        means = Means(answers.find, run_now, cast(Any, Clock()))
        message = make_message(content)
        decision = Verify("mx.example", self.check, means, False, Networks()).filter_message(message)
        assert decision is not None
        edits = self.successResultOf(decision)
        told = Header.of(changed(message, edits).content).fields[0].text
        self.assertIn(f"dkim=pass header.d={domain}", told)


class SignatureTests(SigningCase):
    """Signatures hold."""

    def test_rsa(self) -> None:
        """One field at the top; the rest stays octet for octet."""
        octets = self.sign(local(SENT)).content.read()
        self.assertTrue(
            octets.startswith(b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=a.example;")
        )
        self.assertTrue(octets.endswith(SENT))
        self.assert_holds(octets)

    def test_ed25519(self) -> None:
        """Of RFC 8463, by its seed or in PEM."""
        key = Ed25519PrivateKey.generate()
        for octets in (pem(key), base64.b64encode(key.private_bytes_raw()) + b"\n"):
            self.write(octets)
            signed = self.sign(local(SENT)).content.read()
            self.assertIn(b"a=ed25519-sha256", signed)
            self.assert_holds(signed, key)

    def test_rsa_forms(self) -> None:
        """PKCS #1, PKCS #8, and DER in base64 are the same key."""
        for form in (PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8):
            der = rsa_key().private_bytes(Encoding.DER, form, NoEncryption())
            for octets in (pem(rsa_key(), form), base64.encodebytes(der)):
                self.assertEqual(
                    SigningKey.parse(octets).octets, pem(rsa_key(), PrivateFormat.TraditionalOpenSSL)
                )

    def test_changed(self) -> None:
        """A changed body, subject or author is found out, and so is a second author."""
        octets = self.sign(local(SENT)).content.read()
        for before, after in (
            (b"body", b"BODY"),
            (b"Subject: one", b"Subject: two"),
            (b"From: A", b"From: x@a.example\r\nFrom: A"),
        ):
            self.assertFalse(holds(octets.replace(before, after), rsa_key()), after)

    def test_edits_behind(self) -> None:
        """Fields that our other filters add above or below do no harm, nor does one that goes unsigned."""
        content = b"X-Old: y\r\n" + SENT
        edits: list[Edit] = [
            InsertField("Received", "from x by y; now"),
            AddField("X-Scanned", "yes"),
            DeleteField("X-Old"),
        ]
        self.assert_holds(changed(self.sign(local(content)), edits).content.read())

    def test_fields(self) -> None:
        """Those that are named are signed, each as often as it is there; From once more."""
        content = b"X-A: 1\r\nX-A: 2\r\n" + SENT
        octets = self.sign(local(content), fields=("from", "x-a")).content.read()
        names = Header.of(Content(octets)).fields[0].text.partition("h=")[2].partition(";")[0]
        self.assertEqual(names.split(" : "), ["from", "x-a", "x-a", "from"])
        self.assert_holds(octets)
        self.assert_holds(octets.replace(b"Subject: one", b"Subject: two"))

    @settings(max_examples=30, deadline=None, database=None)
    @given(
        st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"x", b"\xff", b"=", b" " * 90]), max_size=12),
        st.lists(
            st.sampled_from([b"Subject: a\r\n\tb \r\n", b"To:\r\n x@y\r\n", b"Cc: \xff\r\n"]), max_size=4
        ),
    )
    def test_any(self, body: list[bytes], fields: list[bytes]) -> None:
        """Whatever the white space, dkimpy finds the digests that we found."""
        key = Ed25519PrivateKey.from_private_bytes(bytes(32))
        self.write(base64.b64encode(bytes(32)))
        content = b"From: a@a.example\r\n" + b"".join(fields) + b"\r\n" + b"".join(body)
        octets = self.sign(local(content)).content.read()
        self.assertTrue(holds(octets, key))


class WhoseTests(SigningCase):
    """Whose mail is signed."""

    def domain(self, author: bytes, domains: str, **session: Any) -> str | None:
        """The domain that signs mail of an author; None if none does."""
        message = self.sign(local(b"From: " + author + b"\r\n\r\n", **session), domains)
        fields = Header.of(message.content).named("DKIM-Signature")
        return fields[0].text.partition("d=")[2].partition(";")[0] if fields else None

    def test_domains(self) -> None:
        """The nearest of ours signs for its own authors and those of the domains below; for nobody else."""
        ours = "a.example,b.example,x.a.example"
        for author, domain in {
            b"u@a.example": "a.example",
            b"U <u@A.Example>": "a.example",
            b"u@mail.b.example": "b.example",
            b"u@y.x.a.example": "x.a.example",
            b"u@ba.example": None,
            b"u@example": None,
            b"u@c.example": None,
            b"u@a.example, v@b.example": None,
            b"u@a.example, v@x.a.example": "a.example",
            b"nobody": None,
            b"u@[192.0.2.1]": None,
            b"": None,
        }.items():
            self.assertEqual(self.domain(author, ours), domain, author)

    def test_strangers(self) -> None:
        """Who writes our domain into his From gets no signature; our hosts and users do."""
        self.assertIsNone(self.domain(b"u@a.example", "a.example", host="192.0.2.1"))
        self.assertIsNotNone(self.domain(b"u@a.example", "a.example", host="::1"))
        self.assertIsNotNone(self.domain(b"u@a.example", "a.example", host=""))
        self.assertIsNotNone(self.domain(b"u@a.example", "a.example", host="192.0.2.1", identity="u"))

    def test_broken_header(self) -> None:
        """What everybody reads in his own way is not signed; a header without end is refused."""
        message = local(b"From: a@a.example\r\nno field\r\n\r\nbody\r\n")
        self.assertIs(self.sign(message), message)
        decision = self.make().filter_message(local(b"From: a@a.example\r\n" * (MAX_HEADER // 19 + 1)))
        assert decision is not None
        error = self.failureResultOf(decision, SMTPError).value
        self.assertEqual(str(error)[:9], "554 5.6.0")

    def test_in_a_thread(self) -> None:
        """All that takes time is done in a thread; nothing is waited for before."""
        thread = HandThread()
        decision = self.make(in_thread=thread).filter_message(local(SENT))
        assert isinstance(decision, Deferred)
        self.assertNoResult(decision)
        thread.step()
        self.assertIsNotNone(self.successResultOf(decision))


class KeyTests(SigningCase):
    """The key file."""

    def test_wrong(self) -> None:
        """What is no key, or none that counts, is not used; the reason quotes nothing of it."""
        for octets in (
            b"",
            b"secret",
            base64.b64encode(b"secret"),
            b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
            pem(ec.generate_private_key(ec.SECP256R1())),
            pem(rsa.generate_private_key(65537, 1024)).replace(b"PRIVATE KEY", b"PUBLIC KEY"),
        ):
            error = self.assertRaises(ValueError, SigningKey.parse, octets)
            self.assertNotIn("secret", str(error))
            self.assertNotIn("c2Vj", str(error))

    def test_short(self) -> None:
        """A key so short that nobody believes its signatures is none."""
        self.patch(signing_key, "LEAST_BITS", 2049)
        self.assertRaises(ValueError, SigningKey.parse, pem(rsa_key()))

    def test_secret(self) -> None:
        """A key does not show in what is printed of it."""
        self.assertEqual(repr(SigningKey.parse(pem(rsa_key()))), "SigningKey(algorithm=b'rsa-sha256')")

    def test_reload(self) -> None:
        """A changed file is read again; while it is broken, or open to others, the old key is used."""
        file = KeyFile(str(self.path))
        log = captured_log(self)
        old = file.key()
        self.write(b"broken")
        self.assertIs(file.key(), old)
        self.write(base64.b64encode(bytes(32)), 0o644)
        self.assertIs(file.key(), old)
        self.path.unlink()
        self.assertIs(file.key(), old)
        self.assertEqual(len(log), 3)
        self.write(base64.b64encode(bytes(32)))
        self.assertEqual(file.key().algorithm, b"ed25519-sha256")

    def test_arguments(self) -> None:
        """What is wrong ends the start, in one line."""
        reactor = cast(Any, Reactor())
        path = str(self.path)

        def complaint(description: str) -> str:
            made = (f"dkim-sign:{description}", reactor, find_filters(), "mx.example")
            return str(self.assertRaises(StartError, make_filter, *made))

        good = f"domain=a.example:selector=s1:key-file={path}"
        make_filter(
            f"dkim-sign:{good}:fields=From,to:hosts=192.0.2.0/24", reactor, find_filters(), "mx.example"
        )
        for description, reason in {
            "selector=s1": "it needs domain=, selector= and key-file=",
            f"domain=a.example:selector=s1:key-file={path}x": "key-file: .*x: No such file",
            f"domain=a b:selector=s1:key-file={path}": "domain: 'a b' is not",
            f"domain=a.example:selector=s 1:key-file={path}": "selector: 's 1' is not",
            f"{good}:fields=to": "fields: 'to' is not",
            f"{good}:fields=from,received": "received",
            f"{good}:hosts=x": "hosts: 'x' is not",
            f"{good}:what=x": "what",
            f"a.example:{good}": "dkim-sign",
        }.items():
            self.assertRegex(complaint(description), reason)
        os.chmod(path, 0o604)
        self.assertRegex(complaint(good), r"others may read or write it \(mode 604\)$")
