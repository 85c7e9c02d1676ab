"""Listening, and sockets that are written to at once, with sockets and a reactor that only seem so."""

import errno
from typing import Any, cast

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
from smtpserv.server.listening import DirectServer, Listener, named
from tests.server_tools import captured_log


class Socket:
    """Takes what it is told to take.

    :param takes: for each ``send``, how many octets go, or the number of an error; afterwards all go.
    """

    def __init__(self, *takes: int | OSError) -> None:
        self._takes = iter(takes)
        self.sent = b""
        self.sends = 0

    def send(self, octets: bytes) -> int:
        self.sends += 1
        takes = next(self._takes, 1 << 30)
        if isinstance(takes, OSError):
            raise takes
        self.sent += bytes(octets[:takes])
        return min(takes, len(octets))

    def fileno(self) -> int:
        return -1

    def setblocking(self, blocking: bool) -> None:
        """It never blocks."""

    def getsockopt(self, *facts: int) -> int:
        return 0

    def shutdown(self, how: int) -> None:
        """It is no socket."""

    def close(self) -> None:
        """It is no socket."""


BUSY = OSError(errno.EWOULDBLOCK, "busy")


class Lines(Protocol):
    """Remembers why its connection was lost."""

    lost: Any = None

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason


class DirectServerTests(SynchronousTestCase):
    """What is written goes at once where it can, and in order always."""

    def make(self, *takes: int | OSError) -> tuple[DirectServer, Socket, MemoryReactorClock]:
        """A connection over a socket that takes what it is told to."""
        reactor, sock, protocol = MemoryReactorClock(), Socket(*takes), Lines()
        connection = DirectServer(cast(Any, sock), protocol, ("192.0.2.1", 2525), cast(Any, None), 1, reactor)
        protocol.makeConnection(connection)
        return connection, sock, reactor

    def test_at_once(self) -> None:
        """What the kernel takes is sent before ``write`` returns, and the reactor has nothing to do."""
        connection, sock, reactor = self.make()
        connection.write(b"250 Ok\r\n")
        self.assertEqual((sock.sent, sock.sends, reactor.getWriters()), (b"250 Ok\r\n", 1, []))

    def test_nothing(self) -> None:
        """Nothing is nothing."""
        connection, sock, reactor = self.make()
        connection.write(b"")
        self.assertEqual((sock.sent, reactor.getWriters()), (b"", []))

    def test_part(self) -> None:
        """What the kernel does not take is queued, and goes when the reactor says so."""
        connection, sock, reactor = self.make(3)
        connection.write(b"250 Ok\r\n")
        self.assertEqual((sock.sent, reactor.getWriters()), (b"250", [connection]))
        connection.doWrite()
        self.assertEqual((sock.sent, reactor.getWriters()), (b"250 Ok\r\n", []))

    def test_busy(self) -> None:
        """A socket that would block takes nothing, and all is queued."""
        connection, sock, _ = self.make(BUSY)
        connection.write(b"250 Ok\r\n")
        self.assertEqual(sock.sent, b"")
        connection.doWrite()
        self.assertEqual(sock.sent, b"250 Ok\r\n")

    def test_no_overtaking(self) -> None:
        """While something is queued, nothing written later is sent before it."""
        for takes in ((3,), (BUSY,), (3, BUSY, 4, BUSY, 1), (1, 1, 1, 1, 1)):
            connection, sock, reactor = self.make(*takes)
            for number in range(10):
                connection.write(b"%d0 reply\r\n" % number)
                if number % 3 == 2 and reactor.getWriters():
                    connection.doWrite()
            while reactor.getWriters():
                connection.doWrite()
            self.assertEqual(sock.sent, b"".join(b"%d0 reply\r\n" % number for number in range(10)), takes)

    def test_direct_again(self) -> None:
        """When the queue is empty, what is written goes at once again."""
        connection, sock, reactor = self.make(3)
        connection.write(b"first\r\n")
        connection.doWrite()
        connection.write(b"second\r\n")
        self.assertEqual((sock.sent, reactor.getWriters()), (b"first\r\nsecond\r\n", []))

    def test_sequence_keeps_its_place(self) -> None:
        """``writeSequence`` and ``write`` keep their order as well."""
        connection, sock, reactor = self.make(BUSY)
        connection.writeSequence([b"a", b"b"])
        connection.write(b"c")
        while reactor.getWriters():
            connection.doWrite()
        self.assertEqual(sock.sent, b"abc")

    def test_larger_than_a_send(self) -> None:
        """What is larger than Twisted sends at a time goes whole."""
        connection, sock, reactor = self.make()
        octets = bytes(range(256)) * 4000
        connection.write(octets)
        while reactor.getWriters():
            connection.doWrite()
        self.assertEqual(sock.sent, octets)

    def test_error(self) -> None:
        """A broken socket does not raise: the reactor meets the error and tells the protocol in its turn."""
        broken = OSError(errno.EPIPE, "gone")
        connection, sock, reactor = self.make(broken, broken)
        connection.write(b"250 Ok\r\n")
        self.assertEqual((sock.sent, reactor.getWriters()), (b"", [connection]))
        self.assertIsInstance(connection.doWrite(), Exception)

    def test_closing(self) -> None:
        """What is queued goes before the connection is closed; what is written after is not sent."""
        connection, sock, _ = self.make(3)
        connection.write(b"221 bye\r\n")
        connection.loseConnection()
        connection.write(b"more")
        connection.doWrite()
        self.assertEqual(sock.sent[:9], b"221 bye\r\n")

    def test_lost(self) -> None:
        """A connection that is lost takes nothing, and raises nothing."""
        connection, sock, _ = self.make()
        connection.connected = 0
        connection.write(b"250 Ok\r\n")
        self.assertEqual((sock.sent, sock.sends), (b"", 0))


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
        return Listener(description, serverFromString(reactor, description), factory), reactor, factory

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
        """The log says in a line where it listens."""
        log = captured_log(self)
        self.make()[0].startService()
        (event,) = [event for event in log if "description" in event]
        self.assertEqual(event["description"], "tcp:8025:interface=127.0.0.1")

    def test_stops(self) -> None:
        """Stopping closes the port, once, and it may be started again."""
        for closed in (None, succeed(None)):
            port = Port(closed)
            endpoint = Endpoint(succeed(port), succeed(port))
            listener = Listener("x", endpoint, Factory())
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
        listener = Listener("x", Endpoint(succeed(Port(closing))), Factory())
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
        listener = Listener("tcp:8025", Endpoint(fail(taken)), Factory())
        error = self.assertRaises(StartError, listener.privilegedStartService)
        self.assertTrue(str(error).startswith("--listen=tcp:8025: "))
        self.assertIn("Address already in use", str(error))
        self.assertNotIn("\n", str(error))

    def test_tcp_ports_send_at_once(self) -> None:
        """A TCP port makes connections that write straight to their socket; others are left alone."""
        kinds: list[tuple[Any, Any]] = [(tcp.Server, DirectServer), (tcp.Client, tcp.Client)]
        for kind, expected in kinds:
            port = tcp.Port(8025, Factory(), reactor=MemoryReactorClock())
            port.transport = kind
            self.patch(port, "getHost", lambda: "somewhere")
            Listener("x", Endpoint(succeed(port)), Factory()).startService()
            self.assertIs(port.transport, expected)

    def test_slow_endpoint_is_asked_once(self) -> None:
        """An endpoint that takes its time is not asked to listen a second time in the meantime."""
        endpoint = Endpoint(Deferred(), Deferred())
        listener = Listener("x", endpoint, Factory())
        listener.privilegedStartService()
        listener.startService()
        self.assertEqual(endpoint.asked, 1)

    def test_slow_endpoint_that_fails(self) -> None:
        """One that fails later is not passed over in silence."""
        log = captured_log(self)
        answer: Deferred[Any] = Deferred()
        listener = Listener("tcp:8025", Endpoint(answer), Factory())
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
        listener, port = Listener("x", Endpoint(answer), Factory()), Port()
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
