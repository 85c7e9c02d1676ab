"""One conversation about one message: what is said of each event, and what the answers come to."""

import re
from collections.abc import Sequence
from typing import Final

from smtpserv import reply
from smtpserv.edit import Edit
from smtpserv.milter.change import Context, change_of
from smtpserv.milter.event import Event
from smtpserv.milter.negotiation import Terms
from smtpserv.milter.packet import Answer, Command, MilterError, Packet, read_strings
from smtpserv.reply import Reply, Results, sayable

#: What a milter may say besides its verdicts: octets in all, and what a packet counts for besides its own.
BUDGET: Final = 1 << 20
COST: Final = 1024

# Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF ; 4yz and 5yz alone
_REPLY_LINE: Final = re.compile(r"([45][0-5][0-9])(?:[ -](?:([45]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$))?(.*))?")

#: Percent signs come doubled; one that is not is dropped, as Postfix does.
_PERCENT: Final = re.compile(r"%(.?)", re.DOTALL)


class Conversation:
    """Tells a milter of events, one after the other, and hears what it thinks of them.

    After :meth:`tell`, while :attr:`awaits` says so, each packet that comes is for :meth:`hear`. It is over
    once :attr:`is_over` says so.

    A recipient that is refused alone refuses the message, as there is no other way to say so when it is all
    there: for now, if any is refused for now. The client may send it again to the others.

    :param message_id: for the reply to a message that is dropped.
    """

    def __init__(self, terms: Terms, context: Context, message_id: str) -> None:
        self.terms: Final = terms
        self._context: Final = context
        self._dropped: Final = reply.accepted(message_id)
        self._told = b""
        self._skipped: Final[set[bytes]] = set()
        self._refusals: Final[list[Reply]] = []
        self._edits: Final[list[Edit]] = []
        self._budget = BUDGET
        #: Whether an answer must come before anything more is said.
        self.awaits = False
        self.is_over = False
        #: What becomes of the message: see :data:`smtpserv.interfaces.Decision`.
        self.decision: Sequence[Edit] | Reply | None = None

    def wants(self, kind: bytes) -> bool:
        """Whether the milter wants to hear of such an event now."""
        return not self.is_over and kind not in self._skipped and self.terms.wants(kind)

    @property
    def parting(self) -> bytes:
        """What to say last: a message that was not told to its end is none."""
        ended = self._told == Command.END_OF_MESSAGE
        return (b"" if ended else bytes(Packet(Command.ABORT))) + bytes(Packet(Command.QUIT))

    def tell(self, event: Event) -> bytes:
        """What to say of an event; nothing where the milter does not want to hear of it."""
        if self._refusals and event.kind != Command.RCPT:
            self._end(Results(self._refusals).combined())
        if self.is_over or event.kind in self._skipped:
            return b""
        if not self.wants(event.kind):
            return event.definitions
        self._told = event.kind
        self.awaits = self.terms.answers(event.kind)
        return event.definitions + event.packet

    def hear(self, packet: Packet) -> bytes | None:
        """Heed one packet.

        :return: octets that the milter adds to a new body; None where it says something else.
        :raises MilterError: for what is no answer to what was said.
        """
        if self._told == Command.END_OF_MESSAGE:
            if packet.kind == Answer.REPLACE_BODY:
                return packet.payload
            if edit := change_of(packet, self._context):
                self._spend(packet)
                self._edits.append(edit)
                return None
        if packet.kind == Answer.PROGRESS:
            self._spend(packet)
        elif packet.kind == Answer.QUARANTINE:
            # There is nowhere to keep it until somebody looks at it.
            self._spend(packet)
            self._refusals.append(reply.QUARANTINED)
        else:
            self.awaits = False
            self._settle(packet)
        return None

    def _spend(self, packet: Packet) -> None:
        self._budget -= COST + len(packet.payload)
        if self._budget < 0:
            raise MilterError("it says too much")

    def _settle(self, packet: Packet) -> None:
        """Heed what answers the event."""
        kind = packet.kind
        refusal = _refusal_of(packet)
        if refusal is not None:
            self._refuse(refusal)
        elif kind == Answer.ACCEPT or (kind == Answer.CONTINUE and self._told == Command.END_OF_MESSAGE):
            self._accept()
        elif kind == Answer.DISCARD and self._told not in _BEFORE_MESSAGE:
            self._end(self._dropped)
        elif kind == Answer.SKIP and self._told in _REPEATED:
            self._skipped.add(self._told)
        elif kind != Answer.CONTINUE:
            raise MilterError(f"{self._told!r} was answered with {kind!r}")

    def _accept(self) -> None:
        self._end(Results(self._refusals).combined() if self._refusals else self._edits or None)

    def _refuse(self, refusal: Reply) -> None:
        if self._told == Command.RCPT and refusal.code != 421:
            self._refusals.append(refusal)
        else:
            self._end(refusal)

    def _end(self, decision: Sequence[Edit] | Reply | None) -> None:
        self.is_over, self.decision = True, decision


_REPEATED: Final = (Command.RCPT, Command.HEADER, Command.BODY)
_BEFORE_MESSAGE: Final = (Command.CONNECT, Command.HELO)

_REFUSALS: Final = {
    Answer.REJECT: reply.REFUSED_BY_FILTER,
    Answer.TEMPFAIL: reply.FILTER_UNAVAILABLE,
    Answer.SHUTDOWN: reply.FILTER_SHUTS_DOWN,
    Answer.FAIL_CONNECTION: reply.FILTER_SHUTS_DOWN,
}


def _refusal_of(packet: Packet) -> Reply | None:
    return _reply_of(packet.payload) if packet.kind == Answer.REPLY else _REFUSALS.get(packet.kind)


def _reply_of(payload: bytes) -> Reply:
    """The reply that a milter words itself, of one line or several.

    :raises MilterError: for one that could not be said, or refuses nothing.
    """
    (octets,) = read_strings(payload, 1, 1)
    text = _PERCENT.sub(r"\1", octets.decode("utf-8", "replace"))
    lines = [_reply_line(line) for line in re.split(r"\r?\n", text.rstrip("\r\n"))]
    if len({code for code, _, _ in lines}) != 1:
        raise MilterError("it words a reply of several codes")
    code, status, _ = lines[0]
    words = sayable("\n".join([words for _, _, words in lines]))
    return Reply(int(code), words, status if status[:1] == code[0] else None)


def _reply_line(line: str) -> tuple[str, str, str]:
    """Code, status and text."""
    match = _REPLY_LINE.fullmatch(line)
    if match is None:
        raise MilterError("it words a reply that is none")
    return match[1], match[2] or "", match[3] or ""
