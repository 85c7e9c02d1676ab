"""Deals with what the client does, in its order: asks policies and processor, answers the dialogue."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from smtpserv import reply
from smtpserv.dialogue.command import Hello, Mail, Rcpt
from smtpserv.dialogue.event import Content, ContentRefused, Data, EndOfData, Event
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.dialogue.terms import Terms
from smtpserv.interfaces import IStreamingProcessor
from smtpserv.message import Envelope, ReversePath, Session, TLSFacts
from smtpserv.reply import Reply
from smtpserv.server.inquiry import Inquiry
from smtpserv.server.journal import Journal
from smtpserv.server.limits import Deadlines, Limits
from smtpserv.server.panel import Panel, Question
from smtpserv.server.reception import Reception, checked, misfit


@dataclass(frozen=True, slots=True)
class House:
    """What all sessions of a server share."""

    clock: IReactorTime
    terms: Terms
    limits: Limits
    panel: Panel
    processor: IStreamingProcessor
    journal: Journal


class Receiver:
    """The events of one session, each led to whoever decides, and the decision back to the dialogue.

    :param session: what is known of the client so far.
    :param protection: tells what protects the connection; asked when the client says hello.
    """

    def __init__(
        self,
        house: House,
        session: Session,
        protection: Callable[[], TLSFacts | None],
        dialogue: ServerDialogue,
        inquiry: Inquiry,
        deadlines: Deadlines,
    ) -> None:
        self.session = session
        self.messages = 0
        self._opened: Final = house.clock.seconds()
        self._house: Final = house
        self._protection: Final = protection
        self._dialogue: Final = dialogue
        self._inquiry: Final = inquiry
        self._deadlines: Final = deadlines
        self._reverse_path = ReversePath("")
        self._reception = Reception(Envelope("", self._reverse_path, ()), 0.0)

    def greet(self) -> None:
        """The client connected: greet it, if it is welcome."""

        def answer(verdict: Any) -> None:
            refusal = _refusal(verdict)
            self._send(refusal and reply.unwelcome(refusal))

        self._consult(answer, self._house.panel.connect, self.session)

    def abort(self) -> None:
        """No more comes: the message under way, if there is one, will not be."""
        self._reception.abort()

    def _consult(self, then: Callable[[Any], None], question: Question, *facts: object) -> None:
        if question is None:
            then(None)
        else:
            self._inquiry.ask(then, question, *facts)

    def _on_hello(self, event: Hello) -> None:
        known = self.session
        session = Session(known.id, known.peer, event.verb, event.name, self._protection(), known.identity)

        def answer(verdict: Any) -> None:
            refusal = _refusal(verdict)
            self.session = self.session if refusal else session
            self._send(refusal)

        self._consult(answer, self._house.panel.hello, session)

    def _on_mail(self, event: Mail) -> None:
        self._reverse_path = event.reverse_path
        question = self._house.panel.sender
        if question is None:
            self._dialogue.send()
        else:
            self._inquiry.ask(self._answer, question, self.session, event.reverse_path)

    def _on_rcpt(self, event: Rcpt) -> None:
        question = self._house.panel.recipient
        if question is None:
            self._dialogue.send()
        else:
            self._inquiry.ask(self._answer, question, self.session, self._reverse_path, event.forward_path)

    def _answer(self, verdict: Any) -> None:
        self._send(_verdict(verdict))

    def _send(self, answer: Reply | None) -> None:
        if answer is not None and not answer.accepted:
            session, verb = self.session, self._dialogue.owed
            fields = {"id": session.id, "peer": session.peer.host, "verb": verb}
            self._house.journal.record("refused", **fields, code=answer.code, status=answer.status)
        self._dialogue.send(answer)

    def _on_data(self, event: Data) -> None:
        self.messages += 1
        envelope = Envelope(f"{self.session.id}.{self.messages}", event.reverse_path, event.forward_paths)
        self._reception = Reception(envelope, self._house.clock.seconds())
        self._inquiry.ask(self._begun, self._house.processor.begin, self.session, envelope)

    def _begun(self, answer: Any) -> None:
        refusal = self._reception.begun(answer)
        if refusal is None:
            self._deadlines.data_begins(self._house.clock.seconds())
        else:
            self._record(self._reception, refusal)
        self._dialogue.send(refusal)

    def _on_content(self, event: Content) -> None:
        reception = self._reception
        reception.size += len(event.octets)
        if reception.sink is not None:
            self._inquiry.ask(reception.written, reception.sink.write, event.octets)

    def _on_content_refused(self, _: ContentRefused) -> None:
        self._reception.abort()

    def _on_end_of_data(self, event: EndOfData) -> None:
        self._deadlines.data_ended()
        reception = self._reception
        refusal = reception.refusal(event.refusal)
        sink = reception.hand_over()
        if refusal is not None or sink is None:
            self._conclude(refusal or reply.LOCAL_ERROR)
        else:
            self._inquiry.ask(self._conclude, sink.finish)

    def _conclude(self, outcome: Any) -> None:
        answer = self._reception.finished(outcome)
        self._record(self._reception, answer)
        self._dialogue.send(answer)

    def record_end(self) -> None:
        """The session is over: its line in the mail log."""
        session, last_words = self.session, self._dialogue.last_words
        self._house.journal.record(
            "session",
            id=session.id,
            peer=session.peer.host,
            hello=session.hello_name,
            messages=self.messages,
            code=last_words.code if last_words else None,
            why=last_words.text if last_words else None,
            seconds=self._house.clock.seconds() - self._opened,
        )

    def _record(self, reception: Reception, answer: Reply) -> None:
        envelope = reception.envelope
        self._house.journal.record(
            "message",
            id=envelope.id,
            peer=self.session.peer.host,
            sender=envelope.reverse_path.address,
            recipient=envelope.forward_paths[0].address,
            recipients=len(envelope.forward_paths),
            size=reception.size,
            code=answer.code,
            status=answer.status,
            seconds=self._house.clock.seconds() - reception.began,
        )


#: What leads an event to whoever decides about it.
REACTIONS: Final[Mapping[type[Event], Callable[[Receiver, Any], None]]] = {
    Hello: Receiver._on_hello,
    Mail: Receiver._on_mail,
    Rcpt: Receiver._on_rcpt,
    Data: Receiver._on_data,
    Content: Receiver._on_content,
    ContentRefused: Receiver._on_content_refused,
    EndOfData: Receiver._on_end_of_data,
}


def _verdict(answer: Any) -> Reply | None:
    """What a policy answered: None or a Reply; anything else is its fault."""
    if answer is None:
        return None
    return checked(answer) if isinstance(answer, Reply) else misfit(answer, "a policy")


def _refusal(answer: Any) -> Reply | None:
    """What a policy has against the client, if anything; for where a yes is said in our own words."""
    verdict = _verdict(answer)
    return None if verdict is None or verdict.accepted else verdict
