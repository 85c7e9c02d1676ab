"""The messages of one client of a scripted upstream."""

from functools import partial
from typing import Final

from smtpserv import reply
from smtpserv.dialogue.command import Mail, Rcpt
from smtpserv.dialogue.event import Content, ContentRefused, Data, EndOfData, Reset
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.reply import Reply, Results
from smtpserv.testing.upstream.fault import Break
from smtpserv.testing.upstream.role import Role, UpstreamTransaction
from smtpserv.testing.upstream.voice import Voice


class Reception:
    """Notes what comes, and answers it."""

    def __init__(self, role: Role, dialogue: ServerDialogue, voice: Voice) -> None:
        self._role: Final = role
        self._dialogue: Final = dialogue
        self._voice: Final = voice
        self._transaction: UpstreamTransaction
        #: RCPT commands of the transaction, refused ones included.
        self._attempts = 0
        self._size = 0

    def mail(self, event: Mail) -> None:
        """MAIL."""

        def say(answer: Reply | None) -> None:
            if answer is None or answer.accepted:
                self._transaction = UpstreamTransaction(event.reverse_path)
                self._role.transactions.append(self._transaction)
                self._attempts = self._size = 0
            self._voice.send(answer)

        self._voice.answer("MAIL", say)

    def rcpt(self, event: Rcpt) -> None:
        """RCPT."""

        def say(answer: Reply | None) -> None:
            if answer is None or answer.accepted:
                self._transaction.forward_paths.append(event.forward_path)
            self._voice.send(answer)

        self._attempts += 1
        self._voice.answer("RCPT", say, range(self._attempts, self._attempts + 1))

    def data(self, _: Data) -> None:
        """DATA; or a first chunk, which is answered when its octets are there."""
        if self._dialogue.owed == "DATA":
            self._voice.answer("DATA")
        else:
            self._dialogue.send()

    def content(self, event: Content) -> None:
        """Content came."""
        before = self._size
        self._size += len(event.octets)
        self._transaction.chunks.append(event.octets)
        self._voice.answer("content", self._voice.interject, range(before + 1, self._size + 1))

    def leave(self, _: ContentRefused | Reset) -> None:
        """No more of it comes, and the transaction stays as it is."""

    def end_of_data(self, event: EndOfData) -> None:
        """All of it is there."""
        self._transaction.is_complete = True
        self._conclude(event.refusal or reply.OK)

    def _conclude(self, usual: Reply) -> None:
        """Say what of the last replies is still to be said: LMTP has one for each recipient."""
        answers = self._transaction.answers
        owed = len(self._transaction.forward_paths) if self._role.terms.lmtp else 1
        while len(answers) < owed:
            number = len(answers) + 1
            fault = self._role.faults.at("end of data", range(number, number + 1))
            if isinstance(fault, Break):
                return self._voice.fail(fault, partial(self._say_last, usual))
            self._say(fault or usual)
        self._dialogue.send(Results(answers))
        self._dialogue.take_output()  # it was said one by one
        return self._voice.close_if_over()

    def _say_last(self, usual: Reply) -> None:
        self._say(usual)
        self._conclude(usual)

    def _say(self, answer: Reply) -> None:
        self._transaction.answers.append(answer)
        self._voice.write(answer.octets)
