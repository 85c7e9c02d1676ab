"""AUTH, the client's part: which mechanism is chosen, whole exchanges with our own server, and their ends."""

from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue.login import ClientMechanism, Credentials, LoginError, choose
from smtpserv.message import Session
from smtpserv.policy.credentials import ITokenCredentials
from tests.fuzz import examples
from tests.test_dialogue_scram import FIRST, SERVER_FINAL, SERVER_FIRST
from tests.test_policy_authentication import BOUND, CLEAR, TLS, Case, Checker, Keeper, no

ALL = (
    "EXTERNAL",
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-256",
    "OAUTHBEARER",
    "XOAUTH2",
    "CRAM-MD5",
    "PLAIN",
    "LOGIN",
)
BINDING = b"\x07" * 32
NONCE = "rOprNGfwEbeRWgbNEkqO"
PASSWORD = Credentials("tim", "hush")
TOKEN = Credentials("tim", token="hush")
BOTH = Credentials("tim", "hush", "hush")


def begin(name: str, credentials: Credentials = BOTH, binding: bytes = BINDING) -> ClientMechanism:
    """The mechanism of that name."""
    found = choose([name], credentials, NONCE, secure=True, channel_binding=binding)
    assert found is not None
    return found


class ChoiceTests(SynchronousTestCase):
    """Which mechanism it is to be."""

    def chosen(
        self,
        credentials: Credentials,
        *offered: str,
        secure: bool = True,
        binding: bytes = BINDING,
        insecure: bool = False,
    ) -> str | None:
        """The name of the one that is chosen, the strongest of all if none are given."""
        found = choose(
            offered or ALL, credentials, NONCE, secure=secure, channel_binding=binding, insecure=insecure
        )
        return found.name if found else None

    def test_strongest(self) -> None:
        """In the order of what can be learned by whoever listens, or is not the server."""
        names = list(ALL[1:])
        while names:
            self.assertEqual(self.chosen(BOTH, *reversed(names)), names.pop(0))

    def test_proof(self) -> None:
        """A token is for the mechanisms of tokens, and a password for the others."""
        self.assertEqual(self.chosen(TOKEN), "OAUTHBEARER")
        self.assertIsNone(self.chosen(TOKEN, *ALL[1:3], *ALL[5:]))
        self.assertEqual(self.chosen(PASSWORD, *ALL[3:]), "CRAM-MD5")
        self.assertIsNone(self.chosen(PASSWORD, "XOAUTH2", "OAUTHBEARER"))

    def test_binding(self) -> None:
        """-PLUS is for connections that can be bound."""
        self.assertEqual(self.chosen(PASSWORD, binding=b""), "SCRAM-SHA-256")
        self.assertIsNone(self.chosen(PASSWORD, "SCRAM-SHA-256-PLUS", binding=b""))

    def test_overheard(self) -> None:
        """Where others can listen, neither password nor token is told, unless the operator wants it."""
        for name, expected in zip(
            ALL[2:], ("SCRAM-SHA-256", None, None, "CRAM-MD5", None, None), strict=True
        ):
            self.assertEqual(self.chosen(BOTH, name, secure=False, binding=b""), expected)
            self.assertEqual(self.chosen(BOTH, name, secure=False, insecure=True), name)

    def test_names(self) -> None:
        """Names are taken in any case, and unknown ones are passed over."""
        self.assertEqual(self.chosen(PASSWORD, "NTLM", "plain", ""), "PLAIN")
        self.assertIsNone(self.chosen(PASSWORD, "NTLM", "SCRAM-SHA-1", "EXTERNAL"))
        self.assertIsNone(choose((), PASSWORD, NONCE, secure=True))


class ServerTests(Case):
    """Our own client, and our own server."""

    def talk(self, name: str, credentials: Credentials, session: Session | None = None) -> object:
        """The identity that the server found, or the code of its refusal."""
        session = session or (BOUND if name.endswith("-PLUS") else TLS)
        server = self.authentication(
            Keeper(no),
            Checker(self.token, ITokenCredentials),
            InMemoryUsernamePasswordDatabaseDontUse(tim=b"hush"),
        ).start(name, session)
        assert session.tls is not None
        client = begin(name, credentials, session.tls.channel_binding)
        heard = self.heard(server, client.initial)
        while isinstance(heard, bytes):
            heard = self.heard(server, client.respond(heard))
        if isinstance(heard, str):
            client.verify("Authentication succeeded")
        return getattr(heard, "code", heard)

    def token(self, credentials: object) -> object:
        """Whose token it is."""
        return b"tim" if getattr(credentials, "token", None) == "hush" else no(credentials)

    def test_welcome(self) -> None:
        """Every mechanism lets in who knows the password, or has the token."""
        for name in ALL[1:]:
            self.assertEqual(self.talk(name, BOTH), "tim", name)

    def test_refused(self) -> None:
        """And nobody else; the client answers until it hears so."""
        for name in ALL[1:]:
            self.assertEqual(self.talk(name, Credentials("tim", "guess", "guess")), 535, name)

    def test_downgrade(self) -> None:
        """A server that offers -PLUS finds out that somebody hid it from us."""
        self.assertEqual(self.talk("SCRAM-SHA-256", BOTH, BOUND), 535)

    def test_announced(self) -> None:
        """The strongest that the server announces is chosen, in clear as under TLS."""
        server = self.authentication(Keeper(no), without_tls=True)
        for session, binding, expected in (
            (BOUND, BINDING, "SCRAM-SHA-256-PLUS"),
            (TLS, b"", "SCRAM-SHA-256"),
            (CLEAR, b"", "SCRAM-SHA-256"),
        ):
            offered = server.mechanisms(session)
            found = choose(offered, PASSWORD, NONCE, secure=False, channel_binding=binding)
            self.assertEqual(found.name if found else None, expected)


