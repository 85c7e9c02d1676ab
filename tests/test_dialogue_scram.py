"""SCRAM-SHA-256: RFC 7677's example, another implementation's client, and clients that cheat."""

from base64 import b64decode, b64encode
from hashlib import pbkdf2_hmac, sha256
from hmac import digest
from typing import Any

import scramp  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.dialogue.mechanism import Channel
from smtpserv.dialogue.sasl import SecretOf
from smtpserv.dialogue.scram import ScramSecret, scram, scram_plus
from smtpserv.error import SMTPError
from tests.fuzz import examples
from tests.test_dialogue_sasl import Play

SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
SECRET = ScramSecret.from_password("pencil", SALT)
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
CHANNEL = Channel("mail.example", NONCE)
BOUND = Channel("mail.example", NONCE, binding=b"\x07" * 32)
TLS_EXPORTER = b"p=tls-exporter,,n=user,r=rOprNGfwEbeRWgbNEkqO"


def asked() -> Play:
    """The exchange of RFC 7677 up to the client's last message."""
    return Play(scram, CHANNEL).send(FIRST).send(SECRET)


class ExampleTests(SynchronousTestCase):
    """RFC 7677 section 3, octet for octet."""

    def test_conversation(self) -> None:
        """Each message is the example's; the client's last response is empty."""
        play = Play(scram, CHANNEL)
        self.assertEqual(play.said, b"")
        self.assertEqual(play.send(FIRST).said, SecretOf("user"))
        self.assertEqual(play.send(SECRET).said, SERVER_FIRST)
        self.assertEqual(play.send(FINAL).said, SERVER_FINAL)
        self.assertEqual(play.send(b"").said, ("identity", "user"))

    def test_talkative_end(self) -> None:
        """A last response that is not empty is malformed."""
        self.assertEqual(asked().send(FINAL).send(b"x").said, reply.BAD_RESPONSE)

    def test_wrong_proof(self) -> None:
        """Any other proof, nonce or binding is refused, all in the same words."""
        for old, new in ((b"dHzb", b"dHzc"), (b"$k0,", b"$k1,"), (b"biws", b"eSws"), (b"r=rOpr", b"r=rOps")):
            self.assertEqual(asked().send(FINAL.replace(old, new)).said, reply.WRONG_CREDENTIALS, new)

    def test_malformed(self) -> None:
        """501 for what is no message of SCRAM."""
        for octets in (
            b"",
            b"n,,n=user",
            b"n,n=user,r=x",
            b"x,,n=user,r=x",
            b"n,,m=x,n=user,r=x",
            b"n,,n=us=er,r=x",
            b"n,,n=\xff,r=x",
            b"n,,n=user,r=\xc3\xa4",
        ):
            self.assertEqual(Play(scram, CHANNEL).send(octets).said, reply.BAD_RESPONSE, octets)
        for octets in (b"", b"c=biws", FINAL[:-1], FINAL[:-8], FINAL + b",x=y", FINAL + b"\xff"):
            self.assertEqual(asked().send(octets).said, reply.BAD_RESPONSE, octets)

    def test_for_somebody_else(self) -> None:
        """An authzid is the name itself or refused, even with the right proof."""
        for authzid, code in ((b"user", 0), (b"root", 535)):
            client = Client("user", "pencil", header=b"n,a=" + authzid + b",")
            self.assertEqual(client.talk(scram, CHANNEL, SECRET), code or ("identity", "user"))

    @examples(100)
    @given(st.binary(max_size=60))
    def test_anything(self, octets: bytes) -> None:
        """Whatever is said is answered or refused."""
        for play in (Play(scram, CHANNEL), Play(scram_plus, BOUND), asked()):
            said = play.send(octets).said
            self.assertTrue(
                said in (reply.BAD_RESPONSE, reply.WRONG_CREDENTIALS) or isinstance(said, SecretOf)
            )


class Client:
    """scramp's client, whose GS2 header may be forged: the proof is made over what is sent."""

    def __init__(
        self, username: str, password: str, header: bytes | None = None, binding: Any = None
    ) -> None:
        name = "SCRAM-SHA-256-PLUS" if binding else "SCRAM-SHA-256"
        self._client = scramp.ScramClient([name], username, password, channel_binding=binding)
        self._header = header

    def talk(self, played: Any, channel: Channel, secret: ScramSecret) -> object:
        """A whole exchange; the identity, or the code of the refusal."""
        first = self._client.get_client_first().encode()
        if self._header is not None:
            first = self._header + first.split(b",", 2)[2]
            self._client.gs2_header.make_cbind_input = lambda binding: self._header
        play = Play(played, channel).send(first)
        if not isinstance(play.said, SecretOf):
            return getattr(play.said, "code", play.said)
        said = play.send(secret).said
        assert isinstance(said, bytes)
        self._client.set_server_first(said.decode())
        said = play.send(self._client.get_client_final().encode()).said
        if not isinstance(said, bytes):
            return getattr(said, "code", said)
        self._client.set_server_final(said.decode())
        return play.send(b"").said


