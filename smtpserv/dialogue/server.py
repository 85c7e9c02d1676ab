"""The server's side of the conversation: octets in, events out; replies in, octets out.

It pauses after each event that is owed a reply until the reply is sent. So pipelined commands (RFC 2920)
wait in its buffer, and replies keep their order however long an answer takes.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

from smtpserv import reply
from smtpserv.dialogue import state
from smtpserv.dialogue.answers import ACCEPTANCES, OWN_ANSWERS, OWN_ANSWERS_AT_ONCE
from smtpserv.dialogue.budget import Budget
from smtpserv.dialogue.command import (
    Bdat,
    Command,
    Hello,
    Mail,
    Override,
    Plain,
    Rcpt,
    parse_command,
    parse_response,
)
from smtpserv.dialogue.event import EndOfData, Event, Pause, Reset, StartTLS
from smtpserv.dialogue.extension import Standing
from smtpserv.dialogue.framing import LineReader
from smtpserv.dialogue.manners import Manners
from smtpserv.dialogue.terms import Terms
from smtpserv.dialogue.transaction import Transaction
from smtpserv.error import SMTPError
from smtpserv.message import ReversePath
from smtpserv.reply import Reply, Results

_GREETING: Final = Plain(state.GREETING)
_END_OF_DATA: Final = Plain(state.END_OF_DATA)
_RESPONSE: Final = Plain(state.RESPONSE)
_FIRST_CHUNK: Final = Plain("(first chunk)")
_NO_COMMAND: Final = Plain("")
_NO_TRANSACTION: Final = Transaction(Terms(), ReversePath(""))


class ServerDialogue:
    """One session. It begins by owing the greeting: ``send()`` says it.

    :param terms: what the server offers.
    :param tally: how often each verb was answered with each code; it is added to.
    :param unasked: which of MAIL and RCPT are accepted here and now, and are no events.
    """

    __slots__ = (
        "state",
        "last_words",
        "_terms",
        "_manners",
        "_input",
        "_output",
        "_owed",
        "_transaction",
        "_reading",
        "_budget",
        "_tally",
        "_own_answers",
        "_unasked",
    )

    def __init__(
        self,
        terms: Terms,
        tally: defaultdict[tuple[str, int], int] | None = None,
        unasked: frozenset[str] = frozenset(),
    ) -> None:
        self.state = state.CONNECTING
        #: The reply that ended the session; None while it lasts, and when the client just went.
        self.last_words: Reply | None = None
        self._terms = terms
        self._input = LineReader(terms.line_limit)
        self._output = b""
        self._owed: Command | None = _GREETING
        self._manners = Manners(terms)
        self._transaction = _NO_TRANSACTION
        #: The command whose content is being read, and where it goes.
        self._reading: tuple[Command, Transaction] | None = None
        self._budget = Budget(terms)
        self._own_answers = 0
        # An empty one is false, and counts all the same.
        self._tally = defaultdict(int) if tally is None else tally
        self._unasked = unasked

    def stand(self, standing: Standing) -> None:
        """The session has come to something else; what is offered changes with the next hello."""
        self._manners.stand(standing)

    @property
    def owed(self) -> str | None:
        """The verb that waits for its reply: ``MAIL``, ``(end of data)`` ...; None when none does."""
        return self._owed.verb if self._owed else None

    @property
    def is_complete(self) -> bool:
        """Whether a whole message waits for its reply."""
        return self.owed in (state.END_OF_DATA, state.LAST_CHUNK)

    @property
    def is_content_there(self) -> bool:
        """Whether all octets of a message have come, though its end may not have been told."""
        return self.is_complete or (self._reading is not None and self._reading[1].has_ended)

    @property
    def buffered(self) -> int:
        """Octets received and not read yet."""
        return len(self._input)

    @property
    def is_hungry(self) -> bool:
        """Whether there is nothing more to tell before more octets come."""
        return not self._input.has_unread and (self._reading is None or self._reading[1].is_hungry)

    def receive(self, octets: bytes) -> None:
        """Take what the network brought, any amount. :meth:`next_event` then tells what it means."""
        if not self.state.is_deaf:
            self._input.receive(octets)

    def take_output(self) -> bytes:
        """What is to be sent to the client now: all replies since the last call."""
        output, self._output = self._output, b""
        return output

    def next_event(self) -> Event | None:
        """What the client did next; None while a reply is owed, or more octets are needed, or it is over."""
        while self._owed is None and not self.state.is_deaf:
            if self._reading is not None:
                command, transaction = self._reading
                event = self._next_of_content(command, transaction)
                if event is None and self._reading is not None:
                    return None
            else:
                try:
                    line = self._input.next_line()
                    if line is None:
                        return None
                    event = self._perform(line)
                except SMTPError as error:
                    self._fail(error.reply)
                    event = None
            if event is not None:
                return event
            self._own_answers += 1
            if self._own_answers % OWN_ANSWERS_AT_ONCE == 0:
                return Pause()
        return None

    def send(self, answer: Reply | Results | None = None) -> None:
        """Answer the event that is owed a reply. A 421 may be sent at any time, and is the last.

        :param answer: the reply; None accepts in the usual words. At the end of a message, Results hold one
            for each recipient that was accepted: LMTP says each, SMTP the one that loses nobody's mail.
        :raises ValueError: when no reply is owed.
        """
        owed, self._owed = self._owed or _NO_COMMAND, None
        send = _SEND.get(owed.verb)
        if send is not None:
            send(self, owed, answer)
        else:  # and what is owed is of no message: Results are
            said: Any = answer or ACCEPTANCES.get(owed.verb) or self._acceptance(owed)
            self._answer(owed, said)

    def secured(self, standing: Standing) -> None:
        """Hands are shaken: all that was learned before is forgotten (RFC 3207 section 4.2)."""
        self.stand(standing)
        if self.state is state.TLS:
            self.state = state.CONNECTED

    def close(self) -> None:
        """The connection is gone: nothing more is read, whatever is buffered."""
        self.state = state.CLOSED

    def _perform(self, line: bytes) -> Event | None:
        if self.state is state.AUTH:
            self._owed = response = parse_response(line)
            return response
        command = parse_command(line, self._terms.parsers)
        command = self._manners.checked(command, self.state, self._transaction)
        perform = _PERFORM.get(type(command))
        if perform is not None:
            return perform(self, command)
        if command.verb in self._unasked:
            self._answer(command, ACCEPTANCES[command.verb])
            return None
        self._owed = command
        return command  # type: ignore[return-value]  # a Bdat or Plain is performed

    def _fail(self, answer: Reply) -> None:
        if self.state is state.AUTH:
            self._answer(_RESPONSE, reply.RESPONSE_TOO_LONG if answer is reply.LINE_TOO_LONG else answer)
        else:
            self._answer(_NO_COMMAND, answer)

    # Most commands are events as they stand, and are owed a reply; not so the following.

    def _perform_bdat(self, command: Bdat) -> Event | None:
        """Whatever there is against it, its octets are read before it is answered (RFC 3030 section 2)."""
        transaction = self._transaction
        refusal = self._manners.against(command, self.state, transaction)
        if refusal is not None:
            transaction = Transaction(self._terms, ReversePath(""))
            transaction.refuse(refusal)
        transaction.expect(command, self._terms.bare_newlines)
        self._reading = command, transaction
        if transaction.begun or transaction.refusal() is not None:
            return None
        self._owed = _FIRST_CHUNK
        return transaction.data()

    def _perform_plain(self, command: Plain) -> Event | None:
        if command.verb in _EVENTFUL:
            self._owed = command
            return self._transaction.data() if command.verb == "DATA" else StartTLS()
        under_way = self._transaction is not _NO_TRANSACTION
        self._answer(command, OWN_ANSWERS.get(command.verb) or self._terms.closing)
        return Reset() if under_way and self._transaction is _NO_TRANSACTION else None

    def _next_of_content(self, command: Command, transaction: Transaction) -> Event | None:
        event = transaction.next_event(self._input)
        if type(event) is not EndOfData:
            return event
        self._reading = None
        if transaction.begun and command.verb in (state.END_OF_DATA, state.LAST_CHUNK):
            self._owed = command
            return event
        assert isinstance(command, Bdat), "mail data is read to its end"
        answer = transaction.refusal() or reply.received(command.size)
        if command.last and transaction is self._transaction:
            self._conclude(command, answer)
            return Reset()
        self._answer(command, answer)
        return None

    def _say_last(self, _: Command, answer: Reply | Results | None) -> None:
        if not isinstance(answer, Reply) or answer.code != 421:
            raise ValueError("no reply is owed")
        self._answer(_NO_COMMAND, answer)

    def _begin_chunks(self, _: Command, answer: Reply | Results | None) -> None:
        if isinstance(answer, Reply):
            self._transaction.refuse(answer)
            if answer.code == 421:
                self._answer(_NO_COMMAND, answer)
        else:
            self._transaction.begun = True

    def _conclude(self, owed: Command, answer: Reply | Results | None) -> None:
        """The last reply of a message; under LMTP as many as it has recipients (RFC 2033 section 4.2)."""
        answer = self._transaction.refusal() or answer or reply.OK
        if self._terms.lmtp:
            known = answer.replies if isinstance(answer, Results) else ()
            self._answer_each(owed, known or (answer,) * len(self._transaction.forward_paths))
        else:
            self._answer(owed, answer.combined() if isinstance(answer, Results) else answer)

    def _answer_each(self, owed: Command, answers: tuple[Any, ...]) -> None:
        for each in answers[:-1]:
            self._output += each.octets
            self._tally[owed.verb, each.code] += 1
        self._answer(owed, answers[-1])
        for each in answers:
            if each.code == 421:  # all the same each recipient has its reply
                self.state, self.last_words = state.CLOSED, each

    def _acceptance(self, command: Command) -> Reply:
        if type(command) is Hello:
            return self._manners.answer(command.verb)
        return self._terms.greeting if command.verb in _GREETED_ANEW else reply.OK

    def _answer(self, command: Command, answer: Reply) -> None:
        """Send a reply, move the table by it, and keep what the command said if it was accepted."""
        verb, code = command.verb, answer.code
        self._output += answer.octets
        self._tally[verb, code] += 1
        now = self.state = state.next_state(self.state, verb, code)
        keep = _KEEP.get(verb)
        if code >= 400 or keep is None or not keep(self, command):
            last = self._budget.spend(verb, answer)
            if last is not None and now is not state.CLOSED:
                answer, now = last, state.CLOSED
                self._output += last.octets
                self._tally["", last.code] += 1
        else:
            self._budget.refused = False
        if now.is_within:
            return
        if now is not state.CLOSED:
            self._transaction = _NO_TRANSACTION
        else:
            self.state, self.last_words = now, answer

    # What an accepted command said is kept; whether that brings a message forward.

    def _keep_hello(self, command: Hello) -> bool:
        self._manners.offer(command.verb)
        return False

    def _keep_mail(self, command: Mail) -> bool:
        self._transaction = Transaction(self._terms, command.reverse_path)
        return True

    def _keep_rcpt(self, command: Rcpt) -> bool:
        self._transaction.forward_paths.append(command.forward_path)
        return True

    def _keep_bdat(self, command: Bdat) -> bool:
        if command.last:
            self._budget.earn()
        return command.last or command.size > 0

    def _keep_data(self, command: Plain) -> bool:
        self._transaction.begun = True
        self._reading = _END_OF_DATA, self._transaction
        return True

    def _keep_end(self, command: Plain) -> bool:
        self._budget.earn()
        return True

    def _keep_starttls(self, command: Plain) -> bool:
        self._input.take()
        self._manners.withdraw()
        return True

    def _keep_xclient(self, command: Override) -> bool:
        self._manners.withdraw()
        return False

    def _keep_greeting(self, command: Plain) -> bool:
        return True


#: What is answered by a greeting.
_GREETED_ANEW: Final = frozenset({state.GREETING, "XCLIENT"})

#: The verbs without more to them that somebody else answers.
_EVENTFUL: Final = frozenset({"DATA", "STARTTLS"})

#: How those are answered that a single reply does not answer.
_SEND: Final[Mapping[str, Callable[[ServerDialogue, Command, Reply | Results | None], None]]] = {
    _NO_COMMAND.verb: ServerDialogue._say_last,
    _FIRST_CHUNK.verb: ServerDialogue._begin_chunks,
    state.END_OF_DATA: ServerDialogue._conclude,
    state.LAST_CHUNK: ServerDialogue._conclude,
}

#: What is done about commands that are no events as they stand.
_PERFORM: Final[Mapping[type[Command], Callable[[ServerDialogue, Any], Event | None]]] = {
    Bdat: ServerDialogue._perform_bdat,
    Plain: ServerDialogue._perform_plain,
}

#: What is kept of what was accepted; what is not here brings no message forward.
_KEEP: Final[Mapping[str, Callable[[ServerDialogue, Any], bool]]] = {
    state.GREETING: ServerDialogue._keep_greeting,
    **dict.fromkeys(("EHLO", "HELO", "LHLO"), ServerDialogue._keep_hello),
    "STARTTLS": ServerDialogue._keep_starttls,
    "XCLIENT": ServerDialogue._keep_xclient,
    "MAIL": ServerDialogue._keep_mail,
    "RCPT": ServerDialogue._keep_rcpt,
    "DATA": ServerDialogue._keep_data,
    state.END_OF_DATA: ServerDialogue._keep_end,
    "BDAT": ServerDialogue._keep_bdat,
    state.LAST_CHUNK: ServerDialogue._keep_bdat,
}
