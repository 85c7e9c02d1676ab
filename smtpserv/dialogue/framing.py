"""From octets to lines and mail data. Whatever way the network splits them, what comes out is the same."""

import re
from typing import Final

from smtpserv import reply
from smtpserv.dialogue.terms import BareNewlines
from smtpserv.error import SMTPError

_TERMINATOR: Final = b"\r\n.\r\n"
_TERMINATOR_STARTS: Final = tuple(_TERMINATOR[:length] for length in range(4, 0, -1))
_ANY_NEWLINE: Final = re.compile(rb"\r\n|\r|\n")


class LineReader:
    """Cuts command lines, which end in CRLF and in nothing else; buffers what is not read yet.

    :param limit: octets of the longest line, CRLF included. Of a longer one nothing is kept.
    """

    __slots__ = ("_buffer", "_position", "_limit", "_discarding")

    def __init__(self, limit: int) -> None:
        self._buffer = b""
        self._position = 0
        self._limit = limit
        self._discarding = False

    def __len__(self) -> int:
        return len(self._buffer) - self._position

    @property
    def has_unread(self) -> bool:
        """Whether anything is buffered."""
        return self._position < len(self._buffer)

    def receive(self, octets: bytes) -> None:
        """Append what the network brought."""
        if self._position < len(self._buffer):
            octets = self.take() + octets
        self._buffer, self._position = octets, 0

    def take(self) -> bytes:
        """Hand over everything unread."""
        rest = self._buffer[self._position :]
        self._buffer, self._position = b"", 0
        return rest

    def next_line(self) -> bytes | None:
        """The next line without its CRLF, or None when it is not complete.

        :raises SMTPError: 500, once, at the end of a line that was too long (RFC 5321 section 4.5.3.1.9).
        """
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\r\n", start)
        if end < 0:
            if len(self) > self._limit:
                self._discarding = True
                self._buffer, self._position = (b"\r" if buffer.endswith(b"\r") else b""), 0
            return None
        self._position = end + 2
        if self._discarding or end + 2 - start > self._limit:
            self._discarding = False
            raise SMTPError(reply.LINE_TOO_LONG)
        return buffer[start:end]


class ContentReader:
    """What the two ways to send content have in common: CR and LF stand together or not at all."""

    #: Whether nothing more is read: the mail data ended, or the chunk.
    ended = False
    #: Whether a CR or LF alone was met, unless the policy allows or normalizes it.
    bare_newline = False

    def __init__(self, policy: BareNewlines, held: bytes = b"") -> None:
        self._policy = policy
        self._held = held

    @property
    def is_hungry(self) -> bool:
        """Whether octets are needed to go on."""
        return not self.ended

    def read(self, octets: bytes) -> tuple[bytes, bytes]:
        """Take the next octets.

        :return: the content in them, and what follows its end (empty before the end).
        """
        raise NotImplementedError

    def _checked(self, content: bytes) -> bytes:
        if self._policy is BareNewlines.ALLOW or has_only_whole_newlines(content):
            return content
        if self._policy is BareNewlines.NORMALIZE:
            return _ANY_NEWLINE.sub(b"\r\n", content)
        self.bare_newline = True
        return content


class MailDataReader(ContentReader):
    """Finds the end of mail data and removes stuffed dots (RFC 5321 section 4.5.2), a chunk at a time.

    Only CRLF.CRLF ends mail data, and only a dot behind CRLF was stuffed. The chunk that could hold neither,
    having no dot, is passed on unsearched; at most four octets are held back between chunks.
    """

    #: The line of the DATA command ends in the CRLF that a first line's dot follows; it is no content.
    _surplus = 2

    def __init__(self, policy: BareNewlines) -> None:
        super().__init__(policy, b"\r\n")

    def read(self, octets: bytes) -> tuple[bytes, bytes]:
        """Take the next octets, as :meth:`ContentReader.read`."""
        octets = self._held + octets
        rest = b""
        first = find_dotted_line(octets)
        end = octets.find(_TERMINATOR, first) if first >= 0 else -1
        if end >= 0:
            self.ended = True
            rest = octets[end + len(_TERMINATOR) :]
            octets = octets[: end + 2]
        else:
            self._held = self._unfinished(octets)
            if self._held:
                octets = octets[: -len(self._held)]
        if first != end:
            octets = octets.replace(b"\r\n.", b"\r\n")
        if self._surplus and octets:
            octets, self._surplus = octets[self._surplus :], 0
        return self._checked(octets), rest

    @staticmethod
    def _unfinished(octets: bytes) -> bytes:
        """What of the tail might begin the terminator."""
        if not octets.endswith(_TERMINATOR_STARTS):
            return b""
        for start in _TERMINATOR_STARTS:
            if octets.endswith(start):
                return start
        return b""


