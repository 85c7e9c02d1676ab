"""Connections that a proxy hands on, over transports in memory."""

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpserv.server.limits import Limits
from smtpserv.server.proxied import DEADLINE, ProxiedFactory
from smtpserv.testing import RecordingProcessor
from smtpserv.transport import DirectServer
from tests.server_tools import DONE, HELLO, TRANSACTION, Policy, Server, Wire, codes
from tests.test_server_proxy_header import GOOD, block

PROXY = IPv4Address("TCP", "192.0.2.10", 40000)
HEADER = b"PROXY TCP4 198.51.100.7 192.0.2.2 56324 25\r\n"
HEADER6 = b"PROXY TCP6 2001:db8::7 2001:db8::2 56324 25\r\n"


@implementer(IHalfCloseableProtocol)
class Notes(Protocol):
    """Notes what happens to it; it closes at once if it is told to."""

    def __init__(self, address: IAddress | None, close: str = "") -> None:
        self.notes: list[object] = [address]
        self._close = close

    def connectionMade(self) -> None:
        self.notes.append("made")
        if self._close:
            getattr(self.transport, self._close)()

    def dataReceived(self, data: bytes) -> None:
        self.notes.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.notes.append("lost")

    def readConnectionLost(self) -> None:
        self.notes.append("half")

    def writeConnectionLost(self) -> None:
        self.notes.append("other half")


class Notebook(Factory):
    """Makes protocols that note what happens to them.

    :param close: what they do to their transport at once; ``refuse`` if none is to be made.
    """

    noisy = False

    def __init__(self, close: str = "") -> None:
        self.made: list[Notes] = []
        self._close = close

    def buildProtocol(self, addr: IAddress | None) -> Notes | None:
        if self._close == "refuse":
            return None
        self.made.append(Notes(addr, self._close))
        return self.made[-1]


