"""The ``proxy`` processor: what it is to its server, what it honours, and what it adds to messages."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpserv import reply
from smtpserv.error import StartError
from smtpserv.interfaces import (
    IExtensionSupport,
    IRelayingProcessor,
    ISessionPolicy,
    ITransactionProcessor,
)
from smtpserv.message import Envelope, ForwardPath, Peer, ReversePath, Session
from smtpserv.processors.proxy import PASSED_ON, ProxyProcessor, make_proxy
from smtpserv.relay.failure import UpstreamFailed
from smtpserv.relay.pool import Pool, PoolLimits
from smtpserv.relay.route import Route
from tests.relay_tools import GO, OK, Connection, Door, begun

SESSION = Session("3f2a", Peer("127.0.0.1", 2525), "EHLO", "client.example", hostname="mx.example")
SENDER = ReversePath("a@a.example")
RECIPIENT = ForwardPath("b@b.example")


class ProxyCase(SynchronousTestCase):
    """A proxy whose server the test plays."""

    def setUp(self) -> None:
        self.proxy_to("PIPELINING")

    def proxy_to(self, *offers: str, lmtp: bool = False, **choices: Any) -> None:
        """The server offers this."""
        self.clock = Clock()
        self.clock.rightNow = 1e9
        self.door = Door(self.clock, *offers, lmtp=lmtp)
        self.pool = Pool(self.clock, self.door, PoolLimits(), lambda: 1.0)
        self.proxy = ProxyProcessor(self.clock, Route([self.pool]), **choices)

    def opened(self, session: Session = SESSION) -> Any:
        """A transaction that the server has accepted."""
        waiting = begun(self.proxy.open, session, SENDER)
        self.server: Connection = self.door.open()
        self.server.say(OK)
        return self.successResultOf(waiting)

    def passed(self, session: Session = SESSION) -> bytes:
        """The message that the server is given."""
        passage = self.opened(session)
        begun(passage.add_recipient, RECIPIENT)
        self.server.say(OK)
        waiting = begun(passage.begin, Envelope("3f2a.1", SENDER, (RECIPIENT,)))
        self.server.say(GO)
        sink = self.successResultOf(waiting)
        sink.write(b"Subject: x\r\n\r\n")
        begun(sink.finish)
        return self.server.hear()


class RoleTests(ProxyCase):
    """What it is, and what it offers."""

    def test_interfaces(self) -> None:
        """It takes part in transactions, relays, and looks at who comes."""
        for interface in (ITransactionProcessor, IRelayingProcessor, IExtensionSupport, ISessionPolicy):
            self.assertTrue(verifyObject(interface, self.proxy))

    def test_honours(self) -> None:
        """What the server offers, of what can be passed on; nothing before that is known."""
        self.proxy_to("PIPELINING", "DSN", "MT-PRIORITY", "8BITMIME")
        self.assertEqual((list(self.proxy.honours), len(self.proxy.honours)), ([], 0))
        self.opened()
        self.assertEqual(list(self.proxy.honours), ["DSN", "MT-PRIORITY"])
        self.assertEqual(len(self.proxy.honours), 2)
        self.assertIn("DSN", self.proxy.honours)
        for keyword in ("PIPELINING", "BINARYMIME", "dsn", None):
            self.assertNotIn(keyword, self.proxy.honours)
        self.assertLessEqual(set(self.proxy.honours), set(PASSED_ON))

    def test_ourselves(self) -> None:
        """A client that is one of our own connections is refused: the server behind us would be this one."""
        session = Session("1", Peer("192.0.2.25", 1234))
        for call in (self.proxy.connect, self.proxy.hello):
            self.assertIsNone(call(session))
        self.door.peer = session.peer
        for call in (self.proxy.connect, self.proxy.hello):
            self.assertIs(call(session), reply.MAIL_LOOP)


class ServiceTests(ProxyCase):
    """Its begin, and its end."""

    def test_start(self) -> None:
        """It finds out what the server offers, and keeps the connection for the first message."""
        self.proxy_to("DSN")
        self.proxy.startService()
        self.door.open()
        self.assertIn("DSN", self.proxy.honours)
        begun(self.proxy.open, SESSION, SENDER)
        self.assertEqual(self.door.asked, [])
        self.assertEqual(self.door.made[0].hear(), b"MAIL FROM:<a@a.example>\r\n")

    def test_start_without_a_server(self) -> None:
        """A server that does not answer then may do so later."""
        self.proxy.startService()
        self.door.fail(UpstreamFailed(reply.UPSTREAM_DOWN))
        self.clock.advance(1.0)
        self.opened()

    def test_stop(self) -> None:
        """Free connections take their leave; nothing is called any more."""
        self.proxy.startService()
        made = self.door.open()
        self.proxy.stopService()
        self.assertEqual(made.hear(), b"QUIT\r\n")
        made.say(b"221 Bye\r\n")
        self.clock.pump([1.0, 1.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_before_it_is_known(self) -> None:
        """What is asked about at the begin is not waited for."""
        self.proxy.startService()
        (asked,) = self.door.asked
        self.proxy.stopService()
        self.assertTrue(asked.called)
        self.clock.pump([1.0, 1.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_started(self) -> None:
        """One that never was started can be stopped."""
        self.proxy.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """One that has stopped asks nobody."""
        self.proxy.startService()
        self.door.open()
        self.proxy.stopService()
        self.failureResultOf(begun(self.proxy.open, SESSION, SENDER), UpstreamFailed)


class MessageTests(ProxyCase):
    """What is passed on."""

    def test_received(self) -> None:
        """A Received field stands on top, of now, and by our name."""
        message = message_from_bytes(self.passed())
        self.assertEqual(message.keys(), ["Received", "Subject"])
        field = message["Received"]
        self.assertIn("from client.example ([127.0.0.1]) by mx.example", " ".join(field.split()))
        self.assertEqual(parsedate_to_datetime(field.rpartition(";")[2]), datetime.fromtimestamp(1e9, UTC))

    def test_x_peer(self) -> None:
        """So does X-Peer below it, where it is wanted."""
        self.proxy_to("PIPELINING", x_peer=True)
        message = message_from_bytes(self.passed())
        self.assertEqual(message.keys(), ["Received", "X-Peer", "Subject"])
        self.assertEqual(message["X-Peer"], "127.0.0.1")

    def test_name(self) -> None:
        """The server is told the name that our clients know."""
        self.opened()
        self.assertEqual(self.door.hello_name, "mx.example")

    def test_forward_client(self) -> None:
        """It is told who the client is, where that is wanted."""
        self.proxy_to("XFORWARD ADDR", forward_client=True)
        begun(self.proxy.open, SESSION, SENDER)
        self.assertEqual(self.door.open().hear(), b"XFORWARD ADDR=127.0.0.1\r\n")

    def test_one_recipient(self) -> None:
        """One at a time where a message has an answer for each, and the client room for one."""
        lmtp = Session("1", Peer("127.0.0.1"), "LHLO", "client.example", hostname="mx.example")
        for speaks_lmtp, session, final, several in (
            (False, SESSION, False, True),
            (True, SESSION, False, False),
            (True, lmtp, False, True),
            (False, lmtp, False, True),
            (False, SESSION, True, False),
        ):
            self.proxy_to("PIPELINING", lmtp=speaks_lmtp, is_final=final)
            passage = self.opened(session)
            answers = []
            for _ in range(2):
                waiting = begun(passage.add_recipient, RECIPIENT)
                if self.server.hear():
                    self.server.say(OK)
                answers.append(self.successResultOf(waiting).accepted)
            self.assertEqual(answers, [True, several], (speaks_lmtp, session.greeting_verb, final))


class MakingTests(SynchronousTestCase):
    """``--processor=proxy:HOST:PORT``."""

    def test_arguments(self) -> None:
        """Those of a route, and its own."""
        proxy = make_proxy(Clock(), "mx.example", "2525", forward_client="yes", x_peer="yes", tls="none")
        self.assertEqual(str(proxy._route.pools[0].door), "mx.example:2525")
        self.assertTrue(proxy._manner.forward_client and proxy._x_peer)
        self.assertFalse(make_proxy(Clock())._manner.forward_client)

    def test_wrong(self) -> None:
        """What is wrong is told in a line."""
        for wrong, line in (
            ({"forward_client": "perhaps"}, "forward-client: 'perhaps' is not yes or no"),
            ({"x_peer": ""}, "x-peer: '' is not yes or no"),
            ({"colour": "red"}, "unknown argument 'colour'"),
            ({"port": "0"}, "port: '0' is not a whole number from 1 to 65535"),
        ):
            error = self.assertRaises(StartError, make_proxy, Clock(), "mx.example", **wrong)
            self.assertEqual(str(error), line)