class ClientTests(SynchronousTestCase):
    """Another implementation's client is satisfied with us, and we with it."""

    def test_names(self) -> None:
        """Names and passwords of any script, with commas, equals signs and spaces."""
        for username, password in (("user", "pencil"), ("a,b=c", "x y"), ("jürgen", "pä\u00adß"), ("Ⅸ", "ª")):
            secret = ScramSecret.from_password(password.replace("\u00ad", "").replace("ª", "a"), SALT)
            identity = username.replace("Ⅸ", "IX")
            self.assertEqual(Client(username, password).talk(scram, CHANNEL, secret), ("identity", identity))
            self.assertEqual(Client(username, password + "!").talk(scram, CHANNEL, secret), 535)

    def test_decoy(self) -> None:
        """A name that nobody has is asked like any other, the same each time, and no proof fits."""
        decoy = SECRET.decoy("nobody")
        self.assertEqual((decoy.iterations, len(decoy.salt)), (SECRET.iterations, len(SECRET.salt)))
        self.assertEqual(decoy, SECRET.decoy("nobody"))
        self.assertNotEqual(decoy.salt, SECRET.decoy("anybody").salt)
        self.assertEqual(Client("nobody", "pencil").talk(scram, CHANNEL, decoy), 535)


class BindingTests(SynchronousTestCase):
    """Channel binding (RFC 5802 section 6, RFC 9266)."""

    def final(self, play: Play, binding: bytes, more_nonce: bytes = b"") -> object:
        """Finish an exchange as a client that sees this binding."""
        said = play.send(SECRET).said
        assert isinstance(said, bytes)
        bound = b64encode(b"p=tls-exporter,," + binding)
        unproved = b"c=" + bound + b"," + said.split(b",")[0] + more_nonce
        client_key = digest(pbkdf2_hmac("sha256", b"pencil", SALT, 4096), b"Client Key", "sha256")
        signed = b",".join((TLS_EXPORTER[len(b"p=tls-exporter,,") :], said, unproved))
        signature = digest(sha256(client_key).digest(), signed, "sha256")
        proof = bytes(left ^ right for left, right in zip(client_key, signature, strict=True))
        return play.send(unproved + b",p=" + b64encode(proof)).said

    def test_bound(self) -> None:
        """A client at the other end of the same TLS connection is let in; one behind another is not."""
        for binding, expected in ((BOUND.binding, bytes), (b"\x08" * 32, reply.Reply), (b"", reply.Reply)):
            said = self.final(Play(scram_plus, BOUND).send(TLS_EXPORTER), binding)
            self.assertIsInstance(said, expected)

    def test_other_nonce(self) -> None:
        """A proof is over the whole nonce, and over nothing more."""
        play = Play(scram_plus, BOUND).send(TLS_EXPORTER)
        self.assertEqual(self.final(play, BOUND.binding, b"x"), reply.WRONG_CREDENTIALS)

    def test_other_kinds(self) -> None:
        """-PLUS without a binding, or with one of another kind, is refused."""
        for header in (b"n", b"y", b"p=tls-unique", b"p=tls-server-end-point"):
            said = Play(scram_plus, BOUND).send(FIRST.replace(b"n,,", header + b",,", 1)).said
            self.assertEqual(said, reply.WRONG_CREDENTIALS, header)
        self.assertEqual(Play(scram_plus, CHANNEL).send(TLS_EXPORTER).said, reply.WRONG_CREDENTIALS)

    def test_downgrade(self) -> None:
        """A client that was kept from seeing -PLUS is refused; without -PLUS its y is nothing."""
        said_y = FIRST.replace(b"n,,", b"y,,", 1)
        self.assertEqual(Play(scram, BOUND).send(said_y).said, reply.WRONG_CREDENTIALS)
        self.assertEqual(Play(scram, CHANNEL).send(said_y).said, SecretOf("user"))
        self.assertEqual(Play(scram, BOUND).send(FIRST).said, SecretOf("user"))
        self.assertEqual(Play(scram, BOUND).send(TLS_EXPORTER).said, reply.WRONG_CREDENTIALS)


class SecretTests(SynchronousTestCase):
    """What is kept."""

    LINE = (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )

    def test_parse(self) -> None:
        """PostgreSQL's form is read, and is of its password and no other."""
        secret = ScramSecret.parse(self.LINE)
        self.assertEqual(secret, SECRET)
        self.assertTrue(secret.fits("pencil"))
        self.assertFalse(secret.fits("pencils"))

    def test_broken(self) -> None:
        """Anything else is refused without being quoted."""
        for old, new in (
            ("256$", "1$"),
            ("4096", "0"),
            ("W22Z", "W2"),
            ("Uo7", "Uo"),
            ("Uo7", "!!!"),
            ("==$", "$"),
        ):
            error = self.assertRaises(ValueError, ScramSecret.parse, self.LINE.replace(old, new, 1))
            self.assertEqual(str(error), "no SCRAM-SHA-256 secret")

    def test_repr(self) -> None:
        """No key is in its repr."""
        self.assertEqual(repr(SECRET), "ScramSecret(iterations=4096)")

    def test_errors_are_dialogue_errors(self) -> None:
        """A mechanism fails with the reply that its client hears."""
        steps = scram(CHANNEL)
        next(steps)
        self.assertRaises(SMTPError, steps.send, b"")
