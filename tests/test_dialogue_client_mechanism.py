"""SASL, what a client says: the examples of the RFCs, other servers, and servers that cheat."""

from base64 import b64decode, b64encode
from typing import Any

import scramp  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue import client_mechanism as mechanism
from smtpserv.dialogue import sasl
from smtpserv.dialogue.client_mechanism import ClientSteps, Credentials, LoginError, Response
from tests.fuzz import examples
from tests.test_dialogue_scram import FINAL, FIRST, SERVER_FINAL, SERVER_FIRST

NONCE = "rOprNGfwEbeRWgbNEkqO"
USER = Credentials("user", "pencil")
TIM = Credentials("tim", "tanstaaftanstaaf")
BEARER = Credentials("someuser@example.com", token="ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
REFUSED = "refused"


def said(
    played: ClientSteps, credentials: Credentials, *challenges: bytes, binding: bytes = b""
) -> list[object]:
    """What a client says: its octets, behind ``...`` those after which it is content."""
    steps = played(credentials, NONCE, binding)
    found: list[object] = []
    try:
        responses = [next(steps)]
        responses += [steps.send(challenge) for challenge in challenges]
    except LoginError:
        return [REFUSED]
    for response in responses:
        found += [..., response.octets] if response.final else [response.octets]
    return found


class ExampleTests(SynchronousTestCase):
    """What the documents show, octet for octet."""

    def test_plain(self) -> None:
        """RFC 4616 section 4."""
        self.assertEqual(said(mechanism.plain, TIM), [..., b"\0tim\0tanstaaftanstaaf"])

    def test_login(self) -> None:
        """The name and the password, one at a time, whatever the server calls them."""
        for challenges in ((b"Username:", b"Password:"), (b"User Name\0", b"Password\0")):
            self.assertEqual(
                said(mechanism.login, TIM, *challenges), [None, b"tim", ..., b"tanstaaftanstaaf"]
            )

    def test_cram_md5(self) -> None:
        """RFC 2195 section 2."""
        challenge = b"<1896.697170952@postoffice.reston.mci.net>"
        expected = b"tim b913a602c7eda7a495b4e6e7334d3890"
        self.assertEqual(said(mechanism.cram_md5, TIM, challenge), [None, ..., expected])

    def test_xoauth2(self) -> None:
        """Google's example; a complaint about the token is answered with nothing."""
        expected = b64decode(
            "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1sem"
            "RHRXVZMjl0Q2cBAQ=="
        )
        self.assertEqual(said(mechanism.xoauth2, BEARER), [..., expected])
        self.assertEqual(said(mechanism.xoauth2, BEARER, b'{"status":"401"}'), [..., expected, b""])

    def test_oauthbearer(self) -> None:
        """RFC 7628 section 3.1; a complaint about the token is answered with ^A (section 3.2.3)."""
        credentials = Credentials("a,b=c", token="vF9dft4=")
        expected = b"n,a=a=2Cb=3Dc,\x01auth=Bearer vF9dft4=\x01\x01"
        self.assertEqual(said(mechanism.oauthbearer, credentials, b"{}"), [..., expected, b"\x01"])

    def test_scram(self) -> None:
        """RFC 7677 section 3; the server has proved itself when it is answered with nothing."""
        self.assertEqual(said(mechanism.scram, USER, SERVER_FIRST, SERVER_FINAL), [FIRST, FINAL, ..., b""])


class ScramTests(SynchronousTestCase):
    """What a client takes from a server."""

    def heard(self, *challenges: bytes) -> list[object]:
        """What comes of these, after the client has said its first."""
        return said(mechanism.scram, USER, *challenges)

    def test_malformed(self) -> None:
        """What is no first message is refused, and so is an extension that must be understood."""
        for octets in (
            b"",
            SERVER_FIRST[:-7],
            b"m=x," + SERVER_FIRST,
            SERVER_FIRST + b",",
            SERVER_FIRST + b"\n",
            SERVER_FIRST + b",x=\xff",
            SERVER_FIRST.replace(b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s="),
            SERVER_FIRST.replace(b"==", b""),
            SERVER_FIRST.replace(b"4096", b"04096"),
            SERVER_FIRST.replace(b"4096", b"-4096"),
        ):
            self.assertEqual(self.heard(octets), [REFUSED], octets)

    def test_extension(self) -> None:
        """One that need not be understood is signed with the rest."""
        found = said(mechanism.scram, USER, SERVER_FIRST + b",x=y")
        self.assertEqual((found[0], found[1] != FINAL), (FIRST, True))

    def test_nonce(self) -> None:
        """The server's goes on from ours: not another's, and not ours alone."""
        _, salt, iterations = SERVER_FIRST.split(b",")
        for nonce in (
            b"s" + NONCE.encode(),
            NONCE.encode(),
            NONCE[:-1].encode(),
            NONCE.lower().encode() + b"x",
        ):
            self.assertEqual(self.heard(b",".join((b"r=" + nonce, salt, iterations))), [REFUSED], nonce)

    def test_iterations(self) -> None:
        """Too few would give the password away, too many are an attack."""
        for count in (1, 4095, mechanism.MAX_ITERATIONS + 1, 9999999999):
            self.assertEqual(self.heard(SERVER_FIRST.replace(b"4096", b"%d" % count)), [REFUSED], count)

    def test_impostor(self) -> None:
        """A server that does not know the password is not believed."""
        for octets in (
            b"",
            b"e=other-error",
            SERVER_FINAL.replace(b"6rr", b"7rr"),
            SERVER_FINAL + b",x=y",
            b"v=\xff",
        ):
            self.assertEqual(self.heard(SERVER_FIRST, octets), [REFUSED], octets)

    def test_name(self) -> None:
        """It goes in the form in which it is compared, commas and equals signs escaped."""
        for user, expected in (("Ⅸ", b"n,,n=IX"), ("a,b=c", b"n,,n=a=2Cb=3Dc")):
            said_first = said(mechanism.scram, Credentials(user, "pencil"))[0]
            self.assertEqual(said_first, expected + b",r=" + NONCE.encode())

    def test_binding(self) -> None:
        """-PLUS sends the binding; without -PLUS it is told that we would have (RFC 5802 section 6)."""
        binding = bytes(range(32))
        first, final = said(mechanism.scram_plus, USER, SERVER_FIRST, binding=binding)
        self.assertEqual(first, b"p=tls-exporter,," + FIRST[3:])
        assert isinstance(final, bytes)
        self.assertEqual(b64decode(final.split(b",")[0][2:]), b"p=tls-exporter,," + binding)
        first, final = said(mechanism.scram, USER, SERVER_FIRST, binding=binding)
        assert isinstance(final, bytes)
        self.assertEqual((first, final.split(b",")[0]), (b"y,," + FIRST[3:], b"c=" + b64encode(b"y,,")))

    def test_other_server(self) -> None:
        """Another implementation's server is satisfied with us, and we with it."""
        for user, password in (("user", "pencil"), ("a,b=c", "x y"), ("jürgen", "pä\u00adß"), ("Ⅸ", "ª")):
            stored = scramp.ScramMechanism("SCRAM-SHA-256").make_auth_info(password)
            known = {user.replace("Ⅸ", "IX"): stored}
            server: Any = scramp.ScramMechanism("SCRAM-SHA-256").make_server(known.__getitem__)
            steps = mechanism.scram(Credentials(user, password), NONCE, b"")
            server.set_client_first((next(steps).octets or b"").decode())
            final = steps.send(server.get_server_first().encode())
            server.set_client_final((final.octets or b"").decode())
            self.assertEqual(steps.send(server.get_server_final().encode()), Response(b"", True))

    @examples(100)
    @given(st.binary(max_size=60), st.binary(max_size=60))
    def test_anything(self, one: bytes, other: bytes) -> None:
        """Whatever a server says, at whichever step, is answered or refused."""
        for played in (mechanism.scram, mechanism.scram_plus, mechanism.login, mechanism.cram_md5):
            self.assertTrue(said(played, USER, one), played)
        self.assertEqual(self.heard(SERVER_FIRST, one), [REFUSED])
        server_first = b"r=" + NONCE.encode() + one + b",s=" + b64encode(other) + b",i=4096"
        self.assertEqual(self.heard(server_first, other), [REFUSED])


class CredentialsTests(SynchronousTestCase):
    """What a client may be told to log in with."""

    def test_kept_secret(self) -> None:
        """Neither password nor token nor a response is in a repr."""
        for value in (Credentials("tim", "hush", "hush"), Response(b"hush")):
            self.assertNotIn("hush", repr(value))

    def test_useless(self) -> None:
        """What no mechanism could send is refused at once, in a line that does not quote it."""
        for user, password, token in (
            ("", "hush", None),
            ("tim", "", None),
            ("tim", "", ""),
            ("tim", "hush\n", None),
            ("tim", "hush\0", None),
            ("tim\x01", "hush", None),
            ("\udcff", "hush", None),
            ("tim", "\u06271hush", None),
            ("tim", "\u00ad", None),
            ("tim", "", "hush hush"),
            ("tim", "", "hush\x01"),
            ("tim", "hush", ""),
            ("tim", "", "hüsh"),
        ):
            error = self.assertRaises(ValueError, Credentials, user, password, token)
            self.assertNotIn("hush", str(error))
            self.assertNotIn("\n", str(error))

    @examples(100)
    @given(st.text(max_size=12), st.text(min_size=1, max_size=12))
    def test_anything(self, user: str, password: str) -> None:
        """What is taken can be said in every mechanism, and our own server reads the same."""
        try:
            credentials = Credentials(user, password, "t")
        except ValueError:
            return
        plain = next(mechanism.plain(credentials, NONCE, b"")).octets or b""
        expected = sasl.Password(sasl.prepared(user), sasl.prepared(password))
        self.assertEqual(sasl.parse_plain(plain), expected)
        xoauth2 = next(mechanism.xoauth2(credentials, NONCE, b"")).octets or b""
        self.assertEqual(sasl.parse_xoauth2(xoauth2), sasl.Token(expected.username, "t"))
        oauthbearer = next(mechanism.oauthbearer(credentials, NONCE, b"")).octets or b""
        self.assertEqual(sasl.parse_oauthbearer(oauthbearer), sasl.Token(expected.username, "t"))
        self.assertTrue(said(mechanism.scram, credentials, SERVER_FIRST))
