"""Between the transport and a session: how much is written at once, and when a client is read no further."""

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ISSLTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

import smtpserv.tls
from smtpserv.message import TLSFacts
from smtpserv.server.limits import Limits
from smtpserv.server.protocol import READ_AHEAD
from smtpserv.testing import HandThread, RecordingProcessor, memory_session
from tests.server_tools import (
    CONTENT,
    DONE,
    HELLO,
    PREAMBLE,
    TRANSACTION,
    Later,
    Policy,
    Processor,
    Server,
    Sink,
    Wire,
    codes,
)


class WriteTests(SynchronousTestCase):
    """Replies to what came together go together."""

    def test_one_write(self) -> None:
        """However many commands are pipelined, the transport is written to once."""
        house = Server(RecordingProcessor())
        client = house.connect()
        written: list[bytes] = []
        self.patch(client.transport, "write", written.append)
        client.say(HELLO + TRANSACTION * 5 + b"NOOP\r\n")
        self.assertEqual(len(written), 1)
        self.assertEqual(codes(written[0]), ["250", *DONE * 5, "250 2.0.0"])

    def test_nothing_to_say(self) -> None:
        """When there is nothing to say, nothing is written."""
        client = Server(RecordingProcessor()).connect()
        client.hear()
        written: list[bytes] = []
        self.patch(client.transport, "write", written.append)
        client.say(b"EHLO cl")
        self.assertEqual(written, [])


class RegulationTests(SynchronousTestCase):
    """A client is read no faster than it is answered."""

    def test_client_that_does_not_read(self) -> None:
        """When its replies pile up it is read no further, until they are gone."""
        client = Server(RecordingProcessor()).connect()
        client.say(b"EHLO client.example\r\n")
        client.transport.producer.pauseProducing()
        self.assertEqual(client.transport.producerState, "paused")
        client.transport.producer.resumeProducing()
        self.assertEqual(client.transport.producerState, "producing")

    def test_before_its_hello(self) -> None:
        """So is a client that has not said hello: HELP alone is answered with ten times its octets."""
        client = Server(RecordingProcessor()).connect()
        client.transport.producer.pauseProducing()
        self.assertEqual(client.transport.producerState, "paused")

    def test_while_hands_are_shaken(self) -> None:
        """A TLS client is read before the greeting: its transport is congested until hands are shaken."""
        factory: Any = Server(RecordingProcessor()).factory
        protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 2525))
        wire = Wire(protocol, True)
        directlyProvides(wire, ISSLTransport)
        protocol.makeConnection(wire)
        protocol.pauseProducing()
        self.assertEqual(wire.producerState, "producing")

    def test_client_ahead_of_its_answer(self) -> None:
        """A client that waits for an answer may send a little ahead, and no more."""
        later = Later()
        client = Server(Processor(later)).connect()
        client.say(PREAMBLE + CONTENT + b".\r\n")
        client.say(b"x" * READ_AHEAD)
        self.assertEqual(client.transport.producerState, "producing")
        client.say(b"\r\n")
        self.assertEqual(client.transport.producerState, "paused")
        later.fire()
        self.assertEqual(client.transport.producerState, "producing")

    def test_far_ahead_at_once(self) -> None:
        """It makes no difference whether the question itself came with all that."""
        client = Server(Processor(Later())).connect()
        client.say(PREAMBLE + CONTENT + b".\r\n" + b"x" * READ_AHEAD + b"\r\n")
        self.assertEqual(client.transport.producerState, "paused")

    def test_both_reasons(self) -> None:
        """When both are so, both must end before it is read again."""
        later = Later()
        client = Server(Processor(later)).connect()
        client.say(PREAMBLE + CONTENT + b".\r\n" + b"x" * READ_AHEAD + b"\r\n")
        client.transport.producer.pauseProducing()
        later.fire()
        self.assertEqual(client.transport.producerState, "paused")
        client.transport.producer.resumeProducing()
        self.assertEqual(client.transport.producerState, "producing")

    def test_gone_while_paused(self) -> None:
        """A client that vanishes while it is not read is released like any other."""
        later = Later()
        house = Server(Processor(later))
        client = house.connect()
        client.say(PREAMBLE + CONTENT + b".\r\n" + b"x" * READ_AHEAD + b"\r\n")
        client.disconnect()
        client.protocol.resumeProducing()
        client.protocol.stopProducing()
        later.fire()
        self.assertEqual(house.leftovers(), [])

    def test_producer_is_released(self) -> None:
        """After the goodbye the transport has no producer, and so closes when all is written."""
        client = Server(RecordingProcessor()).connect(closes=False)
        self.assertIsNotNone(client.transport.producer)
        client.say(b"QUIT\r\n")
        self.assertEqual((client.transport.producer, client.transport.disconnecting), (None, True))


