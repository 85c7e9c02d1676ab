"""Endpoints, and what connections go through behind them."""

import contextlib
import importlib
import os
import sys
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.error import StartError
from smtpserv.server.endpoint import Entrance
from smtpserv.testing import RecordingProcessor
from tests.certificates import client_context, make_pair
from tests.server_tools import DONE, HELLO, TRANSACTION, Server, Wire, codes

PROXY = IPv4Address("TCP", "192.0.2.10", 40000)
HEADER = b"PROXY TCP4 198.51.100.7 192.0.2.2 56324 25\r\n"


class Case(SynchronousTestCase):
    """A reactor that only remembers, and a certificate in a file."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.pair = make_pair("mx.example")
        self.path = self.write("mail.pem", self.pair.pem)
        self.factory: Any = Factory.forProtocol(Protocol)

    def write(self, name: str, octets: bytes) -> str:
        """A file in a folder of its own, whose name holds a colon."""
        folder = self.mktemp()
        os.mkdir(folder)
        path = os.path.join(folder, f"a:{name}")
        with open(path, "wb") as file:
            file.write(octets)
        return path

    def entrance(self, tls_path: str = "", client_ca: str = "") -> Entrance:
        """One that trusts a proxy."""
        return Entrance(self.reactor, lambda host: host == PROXY.host, tls_path, client_ca)

    def listen(self, description: str, tls_path: str = "") -> tuple[int, Any, str]:
        """Listen; the port, the factory that connections meet first, and the interface."""
        self.successResultOf(self.entrance(tls_path).endpoint(description).listen(self.factory))
        port, factory, _, interface = self.reactor.tcpServers[-1]
        return port, factory, interface


class EndpointTests(Case):
    """What an operator may write."""

    def test_plain(self) -> None:
        """What is Twisted's is Twisted's."""
        self.assertEqual(self.listen("tcp:8025:interface=127.0.0.1"), (8025, self.factory, "127.0.0.1"))
        self.assertEqual(self.listen("tcp:8025"), (8025, self.factory, ""))

    def test_tls(self) -> None:
        """``tls:`` takes a path and what ``tcp:`` takes; without a path it has that of ``--tls``."""
        path = self.path.replace(":", "\\:")
        for description, tls_path, expected in (
            (f"tls:8465:path={path}:interface=127.0.0.1", "", (8465, "127.0.0.1")),
            (f"tls:8465:interface=\\:\\:1:path={path}:backlog=10", "/nowhere", (8465, "::1")),
            ("tls:8465", self.path, (8465, "")),
            ("tls:8465:interface=127.0.0.1", self.path, (8465, "127.0.0.1")),
            (f"tls:{path}:8465", "", (8465, "::")),
            (f"tls:{path}:8465:interface=127.0.0.1", "", (8465, "127.0.0.1")),
        ):
            port, factory, interface = self.listen(description, tls_path)
            self.assertEqual((port, interface), expected, description)
            self.assertIs(factory.wrappedFactory, self.factory)

    def test_layers(self) -> None:
        """The PROXY header comes first, then TLS, then the mail."""
        _, factory, _ = self.listen("haproxy:tls:8465", self.path)
        names = [type(factory).__name__, type(factory.wrappedFactory).__name__]
        self.assertEqual(names, ["ProxiedFactory", "TLSMemoryBIOFactory"])
        self.assertIs(factory.wrappedFactory.wrappedFactory, self.factory)
        port, factory, interface = self.listen("haproxy:tcp:8025:interface=127.0.0.1")
        self.assertEqual((port, interface), (8025, "127.0.0.1"))
        self.assertIs(factory.wrappedFactory, self.factory)

    def test_shared(self) -> None:
        """Certificates of one path are read once, for listeners and STARTTLS alike."""
        entrance = self.entrance(self.path)
        self.assertIs(entrance.certificates(self.path), entrance.certificates(self.path))

    def test_wrong(self) -> None:
        """What can't be is said in a line that names the option."""
        cut = self.write("cut.pem", self.pair.certificate_pem)
        escaped = cut.replace(":", "\\:")
        for description, reason in (
            ("tls:8465", "tls: without path= needs --tls"),
            (f"tls:8465:path={escaped}", f"{cut}: holds no private key"),
            (f"haproxy:tls:8465:path={escaped}", f"{cut}: holds no private key"),
            ("tls:8465:path=/no\\:where.pem", "/no:where.pem: No such file or directory"),
            ("haproxy:ssl:8465:privateKey=x", "haproxy: goes with tls:, not with ssl:"),
        ):
            error = self.assertRaises(StartError, self.entrance().endpoint, description)
            self.assertEqual(str(error), f"--listen={description}: {reason}")
        for description in (
            "nonsense:1",
            "tcp:x",
            "tcp:25:path=/x",
            f"tls:8465:x=y:path={escaped}",
            "tls:",
            "",
        ):
            error = self.assertRaises(StartError, self.entrance().endpoint, description)
            self.assertTrue(str(error).startswith(f"--listen={description}: "), error)

    def test_nobody_trusted(self) -> None:
        """Without a trusted proxy ``haproxy:`` would refuse everybody, in silence: it says so at once."""
        error = self.assertRaises(StartError, Entrance(self.reactor).endpoint, "haproxy:tcp:8025")
        self.assertEqual(str(error), "--listen=haproxy:tcp:8025: haproxy: needs --trust-proxy")

    def test_missing_library(self) -> None:
        """Without pyOpenSSL there is no TLS, and a line says what to do."""
        modules: dict[str, Any] = sys.modules
        self.addCleanup(modules.update, {"smtpserv.tls": importlib.import_module("smtpserv.tls")})
        modules["smtpserv.tls"] = None
        error = self.assertRaises(StartError, self.entrance().certificates, self.path)
        self.assertIn("pip install 'Twisted[tls]'", str(error))


