"""The greeting comes late, and who speaks before it is refused."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpserv import reply
from smtpserv.error import StartError
from smtpserv.interfaces import IEarlyTalkerPolicy, ISessionPolicy
from smtpserv.message import Peer, Session
from smtpserv.policy.greeting import make_greeting
from smtpserv.testing import RecordingProcessor, memory_session
from tests.server_tools import Server, codes

STRANGER = Session("s", Peer("192.0.2.1"))


class GreetingTests(SynchronousTestCase):
    """The policy."""

    def setUp(self) -> None:
        self.clock = Clock()

    def test_honours_the_interfaces(self) -> None:
        """It is a policy about connections and early talkers."""
        for interface in (ISessionPolicy, IEarlyTalkerPolicy):
            self.assertTrue(verifyObject(interface, make_greeting(self.clock)))

    def test_delay(self) -> None:
        """It agrees after the delay and not before."""
        for arguments, delay in (((), 5.0), (("0.5",), 0.5), (("60",), 60.0)):
            verdict = make_greeting(self.clock, *arguments).connect(STRANGER)
            assert verdict is not None
            self.clock.advance(delay - 0.1)
            self.assertNoResult(verdict)
            self.clock.advance(0.1)
            self.assertIsNone(self.successResultOf(verdict))

    def test_given_up(self) -> None:
        """Of a client that goes, no timer is left."""
        verdict = make_greeting(self.clock).connect(STRANGER)
        assert isinstance(verdict, Deferred)
        verdict.cancel()
        self.failureResultOf(verdict, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_early(self) -> None:
        """Who spoke before is told 554 5.5.0."""
        self.assertIs(make_greeting(self.clock).spoke_early(STRANGER), reply.SPOKE_EARLY)
        self.assertEqual((reply.SPOKE_EARLY.code, reply.SPOKE_EARLY.status), (554, "5.5.0"))

    def test_exempt(self) -> None:
        """Exempt peers are greeted at once, whatever they do."""
        policy = make_greeting(self.clock, exempt="192.0.2.0/24,unix")
        for host in ("192.0.2.1", ""):
            session = Session("s", Peer(host))
            self.assertEqual((policy.connect(session), policy.spoke_early(session)), (None, None))
        self.assertIsNotNone(policy.connect(Session("s", Peer("192.0.3.1"))))

    def test_wrong_arguments(self) -> None:
        """A wrong argument is named."""
        for arguments, words in (
            ({"delay": "x"}, ("delay", "'x'", "seconds")),
            ({"delay": "0"}, ("delay", "'0'")),
            ({"delay": "61"}, ("delay", "up to 60")),
            ({"exempt": "x"}, ("exempt", "'x'")),
        ):
            error = self.assertRaises(StartError, make_greeting, self.clock, **arguments)
            for word in words:
                self.assertIn(word, str(error))


class SessionTests(SynchronousTestCase):
    """In a session."""

    def test_greeted_late(self) -> None:
        """The client is greeted after the delay, and goes on as ever."""
        clock = Clock()
        session = memory_session(RecordingProcessor(), policies=[make_greeting(clock)])
        self.assertEqual(session.hear(), b"")
        clock.advance(5)
        self.assertEqual(codes(session.hear()), ["220"])
        self.assertEqual(codes(session.say(b"NOOP\r\n")), ["250 2.0.0"])

    def test_client_goes(self) -> None:
        """A client that goes leaves nothing behind."""
        clock = Clock()
        server = Server(RecordingProcessor(), [make_greeting(clock)])
        server.connect().disconnect()
        self.assertEqual((clock.getDelayedCalls(), server.leftovers()), ([], []))
