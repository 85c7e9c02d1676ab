"""The server's side of the conversation: octets in, events out; replies in, octets out.

It pauses after each event that is owed a reply until the reply is sent. So pipelined commands (RFC 2920)
wait in its buffer, and replies keep their order however long an answer takes.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from smtpserv import reply
from smtpserv.dialogue import state
from smtpserv.dialogue.budget import Budget
from smtpserv.dialogue.command import Command, Hello, Mail, Plain, Rcpt, parse_command
from smtpserv.dialogue.event import EndOfData, Event
from smtpserv.dialogue.extension import Terms, check_parameters
from smtpserv.dialogue.framing import LineReader
from smtpserv.dialogue.transaction import Transaction
from smtpserv.error import SMTPError
from smtpserv.message import ReversePath
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
_NO_TRANSACTION: Final = Transaction(Terms(), ReversePath(""))


class ServerDialogue:
    """One session. It begins by owing the greeting: ``send()`` says it.

    :param terms: what the server offers.
    """

    __slots__ = (
        "state",
        "last_words",
        "_terms",
        "_offer",
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
        self._offer = terms.offers["HELO"]
        self._input = LineReader(terms.line_limit)
        self._output: list[bytes] = []
        self._owed: Command | None = _GREETING
        self._transaction = _NO_TRANSACTION
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
                command = parse_command(line)
                if not state.in_order(self.state, command.verb):
                    raise SMTPError(self._out_of_order(command))
                event = _PERFORM[type(command)](self, command)
            except SMTPError as error:
                self._answer(_NO_COMMAND, error.reply)
                continue
            if event is not None:
                self._owed = command
                return event
        return None

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

    def _next_of_mail_data(self) -> Event | None:
        event = self._transaction.next_event(self._input)
        if type(event) is EndOfData:
            self._owed = _END_OF_DATA
        return event

    # Each kind of command either becomes an event or is answered here and now; it raises SMTPError, with the
    # reply, where it asks for what is not offered.

    def _perform_hello(self, command: Hello) -> Event:
        return command

    def _perform_mail(self, command: Mail) -> Event:
        path = command.reverse_path
        if path.parameters:
            check_parameters(path.parameters, self._offer.mail)
            if (path.size or 0) > self._terms.max_size:
                raise SMTPError(reply.MESSAGE_TOO_BIG)
        if not path.address.isascii() and not path.smtputf8:
            raise SMTPError(reply.NEEDS_SMTPUTF8)
        return command

    def _perform_rcpt(self, command: Rcpt) -> Event:
        path, transaction = command.forward_path, self._transaction
        transaction.attempts += 1
        if transaction.attempts > self._terms.max_recipients:
            raise SMTPError(reply.TOO_MANY_RECIPIENTS)
        if path.parameters:
            check_parameters(path.parameters, self._offer.rcpt)
        if not path.address.isascii() and not transaction.reverse_path.smtputf8:
            raise SMTPError(reply.NEEDS_SMTPUTF8)
        return command

    def _perform_plain(self, command: Plain) -> Event | None:
        if command.verb == "DATA":
            return self._transaction.data()
        self._answer(command, _OWN_ANSWERS.get(command.verb) or self._terms.closing)
        return None

    def _out_of_order(self, command: Command) -> Reply:
        all_refused = self.state is state.MAIL and self._transaction.attempts and command.verb == "DATA"
        return reply.NO_VALID_RECIPIENTS if all_refused else reply.OUT_OF_ORDER

    def _acceptance(self, command: Command) -> Reply:
        if command is _GREETING:
            return self._terms.greeting
        return _ACCEPTANCES.get(command.verb) or self._terms.offers[command.verb].answer

    def _answer(self, command: Command, answer: Reply) -> None:
        """Send a reply, move the table by it, and keep what the command said if it was accepted."""
        self._output.append(answer.octets)
        now = self.state = state.next_state(self.state, command.verb, answer.code)
        forward = _KEEP[type(command)](self, command) if answer.code < 400 else command.verb == "RCPT"
        if not forward:
            last = self._budget.spend(answer)
            if last is not None and now is not state.CLOSED:
                answer, now = last, state.CLOSED
                self._output.append(last.octets)
        if now is state.READY:
            self._transaction = _NO_TRANSACTION
        elif now is state.CLOSED:
            self.state, self.last_words = now, answer

    # What an accepted command said is kept; whether that brings a message forward.

    def _keep_hello(self, command: Hello) -> bool:
        self._offer = self._terms.offers[command.verb]
        return False

    def _keep_mail(self, command: Mail) -> bool:
        self._transaction = Transaction(self._terms, command.reverse_path)
        return True

    def _keep_rcpt(self, command: Rcpt) -> bool:
        self._transaction.forward_paths.append(command.forward_path)
        return True

    def _keep_plain(self, command: Plain) -> bool:
        if command is _END_OF_DATA:
            self._budget.earn()
        return command.verb not in _OWN_ANSWERS


_PERFORM: Final[Mapping[type[Command], Callable[[ServerDialogue, Any], Event | None]]] = {
    Hello: ServerDialogue._perform_hello,
    Mail: ServerDialogue._perform_mail,
    Rcpt: ServerDialogue._perform_rcpt,
    Plain: ServerDialogue._perform_plain,
}

_KEEP: Final[Mapping[type[Command], Callable[[ServerDialogue, Any], bool]]] = {
    Hello: ServerDialogue._keep_hello,
    Mail: ServerDialogue._keep_mail,
    Rcpt: ServerDialogue._keep_rcpt,
    Plain: ServerDialogue._keep_plain,
}
