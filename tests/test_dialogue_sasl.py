"""SASL: what clients say in each mechanism, well-formed and not, and what comes of it."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.dialogue import mechanism, sasl
from smtpserv.dialogue.mechanism import Channel, Mechanism
from smtpserv.dialogue.sasl import Certificate, Digest, Password, Token
from smtpserv.dialogue.saslprep import saslprep
from smtpserv.error import SMTPError
from tests.fuzz import examples

CHANNEL = Channel("mail.example", "1896.697170952")
BAD = SMTPError(reply.WRONG_CREDENTIALS)


class Play:
    """A mechanism, played to its end by hand."""

    def __init__(self, played: Mechanism, channel: Channel = CHANNEL) -> None:
        self._steps = played(channel)
        self.said: object = next(self._steps)

    def send(self, answer: object) -> "Play":
        """Give it a response or an identity, or raise an error in it."""
        try:
            self.said = (
                self._steps.throw(answer) if isinstance(answer, SMTPError) else self._steps.send(answer)
            )
        except StopIteration as done:
            self.said = ("identity", done.value)
        except SMTPError as error:
            self.said = error.reply
        return self


class SASLprepTests(SynchronousTestCase):
    """One form for each name and password."""

    def test_examples(self) -> None:
        """Those of RFC 4013 section 3, and text that needs nothing."""
        for text, expected in (
            ("I\u00adX", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),
            ("a\u00a0b", "a b"),
            ("u\u0308", "ü"),
            ("\u0627\u0628", "\u0627\u0628"),
            ("\U0001f511", "\U0001f511"),
        ):
            self.assertEqual(saslprep(text), expected, ascii(text))

    def test_prohibited(self) -> None:
        """Control characters, private use, surrogates and mixed directions are refused."""
        for text in (
            "\0",
            "a\x07",
            "\x7f",
            "\x85",
            "\ue000",
            "\ud800",
            "\ufffd",
            "\u202e",
            "\u06271",
            "a\u0627",
        ):
            with self.assertRaises(ValueError):
                saslprep(text)

    @examples(100)
    @given(st.text(max_size=20))
    def test_twice(self, text: str) -> None:
        """What is prepared stays as it is, as long as Unicode 3.2 knows every character."""
        try:
            once = saslprep(text)
        except ValueError:
            return
        if all(ord(char) < 0x220 for char in once):
            self.assertEqual(saslprep(once), once)


class ParseTests(SynchronousTestCase):
    """Messages of clients."""

    def refused(self, parse: Callable[[bytes], object], octets: bytes) -> int:
        """The code of the reply to octets that are not taken."""
        error: SMTPError = self.assertRaises(SMTPError, parse, octets)
        return error.reply.code

    def test_plain(self) -> None:
        """RFC 4616: the examples, and UTF-8 in each part."""
        self.assertEqual(sasl.parse_plain(b"\0tim\0tanstaaftanstaaf"), Password("tim", "tanstaaftanstaaf"))
        self.assertEqual(sasl.parse_plain(b"Ursel\0Kurt\0xipj3plmq"), Password("Kurt", "xipj3plmq", "Ursel"))
        self.assertEqual(sasl.parse_plain("\0jürgen\0pä ß".encode()), Password("jürgen", "pä ß"))

    def test_plain_malformed(self) -> None:
        """501 for another number of parts or no UTF-8; 535 for what can be nobody's name or password."""
        for octets in (b"", b"a", b"\0a", b"\0a\0b\0", b"\0a\0b\0c", b"\0a\0\xff", b"\0\xc3\0b"):
            self.assertEqual(self.refused(sasl.parse_plain, octets), 501, octets)
        long = b"x" * (sasl.MAX_TEXT + 1)
        for octets in (
            b"\0\0",
            b"\0a\0",
            b"\0\0b",
            b"\0a\r\0b",
            b"\0a\0b\x1b",
            b"\x01\0a\0b",
            b"\0a\0" + long,
        ):
            self.assertEqual(self.refused(sasl.parse_plain, octets), 535, octets)

    def test_cram_md5(self) -> None:
        """RFC 2195: its example fits its secret and no other; a name may have spaces."""
        challenge = b"<1896.697170952@postoffice.reston.mci.net>"
        digest = sasl.parse_cram_md5(b"tim b913a602c7eda7a495b4e6e7334d3890", challenge)
        self.assertEqual(digest.username, "tim")
        self.assertTrue(digest.fits(b"tanstaaftanstaaf"))
        self.assertFalse(digest.fits(b"tanstaaftanstaag"))
        self.assertEqual(sasl.parse_cram_md5(b"tim b " + b"0" * 32, b"").username, "tim b")
        for octets in (b"", b"tim", b"tim " + b"0" * 31, b"tim " + b"G" * 32, b"\xff " + b"0" * 32):
            self.assertEqual(self.refused(lambda said: sasl.parse_cram_md5(said, b""), octets), 501, octets)

    def test_xoauth2(self) -> None:
        """A name and a bearer token."""
        said = b"user=a@b.example\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg==\x01\x01"
        self.assertEqual(
            sasl.parse_xoauth2(said), Token("a@b.example", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg==")
        )
        for octets in (
            b"",
            said[:-1],
            said + b"\x01",
            said.replace(b"Bearer", b"Basic"),
            b"user=\x01" + said,
        ):
            self.assertEqual(self.refused(sasl.parse_xoauth2, octets), 501, octets)

    def test_oauthbearer(self) -> None:
        """RFC 7628 section 4: a token, with or without a name, among other keys."""
        for octets, expected in (
            (
                b"n,a=u@b.example,\x01host=h\x01port=587\x01auth=Bearer vF9=\x01\x01",
                Token("u@b.example", "vF9="),
            ),
            (b"y,,\x01auth=bearer  x\x01\x01", Token("", "x")),
            (b"n,a=a=2Cb=3D,\x01auth=Bearer x\x01\x01", Token("a,b=", "x")),
            (b"n,,\x01auth=\x01\x01", Token("", "")),
            (b"n,,\x01\x01", Token("", "")),
            (b"n,,\x01xauth=Bearer x\x01\x01", Token("", "")),
        ):
            self.assertEqual(sasl.parse_oauthbearer(octets), expected, octets)
        for octets in (
            b"",
            b"\x01",
            b"n,,\x01",
            b"p=x,,\x01\x01",
            b"n,a==2c,\x01\x01",
            b"n,,\x01a=\xff\x01\x01",
        ):
            self.assertEqual(self.refused(sasl.parse_oauthbearer, octets), 501, octets)

    def test_repr(self) -> None:
        """What could let somebody in is in no repr."""
        for value in (
            Password("tim", "hush"),
            Digest("tim", b"hush", b"hush"),
            Token("tim", "hush"),
            Channel("h", "hush", binding=b"hush"),
        ):
            self.assertNotIn("hush", repr(value))

    @examples(100)
    @given(st.binary(max_size=60))
    def test_anything(self, octets: bytes) -> None:
        """Whatever is said is parsed or refused, and never anything else."""
        for parse in (sasl.parse_plain, sasl.parse_xoauth2, sasl.parse_oauthbearer):
            try:
                parse(octets)
            except SMTPError as error:
                self.assertIn(error.reply.code, (501, 535))


class MechanismTests(SynchronousTestCase):
    """The mechanisms, step by step."""

    def test_plain(self) -> None:
        """A client that sent no initial response is asked with an empty challenge."""
        play = Play(mechanism.plain)
        self.assertEqual(play.said, b"")
        self.assertEqual(play.send(b"\0tim\0hush").said, Password("tim", "hush"))
        self.assertEqual(play.send("tim").said, ("identity", "tim"))

    def test_plain_for_somebody_else(self) -> None:
        """One may act as oneself, by either name, and as nobody else."""
        for authzid, expected in (
            (b"Tim", ("identity", "tim")),
            (b"tim", ("identity", "tim")),
            (b"root", reply.WRONG_CREDENTIALS),
        ):
            play = Play(mechanism.plain).send(authzid + b"\0Tim\0hush")
            self.assertEqual(play.send("tim").said, expected)

    def test_login(self) -> None:
        """The name and then the password are asked for."""
        play = Play(mechanism.login)
        self.assertEqual(play.said, b"Username:")
        self.assertEqual(play.send(b"tim").said, b"Password:")
        self.assertEqual(play.send(b"hush").said, Password("tim", "hush"))
        self.assertEqual(play.send("tim").said, ("identity", "tim"))

    def test_login_malformed(self) -> None:
        """A name that nobody can have is refused with the password; what is no UTF-8 at once."""
        self.assertEqual(Play(mechanism.login).send(b"t\0m").send(b"hush").said, reply.WRONG_CREDENTIALS)
        self.assertEqual(Play(mechanism.login).send(b"\xff").said, reply.BAD_RESPONSE)

    def test_cram_md5(self) -> None:
        """The challenge is a message id of ours, which the digest covers."""
        play = Play(mechanism.cram_md5)
        self.assertEqual(play.said, b"<1896.697170952@mail.example>")
        play.send(b"tim " + b"0" * 32)
        self.assertEqual(play.said, Digest("tim", b"<1896.697170952@mail.example>", b"0" * 32))
        self.assertEqual(play.send("tim").said, ("identity", "tim"))

    def test_tokens(self) -> None:
        """A token proves its name; a client that says it is another is refused."""
        for played, said in (
            (mechanism.xoauth2, b"user=tim\x01auth=Bearer t\x01\x01"),
            (mechanism.oauthbearer, b"n,a=tim,\x01auth=Bearer t\x01\x01"),
        ):
            play = Play(played).send(said)
            self.assertEqual(play.said, Token("tim", "t"))
            self.assertEqual(play.send("tim").said, ("identity", "tim"))
            other = Play(played).send(said).send("root")
            self.assertIsInstance(other.said, bytes)
            self.assertEqual(other.send(b"\x01").said, reply.WRONG_CREDENTIALS)

    def test_token_refused(self) -> None:
        """The client is told in JSON, answers that, and hears 535 then (RFC 7628 section 3.2.3)."""
        for said in (b"n,,\x01auth=Bearer t\x01\x01", b"n,,\x01auth=\x01\x01"):
            play = Play(mechanism.oauthbearer).send(said)
            if play.said == Token("", "t"):
                play.send(BAD)
            self.assertEqual(play.said, b'{"status":"invalid_token"}')
            self.assertEqual(play.send(b"\x01").said, reply.WRONG_CREDENTIALS)

    def test_token_not_checked(self) -> None:
        """A failure that is not the token's is told at once."""
        play = Play(mechanism.xoauth2).send(b"user=tim\x01auth=Bearer t\x01\x01")
        self.assertEqual(play.send(SMTPError(reply.AUTHENTICATION_FAILED)).said, reply.AUTHENTICATION_FAILED)

    def test_external(self) -> None:
        """Somebody says whose the certificate's name is; the client may be that one, and nobody else."""
        channel = Channel("h", "n", client_name="tim@b.example")
        for authzid, expected in (
            (b"", ("identity", "tim")),
            (b"tim", ("identity", "tim")),
            (b"tim@b.example", ("identity", "tim")),
            (b"root", reply.WRONG_CREDENTIALS),
        ):
            play = Play(mechanism.external, channel).send(authzid)
            self.assertEqual(play.said, Certificate("tim@b.example"))
            self.assertEqual(play.send("tim").said, expected)
        self.assertEqual(Play(mechanism.external, channel).send(b"\xff").said, reply.BAD_RESPONSE)
        self.assertEqual(Play(mechanism.external).send(b"").said, reply.WRONG_CREDENTIALS)
