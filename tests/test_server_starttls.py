"""STARTTLS (RFC 3207) with hands that are really shaken, in memory."""

import contextlib
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet import _newtls
from twisted.internet.address import IPv4Address
from twisted.protocols import tls

from smtpserv.dialogue.terms import Terms
from smtpserv.testing import RecordingProcessor, at_every_split
from tests.certificates import CertificatesCase, client_context, make_pair
from tests.server_tools import HELLO, TRANSACTION, Server, Wire, codes

#: What makes a client's last words in clear.
STARTTLS: Final = b"EHLO clear.example\r\nSTARTTLS\r\n"


class TLSWire(Wire):
    """A transport that can become TLS, as those of Twisted do."""

    TLS = False
    streamingProducer = True
    _tlsClientDefault = False

    def startTLS(self, certificates: Any) -> None:
        """What the protocol says and hears from now on is TLS."""
        _newtls.startTLS(self, certificates, True, Wire)

    def write(self, data: bytes) -> None:
        self.protocol.write(data) if self.TLS else super().write(data)

    def loseConnection(self) -> None:
        self.protocol.loseConnection() if self.TLS else super().loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        whose: Any = self.protocol if self.TLS else super()
        whose.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        whose: Any = self.protocol if self.TLS else super()
        whose.unregisterProducer()


class Client:
    """A client that can shake hands."""

    def __init__(self, server: Server) -> None:
        factory: Any = server.factory
        self.clock = server.clock
        protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 2525))
        self.wire = TLSWire(protocol, True)
        protocol.makeConnection(self.wire)
        self.tls = SSL.Connection(client_context())
        self.tls.set_connect_state()

    def hear(self) -> bytes:
        """What came, as it came."""
        heard = bytes(self.wire.value())
        self.wire.clear()
        return heard

    def say(self, octets: bytes) -> bytes:
        """Say it as it is."""
        if self.wire.connected and octets:
            self.wire.protocol.dataReceived(octets)
        self.clock.advance(0)
        return self.hear()

    def flight(self) -> bytes:
        """What the client has to say in its handshake now; empty when it has nothing more."""
        with contextlib.suppress(SSL.WantReadError):
            self.tls.do_handshake()
        try:
            return self.tls.bio_read(1 << 16)
        except SSL.WantReadError:
            return b""

    def shake_hands(self) -> None:
        """To the end."""
        while flight := self.flight():
            self.take(self.say(flight))

    def take(self, octets: bytes) -> None:
        """Octets of TLS came."""
        if octets:
            self.tls.bio_write(octets)

    def tell(self, octets: bytes) -> bytes:
        """Say it under TLS; what is answered there."""
        self.tls.send(octets)
        self.take(self.say(self.tls.bio_read(1 << 16)))
        heard = b""
        with contextlib.suppress(SSL.WantReadError, SSL.ZeroReturnError):
            while True:
                heard += self.tls.recv(1 << 16)
        return heard


class StartTLSCase(CertificatesCase):
    """A server that offers STARTTLS."""

    def setUp(self) -> None:
        super().setUp()
        path = self.write("mail.pem", make_pair("mx.example").pem)
        self.processor = RecordingProcessor()
        self.known = self.certificates(path)
        self.server = self.serve()

    def serve(self, **terms: Any) -> Server:
        """One with these terms."""
        offered = Terms(**{"hostname": "mx.example", "tls": True, **terms})
        server = Server(self.processor, terms=offered, certificates=self.known)
        # Twisted gathers small writes for a turn of the reactor.
        self.patch(tls, "_get_default_clock", lambda: server.clock)
        return server


