"""The client's side of the conversation: commands in, octets out; octets in, answers out.

It runs on the same table as the server's, moved by the replies it receives. Commands go out as fast as the
server allows: where it offers PIPELINING (RFC 2920) before those ahead of them are answered, else one by one.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from smtpserv.dialogue import state
from smtpserv.dialogue.command import Bdat, Command, Hello, Plain
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

#: What answers DATA, and a SASL exchange; nothing else is ever answered with 3yz.
_CLASSES: Final = {"DATA": (3, 4, 5), "AUTH": (2, 3, 4, 5), state.RESPONSE: (2, 3, 4, 5)}
_USUAL_CLASSES: Final = (2, 4, 5)

_AFTER_3YZ: Final = frozenset({state.DATA, state.AUTH})

#: What LMTP answers once for each recipient (RFC 2033 section 4.2).
_CONCLUSIONS: Final = frozenset({state.END_OF_DATA, state.LAST_CHUNK})

#: Where nothing is known of the server that it said before.
_STRANGERS: Final = frozenset({state.CONNECTED, state.TLS})


class Answer(NamedTuple):
    """A command was answered.

    :param reply: Results for the end of a message under LMTP, of each recipient that was accepted.
    """

    command: Command
    reply: Reply | Results


class ClientDialogue:
    """One session. It begins by waiting for the greeting, which answers :data:`GREETING`.

    :param lmtp: whether the server speaks LMTP (RFC 2033).
    """

    __slots__ = (
        "state",
        "offers",
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
        self._lmtp = lmtp
        self._input = ReplyReader()
        self._output: list[bytes] = []
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
    def is_leaving(self) -> bool:
        """Whether one of LMTP's replies to a message was 421, and others are still to come, if they do."""
        return bool(self._results) and any(each.code == 421 for each in self._results)

    @property
    def ahead(self) -> State:
        """Where the session stands when all that is under way is accepted."""
        ahead = self.state
        for command in (*self._sent, *self._held):
            ahead = state.next_state(ahead, command.verb, _FORESEEN.get(command.verb, 250))
        return ahead

    def say(self, command: Command) -> None:
        """Send a command, or hold it until it may go.

        :raises ValueError: for one that would come out of order even if all before it are accepted, and for
            what could not be said: see :func:`smtpserv.dialogue.wording.render`. Chunks are written.
        """
        if isinstance(command, Bdat) or not state.in_order(self.ahead, command.verb):
            raise ValueError(f"{command.verb} is out of order")
        if self._held or not self._may_send():
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
        if b"." in content:
            tail = self._tail
            stuffed = (tail + content).replace(b"\r\n.", b"\r\n..")
            self._output.append(stuffed[len(tail) :])
        else:
            self._output.append(content)
        self._tail = content[-2:] if len(content) > 1 else (self._tail + content)[-2:]

    def end(self) -> None:
        """The mail data is complete. One that does not end with CRLF gets one; there is no other way.

        :raises ValueError: when no mail data is expected.
        """
        if not self._takes_mail_data:
            raise ValueError("the end of mail data is out of order")
        self._output.append(b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n")
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
        self._output.append(octets)

    def receive(self, octets: bytes) -> None:
        """Take what the network brought, any amount. :meth:`next_answer` then tells what it means."""
        if not self.state.is_deaf:
            self._input.receive(octets)

    def take_output(self) -> bytes:
        """What is to be sent to the server now."""
        output, self._output = self._output, []
        return output[0] if len(output) == 1 else b"".join(output)

    def next_answer(self) -> Answer | None:
        """What the server answered next; None when more octets are needed, or it is over.

        :raises MalformedReply: for what is no reply, or none to the command that waits for one. The session
            is of no use then.
        """
        while not self.state.is_deaf:
            reply = self._input.next_reply()
            if reply is None:
                return None
            answer = self._answer(reply)
            if answer is not None:
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
        results, self._results = self._results, []
        return Results([*results, *[rest] * (self._recipients - len(results))]) if results else None

    def close(self) -> None:
        """The connection is gone, or of no use."""
        self.state = state.CLOSED

    @property
    def _takes_mail_data(self) -> bool:
        """Whether it is expected, and its end has not been said: what follows that is a command."""
        return self.state is state.DATA and not self._sent

    def _may_send(self) -> bool:
        if not self._sent:
            return True
        return "PIPELINING" in self.offers and self._sent[-1].verb not in _LAST_OF_A_GROUP

    def _send(self, command: Command) -> None:
        self._output.append(render(command))
        self._sent.append(command)

    def _release(self) -> None:
        while self._held and not self.state.is_deaf and self._may_send():
            self._send(self._held.popleft())

    def _answer(self, reply: Reply) -> Answer | None:
        """Move the table by a reply; None when it is not the whole answer, or none that matters."""
        if not self._sent:
            return self._unasked(reply)
        command = self._sent[0]
        if reply.code != 421 and reply.reply_class not in _CLASSES.get(command.verb, _USUAL_CLASSES):
            raise MalformedReply(f"{reply.code} is no answer to {command.verb}")
        if command.verb == "EHLO" and reply.reply_class == 5:
            assert isinstance(command, Hello)
            self._sent[0] = Hello("HELO", command.name)
            self._output.append(render(self._sent[0]))
            return None
        if self._lmtp and command.verb in _CONCLUSIONS and not self._is_last(reply):
            return None
        self._sent.popleft()
        results, self._results = self._results, []
        self._move(command, next((each for each in results if each.code == 421), reply))
        return Answer(command, Results(results) if results else reply)

    def _is_last(self, reply: Reply) -> bool:
        """Keep one recipient's reply. Behind a 421 others may still come, and one of them may be a yes."""
        self._results.append(reply)
        return len(self._results) >= self._recipients

    def _move(self, command: Command, reply: Reply) -> None:
        now = self.state = state.next_state(self.state, command.verb, reply.code)
        self._see_whether_it_makes_sense(now, reply)
        if command.verb == "RCPT" and reply.accepted:
            self._recipients += 1
        elif type(command) is Hello and reply.accepted:
            self.offers = _offers(reply) if command.verb != "HELO" else {}
        elif now in _STRANGERS:
            self.offers = {}
        if now is state.READY:
            self._recipients = 0

    def _see_whether_it_makes_sense(self, now: State, reply: Reply) -> None:
        if reply.reply_class == 3 and now not in _AFTER_3YZ:
            raise MalformedReply(f"{reply.code} goes on where nothing can")
        if now is state.TLS and len(self._input):
            raise MalformedReply("something was said behind the answer to STARTTLS")

    def _unasked(self, reply: Reply) -> Answer:
        if reply.reply_class not in (4, 5):
            raise MalformedReply(f"{reply.code} answers nothing")
        self.state = state.CLOSED
        return Answer(UNASKED, reply)


def _offers(reply: Reply) -> dict[str, str]:
    """What the lines of a hello's answer announce, behind the first (RFC 5321 section 4.1.1.1)."""
    offers: dict[str, str] = {}
    for line in reply.text.split("\n")[1:]:
        keyword, _, argument = line.partition(" ")
        offers[keyword.upper()] = argument.strip()
    return offers
