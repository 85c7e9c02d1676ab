"""The life of one session, from connection to last message: receives, is swept, leaves, is cut off."""

from collections.abc import Callable
from typing import Final

from twisted.internet.task import deferLater

from smtpserv.dialogue import state
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.message import Session, TLSFacts
from smtpserv.reply import Reply
from smtpserv.server.inquiry import Inquiry
from smtpserv.server.limits import Deadlines
from smtpserv.server.receiver import REACTIONS, House, Receiver
from smtpserv.server.reception import release

#: States in which nothing of a message is under way.
_AT_REST: Final = frozenset({state.CONNECTING, state.REFUSED, state.CONNECTED, state.READY})


#: Events of one session that are dealt with in one turn of the reactor.
_EVENTS_A_TURN: Final = 200


class Conversation:
    """One session. While an answer is awaited the dialogue stands still.

    :param session: what is known of the client so far.
    :param protection: tells what protects the connection; asked when the client says hello.
    :param progress: called when something was answered later than at once: there may be output.
    """

    def __init__(
        self,
        house: House,
        session: Session,
        protection: Callable[[], TLSFacts | None],
        progress: Callable[[], None],
    ) -> None:
        self.dialogue: Final = ServerDialogue(house.terms)
        self._house: Final = house
        self._progress: Final = progress
        self._deadlines: Final = Deadlines(house.limits, house.clock.seconds())
        self._inquiry: Final = Inquiry(house.clock, self._waited, self._resume, release, session.id)
        self._receiver: Final = Receiver(
            house, session, protection, self.dialogue, self._inquiry, self._deadlines
        )
        self._farewell: Reply | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the client waits for an answer that takes time."""
        return self._inquiry.is_open

    def start(self) -> None:
        """The client connected."""
        self._receiver.greet()

    def receive(self, octets: bytes) -> None:
        """The client sent something."""
        self._deadlines.heard(self._house.clock.seconds(), len(octets))
        self.dialogue.receive(octets)
        self._advance()

    def sweep(self, now: float) -> bool:
        """End what has lasted too long, an answer of ours or the client's turn; whether anything had."""
        if self._inquiry.is_open:
            return self._inquiry.expire(now, self._house.limits.processing_deadline)
        overdue = self._deadlines.overdue(now)
        if overdue is not None:
            self.hang_up(overdue)
        return overdue is not None

    def leave(self, farewell: Reply) -> None:
        """Say goodbye, a 421, as soon as no message is under way."""
        self._farewell = farewell
        self._advance()

    def hang_up(self, farewell: Reply) -> None:
        """Say goodbye, a 421, now; what is under way is given up."""
        self._give_up()
        if self.dialogue.state is not state.CLOSED:
            self.dialogue.send(farewell)

    def disconnected(self) -> None:
        """The connection is gone. A message whose end had come is still finished; all else is given up."""
        if self.dialogue.owed != state.END_OF_DATA:
            self._give_up()
        self.dialogue.close()
        self._receiver.record_end()

    def abandon(self) -> None:
        """Nobody is there to hear us: give up what is under way, and hear no more."""
        self._give_up()
        self.dialogue.close()

    def _give_up(self) -> None:
        self._inquiry.give_up()
        self._receiver.abort()

    def _waited(self, since: float) -> None:
        self._deadlines.waited(self._house.clock.seconds(), since)

    def _resume(self) -> None:
        self._advance()
        self._progress()

    def _advance(self) -> None:
        """Hear the dialogue out, until it needs more octets or somebody takes time to answer.

        A client that pipelines without end lets the others have their turn now and then.
        """
        dialogue, inquiry, receiver = self.dialogue, self._inquiry, self._receiver
        events = 0
        while not inquiry.is_open:
            if self._farewell is not None and dialogue.state in _AT_REST:
                return self.hang_up(self._farewell)
            event = dialogue.next_event()
            if event is None:
                return None
            REACTIONS[type(event)](receiver, event)
            events += 1
            if events >= _EVENTS_A_TURN and not inquiry.is_open:
                inquiry.ask(_go_on, deferLater, self._house.clock, 0)
        return None


def _go_on(_: object) -> None:
    """The others had their turn."""
