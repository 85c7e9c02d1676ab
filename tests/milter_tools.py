"""A milter without a network, which answers as it is told and remembers what it hears."""

import struct
from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from smtpserv import reply
from smtpserv.message import Message, Peer, Session
from smtpserv.milter.filter import Milter
from smtpserv.milter.packet import Command, Packet, PacketReader
from smtpserv.testing.memory import make_message, run_now
from tests.server_tools import Wire

CONTENT = b"From: a@a.example\r\nSubject: one\r\n two\r\n\r\nbody\r\n"

#: What is answered at all.
_ANSWERED = frozenset(b"CHMRTLNBE")


def packets(octets: bytes) -> list[Packet]:
    """Whole packets and nothing else."""
    reader = PacketReader()
    reader.feed(octets)
    found = list(iter(reader.next, None))
    assert not len(reader), octets
    return found


def negotiated(version: int = 6, actions: int = 0xFF, steps: int = 0) -> bytes:
    """How a milter answers the offer."""
    return bytes(Packet(Command.NEGOTIATE, struct.pack("!III", version, actions, steps)))


def said(kind: bytes, *parts: bytes, payload: bytes = b"") -> bytes:
    """A packet, of strings or of something else."""
    return bytes(Packet(kind, payload + b"".join(part + b"\0" for part in parts)))


class ScriptedMilter:
    """A milter.

    :param answers: by command, what is answered each time; then it agrees. What is no packet is said
        as it is, and nothing is nothing.
    :param steps: what it wants: see :class:`smtpserv.milter.negotiation.Steps`.
    """

    def __init__(self, answers: dict[bytes, Iterable[bytes]] | None = None, steps: int = 0) -> None:
        self.heard: list[Packet] = []
        self._answers = {kind: list(each) for kind, each in (answers or {}).items()}
        self._answers.setdefault(Command.NEGOTIATE, [negotiated(steps=steps)])
        self._reader = PacketReader()
        self._unanswered = {kind for flag, kind in _UNANSWERED.items() if steps & flag}

    def hear(self, octets: bytes) -> bytes:
        """What is answered to what comes."""
        self._reader.feed(octets)
        return b"".join([self._answer(packet) for packet in iter(self._reader.next, None)])

    def _answer(self, packet: Packet) -> bytes:
        self.heard.append(packet)
        if answers := self._answers.get(packet.kind):
            return answers.pop(0)
        agrees = packet.kind[0] in _ANSWERED and packet.kind not in self._unanswered
        return bytes(Packet(b"c")) if agrees else b""

    @property
    def kinds(self) -> str:
        """The commands that it heard, macros left out."""
        return b"".join(each.kind for each in self.heard if each.kind != Command.MACROS).decode()

    def payloads(self, kind: bytes) -> list[bytes]:
        """What came with the commands of a kind."""
        return [each.payload for each in self.heard if each.kind == kind]


#: The flag with which it says that it does not answer a command.
_UNANSWERED = {
    0x00080: b"L",
    0x01000: b"C",
    0x02000: b"H",
    0x04000: b"M",
    0x08000: b"R",
    0x10000: b"T",
    0x40000: b"N",
    0x80000: b"B",
}


class MilterWire(Wire):
    """A connection to a scripted milter, which hears what is written."""

    def __init__(self, protocol: Any, milter: ScriptedMilter) -> None:
        super().__init__(protocol, closes=True)
        self._milter = milter
        self.paused = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        if answer := self._milter.hear(data):
            self.protocol.dataReceived(answer)

    def pauseProducing(self) -> None:
        """Counted, and left to be seen."""
        super().pauseProducing()
        self.paused += 1


@implementer(IStreamClientEndpoint)
class MilterEndpoint:
    """Where scripted milters are, one for each connection.

    :param milters: in their order; an exception is a connection that is refused, None one that never is.
    """

    def __init__(self, *milters: ScriptedMilter | Exception | None) -> None:
        self._milters = list(milters)
        self.wires: list[MilterWire] = []
        self.cancelled = 0

    def connect(self, protocolFactory: Any) -> "Deferred[Any]":
        """A connection to the next one."""
        milter = self._milters.pop(0)
        if milter is None:
            return Deferred(self._note)
        if isinstance(milter, Exception):
            connecting: Deferred[Any] = Deferred()
            connecting.errback(milter)
            return connecting
        protocol = protocolFactory.buildProtocol(None)
        self.wires.append(MilterWire(protocol, milter))
        protocol.makeConnection(self.wires[-1])
        return succeed(protocol)

    def _note(self, _: "Deferred[Any]") -> None:
        self.cancelled += 1


def make_filter(
    endpoint: MilterEndpoint, clock: Clock, accepts: bool = False, in_thread: Any = run_now
) -> Milter:
    """The filter that asks them."""
    default = None if accepts else reply.FILTER_UNAVAILABLE
    return Milter("the milter", endpoint, clock, in_thread, 30.0, default)


def message_of(
    content: bytes = CONTENT,
    host: str = "192.0.2.1",
    recipients: Iterable[str] = ("b@b.example",),
    **facts: Any,
) -> Message:
    """A message, from a session with some facts."""
    message = make_message(content, forward_paths=recipients)
    session = Session("test", Peer(host, 2525), "EHLO", "client.example", hostname="mx.example", **facts)
    return Message(session, message.envelope, message.content)
