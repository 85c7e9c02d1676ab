"""``verify``: SPF, DKIM, ARC and DMARC, with keys made here and a DNS that is a dictionary."""

import base64
import sys
from functools import cache
from typing import Any, ClassVar, cast

import dkim  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import plugins
from smtpserv.edit import HeaderEdit, changed
from smtpserv.error import SMTPError, StartError
from smtpserv.filters.checks import make_check
from smtpserv.filters.verify import Means, Verify
from smtpserv.header import MAX_HEADER, Header
from smtpserv.message import Content, Message, Peer, Session
from smtpserv.network import Networks
from smtpserv.plugins import find_filters, make_filter
from smtpserv.testing.memory import make_message, run_now
from tests.server_tools import Reactor

SENT = b"From: A <a@a.example>\r\nSubject: one\r\n two\r\n\r\nbody \r\nof  two lines\r\n\r\n"
RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)


@cache
def rsa_key() -> tuple[bytes, bytes]:
    """A private key as dkimpy wants it, and the record of the public one."""
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


def signed(content: bytes = SENT, domain: bytes = b"a.example", **choices: Any) -> bytes:
    """The content with a signature above it."""
    choices = {"canonicalize": (b"relaxed", b"relaxed")} | choices
    return bytes(dkim.sign(content, b"s1", domain, rsa_key()[0], **choices)) + content


class DNS:
    """Answers from a dictionary: name -> records; None where nobody can tell."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {
            "a.example": [txt(b"v=spf1 ip4:192.0.2.1 -all")],
            "s1._domainkey.a.example": [txt(rsa_key()[1])],
        }

    def find(self, kind: int, name: str) -> "Deferred[Any]":
        """What is there of the type."""
        self.asked.append(name)
        found = self.answers.get(name, [])
        return succeed(None if found is None else tuple(each for each in found if kind == each.TYPE))


def txt(text: bytes) -> Any:
    """A text, in the pieces in which a record has it."""
    return dns.Record_TXT(*[text[start : start + 255] for start in range(0, len(text), 255)])


class VerifyCase(SynchronousTestCase):
    """Verifies messages."""

    check = staticmethod(make_check())

    def setUp(self) -> None:
        self.dns = DNS()
        self.clock = Clock()

    def verify(self, message: Message, exempt: str = "") -> Message:
        """The message behind the filter."""
        means = Means(self.dns.find, run_now, cast(Any, self.clock))
        filter = Verify("mx.example", self.check, means, False, Networks.parse(exempt))
        decision = filter.filter_message(message)
        if decision is None:
            return message
        edits: list[HeaderEdit] = self.successResultOf(decision)
        return changed(message, edits)

    def refusal(self, message: Message) -> str:
        """The reply to a message that is refused where its author wants that; empty if it is not."""
        means = Means(self.dns.find, run_now, cast(Any, self.clock))
        decision = Verify("mx.example", self.check, means, True, Networks()).filter_message(message)
        outcome: list[Any] = []
        assert decision is not None
        decision.addBoth(outcome.append)
        error = getattr(outcome[0], "value", None)
        return str(error)[:10] if isinstance(error, SMTPError) else ""

    def told(self, content: bytes, **facts: Any) -> list[str]:
        """The clauses of the field that was added, without our name; the rest stays as it was."""
        octets = self.verify(make_message(content, **facts)).content.read()
        self.assertTrue(
            octets.startswith(b"Authentication-Results: mx.example;") and octets.endswith(content)
        )
        field = Header.of(Content(octets)).fields[0].text.replace("\t", " ")
        return field.split("; ")[1:]


class SPFTests(VerifyCase):
    """Who may send."""

    def spf(self, record: bytes | None, **facts: Any) -> str:
        """What is told of a domain with that record."""
        self.dns.answers["a.example"] = None if record is None else [txt(record)]
        return self.told(SENT, **facts)[0]

    def test_results(self) -> None:
        """The domain's record decides; a DNS that does not tell is a temporary error."""
        self.dns.answers["h.example"] = [dns.Record_A("192.0.2.1")]
        self.dns.answers["m.example"] = [dns.Record_MX(1, "h.example")]
        self.dns.answers["1.2.0.192.in-addr.arpa"] = [dns.Record_PTR("h.example")]
        self.dns.answers["lame.example"] = None
        for record, value in {
            b"v=spf1 ip4:192.0.2.0/24 -all": "pass",
            b"v=spf1 a:h.example -all": "pass",
            b"v=spf1 mx:m.example -all": "pass",
            b"v=spf1 ptr:h.example -all": "pass",
            b"v=spf1 -all exp=x.%{d}": "fail",
            b"v=spf1 ~all": "softfail",
            b"v=spf1 ?all": "neutral",
            b"v=spf1 nonsense:x -all": "permerror",
            b"v=spf1 include:a.example -all": "permerror",
            b"v=spf1 a:n1.example a:n2.example a:n3.example -all": "permerror",
            b"v=spf1 a:lame.example -all": "temperror",
            b"v=spf1 \xff": "permerror",
            b"other": "none",
            None: "temperror",
        }.items():
            self.assertEqual(self.spf(record), f"spf={value} smtp.mailfrom=a.example", record)

    def test_null_reverse_path(self) -> None:
        """Then it is the client's own name that is asked about."""
        self.dns.answers["client.example"] = [txt(b"v=spf1 ip4:192.0.2.1 -all")]
        self.assertEqual(self.told(SENT, reverse_path="")[0], "spf=pass smtp.helo=client.example")

    def test_no_domain(self) -> None:
        """A literal has no record, and is not asked about."""
        self.assertEqual(
            self.told(SENT, reverse_path="a@[192.0.2.1]")[0], 'spf=none smtp.mailfrom="[192.0.2.1]"'
        )

    def test_ipv6(self) -> None:
        """So for a client with an IPv6 address."""
        self.dns.answers["a.example"] = [txt(b"v=spf1 a:h.example -all")]
        self.dns.answers["h.example"] = [dns.Record_AAAA("2001:db8::1")]
        message = make_message(SENT)
        session = Session("test", Peer("2001:db8::1"), "EHLO", "client.example")
        octets = self.verify(Message(session, message.envelope, message.content)).content.read()
        self.assertIn(b"spf=pass", octets)


