"""Listening, with a reactor that only seems one."""

from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpserv.error import StartError
from smtpserv.server import listening
from smtpserv.server.listening import Listener, named
from tests.server_tools import captured_log


@implementer(IStreamServerEndpoint)
class Endpoint:
    """An endpoint that answers as it is told to."""

    def __init__(self, *answers: "Deferred[Any]") -> None:
        self._answers = answers
        self.asked = 0

    def listen(self, factory: Any) -> "Deferred[Any]":
        self.asked += 1
        return self._answers[self.asked - 1]


class Port:
    """A port that is open or closed.

    :param closing: what ``stopListening`` answers.
    """

    def __init__(self, closing: "Deferred[None] | None" = None) -> None:
        self.stopped = 0
        self._closing = closing

    def getHost(self) -> str:
        return "somewhere"

    def stopListening(self) -> "Deferred[None] | None":
        self.stopped += 1
        return self._closing


class ListenerTests(SynchronousTestCase):
    """A listener's life."""

    def make(
        self, description: str = "tcp:8025:interface=127.0.0.1"
    ) -> tuple[Listener, MemoryReactorClock, Any]:
        """One on a reactor that only remembers."""
        reactor, factory = MemoryReactorClock(), Factory.forProtocol(Protocol)
        return (
            Listener("listen", description, serverFromString(reactor, description), factory),
            reactor,
            factory,
        )

    def test_binds_early(self) -> None:
        """It binds while there are still privileges, and not again when they are gone."""
        listener, reactor, factory = self.make()
        listener.privilegedStartService()
        self.assertEqual(reactor.tcpServers, [(8025, factory, 50, "127.0.0.1")])
        listener.startService()
        self.assertEqual(len(reactor.tcpServers), 1)

    def test_binds_late(self) -> None:
        """Where there is no privileged start, it binds all the same."""
        listener, reactor, _ = self.make()
        listener.startService()
        self.assertEqual((len(reactor.tcpServers), listener.running), (1, 1))

    def test_unix(self) -> None:
        """Any endpoint will do."""
        listener, reactor, factory = self.make("unix:/run/smtp.sock")
        listener.startService()
        self.assertEqual([server[:2] for server in reactor.unixServers], [("/run/smtp.sock", factory)])

    def test_says_where(self) -> None:
        """The log says in a line where it listens, when privileges are shed and mail is taken."""
        log = captured_log(self)
        listener = self.make()[0]
        listener.privilegedStartService()
        self.assertFalse([event for event in log if "description" in event])
        listener.startService()
        (event,) = [event for event in log if "description" in event]
        self.assertEqual(event["description"], "tcp:8025:interface=127.0.0.1")

    def test_stops(self) -> None:
        """Stopping closes the port, once, and it may be started again."""
        for closed in (None, succeed(None)):
            port = Port(closed)
            endpoint = Endpoint(succeed(port), succeed(port))
            listener = Listener("listen", "x", endpoint, Factory())
            listener.startService()
            for _ in range(2):
                stopped = listener.stopService()
                if stopped is not None:
                    self.successResultOf(stopped)
            self.assertEqual((port.stopped, listener.running), (1, 0))
            listener.startService()
            self.assertEqual(endpoint.asked, 2)

    def test_stops_when_the_port_is_closed(self) -> None:
        """Stopping takes as long as the port takes."""
        closing: Deferred[None] = Deferred()
        listener = Listener("listen", "x", Endpoint(succeed(Port(closing))), Factory())
        listener.startService()
        stopped = listener.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        closing.callback(None)
        self.successResultOf(stopped)

    def test_never_started(self) -> None:
        """One that never listened has nothing to close."""
        self.assertIsNone(self.make()[0].stopService())

    def test_taken(self) -> None:
        """A port that is taken ends the start, with a line that names the option and the reason."""
        taken = CannotListenError("127.0.0.1", 8025, OSError(98, "Address already in use"))
        listener = Listener("listen", "tcp:8025", Endpoint(fail(taken)), Factory())
        error = self.assertRaises(StartError, listener.privilegedStartService)
        self.assertTrue(str(error).startswith("--listen=tcp:8025: "))
        self.assertIn("Address already in use", str(error))
        self.assertNotIn("\n", str(error))

    def test_tcp_ports_are_direct(self) -> None:
        """A TCP port makes direct connections; others are left alone."""
        made: list[object] = []
        self.patch(listening, "make_direct", made.append)
        for kind in (tcp.Server, tcp.Client):
            port = tcp.Port(8025, Factory(), reactor=MemoryReactorClock())
            port.transport = kind  # type: ignore[assignment]
            self.patch(port, "getHost", lambda: "somewhere")
            Listener("listen", "x", Endpoint(succeed(port)), Factory()).startService()
            self.assertEqual(len(made), 1)

    def test_slow_endpoint_is_asked_once(self) -> None:
        """An endpoint that takes its time is not asked to listen a second time in the meantime."""
        endpoint = Endpoint(Deferred(), Deferred())
        listener = Listener("listen", "x", endpoint, Factory())
        listener.privilegedStartService()
        listener.startService()
        self.assertEqual(endpoint.asked, 1)

    def test_slow_endpoint_that_fails(self) -> None:
        """One that fails later is not passed over in silence."""
        log = captured_log(self)
        answer: Deferred[Any] = Deferred()
        listener = Listener("listen", "tcp:8025", Endpoint(answer), Factory())
        listener.privilegedStartService()
        answer.errback(CannotListenError("127.0.0.1", 8025, OSError(98, "Address already in use")))
        self.flushLoggedErrors()
        self.assertTrue(
            [
                event
                for event in log
                if "log_failure" in event or event["log_level"].name in ("error", "critical")
            ]
        )

    def test_slow_endpoint_that_is_stopped(self) -> None:
        """One that listens only when the server has stopped is closed again."""
        answer: Deferred[Any] = Deferred()
        listener, port = Listener("listen", "x", Endpoint(answer), Factory()), Port()
        listener.startService()
        listener.stopService()
        answer.callback(port)
        self.assertEqual(port.stopped, 1)


class NamedTests(SynchronousTestCase):
    """How the log writes where it listens."""

    def test_kinds(self) -> None:
        """An address reads as an operator would write it."""
        self.assertEqual(named(IPv4Address("TCP", "127.0.0.1", 25)), "127.0.0.1:25")
        self.assertEqual(named(IPv6Address("TCP", "::1", 25)), "[::1]:25")
        self.assertEqual(named(UNIXAddress(b"/run/smtp.sock")), "/run/smtp.sock")
