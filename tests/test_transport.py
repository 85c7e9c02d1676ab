"""Connections that are read and written without ceremony, over sockets and a reactor that only seem so."""

import errno
import socket
import sys
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError, TimeoutError
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTCP
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpserv import transport
from smtpserv.transport import (
    AT_ONCE,
    ENOUGH,
    DirectClient,
    DirectServer,
    Readers,
    direct_reactor,
    make_direct,
)


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
        connection = DirectServer(None, sock, protocol, ("192.0.2.1", 2525), None, 1, reactor)
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

    def test_cut(self) -> None:
        """A connection that is cut sends nothing more."""
        connection, sock, _ = self.make()
        connection.abortConnection()
        connection.write(b"250 Ok\r\n")
        self.assertEqual((sock.sent, sock.sends), (b"", 0))

    def test_tls(self) -> None:
        """Once TLS has begun nothing goes out in clear."""
        connection, sock, _ = self.make()
        connection.startTLS(CertificateOptions())
        connection.write(b"250 Ok\r\n")
        self.assertEqual((sock.sent, sock.sends), (b"", 0))

    def test_lost(self) -> None:
        """A connection that is lost takes nothing, and raises nothing."""
        connection, sock, _ = self.make()
        connection.connectionLost(Failure(ConnectionDone()))
        connection.write(b"250 Ok\r\n")
        self.assertEqual((sock.sent, sock.sends), (b"", 0))


@implementer(IHalfCloseableProtocol)
class Listening(Protocol):
    """Notes what it is told.

    :param answer: called with what is received.
    """

    def __init__(self, answer: Any = None) -> None:
        self.heard: list[Any] = []
        self._answer = answer

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)
        if self._answer is not None:
            self._answer()

    def readConnectionLost(self) -> None:
        self.heard.append("half")

    def writeConnectionLost(self) -> None:
        """Never."""

    def connectionLost(self, reason: Any = None) -> None:
        self.heard.append(reason.type)


