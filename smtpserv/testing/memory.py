"""A server session without a network, a clock that stands still, and a processor that remembers."""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpserv.collecting import CollectingProcessor, InThread
from smtpserv.dialogue.replies import whole_replies
from smtpserv.dialogue.terms import Terms
from smtpserv.interfaces import IMessageProcessor, IStreamingProcessor, ITransactionProcessor, Outcome
from smtpserv.message import Content, Envelope, ForwardPath, Message, Peer, ReversePath, Session
from smtpserv.metrics import Counts
from smtpserv.reply import Reply
from smtpserv.server.house import House
from smtpserv.server.journal import Journal
from smtpserv.server.limits import Limits
from smtpserv.server.panel import seat
from smtpserv.server.protocol import SMTPServerProtocol

#: Octets that open a session and a transaction up to DATA.
PREAMBLE = b"EHLO client.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n"


@implementer(IMessageProcessor)
class RecordingProcessor:
    """Remembers every message, and answers what it was told to.

    :param outcomes: what the messages are answered with, in turn, a raised exception as an instance of it;
        when they are used up, messages are accepted.
    """

    def __init__(self, outcomes: Iterable[Outcome | Exception] = ()) -> None:
        self.messages: list[Message] = []
        self._outcomes = iter(outcomes)

    def process_message(self, message: Message) -> Outcome:
        """Remember it."""
        self.messages.append(message)
        outcome = next(self._outcomes, None)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class HandThread:
    """A thread that works when it is told to: what runs in it waits for :meth:`step`."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def __call__(self, call: Callable[..., Any], *facts: Any) -> "Deferred[Any]":
        """Put a call in the queue."""
        result: Deferred[Any] = Deferred()
        self.waiting.append(lambda: maybeDeferred(call, *facts).chainDeferred(result))
        return result

    def step(self) -> None:
        """Do the oldest call of the queue."""
        self.waiting.pop(0)()


class _Transport(StringTransport):
    """Remembers what is written, and loses its connection when it is told to."""

    protocol: SMTPServerProtocol

    def loseConnection(self) -> None:
        super().loseConnection()
        self.lost()

    def abortConnection(self) -> None:
        super().abortConnection()
        self.lost()

    def startTLS(self, certificates: object) -> None:
        """Nobody shakes hands here: what is said from now on is heard by nobody."""

    def lost(self) -> None:
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionDone()))


class MemorySession:
    """A client's view of one session.

    :param house: what the server shares among its sessions; its clock is a :class:`Clock`.
    """

    def __init__(self, house: House, clock: Clock, journal: list[str], peer: Peer) -> None:
        self.clock = clock
        self.house = house
        self._journal = journal
        #: Whether the server has released everything.
        self.ended = False
        self.transport = _Transport()
        self.protocol = SMTPServerProtocol(house, peer, self._note_end)
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    def _note_end(self, protocol: SMTPServerProtocol) -> None:
        self.ended = True

    @property
    def journal(self) -> list[str]:
        """What the mail log has so far, as it was written."""
        self.house.journal.flush()
        return self._journal

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed."""
        return not self.transport.connected

    def say(self, octets: bytes) -> bytes:
        """Send octets; what the server had said since the last call is returned, the answer included."""
        if not self.is_closed:
            self.protocol.dataReceived(octets)
            self.clock.advance(0)
        return self.hear()

    def hear(self) -> bytes:
        """What the server said since the last call."""
        self.heard = bytes(self.transport.value())
        self.transport.clear()
        return self.heard

    def last_reply(self) -> Reply:
        """The last of the replies that were heard last."""
        return whole_replies(self.heard)[-1]

    def advance(self, seconds: float) -> bytes:
        """Let time pass, with a look at the deadlines before and after."""
        self.protocol.sweep(self.clock.seconds())
        self.clock.advance(seconds)
        self.protocol.sweep(self.clock.seconds())
        return self.hear()

    def disconnect(self) -> None:
        """The client vanishes."""
        self.transport.lost()


def run_now(call: Callable[..., Any], *facts: Any) -> "Deferred[Any]":
    """Stands for a thread that is always done at once."""
    return maybeDeferred(call, *facts)


def memory_house(
    processor: object,
    clock: Clock,
    journal: list[str],
    policies: Iterable[object] = (),
    terms: Terms | None = None,
    limits: Limits | None = None,
    in_thread: InThread = run_now,
    **shared: Any,
) -> House:
    """What the sessions of a server share, around a processor; it writes its mail log to a list.

    :param shared: what else a :class:`House` has: ``certificates``, ``authentication``, ``trusted`` ...
    """
    limits = limits or Limits()
    engaged: Any = ITransactionProcessor(processor, None) or IStreamingProcessor(processor, None)
    if engaged is None:
        engaged = CollectingProcessor(IMessageProcessor(processor), in_thread, limits.memory_limit)
    counts = Counts()
    return House(
        clock=clock,
        terms=terms or Terms(hostname="mx.example"),
        limits=limits,
        panel=seat([processor, *policies], counts),
        processor=engaged,
        journal=Journal(clock, journal.append),
        counts=counts,
        **shared,
    )


def memory_session(processor: object, peer: Peer = Peer("192.0.2.1", 2525), **choices: Any) -> MemorySession:
    """A session that was just greeted.

    :param processor: provides one of the processors' interfaces, and maybe policies.
    :param choices: ``policies``, ``terms``, ``limits``, ``in_thread`` and others: see :func:`memory_house`.
    """
    clock = Clock()
    journal: list[str] = []
    return MemorySession(memory_house(processor, clock, journal, **choices), clock, journal, peer)


def make_message(
    content: bytes = b"Subject: test\r\n\r\ntest\r\n",
    reverse_path: str = "a@a.example",
    forward_paths: Iterable[str] = ("b@b.example",),
) -> Message:
    """A message as a processor is given it."""
    envelope = Envelope("test.1", ReversePath(reverse_path), tuple(map(ForwardPath, forward_paths)))
    session = Session("test", Peer("192.0.2.1", 2525), "EHLO", "client.example")
    return Message(session, envelope, Content(content))
