"""The client's side of the conversation: commands in, octets out; octets in, answers out.

It runs on the same table as the server's, moved by the replies it receives. Commands go out as fast as the
server allows: where it offers PIPELINING (RFC 2920) before those ahead of them are answered, else one by one.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from smtpserv.dialogue import state
from smtpserv.dialogue.command import Bdat, Command, Hello, Plain
from smtpserv.dialogue.framing import find_dotted_line
from smtpserv.dialogue.replies import MalformedReply, ReplyReader
from smtpserv.dialogue.state import State
from smtpserv.dialogue.wording import render
from smtpserv.reply import Reply, Results

#: What the server says unasked: the greeting, and what ends a session before its time.
GREETING: Final = Plain(state.GREETING)
UNASKED: Final = Plain("(unasked)")
END_OF_DATA: Final = Plain(state.END_OF_DATA)

#: Behind these nothing goes out before they are answered (RFC 2920 section 3.1, RFC 4954 section 4).
_LAST_OF_A_GROUP: Final = frozenset(
    {state.GREETING, "EHLO", "HELO", "LHLO", "DATA", "STARTTLS", "AUTH", state.RESPONSE, "QUIT", "XCLIENT"}
)

#: How a command under way is foreseen to be answered; 250 for what is not listed. Of an exchange nobody knows
#: whether it goes on, and so what a line behind it would be taken for: nothing is said there.
_FORESEEN: Final = {"DATA": 354, "AUTH": 421, state.RESPONSE: 421}

_AFTER_3YZ: Final = frozenset({state.DATA, state.AUTH})


#: A command that was answered, and how: with Results at the end of a message under LMTP, where each recipient
#: that was accepted has a reply.
Answer = tuple[Command, Reply | Results]


class ClientDialogue:
    """One session. It begins by waiting for the greeting, which answers :data:`GREETING`.

    :param lmtp: whether the server speaks LMTP (RFC 2033).
    """

    __slots__ = (
        "state",
        "offers",
        "is_leaving",
        "_lmtp",
        "_input",
        "_output",
        "_held",
        "_sent",
        "_recipients",
        "_results",
        "_tail",
    )

    def __init__(self, lmtp: bool = False) -> None:
        self.state = state.CONNECTING
        #: What the server announced: keyword in capitals -> what stood behind it.
        self.offers: Mapping[str, str] = {}
        #: Whether one of LMTP's replies to a message was 421, and others are still to come, if they do.
        self.is_leaving = False
        self._lmtp = lmtp
        self._input = ReplyReader()
        self._output = b""
        #: Commands that may not go out yet, and those that went and were not answered.
        self._held: deque[Command] = deque()
        self._sent: deque[Command] = deque([GREETING])
        #: Recipients of the transaction that were accepted.
        self._recipients = 0
        self._results: list[Reply] = []
        #: The last two octets of the content that went out.
        self._tail = b"\r\n"

    @property
    def awaited(self) -> Command | None:
        """The command whose answer is the next to come; None when everything is answered."""
        return self._sent[0] if self._sent else None

    @property
    def ahead(self) -> State:
        """Where the session stands when all that is under way is accepted."""
        ahead = self.state
        if self._sent:  # what is held waits for what was sent
            for command in (*self._sent, *self._held):
                ahead = state.next_state(ahead, command.verb, _FORESEEN.get(command.verb, 250))
        return ahead

    def say(self, command: Command) -> None:
        """Send a command, or hold it until it may go.

        :raises ValueError: for one that would come out of order even if all before it are accepted, and for
            what could not be said: see :func:`smtpserv.dialogue.wording.render`. Chunks are written.
        """
        ahead, verb = self.ahead if self._sent else self.state, command.verb
        if not (verb in ahead.moves or state.in_order(ahead, verb)) or isinstance(command, Bdat):
            raise ValueError(f"{verb} is out of order")
        if self._sent and (self._held or not self._may_send()):
            render(command)
            self._held.append(command)
        else:
            self._send(command)

    def write(self, content: bytes) -> None:
        """Send octets of mail data, after 354: dots are stuffed (RFC 5321 section 4.5.2).

        :raises ValueError: when no mail data is expected.
        """
        if not self._takes_mail_data:
            raise ValueError("mail data is out of order")
        if b"." in content and find_dotted_line(joined := self._tail + content) >= 0:
            self._output += joined.replace(b"\r\n.", b"\r\n..")[len(self._tail) :]
        else:
            self._output += content
        self._tail = content[-2:] if len(content) > 1 else (self._tail + content)[-2:]

    def end(self) -> None:
        """The mail data is complete. One that does not end with CRLF gets one; there is no other way.

        :raises ValueError: when no mail data is expected.
        """
        if not self._takes_mail_data:
            raise ValueError("the end of mail data is out of order")
        self._output += b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"
        self._tail = b"\r\n"
        self._sent.append(END_OF_DATA)

    def write_chunk(self, octets: bytes, last: bool) -> None:
        """Send octets of the content as they are, by BDAT (RFC 3030), whatever is not answered yet.

        :raises ValueError: when no content is expected, or CHUNKING was not offered.
        """
        command = Bdat(len(octets), last)
        if "CHUNKING" not in self.offers or self._held or not state.in_order(self.ahead, command.verb):
            raise ValueError("a chunk is out of order")
        self._send(command)
        self._output += octets

    def receive(self, octets: bytes) -> None:
        """Take what the network brought, any amount. :meth:`next_answer` then tells what it means."""
        if not self.state.is_deaf:
            self._input.unread += octets

    def take_output(self) -> bytes:
        """What is to be sent to the server now."""
        output, self._output = self._output, b""
        return output

    def next_answer(self) -> Answer | None:
        """What the server answered next; None when more octets are needed, or it is over.

        :raises MalformedReply: for what is no reply, or none to the command that waits for one. The session
            is of no use then.
        """
        while self._input.unread and not self.state.is_deaf:
            reply = self._input.next_reply()
            if reply is None:
                return None
            answer = self._answer(reply)
            if answer is not None:
                if self._held:
                    self._release()
                return answer
        return None

    def secured(self) -> None:
        """Hands are shaken: what was learned before is forgotten (RFC 3207 section 4.2)."""
        if self.state is state.TLS:
            self.state = state.CONNECTED

    def conclude(self, rest: Reply) -> Results | None:
        """The connection ends between LMTP's last replies: those that came stand (RFC 2033 section 4.2).

        :param rest: is of the other recipients.
        :return: None if no reply had come, or none was awaited.
        """
        results, self._results, self.is_leaving = self._results, [], False
        return Results([*results, *[rest] * (self._recipients - len(results))]) if results else None

    def close(self) -> None:
        """The connection is gone, or of no use."""
        self.state = state.CLOSED

    @property
    def _takes_mail_data(self) -> bool:
        """Whether it is expected, and its end has not been said: what follows that is a command."""
        return self.state is state.DATA and not self._sent

    def _may_send(self) -> bool:
        """Behind what was sent."""
        return "PIPELINING" in self.offers and self._sent[-1].verb not in _LAST_OF_A_GROUP

    def _send(self, command: Command) -> None:
        self._output += render(command)
        self._sent.append(command)

    def _release(self) -> None:
        while self._held and not self.state.is_deaf and (not self._sent or self._may_send()):
            self._send(self._held.popleft())

    def _answer(self, reply: Reply) -> Answer | None:
        """Move the table by a reply; None when it is not the whole answer."""
        if not self._sent:
            return self._unasked(reply)
        command = self._sent[0]
        verb = command.verb
        classes, may_go_on, learn = _ANSWERED.get(verb, _USUALLY)
        if reply.reply_class not in classes:
            raise MalformedReply(f"{reply.code} is no answer to {verb}")
        if may_go_on and self._goes_on(command, reply):
            return None
        self._sent.popleft()
        if self._results:
            return self._conclude(command)
        self._move(verb, reply)
        if learn is not None and reply.accepted:
            learn(self, reply)
        return command, reply

    def _goes_on(self, command: Command, reply: Reply) -> bool:
        """Whether more is to come. Behind a 421 others may still, and one of them may be a yes."""
        if type(command) is Hello:
            is_unknown = reply.reply_class == 5
            if is_unknown:
                self._sent[0] = Hello("HELO", command.name)
                self._output += render(self._sent[0])
            return is_unknown
        if not self._lmtp:
            return False
        self._results.append(reply)
        self.is_leaving |= reply.code == 421
        return len(self._results) < self._recipients

    def _conclude(self, command: Command) -> Answer:
        """All recipients of a message have their reply."""
        results, self._results, self.is_leaving = self._results, [], False
        self._move(command.verb, next((each for each in results if each.code == 421), results[-1]))
        return command, Results(results)

    def _move(self, verb: str, reply: Reply) -> None:
        now = self.state = state.next_state(self.state, verb, reply.code)
        if reply.reply_class == 3 and now not in _AFTER_3YZ:
            raise MalformedReply(f"{reply.code} goes on where nothing can")
        if now is state.READY:
            self._recipients = 0

    # What the server's acceptance tells.

    def _learn_offers(self, reply: Reply) -> None:
        self.offers = _offers(reply)

    def _learn_recipient(self, _: Reply) -> None:
        self._recipients += 1

    def _learn_tls(self, reply: Reply) -> None:
        if self._input.unread:
            raise MalformedReply("something was said behind the answer to STARTTLS")
        self._forget(reply)

    def _forget(self, _: Reply) -> None:
        """It is a stranger again, or one that knows no extensions."""
        self.offers = {}

    def _unasked(self, reply: Reply) -> Answer:
        if reply.reply_class not in (4, 5):
            raise MalformedReply(f"{reply.code} answers nothing")
        self.state = state.CLOSED
        return UNASKED, reply


def _offers(reply: Reply) -> dict[str, str]:
    """What the lines of a hello's answer announce, behind the first (RFC 5321 section 4.1.1.1)."""
    offers: dict[str, str] = {}
    for line in reply.text.split("\n")[1:]:
        keyword, _, argument = line.partition(" ")
        offers[keyword.upper()] = argument.strip()
    return offers


