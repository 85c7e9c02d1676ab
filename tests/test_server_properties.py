"""Whatever clients say, colleagues answer and dies first: replies in order, and nothing is left behind."""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, Final

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpserv.dialogue.terms import Terms
from smtpserv.interfaces import (
    IMessageProcessor,
    IMessageSink,
    IRecipientPolicy,
    ISenderPolicy,
    ISessionPolicy,
    IStreamingProcessor,
    ITransaction,
    ITransactionProcessor,
)
from smtpserv.reply import Reply
from smtpserv.server.limits import Limits
from tests.fuzz import examples
from tests.fuzz.strategies import CONVERSATIONS, PLACES, cut
from tests.server_tools import Client, Server, codes, replies

#: An answer that is given later, or never.
LATER: Final = object()

#: What a colleague answers; None is what it is asked for.
ANSWERS: Final = (
    *[None] * 4,
    *[LATER] * 4,
    Reply(450, "Later"),
    Reply(550, "No"),
    Reply(421, "Gone"),
    ZeroDivisionError(),
    42,
)

LIMITS: Final = Limits(
    idle_timeout=20, session_deadline=100, data_deadline=30, processing_deadline=15, memory_limit=40
)

LINES: Final = (
    *[b"EHLO a.example\r\n", b"MAIL FROM:<a@a.example>\r\n", b"RCPT TO:<b@b.example>\r\n"] * 3,
    *[b"DATA\r\n", b"x" * 50 + b"\r\n.y\r\n.\r\n", b"hello\r\n.\r\n"] * 2,
    *[b"BDAT 3\r\nabc", b"BDAT 4 LAST\r\nabcd", b"BDAT 0 LAST\r\n", b"a\nb\r\n", b"x" * 200 + b"\r\n"],
    *[b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"JUNK\r\n", b"half a li"],
)


class Crew:
    """All colleagues of a server: they answer in turn what they were told to, now or later."""

    def __init__(self, answers: Sequence[object]) -> None:
        self._answers = cycle(answers)
        self.open: list[tuple[Deferred[Any], Callable[[], object]]] = []
        self.begun: list[Noted] = []

    def ask(self, wanted: Callable[[], object] = lambda: None) -> Any:
        """What is wanted, or another answer, or a Deferred of it."""
        answer = next(self._answers)
        if answer is LATER:
            later: Deferred[Any] = Deferred()
            self.open.append((later, wanted))
            return later
        if isinstance(answer, Exception):
            raise answer
        return wanted() if answer is None else answer

    def settle(self, which: int, answer: object) -> None:
        """Answer an open question, unless it was given up."""
        if self.open:
            later, wanted = self.open.pop(which % len(self.open))
            if later.called:
                return
            if isinstance(answer, Exception):
                later.errback(answer)
            else:
                later.callback(wanted() if answer in (None, LATER) else answer)


class Noted:
    """Something that begins, and ends once."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.ends: list[str] = []
        crew.begun.append(self)

    def end(self, how: str) -> None:
        """Note the end."""
        self.ends.append(how)


@implementer(IMessageSink)
class Sink(Noted):
    """Takes content."""

    def write(self, octets: bytes) -> Any:
        assert octets and not self.ends
        return self.crew.ask()

    def finish(self) -> Any:
        self.end("finish")
        return self.crew.ask()

    def abort(self) -> None:
        self.end("abort")


@implementer(ITransaction)
class Transaction(Noted):
    """Takes part in a transaction, until its sink goes on."""

    answer = None

    def add_recipient(self, forward_path: object) -> Any:
        assert not self.ends
        return self.crew.ask()

    def begin(self, envelope: object) -> Any:
        assert not self.ends
        return self.crew.ask(self._sink)

    def _sink(self) -> Sink:
        self.end("begin")
        return Sink(self.crew)

    def abort(self) -> None:
        self.end("abort")


class Colleague:
    """Has a crew."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew


@implementer(ITransactionProcessor)
class Transactions(Colleague):
    """Takes part in transactions."""

    def open(self, session: object, reverse_path: object) -> Any:
        return self.crew.ask(lambda: Transaction(self.crew))


@implementer(IStreamingProcessor)
class Streaming(Colleague):
    """Takes content as it comes."""

    def begin(self, session: object, envelope: object) -> Any:
        return self.crew.ask(lambda: Sink(self.crew))


@implementer(IMessageProcessor)
class Whole(Colleague):
    """Takes whole messages."""

    def process_message(self, message: object) -> Any:
        return self.crew.ask()


@implementer(ISessionPolicy, ISenderPolicy, IRecipientPolicy)
class Policy(Colleague):
    """Has a say at each stage."""

    def connect(self, session: object) -> Any:
        return self.crew.ask()

    hello = connect

    def check_sender(self, session: object, reverse_path: object) -> Any:
        return self.crew.ask()

    def check_recipient(self, session: object, reverse_path: object, forward_path: object) -> Any:
        return self.crew.ask()