class DKIMTests(VerifyCase):
    """Who signed."""

    def dkim(self, content: bytes) -> str:
        """What is told of the first signature."""
        return self.told(content)[1].split(" ")[0]

    def test_pass(self) -> None:
        """Signatures of every canonical form hold; who made them is told."""
        for header in (b"simple", b"relaxed"):
            for body in (b"simple", b"relaxed"):
                content = signed(canonicalize=(header, body))
                self.assertRegex(
                    self.told(content)[1],
                    r"^dkim=pass header.d=a.example header.s=s1 header.a=rsa-sha256 header.b=\S+$",
                )

    def test_ed25519(self) -> None:
        """So do those of RFC 8463."""
        key = Ed25519PrivateKey.generate()
        seed = key.private_bytes(RAW[0], serialization.PrivateFormat.Raw, serialization.NoEncryption())
        public = base64.b64encode(key.public_key().public_bytes(*RAW))
        self.dns.answers["s1._domainkey.a.example"] = [txt(b"v=DKIM1; k=ed25519; p=" + public)]
        signature = dkim.sign(
            SENT, b"s1", b"a.example", base64.b64encode(seed), signature_algorithm=b"ed25519-sha256"
        )
        self.assertEqual(self.dkim(signature + SENT), "dkim=pass")
        self.assertEqual(self.dkim(signature + SENT.replace(b"one", b"two")), "dkim=fail")

    def test_fail(self) -> None:
        """A changed header, body or author, or another's key; what was added above is no change."""
        content = signed()
        for before, after in (
            (b"one", b"1"),
            (b"body", b"BODY"),
            (b"A <a@", b"B <a@"),
            (b"From: A", b"From: x@y\r\nFrom: A"),
        ):
            changed = content[: -len(SENT)] + SENT.replace(before, after)  # not by chance in the signature
            self.assertEqual(self.dkim(changed), "dkim=fail", after)
        self.assertEqual(self.dkim(b"Received: x\r\n" + content), "dkim=pass")

    def test_keys(self) -> None:
        """No key, one that is none, one that is withdrawn or too long, and a DNS that does not tell."""
        public = rsa_key()[1]
        for key, value in (
            ([], "permerror"),
            ([txt(b"v=DKIM1; p=")], "permerror fail"),
            ([txt(b"v=DKIM1; p=AAAA")], "permerror fail"),
            ([txt(public + b"A" * 4000)], "permerror"),
            ([txt(b"\xff")], "permerror fail"),
            (None, "temperror"),
        ):
            self.dns.answers["s1._domainkey.a.example"] = key
            self.assertIn(self.dkim(signed()).removeprefix("dkim="), value.split(" "), key)

    def test_useless(self) -> None:
        """SHA-1, a signature that leaves the author out, and what is no signature."""
        weak = signed(signature_algorithm=b"rsa-sha1")
        self.assertEqual(self.dkim(weak), "dkim=neutral")
        without_author = signed().replace(b"h=from : subject : from", b"h=subject")
        self.assertNotEqual(without_author, signed())
        self.assertEqual(self.dkim(without_author), "dkim=neutral")
        for field in (
            b"x",
            b"",
            b"v=1; a=rsa-sha256; d=a.example; s=x; h=from; b=AAAA",
            b"v=1" + b" " * 200,
        ):
            self.assertIn(
                self.dkim(b"DKIM-Signature: " + field + b"\r\n" + SENT), ("dkim=neutral", "dkim=permerror")
            )

    def test_several(self) -> None:
        """Each is told, up to six."""
        content = signed(signed())
        self.assertEqual([each[:9] for each in self.told(content)[1:3]], ["dkim=pass"] * 2)
        for _ in range(6):
            content = b"DKIM-Signature: x\r\n" + content
        self.assertEqual(len([each for each in self.told(content) if each.startswith("dkim=")]), 6)

    def test_none(self) -> None:
        """A message that nobody signed; also one without anything."""
        self.assertEqual(self.told(SENT)[1], "dkim=none")
        self.assertEqual(self.told(b"")[1:], ["dkim=none", "arc=none", "dmarc=permerror"])