#: How a command is answered: by replies of which classes, whether its first reply may not be all, and what an
#: acceptance tells.
Row = tuple[tuple[int, ...], bool, Callable[[ClientDialogue, Reply], None] | None]

_USUALLY: Final[Row] = ((2, 4, 5), False, None)

#: Nothing is answered with 3yz but DATA and the steps of a SASL exchange. EHLO is said once more as HELO, and
#: LMTP answers the end of a message once for each recipient (RFC 2033 section 4.2).
_ANSWERED: Final[Mapping[str, Row]] = {
    "EHLO": ((2, 4, 5), True, ClientDialogue._learn_offers),
    "LHLO": ((2, 4, 5), False, ClientDialogue._learn_offers),
    "HELO": ((2, 4, 5), False, ClientDialogue._forget),
    "XCLIENT": ((2, 4, 5), False, ClientDialogue._forget),
    "STARTTLS": ((2, 4, 5), False, ClientDialogue._learn_tls),
    "AUTH": ((2, 3, 4, 5), False, None),
    state.RESPONSE: ((2, 3, 4, 5), False, None),
    "RCPT": ((2, 4, 5), False, ClientDialogue._learn_recipient),
    "DATA": ((3, 4, 5), False, None),
    state.END_OF_DATA: ((2, 4, 5), True, None),
    state.LAST_CHUNK: ((2, 4, 5), True, None),
}