class World:
    """A server, its colleagues and clients, and what may happen to them."""

    def __init__(
        self, processor: type[Colleague], policies: int, lmtp: bool, answers: Sequence[object]
    ) -> None:
        self.crew = Crew(answers)
        terms = Terms(hostname="mx.example", lmtp=lmtp, max_size=100, max_errors=6, max_line=100)
        policy = [Policy(self.crew) for _ in range(policies)]
        self.server = Server(processor(self.crew), policy, terms=terms, limits=LIMITS)
        self.clients: list[Client] = []
        self.heard: list[bytes] = []
        self.connect()

    def connect(self) -> None:
        """One more client."""
        self.clients.append(self.server.connect(closes=len(self.clients) % 3 > 0))
        self.heard.append(b"")

    def say(self, which: int, lines: list[bytes]) -> None:
        """A client says something."""
        self.clients[which % len(self.clients)].say(b"".join(lines))

    def leave(self, which: int, half: bool) -> None:
        """A client goes, or closes its half of the connection."""
        client = self.clients[which % len(self.clients)]
        if not half:
            client.disconnect()
        elif not client.is_gone and hasattr(client.protocol, "readConnectionLost"):
            client.protocol.readConnectionLost()

    def stop(self) -> None:
        """The server takes no more."""
        self.server.factory.sessions.drain(30)

    def listen(self) -> None:
        """All clients hear what they are told."""
        for number, client in enumerate(self.clients):
            self.heard[number] += client.hear()

    def end(self) -> None:
        """Everybody goes, and time passes."""
        for client in self.clients:
            client.disconnect()
        self.server.advance(40)
        self.listen()


_WHO: Final = st.integers(0, 5)
HAPPENINGS: Final = st.one_of(
    st.tuples(st.just(World.say), _WHO, st.lists(st.sampled_from(LINES), min_size=1, max_size=5)),
    st.tuples(st.just(World.say), _WHO, st.just([LINES[0], LINES[1], LINES[2], b"DATA\r\n", b"x\r\n.\r\n"])),
    st.tuples(st.just(lambda world, *facts: world.crew.settle(*facts)), _WHO, st.sampled_from(ANSWERS)),
    st.tuples(st.just(lambda world, *facts: world.server.advance(*facts)), st.sampled_from([1, 16, 31])),
    st.tuples(st.just(World.leave), _WHO, st.booleans()),
    st.tuples(st.just(World.connect)),
    st.tuples(st.just(World.stop)),
)


class Anything(SynchronousTestCase):
    """What holds whatever happens."""

    @examples(100)
    @given(
        st.sampled_from([Transactions, Streaming, Whole]),
        st.integers(0, 2),
        st.booleans(),
        st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=20),
        st.lists(HAPPENINGS, max_size=30),
    )
    def test_nothing_left(
        self,
        processor: type[Colleague],
        policies: int,
        lmtp: bool,
        answers: list[object],
        happenings: list[tuple[Any, ...]],
    ) -> None:
        """Each sink and transaction ends once; no session, timer or Deferred stays; 421 and 221 come last."""
        world = World(processor, policies, lmtp, answers)
        for happening, *facts in happenings:
            if lmtp and happening == World.say:
                facts[1] = [line.replace(b"EHLO", b"LHLO") for line in facts[1]]
            happening(world, *facts)
            world.listen()
        world.end()
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(world.server.leftovers(), [])
        self.assertEqual([later for later, _ in world.crew.open if not later.called], [])
        self.assertEqual(world.server.factory.house.counts.open, 0)
        self.assertEqual([each for each in world.crew.begun if len(each.ends) != 1], [])
        for heard in world.heard:
            said = [each.code for each in replies(heard)]
            if not lmtp:  # there each recipient of the message gets the 421
                self.assertFalse({221, 421} & set(said[:-1]), said)


class Patient(Crew):
    """A crew that takes its time, and answers the same."""

    def ask(self, wanted: Callable[[], object] = lambda: None) -> Any:
        """What would have been answered, later."""
        later: Deferred[Any] = Deferred()
        answer = next(self._answers)
        self.open.append((later, wanted if answer is None else lambda: answer))
        return later

    def settle_all(self) -> None:
        """Answer what is open, and what is asked then."""
        while self.open:
            later, outcome = self.open.pop(0)
            answer = outcome() if not later.called else None
            if isinstance(answer, Exception):
                later.errback(answer)
            elif not later.called:
                later.callback(answer)


class SoonerOrLater(SynchronousTestCase):
    """Whether colleagues answer at once or take their time."""

    def heard(self, crew: Crew, processor: type[Colleague], pieces: list[bytes]) -> list[str]:
        """All that a client hears; what its colleagues are asked, they are done with before it goes on."""
        client = Server(processor(crew), [Policy(crew)], terms=Terms(max_size=100)).connect()
        heard = b""
        for piece in [b"", *pieces]:
            heard += client.say(piece) if piece else client.hear()
            if isinstance(crew, Patient):
                crew.settle_all()
            heard += client.hear()
        client.disconnect()
        self.flushLoggedErrors(ZeroDivisionError)
        return codes(heard)

    @examples(150)
    @given(
        st.sampled_from([Transactions, Streaming, Whole]),
        CONVERSATIONS,
        PLACES,
        st.lists(st.sampled_from([each for each in ANSWERS if each is not LATER]), min_size=1, max_size=20),
    )
    @example(Streaming, b"EHLO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nBDAT 0 LAST\r\n", [], [None])
    def test_same_replies(
        self, processor: type[Colleague], spoken: bytes, places: list[float], answers: list[object]
    ) -> None:
        """The client hears the same."""
        pieces = cut(spoken, places)
        at_once = self.heard(Crew(answers), processor, pieces)
        self.assertEqual(self.heard(Patient(answers), processor, pieces), at_once)