class ARCTests(VerifyCase):
    """Who passed it on."""

    def sealed(self) -> bytes:
        """A message as a mailing list passes it on."""
        content = b"Authentication-Results: list.example; spf=pass\r\n" + SENT
        fields = dkim.arc_sign(
            content, b"s1", b"a.example", rsa_key()[0], b"list.example", [b"from", b"subject"]
        )
        return b"".join(fields) + content

    def test_chain(self) -> None:
        """One that holds, and one that was broken since."""
        content = self.sealed()
        self.assertEqual(self.told(content)[2], "arc=pass")
        self.assertEqual(self.told(content.replace(b"body", b"BODY"))[2], "arc=fail")
        self.assertEqual(self.told(content.replace(b"cv=none", b"cv=pass"))[2], "arc=fail")
        self.dns.answers["s1._domainkey.a.example"] = None
        self.assertEqual(self.told(content)[2], "arc=temperror")

    def test_hostile(self) -> None:
        """Sets that are none, or too many."""
        for fields in (
            b"ARC-Seal: i=999999999\r\n",
            b"ARC-Seal: i=1\r\nARC-Message-Signature: i=1\r\nARC-Authentication-Results: i=1\r\n",
            b"".join(b"ARC-Seal: i=%d\r\n" % i for i in range(1, 60)),
        ):
            self.assertEqual(self.told(fields + SENT)[2], "arc=fail")