def find_dotted_line(octets: bytes) -> int:
    """Where the first CRLF is that a dot follows; -1 where none is.

    Looking for a dot is a hundred times quicker than looking for three octets, while there are few of them;
    and in a small message either is quick.
    """
    if len(octets) < _WORTH_A_LOOK:
        return octets.find(b"\r\n.")
    dot = -1
    for _ in range(_FEW_DOTS):
        dot = octets.find(b".", dot + 1)
        if dot < 0:
            return -1
        if octets.startswith(b"\r\n.", max(dot - 2, 0)):
            return dot - 2
    return octets.find(b"\r\n.", dot + 1)


#: Dots that are looked at one by one.
_FEW_DOTS: Final = 24


class ChunkReader(ContentReader):
    """Counts the octets of chunks (RFC 3030). A CR at the end of one waits for what the next begins with."""

    _left = 0
    _last = False

    def expect(self, size: int, last: bool) -> None:
        """A chunk of so many octets comes."""
        self._left, self._last, self.ended = size, last, False

    @property
    def is_hungry(self) -> bool:
        """Whether octets are needed to go on: a chunk of none is there as soon as it is said."""
        return self._left > 0

    def read(self, octets: bytes) -> tuple[bytes, bytes]:
        """Take the next octets, as :meth:`ContentReader.read`."""
        chunk, rest = octets[: self._left], octets[self._left :]
        self._left -= len(chunk)
        self.ended = not self._left
        content, self._held = self._held + chunk, b""
        if content.endswith(b"\r") and not (self.ended and self._last):
            content, self._held = content[:-1], b"\r"
        return self._checked(content), rest


def has_only_whole_newlines(octets: bytes) -> bool:
    """Whether each CR is followed by LF and each LF follows a CR.

    Of a large message most are lines of one length, as base64 has them. Those are found good in a tenth of
    the time that counting takes; what stands around them is counted.
    """
    begin, end = _even_lines(octets) if len(octets) > _WORTH_A_LOOK else (0, 0)
    if begin < end:
        return _are_pairs(octets[:begin]) and _are_pairs(octets[end:])
    return _are_pairs(octets)


def _are_pairs(octets: bytes) -> bool:
    feeds = octets.count(b"\n")
    return feeds == octets.count(b"\r") and feeds == octets.count(b"\r\n")


def _even_lines(octets: bytes) -> tuple[int, int]:
    """From the CRLF before the first to that behind the last of the lines around the middle that are as long
    as the one there, if nothing in them is a CR or LF; else two zeros.

    A stride from LF to LF meets nothing else while lines are of one length. With these gone, and the CRs in
    front of them, an octet that is not there is not there in no time.
    """
    middle = octets.find(b"\n", len(octets) // 2)
    step = octets.find(b"\n", middle + 1) - middle
    if middle < 1 or step < 2:
        return 0, 0
    index, offset = divmod(middle, step)
    stride = octets[offset or step :: step]
    index -= not offset
    behind = stride[index:]
    first = len(stride[:index].rstrip(b"\n"))
    count = index - first + len(behind) - len(behind.lstrip(b"\n"))
    begin = (offset or step) + first * step - 1
    end = begin + (count - 1) * step + 2
    lines = bytearray(octets[begin:end])
    if lines[::step].count(b"\r") < count:
        return 0, 0
    lines[::step] = lines[1::step] = bytes(count)
    return (0, 0) if b"\r" in lines or b"\n" in lines else (begin, end)


#: Octets from which on it pays to look what they are like before they are counted or searched.
_WORTH_A_LOOK: Final = 2048
