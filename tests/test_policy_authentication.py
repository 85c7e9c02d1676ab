"""AUTH: what is offered to whom, who is let in, and how guessing is made slow."""

from collections.abc import Callable
from hashlib import md5
from hmac import new as hmac
from typing import Any, cast

from twisted.cred.checkers import FilePasswordDB, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpserv import reply
from smtpserv.dialogue.scram import ScramSecret
from smtpserv.error import Reject, SMTPError
from smtpserv.message import Peer, Session, TLSFacts
from smtpserv.policy import penalty
from smtpserv.policy.authentication import Authentication, Exchange
from smtpserv.policy.certificate import CertificateChecker
from smtpserv.policy.checkers import make_checker
from smtpserv.policy.credentials import IScramSecrets, ITokenCredentials
from smtpserv.policy.penalty import Penalties
from smtpserv.reply import Reply
from tests.server_tools import captured_log

PEER = Peer("192.0.2.1", 40000)
CLEAR = Session("1", PEER)
TLS = Session("1", PEER, tls=TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
BOUND = Session(
    "1",
    PEER,
    tls=TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", client_name="tim", channel_binding=b"\x07" * 32),
)
PLAIN = b"\0tim\0hush"
WRONG = b"\0tim\0guess"
TOKEN = b"n,a=tim,\x01auth=Bearer hush\x01\x01"
SECRET = ScramSecret.from_password("hush", bytes(16))


class Checker:
    """Answers as it was told, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Any], Any], *interfaces: Any) -> None:
        self.credentialInterfaces = interfaces or (IUsernamePassword,)
        self.asked: list[Any] = []
        self._answer = answer

    def requestAvatarId(self, credentials: Any) -> Any:
        """Check."""
        self.asked.append(credentials)
        return self._answer(credentials)


def raising(error: BaseException) -> Checker:
    """A checker that fails."""

    def answer(credentials: object) -> object:
        raise error

    return Checker(answer)


@implementer(IScramSecrets)
class Keeper(Checker):
    """Knows the SCRAM secret of one user."""

    def scram_secret(self, username: str) -> Any:
        """The secret, later."""
        return succeed(SECRET if username == "tim" else None)

    def decoy_secret(self, username: str) -> Any:
        """One that fits nobody."""
        return SECRET.decoy(username)


def giving(answer: object) -> Callable[[object], object]:
    """Whoever asks is this one."""
    return lambda credentials: answer


def no(credentials: object) -> object:
    """Nobody is let in."""
    raise UnauthorizedLogin


class Case(SynchronousTestCase):
    """Drives exchanges."""

    def setUp(self) -> None:
        self.clock = Clock()

    def authentication(self, *checkers: Any, **options: Any) -> Authentication:
        """With these checkers; tim's password is hush if there are none."""
        known = checkers or (InMemoryUsernamePasswordDatabaseDontUse(tim=b"hush"),)
        return Authentication(known, self.clock, **options)

    def heard(self, exchange: Exchange, octets: bytes | None) -> object:
        """The challenge, the identity, or the reply of a failure, however late it is."""
        deferred = exchange.respond(octets).addErrback(self.reply_of)
        self.clock.pump([1.0] * 5)
        return self.successResultOf(deferred)

    @staticmethod
    def reply_of(failure: Failure) -> Reply:
        """What the client hears of a failure."""
        failure.trap(SMTPError)
        return cast(SMTPError, failure.value).reply

    def verdict(self, *checkers: Any, octets: bytes = PLAIN, name: str = "PLAIN") -> object:
        """What comes of one exchange."""
        return self.heard(self.authentication(*checkers).start(name, TLS), octets)


class OfferTests(Case):
    """Which mechanisms a session is offered."""

    def refusal(self, authentication: Authentication, name: str, session: Session) -> Reply:
        """What a mechanism that is not offered is answered with."""
        error: SMTPError = self.assertRaises(SMTPError, authentication.start, name, session)
        return error.reply

    def test_passwords(self) -> None:
        """A checker of passwords offers what it can check, under TLS only."""
        authentication = self.authentication()
        self.assertEqual(authentication.mechanisms(TLS), ("CRAM-MD5", "PLAIN", "LOGIN"))
        self.assertEqual(authentication.mechanisms(CLEAR), ())
        hashed = self.authentication(FilePasswordDB("unread", hash=no))
        self.assertEqual(hashed.mechanisms(TLS), ("PLAIN", "LOGIN"))

    def test_without_tls(self) -> None:
        """In clear when the operator said so; what rests on TLS never."""
        authentication = self.authentication(Keeper(no), without_tls=True)
        self.assertEqual(authentication.mechanisms(CLEAR), ("SCRAM-SHA-256", "PLAIN", "LOGIN"))
        self.assertEqual(self.refusal(authentication, "SCRAM-SHA-256-PLUS", CLEAR), reply.MECHANISM_NEEDS_TLS)

    def test_strongest_first(self) -> None:
        """All of them, in order."""
        authentication = self.authentication(
            Keeper(no),
            Checker(no, ITokenCredentials),
            InMemoryUsernamePasswordDatabaseDontUse(),
            CertificateChecker(),
        )
        self.assertEqual(
            authentication.mechanisms(BOUND),
            (
                "EXTERNAL",
                "SCRAM-SHA-256-PLUS",
                "SCRAM-SHA-256",
                "OAUTHBEARER",
                "XOAUTH2",
                "CRAM-MD5",
                "PLAIN",
                "LOGIN",
            ),
        )
        self.assertEqual(authentication.mechanisms(TLS), authentication.mechanisms(BOUND)[2:])

    def test_not_offered(self) -> None:
        """504 for a mechanism nobody can check, 538 for one that TLS would permit; names in any case."""
        authentication = self.authentication()
        for name, session, expected in (
            ("NTLM", TLS, reply.UNKNOWN_MECHANISM),
            ("", CLEAR, reply.UNKNOWN_MECHANISM),
            ("XOAUTH2", TLS, reply.UNKNOWN_MECHANISM),
            ("SCRAM-SHA-256", CLEAR, reply.UNKNOWN_MECHANISM),
            ("EXTERNAL", TLS, reply.UNKNOWN_MECHANISM),
            ("EXTERNAL", CLEAR, reply.UNKNOWN_MECHANISM),
            ("PLAIN", CLEAR, reply.MECHANISM_NEEDS_TLS),
        ):
            self.assertEqual(self.refusal(authentication, name, session), expected, name)
        self.assertEqual(self.heard(authentication.start("pLaIn", TLS), PLAIN), "tim")

    def test_certificate(self) -> None:
        """A good certificate alone lets nobody in: a checker must know whom it names."""
        self.assertNotIn("EXTERNAL", self.authentication().mechanisms(BOUND))
        self.assertEqual(self.refusal(self.authentication(), "EXTERNAL", BOUND), reply.UNKNOWN_MECHANISM)
        self.assertEqual(self.authentication(CertificateChecker()).mechanisms(TLS), ())
        self.assertEqual(self.authentication(CertificateChecker()).mechanisms(BOUND), ("EXTERNAL",))

    def test_anonymous(self) -> None:
        """A checker that lets anybody in offers nothing."""
        self.assertEqual(self.authentication(Checker(no, IAnonymous)).mechanisms(TLS), ())


class ExchangeTests(Case):
    """Each mechanism with a checker."""

    def test_password(self) -> None:
        """PLAIN at once or after an empty challenge, and LOGIN either way."""
        authentication = self.authentication()
        for name, said, expected in (
            ("PLAIN", (PLAIN,), ("tim",)),
            ("PLAIN", (None, PLAIN), (b"", "tim")),
            ("LOGIN", (None, b"tim", b"hush"), (b"Username:", b"Password:", "tim")),
            ("LOGIN", (b"tim", b"hush"), (b"Password:", "tim")),
            ("PLAIN", (WRONG,), (reply.WRONG_CREDENTIALS,)),
            ("PLAIN", (b"\0nobody\0hush",), (reply.WRONG_CREDENTIALS,)),
            ("PLAIN", (b"root\0tim\0hush",), (reply.TOO_MANY_AUTHENTICATIONS,)),
            ("PLAIN", (b"hush",), (reply.BAD_RESPONSE,)),
        ):
            exchange = authentication.start(name, TLS)
            self.assertEqual(tuple(self.heard(exchange, octets) for octets in said), expected)

    def cram(self, authentication: Authentication, password: bytes) -> object:
        """What comes of a digest of the password."""
        exchange = authentication.start("CRAM-MD5", TLS)
        challenge = self.heard(exchange, None)
        assert isinstance(challenge, bytes)
        return self.heard(exchange, b"tim " + hmac(password, challenge, md5).hexdigest().encode())

    def test_cram_md5(self) -> None:
        """The digest is of our own challenge, a new one each time; an empty password lets nobody in."""
        authentication = self.authentication(hostname="mail.example")
        challenges = {self.heard(authentication.start("CRAM-MD5", TLS), None) for _ in range(3)}
        self.assertEqual(len(challenges), 3)
        self.assertTrue(all(str(each).endswith("@mail.example>'") for each in challenges))
        self.assertEqual(self.cram(authentication, b"hush"), "tim")
        self.assertEqual(self.cram(authentication, b"guess"), reply.WRONG_CREDENTIALS)
        empty = self.authentication(InMemoryUsernamePasswordDatabaseDontUse(tim=b""))
        self.assertEqual(self.cram(empty, b""), reply.WRONG_CREDENTIALS)

    def test_cram_md5_speaks_second(self) -> None:
        """An initial response before the challenge is 501 5.7.0 (RFC 4954 section 4)."""
        heard = self.heard(self.authentication().start("CRAM-MD5", TLS), b"tim 0")
        self.assertEqual(heard, reply.NO_INITIAL_RESPONSE)

    def test_tokens(self) -> None:
        """A checker is given the token, and says whose it is."""
        checker = Checker(lambda credentials: b"tim", ITokenCredentials)
        self.assertEqual(self.verdict(checker, octets=TOKEN, name="OAUTHBEARER"), "tim")
        self.assertEqual((checker.asked[0].username, checker.asked[0].token), ("tim", "hush"))

    def test_token_refused(self) -> None:
        """The complaint in JSON waits as a failure does; the reply behind it does not wait again."""
        exchange = self.authentication(Checker(no, ITokenCredentials)).start("OAUTHBEARER", TLS)
        complaint = exchange.respond(TOKEN)
        self.assertNoResult(complaint)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(complaint), b'{"status":"invalid_token"}')
        last = self.failureResultOf(exchange.respond(b"\x01"), SMTPError)
        self.assertEqual(last.value.reply, reply.WRONG_CREDENTIALS)

    def test_scram(self) -> None:
        """One whom nobody knows is answered like one who is known."""
        authentication = self.authentication(Keeper(no), Keeper(no))
        for username in (b"tim", b"nobody"):
            exchange = authentication.start("SCRAM-SHA-256", TLS)
            challenge = self.heard(exchange, b"n,,n=" + username + b",r=abc")
            assert isinstance(challenge, bytes)
            self.assertRegex(challenge, rb"r=abc[0-9a-f]{32},s=[A-Za-z0-9+/]{22}==,i=4096")

    def test_external(self) -> None:
        """The certificate says who it is, and the checker whether that is enough."""
        for description, expected in (
            ("certificate", "tim"),
            ("certificate:bob, tim", "tim"),
            ("certificate:bob", reply.WRONG_CREDENTIALS),
        ):
            authentication = self.authentication(make_checker(description))
            self.assertEqual(self.heard(authentication.start("EXTERNAL", BOUND), b""), expected)


