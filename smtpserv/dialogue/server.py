"""The server's side of the conversation: octets in, events out; replies in, octets out.

It pauses after each event that is owed a reply until the reply is sent. So pipelined commands (RFC 2920)
wait in its buffer, and replies keep their order however long an answer takes.
"""

from typing import Final

from smtpserv import reply
from smtpserv.dialogue import state
from smtpserv.dialogue.budget import Budget
from smtpserv.dialogue.command import Command, Hello, Mail, Plain, Rcpt, parse_command
from smtpserv.dialogue.event import EndOfData, Event
from smtpserv.dialogue.extension import Terms
from smtpserv.dialogue.framing import LineReader
from smtpserv.dialogue.transaction import Transaction
from smtpserv.error import SMTPError
from smtpserv.reply import Reply

#: What the dialogue answers by itself.
_OWN_ANSWERS: Final = {
    "NOOP": reply.OK,
    "RSET": reply.OK,
    "HELP": reply.HELP,
    "VRFY": reply.CANNOT_VERIFY,
    "EXPN": reply.NOT_IMPLEMENTED,
}

#: How a command is answered when nobody has anything to say against it.
_ACCEPTANCES: Final = {
    "MAIL": reply.SENDER_OK,
    "RCPT": reply.RECIPIENT_OK,
    "DATA": reply.START_MAIL_INPUT,
    state.END_OF_DATA: reply.OK,
}

_GREETING: Final = Plain(state.GREETING)
_END_OF_DATA: Final = Plain(state.END_OF_DATA)
_NO_COMMAND: Final = Plain("")


class ServerDialogue:
    """One session. It begins by owing the greeting: ``send()`` says it.

    :param terms: what the server offers.
    """

    __slots__ = (
        "state",
        "last_words",
        "_terms",
        "_hello",
        "_input",
        "_output",
        "_owed",
        "_transaction",
        "_budget",
    )

    def __init__(self, terms: Terms) -> None:
        self.state = state.CONNECTING
        #: The reply that ended the session; None while it lasts, and when the client just went.
        self.last_words: Reply | None = None
        self._terms = terms
        self._hello = Hello("", "")
        self._input = LineReader(terms.line_limit)
        self._output: list[bytes] = []
        self._owed: Command | None = _GREETING
        self._transaction = Transaction(terms, self._hello)
        self._budget = Budget(terms)

    @property
    def owed(self) -> str | None:
        """The verb that waits for its reply: ``MAIL``, ``(end of data)`` ...; None when none does."""
        return self._owed.verb if self._owed else None

    @property
    def buffered(self) -> int:
        """Octets received and not read yet."""
        return len(self._input)

    def receive(self, octets: bytes) -> None:
        """Take what the network brought, any amount. :meth:`next_event` then tells what it means."""
        if self.state is not state.CLOSED:
            self._input.receive(octets)

    def take_output(self) -> bytes:
        """What is to be sent to the client now: all replies since the last call."""
        output, self._output = self._output, []
        return output[0] if len(output) == 1 else b"".join(output)

    def next_event(self) -> Event | None:
        """What the client did next; None while a reply is owed, or more octets are needed, or it is over."""
        while self._owed is None and self.state is not state.CLOSED:
            if self.state is state.DATA:
                return self._next_of_mail_data()
            try:
                line = self._input.next_line()
                if line is None:
                    return None
                event = self._perform(parse_command(line))
            except SMTPError as error:
                self._answer(_NO_COMMAND, error.reply)
                continue
            if event is not None:
                return event
        return None

    def _next_of_mail_data(self) -> Event | None:
        event = self._transaction.next_event(self._input)
        if isinstance(event, EndOfData):
            self._owed = _END_OF_DATA
        return event

    def send(self, answer: Reply | None = None) -> None:
        """Answer the event that is owed a reply. A 421 may be sent at any time, and is the last.

        :param answer: the reply; None accepts in the usual words.
        :raises ValueError: when no reply is owed.
        """
        owed, self._owed = self._owed or _NO_COMMAND, None
        if owed is _NO_COMMAND and (answer is None or answer.code != 421):
            raise ValueError("no reply is owed")
        if owed is _END_OF_DATA:
            answer = self._transaction.refusal() or answer
        self._answer(owed, answer or self._acceptance(owed))

    def close(self) -> None:
        """The connection is gone: nothing more is read, whatever is buffered."""
        self.state = state.CLOSED

    def _acceptance(self, command: Command) -> Reply:
        if command is _GREETING:
            return reply.greeting(self._terms.hostname)
        return _ACCEPTANCES.get(command.verb) or self._terms.hello[command.verb]

    def _perform(self, command: Command) -> Event | None:
        """Answer what needs nobody else, or make it an event.

        :raises SMTPError: for a command that may not come now, or asks for what is not offered.
        """
        transaction = self._transaction
        if not state.in_order(self.state, command.verb):
            refused = command.verb == "DATA" and transaction.attempts
            raise SMTPError(reply.NO_VALID_RECIPIENTS if refused else reply.OUT_OF_ORDER)
        if isinstance(command, Rcpt):
            transaction.check_rcpt(command)
        elif isinstance(command, Mail):
            transaction.check_mail(command)
        elif isinstance(command, Plain) and command.verb != "DATA":
            self._answer(command, _OWN_ANSWERS.get(command.verb) or reply.closing(self._terms.hostname))
            return None
        self._owed = command
        return transaction.data() if isinstance(command, Plain) else command

    def _answer(self, command: Command, answer: Reply) -> None:
        """Send a reply, move the table by it, and keep what the command said if it was accepted."""
        self._output.append(answer.octets)
        before, self.state = self.state, state.next_state(self.state, command.verb, answer.code)
        forward = answer.code < 400 and self._keep(command)
        last = None if forward or command.verb == "RCPT" else self._budget.spend(answer)
        if last is not None and self.state is not state.CLOSED:
            answer = last
            self._output.append(last.octets)
            self.state = state.CLOSED
        if self.state is state.CLOSED:
            self.last_words = answer
        elif self.state is state.READY and before is not state.READY:
            self._transaction = Transaction(self._terms, self._hello)

    def _keep(self, command: Command) -> bool:
        """Note what an accepted command said; whether that brings a message forward."""
        if isinstance(command, Rcpt):
            self._transaction.keep_rcpt(command)
        elif isinstance(command, Mail):
            self._transaction.keep_mail(command)
        elif isinstance(command, Hello):
            self._hello = command
            self._transaction = Transaction(self._terms, command)
            return False
        elif command is _END_OF_DATA:
            self._budget.earn()
        return command.verb not in _OWN_ANSWERS
