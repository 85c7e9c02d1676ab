"""Lines that are too long for Mailman's LMTP server, cut; it would refuse the whole message."""

from typing import Final

#: Octets of a line, its CRLF not counted (RFC 5321 section 4.5.3.1.6).
MAX_LINE: Final = 998

#: What is put where a line is cut: in a header that folds it, in a body the space tells what happened.
_CUT: Final = b"\r\n "


class LineCutter:
    """Cuts what is written to it, whatever its pieces; of most messages nothing is changed."""

    __slots__ = ("_length", "_held")

    def __init__(self) -> None:
        #: Octets of the line so far.
        self._length = 0
        self._held = b""

    def cut(self, octets: bytes) -> bytes:
        """The next octets; one CR at their end is held back until it is known what follows."""
        octets = self._held + octets
        self._held = b"\r" if octets.endswith(b"\r") else b""
        octets = octets[: len(octets) - len(self._held)]
        lines = octets.split(b"\r\n")
        cut = [self._cut_line(lines[0], self._length)]
        for line in lines[1:]:
            cut.append(self._cut_line(line, 0))
        return b"\r\n".join(cut)

    def rest(self) -> bytes:
        """What was held back, when nothing follows."""
        held, self._held = self._held, b""
        return self._cut_line(held, self._length)

    def _cut_line(self, line: bytes, length: int) -> bytes:
        """One line or the part of one that came, behind so many octets of it."""
        pieces = []
        while length + len(line) > MAX_LINE:
            room = MAX_LINE - length
            pieces.append(line[:room])
            line, length = line[room:], 1
        self._length = length + len(line)
        pieces.append(line)
        return _CUT.join(pieces)
