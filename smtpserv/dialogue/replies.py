"""What a server says, cut into replies. Whatever way the network splits it, what comes out is the same."""

import re
from functools import lru_cache
from typing import Final

from smtpserv.reply import Reply, sayable

#: Octets of the longest line that is borne, and of the longest reply; RFC 5321 section 4.5.3.1.5 has lines
#: of 512, and no limit on their number.
MAX_LINE: Final = 4096
MAX_REPLY: Final = 65536

_LINE: Final = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_STATUS: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


class MalformedReply(ValueError):
    """What a server sent is no reply, or none to what it was told; nobody knows where the next one begins."""


class ReplyReader:
    """Cuts replies, which end in CRLF and in nothing else; buffers what is not complete."""

    __slots__ = ("unread", "_lines", "_size")

    def __init__(self) -> None:
        #: What the network brought, and was not read yet; whoever receives more appends it.
        self.unread = b""
        #: The lines of a reply that goes on.
        self._lines: list[bytes] = []
        self._size = 0

    def next_reply(self) -> Reply | None:
        """The next reply; None when it is not complete. What could not be said in our own is escaped.

        :raises MalformedReply: for a line that is none, a code that changes within a reply (RFC 5321 section
            4.2.1), and a reply without an end.
        """
        while octets := self.unread:
            line, ending, rest = octets.partition(b"\r\n")
            if not ending or len(line) > MAX_LINE - 2:
                break
            self.unread = rest
            if line[3:4] != b"-":
                if not self._lines:
                    return _single(line)
                lines, self._lines, self._size = [*self._lines, line], [], 0
                return _reply(lines)
            self._lines.append(line)
            self._size += len(line)
            if line[:3] != self._lines[0][:3] or self._size > MAX_REPLY or not _LINE.fullmatch(line):
                raise MalformedReply("a reply that does not end as it began")
        if len(self.unread) >= MAX_LINE:
            raise MalformedReply("a line without an end")
        return None


def whole_replies(octets: bytes) -> list[Reply]:
    """The replies at the head of what a server said, as far as they are complete.

    :raises MalformedReply: as :meth:`ReplyReader.next_reply`.
    """
    reader = ReplyReader()
    reader.unread = octets
    return list(iter(reader.next_reply, None))


@lru_cache(256)
def _single(line: bytes) -> Reply:
    return _reply([line])


def _reply(lines: list[bytes]) -> Reply:
    """One reply, as far as it could be said in our own."""
    matches = [match for line in lines if (match := _LINE.fullmatch(line))]
    codes = {match[1] for match in matches}
    if len(codes) != 1 or len(matches) != len(lines):
        raise MalformedReply("not a reply line")
    code = _known(int(codes.pop()))
    texts = [(match[3] or b"").decode("utf-8", "replace") for match in matches]
    status = _status(code, texts)
    if status:
        texts = [text[len(status) + 1 :] for text in texts]
    return Reply(code, "\n".join([sayable(text.replace("\n", "\\n")) for text in texts]), status)


def _known(code: int) -> int:
    """A code whose second digit RFC 5321 section 4.2 has; of another one the first says all (4.3.2)."""
    if code // 10 % 10 <= 5:
        return code
    return {3: 354}.get(code // 100, code // 100 * 100 + 50)


def _status(code: int, texts: list[str]) -> str:
    """The status, if all lines have the same, and it is of the code's class."""
    found = {match[1] if (match := _STATUS.match(text)) else "" for text in texts}
    status = found.pop()
    return status if not found and status[:1] == str(code)[0] else ""
