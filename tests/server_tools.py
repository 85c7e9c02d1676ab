"""Colleagues for a session under test, which answer as they are told, and a server without a network."""

import gc
import sys
from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpserv.dialogue.replies import whole_replies
from smtpserv.interfaces import (
    IMessageProcessor,
    IMessageSink,
    IRecipientPolicy,
    ISenderPolicy,
    ISessionPolicy,
    IStreamingProcessor,
)
from smtpserv.message import Envelope, ForwardPath, Message, ReversePath, Session
from smtpserv.reply import Reply
from smtpserv.server.factory import SMTPServerFactory
from smtpserv.testing import memory_house

HELLO = b"EHLO client.example\r\n"
ENVELOPE = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"
#: Octets from the first command to DATA; all that is heard by then, the greeting included.
PREAMBLE = HELLO + ENVELOPE + b"DATA\r\n"
GRANTED = ["220", "250", "250 2.1.0", "250 2.1.5", "354"]
CONTENT = b"Subject: x\r\n\r\nbody\r\n"
#: A transaction in a session that has said hello.
TRANSACTION = ENVELOPE + b"DATA\r\n" + CONTENT + b".\r\n"
DONE = ["250 2.1.0", "250 2.1.5", "354", "250 2.6.0"]

Answer = Callable[..., Any]


def replies(octets: bytes) -> list[Reply]:
    """Whole replies and nothing else, as we say them."""
    found = whole_replies(octets)
    assert b"".join([each.octets for each in found]) == octets, octets
    return found


def codes(octets: bytes) -> list[str]:
    """Code and enhanced status of each reply."""
    return [f"{each.code} {each.status}".rstrip() for each in replies(octets)]


class Later:
    """Answers later: remembers the Deferreds it gave, and how many were cancelled."""

    def __init__(self) -> None:
        self.given: list[Deferred[Any]] = []
        self.cancelled = 0

    def __call__(self, *facts: object) -> "Deferred[Any]":
        self.given.append(Deferred())
        return self.given[-1].addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        self.cancelled += failure.check(CancelledError) is not None
        return failure

    def fire(self, answer: object = None) -> None:
        """Answer the newest question."""
        self.given[-1].callback(answer)