class ProxiedTests(SynchronousTestCase):
    """A protocol meets the client, not the proxy."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, wrapped: Any, address: IAddress | None = PROXY) -> Wire:
        """A connection from a proxy."""
        self.factory = ProxiedFactory(wrapped, lambda host: host in ("192.0.2.10", ""), self.clock)
        protocol = self.factory.buildProtocol(address)
        assert protocol is not None
        wire = Wire(protocol, closes=True)
        protocol.makeConnection(wire)
        return wire

    def assertOver(self) -> None:
        """Nothing is waited for any more."""
        self.assertEqual((self.clock.getDelayedCalls(), dict(self.factory.protocols)), ([], {}))

    def test_address(self) -> None:
        """The protocol is made for the client's address; for the proxy's own if it is the client."""
        for header, peer in GOOD.items():
            book = Notebook()
            self.connect(book).protocol.dataReceived(header)
            expected: Any = PROXY
            if peer is not None:
                expected = (IPv6Address if ":" in peer.host else IPv4Address)("TCP", peer.host, peer.port)
            self.assertEqual([each.notes for each in book.made], [[expected, "made"]], header[:120])
            self.assertOver()

    def test_rest(self) -> None:
        """What follows the header comes after the connection is made, in the same segment or in the next."""
        address = IPv6Address("TCP", "2001:db8::7", 56324)
        for at in range(len(HEADER6) + 1):
            book = Notebook()
            wire = self.connect(book)
            for piece in (HEADER6[:at], HEADER6[at:] + b"EHLO", b" x\r\n"):
                if piece:
                    wire.protocol.dataReceived(piece)
            self.assertEqual(book.made[0].notes, [address, "made", b"EHLO", b" x\r\n"])
            wire.lose()
            self.assertEqual(book.made[0].notes[4:], ["lost"])

    def test_strangers(self) -> None:
        """Whoever is not trusted is closed before anything is read."""
        factory = ProxiedFactory(Notebook(), lambda host: host == "192.0.2.10", self.clock)
        addresses: list[Any] = [IPv4Address("TCP", "192.0.2.11", 1), IPv6Address("TCP", "::1", 1)]
        for address in (*addresses, UNIXAddress("/run/x"), UNIXAddress(None), None):
            self.assertIsNone(factory.buildProtocol(address))

    def test_unix(self) -> None:
        """A proxy on a Unix socket has no host, and may be trusted all the same."""
        book = Notebook()
        self.connect(book, UNIXAddress(None)).protocol.dataReceived(block(0x20, 0x00, b""))
        self.assertEqual(book.made[0].notes, [UNIXAddress(None), "made"])

    def test_garbage(self) -> None:
        """What is no header ends the connection without a word, and nobody hears of it."""
        for octets in (
            b"EHLO x\r\n",
            b"\x16\x03\x01",
            HEADER.replace(b"198", b"298"),
            HEADER[:-2] + bytes(107),
        ):
            for pieces in ([octets], [octets[at : at + 1] for at in range(len(octets))]):
                book = Notebook()
                wire = self.connect(book)
                for piece in pieces:
                    if wire.connected:
                        wire.protocol.dataReceived(piece)
                self.assertEqual((wire.aborted, wire.value(), book.made), (True, b"", []))
                self.assertOver()

    def test_silence(self) -> None:
        """A proxy that never comes to its point is cut off, however slowly it goes on."""
        for octets in (b"", b"P", HEADER[:-1]):
            book = Notebook()
            wire = self.connect(book)
            pieces = [octets[at : at + 1] for at in range(len(octets))]
            for piece in pieces:
                self.clock.advance(DEADLINE / 50)
                wire.protocol.dataReceived(piece)
            self.clock.advance(DEADLINE - len(pieces) * DEADLINE / 50 - 0.01)
            self.assertTrue(wire.connected)
            self.clock.advance(0.02)
            self.assertEqual((wire.aborted, wire.value(), book.made), (True, b"", []))
            self.assertOver()

    def test_cut(self) -> None:
        """A proxy that goes away has told nothing, and leaves nothing."""
        book = Notebook()
        wire = self.connect(book)
        wire.protocol.dataReceived(HEADER[:-1])
        wire.lose()
        self.assertEqual(book.made, [])
        self.assertOver()

    def test_no_deadline_after(self) -> None:
        """The client behind the header has all the time its protocol gives it."""
        wire = self.connect(Notebook())
        wire.protocol.dataReceived(HEADER)
        self.clock.advance(10 * DEADLINE)
        self.assertTrue(wire.connected)

    def test_refused(self) -> None:
        """A factory that wants no such client closes the connection."""
        wire = self.connect(Notebook("refuse"))
        wire.protocol.dataReceived(HEADER + b"EHLO x\r\n")
        self.assertTrue(wire.aborted)
        self.assertOver()

    def test_closed_at_once(self) -> None:
        """A protocol that closes the connection when it is made does not hear what is behind the header."""
        for close in ("loseConnection", "abortConnection"):
            book = Notebook(close)
            self.connect(book).protocol.dataReceived(HEADER + b"EHLO x\r\n")
            self.assertEqual(book.made[0].notes[1:], ["made", "lost"])

    def test_stops(self) -> None:
        """When the last port is closed, those that have not told for whom they come are cut; others stay."""
        book = Notebook()
        wires = [self.connect(book)]
        factory = self.factory
        for _ in range(2):
            protocol: Any = factory.buildProtocol(PROXY)
            wires.append(Wire(protocol, closes=True))
            protocol.makeConnection(wires[-1])
        wires[0].protocol.dataReceived(HEADER)
        factory.doStart()
        self.assertEqual(book.numPorts, 1)
        factory.doStop()
        self.assertEqual((book.numPorts, [wire.connected for wire in wires]), (0, [True, False, False]))
        self.assertOver()

    def test_session(self) -> None:
        """A whole session: greeting, limits and policies all meet the client."""
        processor, policy = RecordingProcessor(), Policy()
        server = Server(processor, [policy], limits=Limits(max_connections_per_address=1))
        wires = [self.connect(server.factory) for _ in range(3)]
        self.assertEqual([wire.value() for wire in wires], [b"", b"", b""])
        wires[0].protocol.dataReceived(HEADER + HELLO)
        wires[0].protocol.dataReceived(TRANSACTION)
        self.assertEqual(codes(wires[0].value()), ["220", "250", *DONE])
        self.assertEqual(processor.messages[0].session.peer.host, "198.51.100.7")
        self.assertEqual(policy.asked[0][1].peer.host, "198.51.100.7")
        wires[1].protocol.dataReceived(HEADER)
        self.assertEqual(codes(wires[1].value()), ["421 4.7.0"])
        wires[2].protocol.dataReceived(HEADER6)
        self.assertEqual(codes(wires[2].value()), ["220"])


class TransportTests(SynchronousTestCase):
    """Over a real TCP transport, whose socket is one of a pair."""

    def setUp(self) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.addCleanup(self.theirs.close)
        self.addCleanup(ours.close)
        self.book, self.reactor = Notebook(), MemoryReactorClock()
        protocol: Any = ProxiedFactory(self.book, lambda host: True, self.reactor).buildProtocol(PROXY)
        peer: Any = ("192.0.2.10", 40000)
        self.connection = DirectServer(None, ours, protocol, peer, None, 1, self.reactor)
        protocol.makeConnection(self.connection)

    def test_in_place(self) -> None:
        """The protocol has the transport itself, which reads for it and tells it of closing by halves."""
        self.theirs.sendall(HEADER + b"EHLO x\r\n")
        self.connection.doRead()
        (notes,) = self.book.made
        self.assertIs(notes.transport, self.connection)
        self.assertIs(self.connection.protocol, notes)
        self.theirs.sendall(b"QUIT\r\n")
        self.connection.doRead()
        self.theirs.shutdown(socket.SHUT_WR)
        self.connection.readConnectionLost(Failure(ConnectionDone()))
        self.assertEqual(notes.notes[1:], ["made", b"EHLO x\r\n", b"QUIT\r\n", "half"])
        self.connection.write(b"221 bye\r\n")
        self.assertEqual(self.theirs.recv(100), b"221 bye\r\n")

    def test_half_closed_before(self) -> None:
        """A proxy that closes its half before it has told anything is gone."""
        self.theirs.sendall(HEADER[:-1])
        self.connection.doRead()
        self.connection.readConnectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.book.made, self.connection.connected), ([], 0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