class CheckerTests(Case):
    """What checkers may do."""

    def test_in_turn(self) -> None:
        """The next is asked when one knows nobody; one that takes other credentials is not."""
        first, other, second = Checker(no), Checker(no, ITokenCredentials), Checker(lambda asked: b"tim")
        last = Checker(no)
        self.assertEqual(self.verdict(first, other, second, last), "tim")
        self.assertEqual([len(each.asked) for each in (first, other, second, last)], [1, 0, 1, 0])

    def test_in_octets(self) -> None:
        """Checkers are given octets, and may give octets or text back; what is neither is nobody."""
        checker = Checker(lambda asked: asked.username)
        self.assertEqual(self.verdict(checker, octets="\0jürgen\0ü".encode()), "jürgen")
        self.assertEqual(
            (checker.asked[0].username, checker.asked[0].password), ("jürgen".encode(), "ü".encode())
        )
        answers: list[tuple[Any, object]] = [
            ("tim", "tim"),
            (b"\xff", "\\xff"),
            ((), 535),
            (b"", 535),
            (None, 535),
        ]
        for given, expected in answers:
            verdict = self.verdict(Checker(giving(given)))
            self.assertEqual(getattr(verdict, "code", verdict), expected)

    def test_prepared(self) -> None:
        """Passwords are compared in one form, whichever the client and the store had."""
        stored = InMemoryUsernamePasswordDatabaseDontUse(tim="u\u0308".encode())
        self.assertEqual(self.verdict(stored, octets="\0tim\0ü".encode()), "tim")
        broken = InMemoryUsernamePasswordDatabaseDontUse(tim=b"\xff")
        self.assertEqual(self.verdict(broken, octets=PLAIN), reply.WRONG_CREDENTIALS)

    def test_strcred(self) -> None:
        """Twisted's own memory: and file: checkers work with PLAIN, LOGIN and CRAM-MD5."""
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write("tim:hush\njürgen:ü\n")
        for description in ("memory:tim:hush:jürgen:ü", f"file:{path}"):
            authentication = self.authentication(make_checker(description))
            self.assertEqual(authentication.mechanisms(TLS), ("CRAM-MD5", "PLAIN", "LOGIN"))
            self.assertEqual(self.heard(authentication.start("PLAIN", TLS), PLAIN), "tim")
            said = "\0jürgen\0ü".encode()
            self.assertEqual(self.heard(authentication.start("PLAIN", TLS), said), "jürgen")
            login = authentication.start("LOGIN", TLS)
            self.assertEqual([self.heard(login, said) for said in (b"tim", b"hush")][1], "tim")
            self.assertEqual(ExchangeTests.cram(self, authentication, b"hush"), "tim")  # type: ignore[arg-type]
            self.assertEqual(self.heard(authentication.start("PLAIN", TLS), WRONG), reply.WRONG_CREDENTIALS)

    def test_broken(self) -> None:
        """One that breaks is 454, unless another lets the client in; its text is in the log alone."""
        log = captured_log(self)
        broken = raising(OSError("directory is down\r\nsince noon"))
        self.assertEqual(self.verdict(broken), reply.AUTHENTICATION_FAILED)
        self.assertEqual(self.verdict(broken, Checker(no)), reply.AUTHENTICATION_FAILED)
        self.assertEqual(self.verdict(broken, Checker(lambda asked: b"tim")), "tim")
        self.assertEqual([event["what"] for event in log], ["OSError: directory is down\\r\nsince noon"] * 3)

    def test_nothing_of_the_exchange_is_logged(self) -> None:
        """Not even when the error of a checker quotes the password, in whatever form."""
        log = captured_log(self)
        for password in ("hush", "hüsh\\"):
            octets = f"\0tim\0{password}".encode()
            for quoted in (password, ascii(password), repr(password.encode())):
                self.verdict(raising(ValueError(f"bad: {quoted}")), octets=octets)
        self.assertEqual({event["what"] for event in log}, {"ValueError: (not shown)"})
        self.assertNotIn("sh", "".join(str(event["where"]) for event in log).replace("hush", ""))

    def test_own_words(self) -> None:
        """A checker may say more than yes and no."""
        disabled = Reject("Account disabled", 525, "5.7.13")
        self.assertEqual(self.verdict(raising(disabled)), disabled.reply)
        self.assertEqual(self.verdict(raising(LoginDenied())), reply.WRONG_CREDENTIALS)

    def test_scram_broken(self) -> None:
        """A keeper of secrets that breaks is 454, also where it can make no decoy."""
        log = captured_log(self)
        for name in ("scram_secret", "decoy_secret"):
            keeper = Keeper(no)
            setattr(keeper, name, no_secret)
            verdict = self.verdict(keeper, octets=b"n,,n=nobody,r=abc", name="SCRAM-SHA-256")
            self.assertEqual(verdict, reply.AUTHENTICATION_FAILED)
        self.assertEqual(len(log), 2)

    def test_given_up(self) -> None:
        """An answer that nobody waits for any more is cancelled, and no other checker is asked."""
        cancelled: list[object] = []
        waiting = Checker(lambda asked: Deferred(cancelled.append))
        other = Checker(no)
        answer = self.authentication(waiting, other).start("PLAIN", TLS).respond(PLAIN)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual((len(cancelled), other.asked), (1, []))


