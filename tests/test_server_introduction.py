"""Who the client is: AUTH, XCLIENT and XFORWARD, early talkers, and verbs from outside."""

from typing import Any, Final

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpserv.dialogue.command import foreign
from smtpserv.dialogue.extension import Extension
from smtpserv.dialogue.extensions import EXTENSIONS
from smtpserv.dialogue.terms import Terms
from smtpserv.interfaces import IAuthenticationObserver, IMessageObserver
from smtpserv.message import Envelope, Peer, Session, TLSFacts
from smtpserv.network import Networks
from smtpserv.policy.authentication import Authentication
from smtpserv.policy.greeting import GreetingDelay
from smtpserv.reply import Reply
from smtpserv.testing import MemorySession, RecordingProcessor, memory_house
from tests.server_tools import DONE, HELLO, TRANSACTION, Policy, always, captured_log, codes

#: user, secret
GOOD: Final = b"AUTH PLAIN AHVzZXIAc2VjcmV0\r\n"
#: user, guess
WRONG: Final = b"AUTH PLAIN AHVzZXIAZ3Vlc3M=\r\n"
TRUSTED: Final = Networks.parse("192.0.2.0/24")


@implementer(IMessageObserver, IAuthenticationObserver)
class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def message_ended(self, session: Session, envelope: Envelope, size: int, answer: Reply) -> None:
        self.told.append((envelope.id, size, answer.code))

    def authentication_failed(self, session: Session, name: str) -> None:
        self.told.append((session.peer.host, name))


class SessionCase(SynchronousTestCase):
    """A session in which clients can say who they are."""

    def open(self, processor: object = None, **choices: Any) -> MemorySession:
        """One that was greeted."""
        clock = Clock()
        journal: list[str] = []
        terms = Terms(**{"hostname": "mx.example", "auth": True, "max_errors": 99} | choices.pop("terms", {}))
        users = InMemoryUsernamePasswordDatabaseDontUse(user=b"secret")
        without_tls = choices.pop("without_tls", True)
        house = memory_house(
            processor or RecordingProcessor(),
            clock,
            journal,
            terms=terms,
            authentication=Authentication([users], clock, without_tls=without_tls),
            **choices,
        )
        self.session = MemorySession(house, clock, journal, Peer("192.0.2.1", 2525))
        self.session.hear()
        return self.session

    def check(self, *lines: tuple[bytes, str]) -> None:
        """Each line is answered so."""
        for spoken, expected in lines:
            heard = self.session.say(spoken if spoken.endswith(b"\n") else spoken + b"\r\n")
            self.assertEqual(codes(heard), expected.split(" / ") if expected else [], spoken[:60])