class HalfCloseTests(SynchronousTestCase):
    """A client that has said all it will, and still listens."""

    def test_waiting_for_its_message(self) -> None:
        """It hears what became of its message, and of its QUIT, and then the connection is closed."""
        for behind, expected in ((b"", []), (b"QUIT\r\n", ["221 2.0.0"])):
            later = Later()
            house = Server(Processor(later))
            client = house.connect()
            client.say(PREAMBLE + CONTENT + b".\r\n" + behind)
            client.protocol.readConnectionLost()
            self.assertFalse(client.is_gone)
            later.fire()
            self.assertEqual((codes(client.hear()), client.is_gone), (["250 2.6.0", *expected], True))
            self.assertEqual(house.leftovers(), [])

    def test_further_messages(self) -> None:
        """It hears of the messages as well that it had pipelined behind."""
        later = Later()
        client = Server(Processor(later)).connect()
        client.say(HELLO + TRANSACTION * 2)
        client.protocol.readConnectionLost()
        later.fire()
        self.assertEqual((codes(client.hear()), client.is_gone), (["250 2.6.0", *DONE[:3]], False))
        later.fire()
        self.assertEqual((codes(client.hear()), client.is_gone), (["250 2.6.0"], True))

    def test_all_is_there_already(self) -> None:
        """What it had sent before is heard out, even when a policy or the disk is just being waited for."""
        for waits in ("policy", "disk"):
            later, thread, processor = Later(), HandThread(), RecordingProcessor()
            policies = [Policy(recipient=later)] if waits == "policy" else []
            house = Server(processor, policies, in_thread=thread, limits=Limits(memory_limit=10))
            client = house.connect()
            client.say(HELLO + TRANSACTION + b"QUIT\r\n")
            client.protocol.readConnectionLost()
            if waits == "policy":
                later.fire()
            while thread.waiting:
                thread.step()
            self.assertEqual(codes(client.hear())[-2:], ["250 2.6.0", "221 2.0.0"], waits)
            self.assertEqual((len(processor.messages), client.is_gone), (1, True), waits)

    def test_last_write_is_awaited(self) -> None:
        """A message whose end has come is complete, even while its last piece is being written."""
        later = Later()
        sink = Sink(write=later)
        client = Server(sink).connect()
        client.say(PREAMBLE + CONTENT + b".\r\n")
        client.protocol.readConnectionLost()
        self.assertFalse(client.is_gone)
        later.fire()
        self.assertEqual((codes(client.hear())[-1:], sink.calls[-1]), (["250 2.6.0"], "finish"))

    def test_nothing_to_wait_for(self) -> None:
        """In any state in which no message is complete that is the end, and what was begun is aborted."""
        for octets in (b"", HELLO, PREAMBLE, PREAMBLE + CONTENT):
            sink = Sink()
            house = Server(sink)
            client = house.connect()
            client.say(octets)
            client.protocol.readConnectionLost()
            self.assertTrue(client.is_gone)
            self.assertEqual(("abort" in sink.calls, house.leftovers()), ("begin" in sink.calls, []))


class ProtectionTests(SynchronousTestCase):
    """What a processor learns of the connection."""

    def test_plain(self) -> None:
        """A connection without TLS has no TLS facts."""
        processor = RecordingProcessor()
        memory_session(processor).say(HELLO + TRANSACTION)
        self.assertIsNone(processor.messages[0].session.tls)

    def test_tls(self) -> None:
        """Under TLS the greeting waits for the handshake; then its facts are known (RFC 3848: ESMTPS)."""
        processor = RecordingProcessor()
        server = Server(processor)
        factory: Any = server.factory
        protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 2525))
        wire: Any = Wire(protocol, True)
        directlyProvides(wire, ISSLTransport)
        wire.getHandle = object
        facts: dict[str, Any] = {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"}
        self.patch(smtpserv.tls, "tls_facts", lambda handle: facts)
        protocol.makeConnection(wire)
        self.assertEqual(wire.value(), b"")
        protocol.handshakeCompleted()
        self.assertEqual(codes(wire.value()), ["220"])
        protocol.dataReceived(HELLO + TRANSACTION)
        session = processor.messages[0].session
        self.assertEqual((session.tls, session.protocol), (TLSFacts(**facts), "ESMTPS"))

    def test_hands_that_are_not_shaken(self) -> None:
        """A client that does not shake hands is cut off."""
        server = Server(RecordingProcessor())
        factory: Any = server.factory
        protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 2525))
        wire = Wire(protocol, True)
        directlyProvides(wire, ISSLTransport)
        protocol.makeConnection(wire)
        server.advance(29)
        self.assertFalse(wire.aborted)
        server.advance(1)
        self.assertEqual((wire.aborted, wire.value(), server.leftovers()), (True, b"", []))