class ExchangeTests(SynchronousTestCase):
    """How exchanges begin and end."""

    def test_initial(self) -> None:
        """What goes with the command; nothing where the server speaks first."""
        self.assertEqual(begin("PLAIN").initial, b"\0tim\0hush")
        self.assertIsNone(begin("LOGIN").initial)
        self.assertIsNone(begin("CRAM-MD5").initial)

    def test_long_initial(self) -> None:
        """One too long for a command line waits for the empty challenge (RFC 4954 section 4)."""
        for length, waits in ((349, False), (350, True)):
            credentials = Credentials("tim", token="x" * length)
            client = begin("XOAUTH2", credentials)
            said = client.initial if client.initial is not None else client.respond(b"")
            line = b"AUTH XOAUTH2 " + b64encode(said) + b"\r\n"
            self.assertEqual((client.initial is None, len(line) > 512, client.is_done), (waits, waits, True))

    def test_long_initial_not_asked_for(self) -> None:
        """It is for no other challenge, and before it is said nobody says yes."""
        credentials = Credentials("tim", token="x" * 1000)
        self.assertRaises(LoginError, begin("XOAUTH2", credentials).verify)
        self.assertRaises(LoginError, begin("XOAUTH2", credentials).respond, b"{}")

    def test_too_many_challenges(self) -> None:
        """A server that will not come to an end is left."""
        for name, challenges in (("PLAIN", 0), ("LOGIN", 2), ("CRAM-MD5", 1), ("XOAUTH2", 1)):
            client = begin(name)
            for _ in range(challenges):
                client.respond(b"x")
            self.assertRaises(LoginError, client.respond, b"x")

    def test_early_yes(self) -> None:
        """A yes before all is said is not believed, nor one behind a complaint about the token."""
        for name, challenges in (("LOGIN", 1), ("CRAM-MD5", 0), ("XOAUTH2", 1), ("OAUTHBEARER", 1)):
            client = begin(name)
            for _ in range(challenges):
                client.respond(b"x")
            self.assertFalse(client.is_done)
            self.assertRaises(LoginError, client.verify, "2.7.0 Ok")
            self.assertRaises(LoginError, client.verify, b64encode(SERVER_FINAL).decode())

    def scram(self, *challenges: bytes) -> ClientMechanism:
        """RFC 7677's example, as far as the server has come."""
        client = begin("SCRAM-SHA-256", Credentials("user", "pencil"), b"")
        self.assertEqual((client.initial, client.is_costly), (FIRST, True))
        for challenge in challenges:
            client.respond(challenge)
        return client

    def test_signature_in_challenge(self) -> None:
        """SCRAM's server proves itself in a challenge that is answered with nothing."""
        client = self.scram(SERVER_FIRST)
        self.assertFalse(client.is_done)
        self.assertEqual(client.respond(SERVER_FINAL), b"")
        self.assertTrue(client.is_done)
        client.verify("Authentication succeeded")

    def test_signature_in_reply(self) -> None:
        """Or in the reply itself, which saves a round trip."""
        signature = b64encode(SERVER_FINAL).decode()
        for text in (signature, f"2.7.0 {signature}", f"Ok\n{signature}"):
            client = self.scram(SERVER_FIRST)
            client.verify(text)
            self.assertTrue(client.is_done)

    def test_no_signature(self) -> None:
        """A server that only says yes does not know the password: it is none of ours."""
        forged = b64encode(SERVER_FINAL.replace(b"6rr", b"7rr")).decode()
        signature = b64encode(SERVER_FINAL).decode()
        for text in ("", "2.7.0 Authentication succeeded", forged, f"x{signature}", signature[:-2]):
            self.assertRaises(LoginError, self.scram(SERVER_FIRST).verify, text)
        for text in ("", signature):
            self.assertRaises(LoginError, self.scram().verify, text)

    def test_after_failure(self) -> None:
        """Once refused, a server is not believed whatever it says."""
        client = self.scram(SERVER_FIRST)
        self.assertRaises(LoginError, client.respond, b"v=AAAA")
        self.assertRaises(LoginError, client.respond, SERVER_FINAL)
        self.assertRaises(LoginError, client.verify, b64encode(SERVER_FINAL).decode())

    @examples(100)
    @given(st.sampled_from(ALL[1:]), st.lists(st.binary(max_size=40), max_size=4), st.text(max_size=90))
    def test_anything(self, name: str, challenges: list[bytes], text: str) -> None:
        """Whatever a server says is answered or ends in the one error; SCRAM is fooled by none of it."""
        client = begin(name)
        try:
            for challenge in challenges:
                self.assertIsInstance(client.respond(challenge), bytes)
            client.verify(text)
        except LoginError as error:
            self.assertNotIn("hush", str(error))
        else:
            self.assertFalse(name.startswith("SCRAM"))
