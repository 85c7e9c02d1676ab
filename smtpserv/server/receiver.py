"""The messages of a session: asks policies and processor, answers the dialogue."""

from functools import partial
from typing import Any, Final

from smtpserv import reply
from smtpserv.dialogue.command import Mail, Rcpt
from smtpserv.dialogue.event import Content, ContentRefused, Data, EndOfData, Reset
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.interfaces import ITransaction
from smtpserv.message import Envelope, ForwardPath, ReversePath
from smtpserv.reply import Reply, Results
from smtpserv.server.house import House
from smtpserv.server.inquiry import Inquiry
from smtpserv.server.introduction import Introduction, verdict
from smtpserv.server.limits import Deadlines
from smtpserv.server.reception import Reception, refusal, release


class Receiver:
    """The messages of one session: each event led to whoever decides, and the decision back to the dialogue.

    :param client: what is known of the client.
    """

    __slots__ = (
        "messages",
        "_house",
        "_client",
        "_dialogue",
        "_inquiry",
        "_deadlines",
        "_reverse_path",
        "_transaction",
        "_reception",
    )

    def __init__(
        self,
        house: House,
        client: Introduction,
        dialogue: ServerDialogue,
        inquiry: Inquiry,
        deadlines: Deadlines,
    ) -> None:
        self.messages = 0
        self._house = house
        self._client = client
        self._dialogue = dialogue
        self._inquiry = inquiry
        self._deadlines = deadlines
        self._reverse_path = _NULL
        #: The processor's part in what MAIL began and DATA has not taken over.
        self._transaction: ITransaction | None = None
        self._reception = _NONE

    def abort(self) -> None:
        """No more comes: the message under way, if there is one, will not be."""
        self._deadlines.data_ended()
        self._reception.abort()
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            release(transaction)

    def reset(self, _: Reset) -> None:
        """The transaction ended without a message."""
        self.abort()

    def mail(self, event: Mail) -> None:
        """MAIL."""
        self._reverse_path = event.reverse_path
        question = self._house.panel.sender
        if question is not None:
            self._inquiry.ask(self._checked_sender, question, self._client.session, event.reverse_path)
        else:
            self._open(None)

    def _checked_sender(self, answered: Any) -> None:
        answer = verdict(answered)
        if answer is None or answer.accepted:
            self._open(answer)
        else:
            self._answer(answer)

    def _open(self, answer: Reply | None) -> None:
        """Nobody is against the sender; whoever takes part in transactions answers in place of who agreed."""
        processor = self._house.transactions
        if processor is None:
            self._dialogue.send(answer)
        else:
            self._inquiry.ask(self._opened, processor.open, self._client.session, self._reverse_path)

    def _opened(self, answered: Any) -> None:
        if ITransaction.providedBy(answered):
            self._transaction, answered = answered, answered.answer
            self._answer(answered)
        else:
            self._answer(refusal(answered, "open"))

    def rcpt(self, event: Rcpt) -> None:
        """RCPT."""
        question, path = self._house.panel.recipient, event.forward_path
        if question is not None:
            checked = partial(self._checked_recipient, path)
            self._inquiry.ask(checked, question, self._client.session, self._reverse_path, path)
        else:
            self._add(path, None)

    def _checked_recipient(self, path: ForwardPath, answered: Any) -> None:
        answer = verdict(answered)
        if answer is None or answer.accepted:
            self._add(path, answer)
        else:
            self._answer(answer)

    def _add(self, path: ForwardPath, answer: Reply | None) -> None:
        """Nobody is against the recipient."""
        if self._transaction is None:
            self._dialogue.send(answer)
        else:
            self._inquiry.ask(self._answer, self._transaction.add_recipient, path)

    def _answer(self, answered: Any) -> None:
        answer = verdict(answered)
        if answer is not None and not answer.accepted:
            self._house.refused(self._client.session, self._dialogue.owed, answer.code, answer.status)
        self._dialogue.send(answer)

    def data(self, event: Data) -> None:
        """DATA, or the first BDAT."""
        self.messages += 1
        envelope = Envelope(
            f"{self._client.session.id}.{self.messages}", event.reverse_path, event.forward_paths
        )
        self._reception = Reception(envelope, self._house.clock.seconds())
        if self._transaction is not None:
            self._inquiry.ask(self._begun, self._transaction.begin, envelope)
        else:
            assert self._house.streaming is not None, "a processor takes part in transactions or streams"
            self._inquiry.ask(self._begun, self._house.streaming.begin, self._client.session, envelope)

    def _begun(self, answer: Any) -> None:
        refusal = self._reception.begun(answer)
        if refusal is None:
            self._transaction = None
            self._deadlines.data_begins(self._house.clock.seconds())
        else:
            self._record(self._reception, refusal)
        self._dialogue.send(refusal)

    def content(self, event: Content) -> None:
        """Content came."""
        reception = self._reception
        octets, sink = event.octets, reception.sink
        reception.size += len(octets)
        if sink is not None:
            self._inquiry.ask(reception.written, sink.write, octets)

    def content_refused(self, _: ContentRefused) -> None:
        """No more of it will; what is left of its octets may still come, and not too slowly."""
        self._reception.abort()

    def end_of_data(self, event: EndOfData) -> None:
        """The whole message is there."""
        self._deadlines.data_ended()
        reception = self._reception
        refusal = reception.refusal(event.refusal)
        sink = reception.hand_over()
        if refusal is not None or sink is None:
            self._conclude(refusal or reply.LOCAL_ERROR)
        else:
            reception.ended = self._house.clock.seconds()
            self._inquiry.ask(self._conclude, sink.finish)

    def _conclude(self, outcome: Any) -> None:
        answer = self._reception.finished(outcome)
        self._record(self._reception, answer.combined() if isinstance(answer, Results) else answer)
        self._dialogue.send(answer)

    def _record(self, reception: Reception, answer: Reply) -> None:
        envelope, session = reception.envelope, self._client.session
        counts, now = self._house.counts, self._house.clock.seconds()
        counts.messages[answer.code // 100] += 1
        counts.octets += reception.size
        if reception.ended is not None:
            counts.processing.observe(now - reception.ended)
        self._house.journal.record(
            "message",
            id=envelope.id,
            peer=session.peer.host,
            sender=envelope.reverse_path.address,
            recipient=envelope.forward_paths[0].address,
            recipients=len(envelope.forward_paths),
            size=reception.size,
            code=answer.code,
            status=answer.status,
            seconds=now - reception.began,
        )
        if self._house.panel.message_observers:
            self._house.panel.message_ended(session, envelope, reception.size, answer)
        self._client.message_ended()


_NULL: Final = ReversePath("")
_NONE: Final = Reception(Envelope("", _NULL, ()), 0.0)