class DMARCTests(VerifyCase):
    """What the author's domain wants."""

    #: Mail that nothing speaks for.
    FORGED: ClassVar[dict[str, Any]] = {"reverse_path": "x@other.example"}

    def dmarc(self, content: bytes, record: bytes | None, domain: str = "a.example", **facts: Any) -> str:
        """What is told where a domain has that record."""
        self.dns.answers[f"_dmarc.{domain}"] = None if record is None else [txt(record)]
        return self.told(content, **facts)[-1]

    def test_pass(self) -> None:
        """By SPF or by DKIM; in relaxed mode one of the same organization does."""
        self.assertEqual(self.dmarc(SENT, b"v=DMARC1; p=reject"), "dmarc=pass header.from=a.example")
        told = self.dmarc(signed(), b"v=DMARC1; p=reject", **self.FORGED)
        self.assertEqual(told, "dmarc=pass header.from=a.example")
        below = SENT.replace(b"a@a.example", b"a@mail.a.example")
        self.assertEqual(self.dmarc(below, b"v=DMARC1; p=reject"), "dmarc=pass header.from=mail.a.example")
        told = self.dmarc(below, b"v=DMARC1; p=reject; aspf=s; adkim=s")
        self.assertEqual(told, "dmarc=fail header.from=mail.a.example policy.dmarc=reject")

    def test_fail(self) -> None:
        """Nothing speaks for the author: the policy is told; for what is below a domain, its own for that."""
        for record, policy in (
            (b"p=none", "none"),
            (b"p=quarantine", "quarantine"),
            (b"p=reject; sp=none", "reject"),
        ):
            told = self.dmarc(SENT, b"v=DMARC1; " + record, **self.FORGED)
            self.assertEqual(told, f"dmarc=fail header.from=a.example policy.dmarc={policy}")
        below = SENT.replace(b"a@a.example", b"a@mail.a.example")
        told = self.dmarc(below, b"v=DMARC1; p=reject; sp=none", **self.FORGED)
        self.assertEqual(told, "dmarc=fail header.from=mail.a.example policy.dmarc=none")

    def test_none(self) -> None:
        """No record, two of them, or none that is one."""
        for record in (b"x", b"v=DMARC2; p=reject", b"v=DMARC1", b"v=DMARC1; p=x"):
            self.assertEqual(self.dmarc(SENT, record, **self.FORGED), "dmarc=none header.from=a.example")
        self.dns.answers["_dmarc.a.example"] = [txt(b"v=DMARC1; p=reject")] * 2
        self.assertEqual(self.told(SENT, **self.FORGED)[-1], "dmarc=none header.from=a.example")

    def test_temporary(self) -> None:
        """What could not be told is no failure."""
        self.assertEqual(self.dmarc(SENT, None), "dmarc=temperror header.from=a.example")
        self.dns.answers["s1._domainkey.a.example"] = None
        told = self.dmarc(signed(), b"v=DMARC1; p=reject", **self.FORGED)
        self.assertEqual(told, "dmarc=temperror header.from=a.example")

    def test_authors(self) -> None:
        """Several authors are judged one by one; none, or what is none, can't be."""
        self.dns.answers["_dmarc.b.example"] = [txt(b"v=DMARC1; p=reject")]
        content = b"From: b@b.example\r\n" + SENT
        self.assertEqual(
            [each for each in self.told(content) if each.startswith("dmarc")],
            ["dmarc=fail header.from=b.example policy.dmarc=reject", "dmarc=none header.from=a.example"],
        )
        for sender in (
            b"",
            b"From: a\r\n",
            b"From: <>\r\n",
            b"From: a@[192.0.2.1]\r\n",
            b"From: " + b"a@b.example," * 999 + b"\r\n",
        ):
            self.assertEqual(self.told(sender + b"\r\n")[-1], "dmarc=permerror")

    def test_refused(self) -> None:
        """Only where it was asked for, the policy says so without a but, and it is sure."""

        def refused(record: bytes, content: bytes = SENT, **facts: Any) -> bool:
            self.dns.answers["_dmarc.a.example"] = [txt(record)]
            return self.refusal(make_message(content, **facts)) == "550 5.7.26"

        self.assertTrue(refused(b"v=DMARC1; p=reject", **self.FORGED))
        self.assertFalse(refused(b"v=DMARC1; p=reject"))
        for record in (b"p=none", b"p=quarantine", b"p=reject; pct=50", b"p=reject; t=y"):
            self.assertFalse(refused(b"v=DMARC1; " + record, **self.FORGED), record)
        self.dns.answers["s1._domainkey.a.example"] = None
        self.assertFalse(refused(b"v=DMARC1; p=reject", signed(), **self.FORGED))