class AuthTests(SessionCase):
    """RFC 4954."""

    def test_order(self) -> None:
        """After EHLO, outside of a transaction, and once; RSET and EHLO keep the identity."""
        processor = RecordingProcessor()
        self.open(processor)
        self.check(
            (GOOD, "503 5.5.1"),
            (b"HELO x", "250"),
            (GOOD, "503 5.5.1"),
            (b"EHLO x", "250"),
            (b"MAIL FROM:<a@a.example>", "250 2.1.0"),
            (GOOD, "503 5.5.1"),
            (b"RSET", "250 2.0.0"),
            (GOOD, "235 2.7.0"),
            (GOOD, "503 5.5.1"),
            (b"RSET", "250 2.0.0"),
            (b"EHLO x", "250"),
            (TRANSACTION, " / ".join(DONE)),
        )
        self.assertEqual(processor.messages[0].session.identity, "user")
        self.assertEqual(processor.messages[0].session.protocol, "ESMTPA")

    def test_submitter(self) -> None:
        """Who submitted a message one who authenticated may tell; of others nothing is known by it."""
        processor = RecordingProcessor()
        self.open(processor)
        transaction = TRANSACTION.partition(b"\r\n")[2]
        mail = b"MAIL FROM:<a@a.example> SIZE=9 AUTH=root@b.example\r\n"
        self.check((HELLO, "250"), (mail + transaction, " / ".join(DONE)))
        self.check((GOOD, "235 2.7.0"), (mail + transaction, " / ".join(DONE)))
        self.check((b"RSET", "250 2.0.0"), (b"MAIL FROM:<a@a.example> AUTH=a+b", "501 5.5.4"))
        told = [dict(message.envelope.reverse_path.parameters) for message in processor.messages]
        self.assertEqual(told, [{"SIZE": "9", "AUTH": "<>"}, {"SIZE": "9", "AUTH": "root@b.example"}])

    def test_forms(self) -> None:
        """What is said in the exchange is checked, and the next command is heard."""
        self.open(terms={"max_commands": 99})
        self.check(
            (HELLO, "250"),
            (b"AUTH", "501 5.5.4"),
            (b"AUTH PLAIN a b", "501 5.5.4"),
            (b"AUTH NTLM", "504 5.5.4"),
            (b"AUTH PLAIN !", "501 5.5.2"),
            (b"AUTH PLAIN AAA", "501 5.5.2"),
            (b"AUTH PLAIN *", "501 5.5.2"),
            (b"AUTH PLAIN =", "501 5.5.2"),
            (b"auth plain", "334"),
            (b"*", "501 5.7.0"),
            (b"AUTH LOGIN", "334"),
            (b"!", "501 5.5.2"),
            (b"AUTH LOGIN", "334"),
            (b"\xff\0", "501 5.5.2"),
            (b"AUTH LOGIN", "334"),
            (b"dXNlcg==", "334"),
            (b"c2VjcmV0", "235 2.7.0"),
            (b"NOOP", "250 2.0.0"),
        )

    def test_lengths(self) -> None:
        """A line of 12 KiB passes; of a longer one nothing is kept, and the next command is heard."""
        self.open()
        self.check(
            (HELLO, "250"),
            (b"AUTH PLAIN " + b"A" * 12264, "501 5.5.2"),
            (b"AUTH PLAIN", "334"),
            (b"A" * 12284, "501 5.5.2"),
            (b"AUTH PLAIN", "334"),
            (b"A" * 100_000, "500 5.5.6"),
            (b"NOOP", "250 2.0.0"),
            (b"AUTH PLAIN " + b"A" * 100_000, "500 5.5.2"),
            (b"NOOP", "250 2.0.0"),
        )

    def test_clear(self) -> None:
        """In clear AUTH is neither announced nor done: it needs TLS, which --require-tls says first."""
        self.open(without_tls=False, terms={"tls": True})
        self.check((HELLO, "250"))
        self.assertNotIn("AUTH", self.session.last_reply().text)
        self.check((GOOD, "538 5.7.11"), (b"AUTH PLAIN", "538 5.7.11"), (b"NOOP", "250 2.0.0"))
        self.session.protocol._conversation.secured(TLSFacts("TLSv1.3", "x"))
        self.check((HELLO, "250"), (GOOD, "235 2.7.0"))
        self.open(without_tls=False, terms={"tls": True, "require_tls": True})
        self.check((HELLO, "250"), (GOOD, "530 5.7.0"))

    def test_required(self) -> None:
        """Without it there is no mail, chunks included."""
        self.open(terms={"require_auth": True})
        self.check(
            (HELLO, "250"),
            (b"MAIL FROM:<a@a.example>", "530 5.7.0"),
            (b"VRFY x", "530 5.7.0"),
            (b"BDAT 6\r\nQUIT\r\n", "530 5.7.0"),
            (b"NOOP\r\nRSET\r\nHELP", "250 2.0.0 / 250 2.0.0 / 214 2.0.0"),
            (GOOD, "235 2.7.0"),
            (b"MAIL FROM:<a@a.example>", "250 2.1.0"),
        )

    def test_guesses(self) -> None:
        """Wrong credentials are answered later and later, then by the last word; observers are told."""
        watcher = Watcher()
        session = self.open(policies=[watcher])
        self.check((HELLO, "250"))
        for seconds, expected in ((1, "535 5.7.8"), (2, "535 5.7.8"), (4, "421 4.7.0")):
            self.check((WRONG, ""))
            self.assertEqual(codes(session.advance(seconds)), [expected])
        self.assertEqual(watcher.told, [("192.0.2.1", "user")] * 3)
        self.assertEqual((session.is_closed, session.ended), (True, True))

    def test_guesses_of_those_who_do_not_wait(self) -> None:
        """Who hangs up before the answer has guessed all the same: observers and figures know."""
        watcher = Watcher()
        session = self.open(policies=[watcher])
        self.check((HELLO, "250"), (WRONG, ""))
        session.disconnect()
        self.assertEqual(watcher.told, [("192.0.2.1", "user")])
        self.assertEqual(session.house.counts.authentications["PLAIN", 5], 1)

    def test_gone(self) -> None:
        """A client that vanishes at any stage of the exchange leaves no timer."""
        for spoken in (b"AUTH PLAIN\r\n", WRONG, b"AUTH LOGIN\r\ndXNlcg==\r\n", b"AUTH LOGIN\r\ndXN"):
            session = self.open()
            session.say(HELLO + spoken)
            session.disconnect()
            session.house.journal.flush()
            self.assertEqual((session.ended, session.clock.getDelayedCalls()), (True, []), spoken)

    def test_silent(self) -> None:
        """Nothing of an exchange is logged, whatever came of it."""
        events = captured_log(self)
        session = self.open()
        session.say(HELLO + WRONG)
        session.advance(1)
        session.say(b"AUTH PLAIN secret!\r\nAUTH LOGIN\r\ndXNlcg==\r\nsecret!\r\n" + GOOD + b"QUIT\r\n")
        written = repr(events) + "".join(session.journal)
        for word in ("secret", "c2VjcmV0", "guess", "Z3Vlc3M", "dXNlcg", "AHVz"):
            self.assertNotIn(word, written)
        self.assertIn("code=535", written)