@implementer(IMessageProcessor)
class Processor:
    """Answers a message as it is told to."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def process_message(self, message: Message) -> Any:
        return self._answer(message)


@implementer(IStreamingProcessor, IMessageSink)
class Sink:
    """A streaming processor that is its own sink; it notes each call, and answers as it is told to.

    :param answers: by name of method, what is called for the answer.
    """

    def __init__(self, **answers: Answer) -> None:
        self.calls: list[str] = []
        self.content = b""
        self._answers: dict[str, Answer] = {"begin": lambda: self} | answers

    def _called(self, name: str) -> Any:
        self.calls.append(name)
        return self._answers.get(name, lambda: None)()

    def begin(self, session: Session, envelope: Envelope) -> Any:
        return self._called("begin")

    def write(self, octets: bytes) -> Any:
        self.content += octets
        return self._called("write")

    def finish(self) -> Any:
        return self._called("finish")

    def abort(self) -> None:
        self._called("abort")


@implementer(ISessionPolicy, ISenderPolicy, IRecipientPolicy)
class Policy:
    """Has a say at each stage; it notes what it is asked, and answers as it is told to."""

    def __init__(self, **answers: Answer) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._answers = answers

    def _ask(self, stage: str, *facts: object) -> Any:
        self.asked.append((stage, *facts))
        return self._answers.get(stage, lambda *facts: None)(*facts)

    def connect(self, session: Session) -> Any:
        return self._ask("connect", session)

    def hello(self, session: Session) -> Any:
        return self._ask("hello", session)

    def check_sender(self, session: Session, reverse_path: ReversePath) -> Any:
        return self._ask("sender", session, reverse_path)

    def check_recipient(self, session: Session, reverse_path: ReversePath, forward_path: ForwardPath) -> Any:
        return self._ask("recipient", session, reverse_path, forward_path)


def depth() -> int:
    """How many calls deep we are."""
    frame, count = sys._getframe(), 0
    while frame.f_back is not None:
        frame, count = frame.f_back, count + 1
    return count


def always(answer: object) -> Answer:
    """Answers, or raises, the same whatever it is asked."""

    def call(*facts: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call


def captured_log(case: SynchronousTestCase) -> list[LogEvent]:
    """What is logged from now to the end of the test."""
    events: list[LogEvent] = []
    observer = cast(ILogObserver, events.append)
    globalLogPublisher.addObserver(observer)
    case.addCleanup(globalLogPublisher.removeObserver, observer)
    return events


def light_collection(case: SynchronousTestCase) -> None:
    """Collecting garbage is quick while it need not walk what was there before."""
    gc.freeze()
    case.addCleanup(gc.unfreeze)


class Reactor(MemoryReactorClock):
    """A reactor that only remembers, and has no thread for anybody."""

    def getThreadPool(self) -> object:
        return None


class Client:
    """A client of a :class:`Server`.

    :param closes: whether it closes its side when the server has closed; if not, it must be cut off.
    """

    def __init__(self, factory: SMTPServerFactory, address: IAddress, closes: bool = True) -> None:
        self._clock = factory.house.clock
        protocol = factory.buildProtocol(address)
        self.protocol: Any = protocol
        self.transport = Wire(protocol, closes)
        protocol.makeConnection(self.transport)

    @property
    def is_gone(self) -> bool:
        """Whether the connection is no more."""
        return not self.transport.connected

    def say(self, octets: bytes) -> bytes:
        """Send octets; what the server said since it was last heard."""
        if self.transport.connected:
            self.protocol.dataReceived(octets)
            clock: Any = self._clock
            clock.advance(0)
        return self.hear()

    def hear(self) -> bytes:
        """What the server said since it was last heard."""
        heard = bytes(self.transport.value())
        self.transport.clear()
        return heard

    def disconnect(self) -> None:
        """Vanish."""
        self.transport.lose()


class Wire(StringTransport):
    """A transport that tells its protocol when it is lost."""

    def __init__(self, protocol: Any, closes: bool) -> None:
        super().__init__()
        self.protocol = protocol
        self.producer: Any
        self.aborted = False
        self.no_delay = False
        self._closes = closes

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def loseConnection(self) -> None:
        super().loseConnection()
        if self._closes:
            self.lose()

    def abortConnection(self) -> None:
        super().abortConnection()
        self.aborted = True
        self.lose()

    def lose(self) -> None:
        """Whoever closed it, it is closed."""
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionDone()))


class Server:
    """A factory with a clock that stands still; ``choices`` are those of ``memory_house``."""

    def __init__(self, processor: object, policies: Iterable[object] = (), **choices: Any) -> None:
        self.clock = Clock()
        self._journal: list[str] = []
        self.factory = SMTPServerFactory(
            memory_house(processor, self.clock, self._journal, policies, **choices)
        )

    @property
    def journal(self) -> list[str]:
        """What the mail log has so far, as it was written."""
        self.factory.house.journal.flush()
        return self._journal

    def connect(self, host: str = "192.0.2.1", closes: bool = True) -> Client:
        """A client that was just answered; without a host one on a Unix socket."""
        kinds = {True: IPv6Address, False: IPv4Address}
        address = kinds[":" in host]("TCP", host, 2525) if host else UNIXAddress(None)
        return Client(self.factory, address, closes)

    def advance(self, seconds: float) -> None:
        """Let time pass a second at a time, as it does."""
        self.clock.pump([1.0] * int(seconds) + [seconds % 1])

    def leftovers(self) -> list[object]:
        """What is still to be called, once this turn of the reactor is over."""
        self.clock.advance(0)
        self.factory.house.journal.flush()
        return list(self.clock.getDelayedCalls())