class HandshakeTests(StartTLSCase):
    """From clear to TLS."""

    def test_done(self) -> None:
        """After it the client begins anew, and mail comes by ESMTPS."""
        client = Client(self.server)
        self.assertEqual(codes(client.hear() + client.say(STARTTLS)), ["220", "250", "220 2.0.0"])
        client.shake_hands()
        self.assertEqual(codes(client.tell(b"MAIL FROM:<a@a.example>\r\n")), ["503 5.5.1"])
        heard = client.tell(HELLO)
        self.assertNotIn(b"STARTTLS", heard)
        self.assertEqual(codes(client.tell(b"STARTTLS\r\nSTARTTLS x\r\n")), ["503 5.5.1", "501 5.5.4"])
        self.assertEqual(codes(client.tell(TRANSACTION))[-1], "250 2.6.0")
        session = self.processor.messages[0].session
        self.assertEqual((session.protocol, session.hello_name), ("ESMTPS", "client.example"))
        self.assertEqual(codes(client.tell(b"QUIT\r\n")), ["221 2.0.0"])
        client.wire.lose()
        self.assertEqual(self.server.leftovers(), [])

    def test_injection(self) -> None:
        """What was said behind it in clear is thrown away: not answered, before or after, nor run."""
        injected = b"EHLO evil.example\r\nMAIL FROM:<evil@a.example>\r\nNOOP\r\nSTARTTLS\r\n"
        together = b"STARTTLS\r\n" + injected
        for cut in range(10, len(together)):
            client = Client(self.server)
            client.say(b"EHLO x\r\n")
            self.assertEqual(codes(client.say(together[:cut])), ["220 2.0.0"], cut)
            client.shake_hands()
            self.assertEqual(
                codes(client.tell(b"RSET\r\nMAIL FROM:<a@a.example>\r\n")), ["250 2.0.0", "503 5.5.1"]
            )
            client.wire.lose()

    def test_clear_text_instead(self) -> None:
        """Plain text instead of a handshake is no command, and ends it."""
        client = Client(self.server)
        client.say(STARTTLS)
        heard = client.say(b"EHLO evil.example\r\nMAIL FROM:<evil@a.example>\r\n")
        self.assertNotIn(b"250", heard)
        self.assertTrue(client.wire.disconnecting or not client.wire.connected)
        client.wire.lose()
        self.assertEqual(self.server.leftovers(), [])

    def test_aborted(self) -> None:
        """A client that goes at any stage leaves nothing behind, and the next is served."""
        first = Client(self.server)
        first.say(STARTTLS)
        hello = first.flight()
        first.take(first.say(hello))
        finished = first.flight()
        first.wire.lose()
        for cut in {0, 1, 5, 6, len(hello) // 2, len(hello) - 1, len(hello)}:
            client = Client(self.server)
            client.say(STARTTLS)
            client.say(hello[:cut])
            client.wire.lose()
            self.assertEqual(self.server.leftovers(), [], cut)
        self.assertTrue(finished)
        client = Client(self.server)
        client.say(STARTTLS)
        client.take(client.say(client.flight()))
        client.say(client.flight()[:10])
        client.wire.lose()
        self.assertEqual(self.server.leftovers(), [])
        self.test_done()

    def test_too_slow(self) -> None:
        """Hands are shaken within 30 seconds."""
        client = Client(self.server)
        client.say(STARTTLS)
        client.say(client.flight()[:20])
        self.server.advance(29)
        self.assertTrue(client.wire.connected)
        self.server.advance(1)
        self.assertEqual((client.wire.aborted, self.server.leftovers()), (True, []))

    def test_split(self) -> None:
        """However the network splits it, the command is the last that is heard in clear."""
        for pieces in at_every_split(STARTTLS):
            client = Client(self.server)
            client.hear()
            heard = b"".join([client.say(piece) for piece in pieces])
            self.assertEqual(codes(heard), ["250", "220 2.0.0"], pieces)
            client.wire.lose()

    def test_goodbye_while_shaking(self) -> None:
        """A server that stops does not wait for ever for a hand."""
        client = Client(self.server)
        client.say(STARTTLS)
        gone = self.server.factory.sessions.drain(30)
        self.server.advance(61)
        self.successResultOf(gone)
        self.assertEqual((client.wire.connected, self.server.leftovers()), (False, []))


class RequirementTests(StartTLSCase):
    """``--require-tls``."""

    def test_before(self) -> None:
        """All but a few commands get 530, and a chunk's octets are no commands."""
        client = Client(self.serve(require_tls=True, max_errors=99))
        client.say(HELLO)
        for verb in (b"MAIL FROM:<a@a.example>", b"RSET", b"HELP", b"VRFY x", b"DATA", b"AUTH PLAIN"):
            heard = codes(client.say(verb + b"\r\n"))
            self.assertEqual(heard, ["530 5.7.0"], verb)
        for last in (b"", b" LAST"):
            self.assertEqual(codes(client.say(b"BDAT 6" + last + b"\r\nQUIT\r\n")), ["530 5.7.0"])
        self.assertEqual(codes(client.say(b"NOOP\r\nSTARTTLS\r\n")), ["250 2.0.0", "220 2.0.0"])
        client.shake_hands()
        self.assertEqual(codes(client.tell(HELLO + TRANSACTION))[-1], "250 2.6.0")
        client.wire.lose()