class OverrideTests(SessionCase):
    """http://www.postfix.org/XCLIENT_README.html and XFORWARD_README.html"""

    def seen(self, *lines: bytes) -> Session:
        """The session as the processor sees it, after these lines were accepted."""
        processor = RecordingProcessor()
        self.open(processor, trusted=TRUSTED)
        self.check((HELLO, "250"))
        for line in lines:
            self.assertIn(codes(self.session.say(line + b"\r\n"))[0], ("220", "250 2.0.0"), line)
        self.session.say(HELLO + TRANSACTION if lines[0].startswith(b"XCLIENT") else TRANSACTION)
        return processor.messages[0].session

    def test_xclient(self) -> None:
        """The session is another client's from there on."""
        seen = self.seen(
            b"XCLIENT ADDR=198.51.100.7 PORT=25 NAME=[UNAVAILABLE] LOGIN=a+2Bb HELO=other.example"
        )
        self.assertEqual((seen.peer, seen.identity), (Peer("198.51.100.7", 25), "a+b"))
        self.assertEqual(self.seen(b"XCLIENT ADDR=IPv6:2001:db8::1").peer, Peer("2001:db8::1"))
        self.assertEqual(self.seen(b"XCLIENT NAME=a.example").peer, Peer("192.0.2.1", 2525))

    def test_xforward(self) -> None:
        """What is said of a client whose mail is relayed is known for one message."""
        processor = RecordingProcessor()
        self.open(processor, trusted=TRUSTED)
        self.check((HELLO, "250"), (b"XFORWARD NAME=a+2Bb ADDR=[UNAVAILABLE]", "250 2.0.0"))
        self.check((b"xforward ident=x", "250 2.0.0"), (TRANSACTION * 2, " / ".join(DONE * 2)))
        first, second = (message.session for message in processor.messages)
        self.assertEqual(dict(first.forwarded), {"NAME": "a+b", "ADDR": None, "IDENT": "x"})
        self.assertEqual((first.peer.host, dict(second.forwarded)), ("192.0.2.1", {}))

    def test_strangers(self) -> None:
        """From others it is refused, and not announced; nor is it heard in a transaction."""
        self.open()
        self.check((HELLO, "250"), (b"XCLIENT NAME=x", "550 5.7.0"), (b"XFORWARD NAME=x", "550 5.7.0"))
        self.open(trusted=TRUSTED)
        self.check((HELLO, "250"), (b"MAIL FROM:<a@a.example>", "250 2.1.0"))
        self.check((b"XCLIENT NAME=x", "503 5.5.1"), (b"XFORWARD NAME=x", "503 5.5.1"))

    def test_bad_values(self) -> None:
        """What makes no sense is refused, and changes nothing."""
        self.open(trusted=TRUSTED)
        self.check((HELLO, "250"))
        for bad in (
            *(b"", b"NAME", b"X=1", b"NAME=a+0Ab", b"NAME=a+0D", b"NAME=+1Bx", b"NAME=a+zz", b"NAME=\xff"),
            *(b"ADDR=x", b"ADDR=IPv6:x", b"ADDR=1.2.3", b"PORT=x", b"PORT=-1", "PORT=²".encode()),
            *(b"PORT=65536", b"PORT=" + b"1" * 4500, b"ADDR=1.2.3.4 PORT=\xd9\xa1"),
        ):
            self.check((b"XCLIENT " + bad, "501 5.5.4"))
        self.check((b"XFORWARD NAME=a+0Ab", "501 5.5.4"), (b"XFORWARD LOGIN=x", "501 5.5.4"))
        self.check((b"MAIL FROM:<a@a.example>", "250 2.1.0"))

    def test_policies(self) -> None:
        """Who decides about connections decides about the new client; one that is refused is not heard."""
        policy = Policy(connect=lambda session: Reply(550, "No") if session.peer.host == "::1" else None)
        self.open(policies=[policy], trusted=TRUSTED)
        self.check((HELLO, "250"), (b"XCLIENT ADDR=IPv6:::1", "421 4.7.0"))
        self.assertTrue(self.session.is_closed)
        hosts = [facts[0].peer.host for stage, *facts in policy.asked if stage == "connect"]
        self.assertEqual(hosts, ["192.0.2.1", "::1"])


