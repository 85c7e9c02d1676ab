"""Lines that are too long for Mailman's LMTP server, cut; it would refuse the whole message."""

from typing import Final

#: Octets of a line, its CRLF not counted (RFC 5321 section 4.5.3.1.6).
MAX_LINE: Final = 998

#: What is put where a line is cut: in a header that folds it, in a body the space tells what happened.
_CUT: Final = b"\r\n "


#: Octets of a character in UTF-8 before its last.
_MORE: Final = 3


class LineCutter:
    """Cuts what is written to it, whatever its pieces; of most messages nothing is changed."""

    __slots__ = ("_length", "_held")

    def __init__(self) -> None:
        #: Octets of the line so far, of those that were given out.
        self._length = 0
        self._held = b""

    def cut(self, octets: bytes) -> bytes:
        """The next octets; some at their end may be held back until it is known what follows."""
        lines = (self._held + octets).split(b"\r\n")
        last = lines.pop()
        done = []
        for line in lines:
            done.append(_CUT.join(self._pieces(line)))
            self._length = 0
        text = last.removesuffix(b"\r")
        *pieces, tail = self._pieces(text)
        # The line may be cut in front of these; and a CR may be half of its end.
        given = tail[: MAX_LINE - _MORE - self._length]
        self._held = tail[len(given) :] + last[len(text) :]
        self._length += len(given)
        done.append(_CUT.join([*pieces, given]))
        return b"\r\n".join(done)

    def rest(self) -> bytes:
        """What was held back, when nothing follows."""
        held, self._held = self._held, b""
        return _CUT.join(self._pieces(held))

    def _pieces(self, line: bytes) -> list[bytes]:
        """A line, or what comes behind the begin of one, in lines that are not too long."""
        pieces = []
        while self._length + len(line) > MAX_LINE:
            room = _whole_characters(line, MAX_LINE - self._length)
            pieces.append(line[:room])
            line, self._length = line[room:], 1
        return [*pieces, line]


def _whole_characters(line: bytes, room: int) -> int:
    """How much of the room is used, so that no character of UTF-8 is cut."""
    for less in range(_MORE + 1):
        if not 0x80 <= line[room - less] < 0xC0:
            return room - less
    return room
