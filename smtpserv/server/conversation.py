"""The life of one session, from connection to last message: receives, is swept, leaves, is cut off."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.task import deferLater

from smtpserv.dialogue import state
from smtpserv.dialogue.command import Auth, Foreign, Hello, Mail, Override, Rcpt, Response
from smtpserv.dialogue.event import (
    Content,
    ContentRefused,
    Data,
    EndOfData,
    Event,
    Pause,
    Reset,
    StartTLS,
)
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.message import Session, TLSFacts
from smtpserv.reply import Reply
from smtpserv.server.house import House
from smtpserv.server.inquiry import Inquiry
from smtpserv.server.introduction import Introduction
from smtpserv.server.limits import Deadlines
from smtpserv.server.receiver import Receiver
from smtpserv.server.reception import release

#: States in which nothing of a message is under way.
_AT_REST: Final = frozenset({state.CONNECTING, state.REFUSED, state.CONNECTED, state.READY})


#: Events of one session that are dealt with in one turn of the reactor.
_EVENTS_A_TURN: Final = range(200)


class Conversation:
    """One session. While an answer is awaited the dialogue stands still.

    :param session: what is known of the client so far.
    :param progress: called when something was answered later than at once: there may be output.
    """

    def __init__(
        self,
        house: House,
        session: Session,
        progress: Callable[[], None],
    ) -> None:
        self.dialogue: Final = ServerDialogue(house.terms, house.counts.replies, house.unasked)
        self._house: Final = house
        self._progress: Final = progress
        self._seconds: Final = house.clock.seconds
        self._opened: Final = self._seconds()
        self._deadlines: Final = Deadlines(house.limits, self._opened)
        #: Whoever is asked; the client waits while it is open.
        self.inquiry: Final = Inquiry(self._resume, release, session.id)
        self._client: Final = Introduction(house, session, self.dialogue, self.inquiry, self._start_over)
        self._receiver: Final = Receiver(house, self._client, self.dialogue, self.inquiry, self._deadlines)
        self._farewell: Reply | None = None

    def start(self) -> None:
        """The client connected."""
        self._client.greet()

    def secured(self, facts: TLSFacts) -> None:
        """Hands are shaken: from here on TLS protects the session."""
        self._client.secured(facts)
        self._advance()

    def receive(self, octets: bytes) -> None:
        """The client sent something."""
        self._deadlines.octets += len(octets)
        self.dialogue.receive(octets)
        self._advance()

    def sweep(self, now: float) -> bool:
        """End what has lasted too long, an answer of ours or the client's turn; whether anything had."""
        if self.inquiry.is_open:
            self._deadlines.waiting(now)
        # It is looked even where nothing is open: what was would be remembered, with its answer.
        late = self.inquiry.expire(now, self._house.limits.processing_deadline)
        if late or self.inquiry.is_open:
            return late
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
        if not self.dialogue.is_complete:
            self._give_up()
        self.dialogue.close()
        self._record_end()

    def abandon(self) -> None:
        """Nobody is there to hear us: give up what is under way, and hear no more."""
        self._give_up()
        self.dialogue.close()

    def _record_end(self) -> None:
        """The session is over: its line in the mail log."""
        session, last_words = self._client.session, self.dialogue.last_words
        self._house.journal.record(
            "session",
            id=session.id,
            peer=session.peer.host,
            hello=session.hello_name,
            tls=session.tls.version if session.tls else None,
            identity=session.identity,
            messages=self._receiver.messages,
            code=last_words.code if last_words else None,
            why=last_words.text if last_words else None,
            seconds=self._seconds() - self._opened,
        )

    def _start_over(self) -> None:
        self._receiver.abort()

    def _give_up(self) -> None:
        self.inquiry.give_up()
        self._receiver.abort()

    def _resume(self) -> None:
        if self._farewell is not None or not self.dialogue.is_hungry:
            self._advance()
        self._progress()

    def _advance(self) -> None:
        """Hear the dialogue out, until it needs more octets or somebody takes time to answer.

        A client that pipelines without end lets the others have their turn now and then.
        """
        dialogue, inquiry = self.dialogue, self.inquiry
        for _ in _EVENTS_A_TURN:
            if inquiry.is_open:
                return
            if self._farewell is not None and dialogue.state in _AT_REST:
                self.hang_up(self._farewell)
                return
            event = dialogue.next_event()
            if event is None:
                return
            reaction = _OF_MESSAGES.get(type(event))
            if reaction is not None:
                reaction(self._receiver, event)
            elif type(event) is Pause:
                break
            else:
                _OF_THE_CLIENT[type(event)](self._client, event)
        if not inquiry.is_open:
            inquiry.ask(_go_on, deferLater, self._house.clock, 0)


#: What is done about each event: of a message, and of who the client is.
_OF_MESSAGES: Final[Mapping[type[Event], Callable[[Receiver, Any], None]]] = {
    Mail: Receiver.mail,
    Rcpt: Receiver.rcpt,
    Data: Receiver.data,
    Content: Receiver.content,
    ContentRefused: Receiver.content_refused,
    EndOfData: Receiver.end_of_data,
    Reset: Receiver.reset,
}
_OF_THE_CLIENT: Final[Mapping[type[Event], Callable[[Introduction, Any], None]]] = {
    Hello: Introduction.hello,
    StartTLS: Introduction.start_tls,
    Auth: Introduction.authenticate,
    Response: Introduction.respond,
    Override: Introduction.override,
    Foreign: Introduction.foreign,
}


def _go_on(_: object) -> None:
    """The others had their turn."""