class ReadersTests(SynchronousTestCase):
    """Many connections, one reader of the reactor; the sockets are real, and come in pairs."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.readers = Readers(self.reactor, self.reactor.seconds)

    def connect(self, answer: Any = None) -> tuple[socket.socket, DirectServer, Listening]:
        """A client's socket, the connection at the other end, and who hears it."""
        near, far = socket.socketpair()
        far.setblocking(False)
        self.addCleanup(near.close)
        protocol = Listening(answer)
        connection = DirectServer(self.readers, far, protocol, ("192.0.2.1", 2525), None, 1, self.reactor)
        protocol.makeConnection(connection)
        self.addCleanup(connection.connectionLost, Failure(ConnectionDone()))
        return near, connection, protocol

    def test_reads_those_that_wait(self) -> None:
        """Each is read when there is something to be read, and no other."""
        clients = [self.connect() for _ in range(3)]
        clients[0][0].send(b"one")
        clients[2][0].send(b"two")
        self.readers.doRead()
        self.assertEqual([protocol.heard for _, _, protocol in clients], [[b"one"], [], [b"two"]])

    def test_reader_while_there_is_need(self) -> None:
        """The reactor has one reader for all, and none when none waits."""
        self.assertEqual(self.reactor.getReaders(), [])
        connections = [self.connect()[1] for _ in range(3)]
        self.assertEqual(self.reactor.getReaders(), [self.readers])
        for connection in connections:
            connection.pauseProducing()
            connection.pauseProducing()
        self.assertEqual(self.reactor.getReaders(), [])
        connections[1].resumeProducing()
        connections[1].resumeProducing()
        self.assertEqual(self.reactor.getReaders(), [self.readers])

    def test_paused(self) -> None:
        """One that is paused is not read, and is read again when it resumes."""
        client, connection, protocol = self.connect()
        self.connect()
        connection.pauseProducing()
        client.send(b"one")
        self.readers.doRead()
        self.assertEqual(protocol.heard, [])
        connection.resumeProducing()
        self.readers.doRead()
        self.assertEqual(protocol.heard, [b"one"])

    def test_half_closed(self) -> None:
        """A client that closes its half is told of as a reactor would, and read no more."""
        client, _, protocol = self.connect()
        client.shutdown(socket.SHUT_WR)
        self.readers.doRead()
        self.readers.doRead()
        self.assertEqual((protocol.heard, self.reactor.getReaders()), (["half"], []))

    def test_reset(self) -> None:
        """One whose connection broke is told so, once."""
        _, connection, protocol = self.connect()
        self.patch(connection, "doRead", lambda: ConnectionLost())
        self.connect()[0].close()
        cast(Any, self.readers)._epoll.modify(connection.fileno(), 4)  # EPOLLOUT: it is always ready
        self.readers.doRead()
        self.assertEqual(protocol.heard, [ConnectionLost])

    def test_failure(self) -> None:
        """A protocol that raises loses its connection, whatever it is; the others are read all the same."""
        for kind in (ZeroDivisionError, SystemExit):

            def fail(kind: type[BaseException] = kind) -> None:
                raise kind

            clients = [self.connect(answer) for answer in (None, fail, None)]
            for client, _, _ in clients:
                client.send(b"one")
            self.readers.doRead()
            self.assertEqual(
                [protocol.heard for _, _, protocol in clients], [[b"one"], [b"one", kind], [b"one"]]
            )
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_ended_by_another(self) -> None:
        """One that another ended in the same turn is not read any more."""
        clients: list[Any] = []

        def end_all() -> None:
            for _, connection, _ in clients:
                connection.connectionLost(Failure(ConnectionDone()))

        clients += [self.connect(end_all) for _ in range(3)]
        for client, _, _ in clients:
            client.send(b"one")
        self.readers.doRead()
        heard = [protocol.heard for _, _, protocol in clients]
        self.assertEqual(sorted(map(len, heard)), [1, 1, 2])
        self.assertEqual(self.reactor.getReaders(), [])

    def test_many(self) -> None:
        """More than are read in the time of one turn have theirs in the next."""
        clients = [self.connect(lambda: self.reactor.advance(ENOUGH / AT_ONCE)) for _ in range(AT_ONCE + 5)]
        for client, _, _ in clients:
            client.send(b"one")
        self.readers.doRead()
        self.assertEqual(sum(protocol.heard == [b"one"] for _, _, protocol in clients), AT_ONCE)
        self.readers.doRead()
        self.assertEqual(sum(protocol.heard == [b"one"] for _, _, protocol in clients), AT_ONCE + 5)

    def test_answered_in_time(self) -> None:
        """What comes while others are read is read in the same turn, while there is time."""
        clients: list[Any] = []
        clients += [self.connect(lambda: clients[1][0].send(b"two")), self.connect()]
        clients[0][0].send(b"one")
        self.readers.doRead()
        self.assertEqual(clients[1][2].heard, [b"two"])

    def test_reactor_stops(self) -> None:
        """When the reactor lets go of its readers, all connections end."""
        clients = [self.connect() for _ in range(3)]
        self.readers.connectionLost(Failure(ConnectionLost()))
        self.assertEqual([protocol.heard for _, _, protocol in clients], [[ConnectionLost]] * 3)

    def test_port(self) -> None:
        """A port's connections share one reader; without epoll the reactor reads each."""
        port = tcp.Port(8025, Factory(), reactor=self.reactor)
        make_direct(port)
        for _ in range(2):
            near, far = socket.socketpair()
            self.addCleanup(near.close)
            connection = port.transport(far, Listening(), ("192.0.2.1", 2525), port, 1, self.reactor)
            self.addCleanup(connection.connectionLost, Failure(ConnectionDone()))
        self.assertIsInstance(connection, DirectServer)
        self.assertEqual(len(self.reactor.getReaders()), 1)

    def test_closed_at_the_end_of_the_turn(self) -> None:
        """What a protocol closes while it is read is gone when the turn is, with all that was written."""
        clients: list[Any] = []

        def close() -> None:
            clients[0][1].write(b"221\r\n")
            clients[0][1].loseConnection()
            clients[0][1].loseConnection()
            clients[0][1].write(b"more\r\n")
            self.assertNotIn(ConnectionDone, clients[0][2].heard)

        clients.append(self.connect(close))
        clients[0][0].send(b"QUIT\r\n")
        self.readers.doRead()
        self.assertEqual(clients[0][2].heard, [b"QUIT\r\n", ConnectionDone])
        self.assertEqual((clients[0][0].recv(100), clients[0][0].recv(100)), (b"221\r\n", b""))
        self.assertEqual((self.reactor.getReaders(), self.reactor.getWriters()), ([], []))

    def test_closed_while_something_is_queued(self) -> None:
        """What is queued goes first, as the reactor lets it."""
        clients: list[Any] = []

        def close() -> None:
            clients[0][1].write(b"x" * 5_000_000)
            clients[0][1].loseConnection()

        clients.append(self.connect(close))
        clients[0][0].send(b"QUIT\r\n")
        self.readers.doRead()
        self.assertEqual((clients[0][2].heard, self.reactor.getWriters()), ([b"QUIT\r\n"], [clients[0][1]]))

    def test_closed_between_turns(self) -> None:
        """What a timer closes the reactor closes, as it always does."""
        _, connection, protocol = self.connect()
        connection.loseConnection()
        self.assertEqual((protocol.heard, self.reactor.getWriters()), ([], [connection]))


class Calling(ClientFactory):
    """Makes one protocol, and notes why there is no connection."""

    noisy = False

    def __init__(self) -> None:
        self.protocol = Listening()  # type: ignore[assignment]
        self.failed: Any = None

    def buildProtocol(self, addr: Any) -> Any:
        return self.protocol

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failed = reason.type