class TCPWire(Wire):
    """A wire that can be told not to delay."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It never does."""


class SessionTests(Case):
    """Mail through all the layers."""

    def setUp(self) -> None:
        super().setUp()
        self.processor = RecordingProcessor()
        self.server = Server(self.processor)
        self.factory = self.server.factory

    def connect(self, factory: Any) -> Wire:
        """A connection from the proxy."""
        protocol = factory.buildProtocol(PROXY)
        wire = TCPWire(protocol, closes=True)
        protocol.makeConnection(wire)
        return wire

    def deliver(self, wire: Wire, piece: int) -> None:
        """What the proxy sends, in pieces of so many octets."""
        self.client = SSL.Connection(client_context())
        self.client.set_connect_state()
        self.client.set_alpn_protos([b"smtp"])
        self.hand(wire, HEADER, piece)
        self.heard = b""
        for octets in (b"", HELLO, TRANSACTION):
            for _ in range(4):
                self.exchange(wire, piece)
            if octets:
                self.client.send(octets)
        for _ in range(4):
            self.exchange(wire, piece)

    def exchange(self, wire: Wire, piece: int) -> None:
        """Bring to either end what the other has said."""
        with contextlib.suppress(SSL.WantReadError):
            self.heard += self.client.recv(10000)
        with contextlib.suppress(SSL.WantReadError):
            self.hand(wire, self.client.bio_read(1 << 16), piece)
        self.reactor.advance(0)
        self.server.clock.advance(0)
        said = wire.value()
        wire.clear()
        if said:
            self.client.bio_write(said)

    def hand(self, wire: Wire, octets: bytes, piece: int) -> None:
        """Give octets to whoever is the transport's protocol by then."""
        for at in range(0, len(octets), piece):
            wire.protocol.dataReceived(octets[at : at + piece])

    def test_proxy_tls_smtp(self) -> None:
        """A client's session in TLS, behind a proxy's header in clear, in segments of any size."""
        _, factory, _ = self.listen("haproxy:tls:8465", self.path)
        for piece in (1, 7, 64, 10000):
            self.deliver(self.connect(factory), piece)
            self.assertEqual(codes(self.heard), ["220", "250", *DONE])
            session = self.processor.messages.pop().session
            self.assertEqual((session.peer.host, session.peer.port), ("198.51.100.7", 56324))

    def test_one_segment(self) -> None:
        """The header and the beginning of TLS may come in one segment."""
        _, factory, _ = self.listen("haproxy:tls:8465", self.path)
        wire = self.connect(factory)
        client = SSL.Connection(client_context())
        client.set_connect_state()
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        wire.protocol.dataReceived(HEADER + client.bio_read(10000))
        client.bio_write(wire.value())
        client.do_handshake()
        certificate = client.get_peer_certificate(as_cryptography=True)
        self.assertEqual(certificate, self.pair.certificate)

    def test_other_protocol(self) -> None:
        """A client that came for HTTP is turned away by TLS itself, quietly."""
        _, factory, _ = self.listen("tls:8465", self.path)
        wire = self.connect(factory)
        client = SSL.Connection(client_context())
        client.set_connect_state()
        client.set_alpn_protos([b"http/1.1"])
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        wire.protocol.dataReceived(client.bio_read(10000))
        client.bio_write(wire.value())
        error = self.assertRaises(SSL.Error, client.do_handshake)
        self.assertIn("no application protocol", error.args[0][-1][2])
        self.assertFalse(wire.connected)
        self.assertEqual(self.flushLoggedErrors(), [])