class ForgedTests(VerifyCase):
    """Fields that say that they are ours."""

    def test_removed(self) -> None:
        """They go, wherever they stand in the header; others' and the rest stay as they are."""
        sent = (
            b"Authentication-Results: mx.example; dkim=pass\r\nX: \xff\r\n"
            b"Authentication-Results: other.example; a=b\r\nno field\r\n"
            b"authentication-results : (c)\r\n MX.example.; dkim=pass\r\n\r\n"
            b"Authentication-Results: mx.example; body\r\n"
        )
        octets = self.verify(make_message(sent)).content.read()
        self.assertEqual(
            octets.partition(b"X: ")[2],
            b"\xff\r\nAuthentication-Results: other.example; a=b\r\nno field\r\n\r\n"
            b"Authentication-Results: mx.example; body\r\n",
        )
        self.assertEqual(octets.count(b"mx.example"), 2)

    def test_very_many(self) -> None:
        """Of a flood of them all go, at once."""
        sent = b"Authentication-Results: mx.example; x=y\r\nAuthentication-Results: o; x=y\r\n" * 1500
        octets = self.verify(make_message(sent + b"\r\n")).content.read()
        self.assertEqual(octets.count(b"Authentication-Results"), 1)

    def test_endless_header(self) -> None:
        """A header that could not be looked through is refused: it may say in our name what it likes."""
        message = make_message(b"A: b\r\n" * (MAX_HEADER // 6 + 1))
        self.assertEqual(self.refusal(message), "554 5.6.0 ")


class WhoTests(VerifyCase):
    """Whose mail is verified."""

    def test_identity(self) -> None:
        """Of one who authenticated that is told, and nothing asked; not who it is. Forged fields go."""
        plain = make_message(b"Authentication-Results: mx.example; x=y\r\n" + SENT)
        session = Session("test", Peer("192.0.2.1"), "EHLO", "client.example", identity="secret")
        octets = self.verify(Message(session, plain.envelope, plain.content)).content.read()
        self.assertEqual(octets, b"Authentication-Results: mx.example; auth=pass\r\n" + SENT)
        self.assertEqual(self.dns.asked, [])

    def test_exempt(self) -> None:
        """Messages of our own hosts are left as they are."""
        message = make_message(b"Authentication-Results: mx.example; x=y\r\n" + SENT)
        self.assertIs(self.verify(message, exempt="192.0.2.0/24"), message)


class TimeTests(VerifyCase):
    """A DNS that is slow, or asked for much."""

    def test_deadline(self) -> None:
        """When it takes too long nothing more is asked: the rest are temporary errors, none a failure."""
        self.dns.answers["_dmarc.a.example"] = [txt(b"v=DMARC1; p=reject")]
        find, self.dns.find = self.dns.find, cast(Any, self.late)  # type: ignore[method-assign]
        told = self.told(signed(), reverse_path="x@other.example")
        self.assertEqual(
            [each.split(" ")[0] for each in told],
            ["spf=none", "dkim=temperror", "arc=none", "dmarc=temperror"],
        )
        self.assertEqual(self.dns.asked, [])
        self.dns.find = find  # type: ignore[method-assign]

    def late(self, kind: int, name: str) -> "Deferred[Any]":
        """Answers after the deadline, that there is nothing."""
        self.clock.advance(60)
        return succeed(())

    def test_waits(self) -> None:
        """An answer may come later, and whoever gives up the message gives up the question."""
        answer: Deferred[Any] = Deferred()
        self.dns.find = lambda kind, name: answer  # type: ignore[method-assign]
        means = Means(self.dns.find, run_now, cast(Any, self.clock))
        decision = Verify("mx.example", self.check, means, False, Networks()).filter_message(
            make_message(SENT)
        )
        assert decision is not None
        self.assertNoResult(decision)
        decision.cancel()
        self.failureResultOf(decision)
        self.assertTrue(answer.called)


class MakerTests(SynchronousTestCase):
    """``--filter=verify``."""

    def setUp(self) -> None:
        self.patch(plugins, "entry_points", lambda group: ())

    def refused(self, description: str) -> str:
        """The line in which the start ends."""
        reactor = cast(Any, Reactor())
        return str(
            self.assertRaises(StartError, make_filter, description, reactor, find_filters(), "mx.example")
        )

    def test_arguments(self) -> None:
        """Wrong ones are named."""
        self.assertIn("--filter=verify: reject: 'spf' is not dmarc", self.refused("verify:reject=spf"))
        self.assertIn("--filter=verify: exempt: 'x' is not", self.refused("verify:exempt=x"))

    def test_missing_library(self) -> None:
        """One that is missing is named, with the extra that brings it."""
        for library in ("dkim", "spf", "publicsuffixlist"):
            loaded = dict(sys.modules)
            self.addCleanup(sys.modules.update, loaded)
            for name in ("checks", "sender", "signature"):
                sys.modules.pop(f"smtpserv.filters.{name}", None)
            sys.modules[library] = cast(Any, None)
            self.assertEqual(
                self.refused("verify"), f"--filter=verify: it needs {library}: pip install smtpserv[auth]"
            )
            sys.modules.update(loaded)