class DirectClientTests(SynchronousTestCase):
    """Connections that we make, through a reactor that makes such connections; the sockets are real."""

    def setUp(self) -> None:
        self.patch(transport, "PosixReactorBase", MemoryReactorClock)
        self.reactor: Any = MemoryReactorClock()
        self.direct = direct_reactor(self.reactor)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)

    def call(self, port: int = 0, timeout: float = 30.0) -> tuple[Calling, Any]:
        """Connect to the listener, or to another port."""
        factory = Calling()
        port = port or self.listener.getsockname()[1]
        connector = self.direct.connectTCP("127.0.0.1", port, factory, timeout)
        self.addCleanup(connector.disconnect)
        self.reactor.advance(0)
        for writer in self.reactor.getWriters():
            writer.doWrite()
        return factory, connector

    def connect(self) -> tuple[socket.socket, DirectClient, Listening]:
        """The server's socket, our connection, and who hears it."""
        factory, _ = self.call()
        far, _ = self.listener.accept()
        far.settimeout(5.0)
        self.addCleanup(far.close)
        protocol = cast(Any, factory.protocol)
        self.assertIsInstance(protocol.transport, DirectClient)
        return far, protocol.transport, protocol

    def test_others_stay_as_they_are(self) -> None:
        """A reactor of no real sockets is left alone."""
        self.patch(transport, "PosixReactorBase", tcp.Port)
        self.assertIs(direct_reactor(self.reactor), self.reactor)

    def test_is_the_reactor(self) -> None:
        """All else is the reactor's own."""
        self.assertEqual(self.direct.seconds(), self.reactor.seconds())
        self.assertTrue(IReactorTCP.providedBy(self.direct))
        self.assertRaises(AttributeError, getattr, self.direct, "nothing")

    def test_written_at_once(self) -> None:
        """What is written goes straight to the socket."""
        far, connection, _ = self.connect()
        connection.write(b"EHLO\r\n")
        self.assertEqual(far.recv(100), b"EHLO\r\n")
        self.assertEqual(self.reactor.getWriters(), [])

    def test_one_reader(self) -> None:
        """All of them are one reader of the reactor, and each hears what is its own."""
        connections = [self.connect() for _ in range(3)]
        (readers,) = self.reactor.getReaders()
        self.assertIsInstance(readers, Readers)
        connections[1][0].send(b"220\r\n")
        readers.doRead()
        self.assertEqual([protocol.heard for _, _, protocol in connections], [[], [b"220\r\n"], []])

    def test_closed_by_us(self) -> None:
        """What is closed while it is read is gone when the turn is, and the reader with the last."""
        far, connection, protocol = self.connect()
        (readers,) = self.reactor.getReaders()
        protocol._answer = connection.loseConnection
        far.send(b"221\r\n")
        readers.doRead()
        self.assertEqual(protocol.heard, [b"221\r\n", ConnectionDone])
        self.assertEqual((far.recv(100), self.reactor.getReaders()), (b"", []))

    def test_lost(self) -> None:
        """A server that is gone is heard of."""
        far, _, protocol = self.connect()
        (readers,) = self.reactor.getReaders()
        linger = (1).to_bytes(4, sys.byteorder) + bytes(4)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        far.close()
        readers.doRead()
        self.assertEqual((protocol.heard, self.reactor.getReaders()), ([ConnectionLost], []))

    def test_failed(self) -> None:
        """One that could not be made leaves nothing behind, and its descriptor is another's at once."""
        closed = socket.create_server(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        closed.close()
        factory, _ = self.call(port)
        self.assertIs(factory.failed, ConnectionRefusedError)
        self.assertEqual((self.reactor.getReaders(), self.reactor.getWriters()), ([], []))
        far, _, protocol = self.connect()
        far.send(b"220\r\n")
        self.reactor.getReaders()[0].doRead()
        self.assertEqual(protocol.heard, [b"220\r\n"])

    def test_given_up(self) -> None:
        """Neither does one that was given up on the way."""
        # A listener whose queue is full answers nobody: the connection stays on its way.
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queue = [socket.socket() for _ in range(3)]
        for each in queue:
            self.addCleanup(each.close)
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        factory, _ = self.call(listener.getsockname()[1], timeout=7.0)
        self.reactor.advance(7.0)
        self.assertIs(factory.failed, TimeoutError)
        self.assertEqual((self.reactor.getReaders(), self.reactor.getWriters()), ([], []))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        far, _, protocol = self.connect()
        far.send(b"220\r\n")
        self.reactor.getReaders()[0].doRead()
        self.assertEqual(protocol.heard, [b"220\r\n"])

    def test_without_epoll(self) -> None:
        """Where there is no epoll the reactor reads each."""
        self.patch(transport, "select", object())
        self.direct = direct_reactor(self.reactor)
        _, connection, _ = self.connect()
        self.assertEqual(self.reactor.getReaders(), [connection])