def no_secret(username: str) -> ScramSecret:
    """A keeper that broke."""
    raise OSError("down")


class PenaltyTests(Case):
    """Guessing."""

    def test_slower_and_slower(self) -> None:
        """Each failure of a session waits twice as long; the third is 421."""
        authentication = self.authentication()
        for seconds, expected in (
            (1.0, reply.WRONG_CREDENTIALS),
            (2.0, reply.WRONG_CREDENTIALS),
            (4.0, reply.TOO_MANY_AUTHENTICATIONS),
        ):
            answer = authentication.start("PLAIN", TLS).respond(WRONG)
            self.clock.advance(seconds - 0.1)
            self.assertNoResult(answer)
            self.clock.advance(0.2)
            self.assertEqual(self.failureResultOf(answer, SMTPError).value.reply, expected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_session(self) -> None:
        """Another session's failures are not this one's, and a right password never waits."""
        authentication = self.authentication()
        for name in "abcd":
            self.clock.advance(1)
            answer = authentication.start("PLAIN", Session(name, PEER, tls=TLS.tls)).respond(WRONG)
            self.clock.advance(1)
            self.assertEqual(self.failureResultOf(answer, SMTPError).value.reply, reply.WRONG_CREDENTIALS)
        self.assertEqual(self.successResultOf(authentication.start("PLAIN", TLS).respond(PLAIN)), "tim")

    def guess(self, authentication: Authentication, host: str, number: int = 0) -> object:
        """What a session of its own hears of a wrong password, which does not wait for that."""
        answer = authentication.start("PLAIN", self.coming_from(host, number)).respond(WRONG)
        if not answer.called:
            answer.cancel()
        error = self.failureResultOf(answer, CancelledError, SMTPError).value
        return error.reply if isinstance(error, SMTPError) else None

    @staticmethod
    def coming_from(host: str, number: int = 0) -> Session:
        """A session of its own."""
        return Session(f"{host} {number}", Peer(host, 40000), tls=TLS.tls)

    def test_each_address(self) -> None:
        """An address that guessed too often in an hour is let try no more, in whatever session."""
        authentication = self.authentication()
        for number in range(100):
            self.assertIsNone(self.guess(authentication, f"2001:db8::{number}", number))
        self.assertEqual(self.guess(authentication, "2001:db8::ffff"), reply.TOO_MANY_AUTHENTICATIONS)
        self.assertIsNone(self.guess(authentication, "2001:db8:0:1::1"))
        self.clock.advance(37)
        self.assertIsNone(self.guess(authentication, "2001:db8::ffff"))
        self.assertEqual(self.guess(authentication, "2001:db8::ffff"), reply.TOO_MANY_AUTHENTICATIONS)

    def test_who_knows_his_password(self) -> None:
        """Who is let in may be it as often as he likes."""
        authentication = self.authentication(max_failures=1)
        for _ in range(3):
            self.assertEqual(self.heard(authentication.start("PLAIN", TLS), PLAIN), "tim")

    def test_whose_neighbours_guess(self) -> None:
        """Who was let in from an address is let try there whatever others do, until he is wrong himself."""
        authentication = self.authentication(
            InMemoryUsernamePasswordDatabaseDontUse(tim=b"hush", ann=b"hush"), max_failures=1
        )

        def say(octets: bytes) -> object:
            session = self.coming_from("192.0.2.1", len(self.clock.calls))
            return self.heard(authentication.start("PLAIN", session), octets)

        self.assertEqual(say(PLAIN), "tim")
        self.assertEqual(say(b"\0bob\0guess"), reply.WRONG_CREDENTIALS)
        for name in ("ann", "bob"):
            self.assertEqual(say(f"\0{name}\0hush".encode()), reply.TOO_MANY_AUTHENTICATIONS)
        self.assertEqual([say(PLAIN), say(PLAIN)], ["tim", "tim"])
        self.assertEqual(say(WRONG), reply.WRONG_CREDENTIALS)
        self.assertEqual(say(PLAIN), reply.TOO_MANY_AUTHENTICATIONS)

    def test_known_are_few(self) -> None:
        """Those who were let in are remembered up to a number, the first ones least."""
        self.patch(penalty, "_MAX_KNOWN", 2)
        penalties = Penalties(self.clock, 1)
        penalties.count(CLEAR, "guesser")
        for name in ("a", "b", "a", "c"):
            penalties.welcome(CLEAR, name)
        self.assertEqual([penalties.bars(CLEAR, name) for name in "abc"], [False, True, False])

    def test_this_machine(self) -> None:
        """What runs here asks for many users, and is not counted unless the operator says so."""
        for host in ("127.0.0.1", "::1", "/run/smtp"):
            for most, expected in ((None, None), (100, reply.TOO_MANY_AUTHENTICATIONS)):
                authentication = self.authentication(max_failures=most)
                heard = [self.guess(authentication, host, number) for number in range(101)]
                self.assertEqual(heard[-1], expected)

    def test_gone_while_it_is_checked(self) -> None:
        """Who does not wait for a checker has guessed all the same: its work is done."""
        authentication = self.authentication(Checker(lambda asked: Deferred()), max_failures=1)
        self.assertIsNone(self.guess(authentication, "192.0.2.1"))
        self.assertEqual(self.guess(authentication, "192.0.2.1"), reply.TOO_MANY_AUTHENTICATIONS)

    def test_while_nobody_can_tell(self) -> None:
        """Where checking takes so long that clients go, those who were let in before are still let in."""
        answers: list[Any] = ["tim", *[Deferred() for _ in range(3)], "tim", "bob"]
        authentication = self.authentication(Checker(lambda asked: answers.pop(0)), max_failures=1)
        sessions = [self.coming_from("192.0.2.1", number) for number in range(3)]
        self.assertEqual(self.heard(authentication.start("PLAIN", sessions[0]), PLAIN), "tim")
        for _ in range(3):
            answer = authentication.start("PLAIN", sessions[1]).respond(PLAIN)
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.heard(authentication.start("PLAIN", sessions[2]), PLAIN), "tim")
        heard = self.heard(authentication.start("PLAIN", sessions[2]), b"\0bob\0hush")
        self.assertEqual(heard, reply.TOO_MANY_AUTHENTICATIONS)

    def test_scram_proof(self) -> None:
        """A wrong proof waits as well."""
        exchange = self.authentication(Keeper(no)).start("SCRAM-SHA-256", TLS)
        challenge = self.successResultOf(exchange.respond(b"n,,n=tim,r=abc"))
        assert isinstance(challenge, bytes)
        nonce = challenge.split(b",")[0]
        answer = exchange.respond(b"c=biws," + nonce + b",p=" + b"A" * 43 + b"=")
        self.assertNoResult(answer)
        self.clock.advance(1)
        self.assertEqual(self.failureResultOf(answer, SMTPError).value.reply, reply.WRONG_CREDENTIALS)

    def test_no_guess(self) -> None:
        """What was malformed, or could not be checked, does not wait."""
        captured_log(self)
        for checker, octets in ((Checker(no), b"hush"), (raising(OSError("down")), PLAIN)):
            self.failureResultOf(self.authentication(checker).start("PLAIN", TLS).respond(octets), SMTPError)

    def test_given_up(self) -> None:
        """A client that leaves while it waits leaves no timer behind, and has failed all the same."""
        authentication = self.authentication()
        answer = authentication.start("PLAIN", TLS).respond(WRONG)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        second = authentication.start("PLAIN", TLS).respond(WRONG)
        self.clock.advance(1.9)
        self.assertNoResult(second)

    def test_forgotten(self) -> None:
        """Failures are remembered for an hour and for no more sessions than there can be."""
        self.patch(penalty, "_MAX_SESSIONS", 3)
        penalties = Penalties(self.clock)

        def count(name: str) -> int:
            return penalties.count(Session(name, PEER), "tim")

        self.assertEqual([count(name) for name in "aabcadb"], [1, 2, 1, 1, 3, 1, 1])
        self.clock.advance(3601)
        self.assertEqual([count(name) for name in "ebe"], [1, 1, 2])