class EarlyTalkerTests(SessionCase):
    """A client that does not wait for its greeting."""

    def greeted(self, spoken: bytes) -> list[str]:
        """What a client hears that says this before it."""
        clock = Clock()
        delay = GreetingDelay(clock, 5, Networks())
        house = memory_house(RecordingProcessor(), clock, [], [delay])
        session = MemorySession(house, clock, [], Peer("192.0.2.1"))
        return codes(session.say(spoken)) + codes(session.advance(5)) + codes(session.say(b"NOOP\r\n"))

    def test_refused(self) -> None:
        """It is told so, and nothing but QUIT is heard; one that waits is served."""
        self.assertEqual(self.greeted(b"EHLO x\r\n"), ["554 5.5.0", "503 5.5.1", "503 5.5.1"])
        self.assertEqual(self.greeted(b""), ["220", "250 2.0.0"])


class ForeignTests(SessionCase):
    """A verb of an extension from outside."""

    def test_answered(self) -> None:
        """After EHLO it is answered by whoever brought it; what it may not answer is a local error."""
        asked: list[Any] = []

        def answer(session: Session, argument: str) -> Any:
            asked.append((session.hello_name, argument))
            return {"no": Reply(550, "No"), "odd": 7, "go": Reply(354)}.get(argument)

        rows = (*EXTENSIONS, Extension("XPING", verbs={"XPING": foreign("XPING")}))
        self.open(foreigners={"XPING": answer}, terms={"extensions": rows})
        self.check((b"XPING", "503 5.5.1"), (b"HELO x", "250"), (b"XPING", "503 5.5.1"), (b"EHLO x", "250"))
        self.assertIn("XPING", self.session.last_reply().text.split("\n"))
        self.check((b"xping", "250 2.0.0"), (b"XPING no", "550 5.0.0"), (b"XPING a\x1bb", "501 5.5.4"))
        self.check((b"XPING odd", "451 4.3.0"), (b"XPING go", "451 4.3.0"))
        self.assertEqual(asked, [("x", ""), ("x", "no"), ("x", "odd"), ("x", "go")])


class ObserverTests(SessionCase):
    """Who watches messages."""

    def test_told(self) -> None:
        """Of each message's last answer, of one refused at DATA as well."""
        watcher = Watcher()
        refusing = RecordingProcessor([Reply(550, "No")])
        self.open(refusing, policies=[watcher])
        self.check(
            (HELLO + TRANSACTION * 2, f"250 / {' / '.join(DONE[:3])} / 550 5.0.0 / {' / '.join(DONE)}")
        )
        self.assertEqual([told[1:] for told in watcher.told], [(20, 550), (20, 250)])

    def test_policy_that_answers_yes(self) -> None:
        """A policy's good word for an EHLO changes nothing of its reply."""
        self.open(policies=[Policy(hello=always(Reply(250, "Hi")))])
        self.check((HELLO, "250"))
        self.assertIn("PIPELINING", self.session.last_reply().text)
