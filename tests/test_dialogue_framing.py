"""Lines and mail data, compared with the slowest and plainest reading of RFC 5321 there is."""

import re
from collections.abc import Iterable
from itertools import product

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.dialogue import framing
from smtpserv.dialogue.framing import LineReader, MailDataReader, has_only_whole_newlines
from smtpserv.dialogue.terms import BareNewlines
from smtpserv.error import SMTPError
from smtpserv.testing import at_every_split
from tests.fuzz import examples
from tests.fuzz.strategies import CONTENTS, PLACES, WHOLE_CONTENTS, cut

#: What may follow mail data in the same packet.
TAILS = st.sampled_from([b"", b"", b".\r\n", b"\r\n.\r\n", b"QUIT\r\n", b"\n", b"\r"])


def stuffed(content: bytes) -> bytes:
    """Mail data of a content that ends in CRLF or is empty: dots doubled line by line, and the final dot."""
    lines = content.split(b"\r\n")
    assert lines.pop() == b""
    return b"".join((b"." if line[:1] == b"." else b"") + line + b"\r\n" for line in lines) + b".\r\n"


def unstuffed(wire: bytes) -> tuple[bytes, bytes]:
    """Content and rest of mail data, line by line: a line is what CRLF ends, and one of one dot the end."""
    content = b""
    while True:
        line, newline, wire = wire.partition(b"\r\n")
        assert newline, "no end of mail data"
        if line == b".":
            return content, wire
        content += line.removeprefix(b".") + newline


def normalized(content: bytes) -> bytes:
    """Each CR, LF and CRLF made CRLF, an octet at a time."""
    out, previous = b"", b""
    for octet in (content[i : i + 1] for i in range(len(content))):
        if octet == b"\r" or (octet == b"\n" and previous != b"\r"):
            out += b"\r\n"
        elif octet != b"\n":
            out += octet
        previous = octet
    return out


def is_whole(octets: bytes) -> bool:
    """Whether every CR and LF is half of a CRLF."""
    return re.search(rb"\r(?!\n)|(?<!\r)\n", octets) is None


def read_all(pieces: Iterable[bytes], policy: BareNewlines) -> tuple[bytes, bytes, bool]:
    """Content, rest and whether a bare newline was met."""
    reader, content, rest = MailDataReader(policy), b"", b""
    for piece in pieces:
        if reader.ended:
            rest += piece
            continue
        part, rest = reader.read(piece)
        assert reader.ended or not rest, "octets given back before the end"
        content += part
    assert reader.ended, "the end was not found"
    return content, rest, reader.bare_newline


class MailData(SynchronousTestCase):
    """The content comes out as it went in, and ends where it ended."""

    @examples(80)
    @given(WHOLE_CONTENTS, TAILS, PLACES, st.sampled_from(BareNewlines))
    def test_round_trip(self, content: bytes, tail: bytes, places: list[float], policy: BareNewlines) -> None:
        """A message with whole CRLFs arrives octet for octet, and what follows it is untouched."""
        if content and not content.endswith(b"\r\n"):
            content += b"\r\n"
        came = read_all(cut(stuffed(content) + tail, places), policy)
        self.assertEqual(came, (content, tail, False))

    @examples(120)
    @given(CONTENTS, TAILS, PLACES, st.sampled_from(BareNewlines))
    @example(b"\r\n.\r", b"", [], BareNewlines.ALLOW)
    @example(b"\n.\n", b"", [], BareNewlines.NORMALIZE)
    def test_any_wire(self, wire: bytes, tail: bytes, places: list[float], policy: BareNewlines) -> None:
        """Whatever octets come, end, content and verdict are those of a line-by-line reading."""
        wire += b"\r\n.\r\n" + tail
        content, rest = unstuffed(wire)
        came, came_rest, bare = read_all(cut(wire, places), policy)
        self.assertEqual(came_rest, rest)
        self.assertEqual(bare, policy is BareNewlines.REFUSE and not is_whole(content))
        if not bare:
            self.assertEqual(came, normalized(content) if policy is BareNewlines.NORMALIZE else content)

    def test_every_short_wire(self) -> None:
        """All strings of four of CR, LF, dot and a letter, cut everywhere, are read as line by line."""
        for number in range(4**4):
            wire = bytes(b"\r\n.a"[number >> shift & 3] for shift in (0, 2, 4, 6)) + b"\r\n.\r\n"
            content, rest = unstuffed(wire)
            for pieces in at_every_split(wire):
                self.assertEqual(read_all(pieces, BareNewlines.ALLOW), (content, rest, False), pieces)
                refused = read_all(pieces, BareNewlines.REFUSE)
                self.assertEqual(refused[1:], (rest, not is_whole(content)), pieces)
                came = read_all(pieces, BareNewlines.NORMALIZE)
                self.assertEqual(came, (normalized(content), rest, False), pieces)

    @examples(40)
    @given(st.binary(max_size=200) | CONTENTS, PLACES)
    def test_holds_little_back(self, wire: bytes, places: list[float]) -> None:
        """Content is passed on as it comes: no more than four octets wait for their successors."""
        reader, sent, came = MailDataReader(BareNewlines.ALLOW), 0, 0
        for piece in cut(wire, places):
            if not reader.ended:
                content, rest = reader.read(piece)
                sent, came = sent + len(piece) - len(rest), came + len(content)
                dots = wire[:sent].count(b"\r\n.") + wire.startswith(b".")
                if not reader.ended:
                    self.assertLessEqual(sent - came, 4 + dots)

    def test_end_in_the_first_octets(self) -> None:
        """The final dot may be the very first octet, as DATA's own CRLF stands before it."""
        for pieces in at_every_split(b".\r\nrest"):
            self.assertEqual(read_all(pieces, BareNewlines.REFUSE), (b"", b"rest", False))

    def test_big_pieces(self) -> None:
        """Half a megabyte in one piece, dots in every line, is unstuffed as in many."""
        for line in (b"." * 70, b"A" * 76, b"..", b"", b"A" * 76 + b"\r\n" + b"B" * 60):
            content = (line + b"\r\n") * (524288 // (len(line) + 2))
            wire = stuffed(content)
            for size in (len(wire), 65536, 65537, 4099):
                pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
                self.assertEqual(read_all(pieces, BareNewlines.REFUSE), (content, b"", False))


class DottedLines(SynchronousTestCase):
    """The quick look for a line that begins with a dot is right, not only quick."""

    @examples(200)
    @given(st.lists(st.sampled_from([b".", b"\r\n", b"\r\n.", b"\n.", b"a", b".a" * 30]), max_size=60))
    def test_the_first(self, pieces: list[bytes]) -> None:
        """However many dots stand before it, or none."""
        octets = b"".join(pieces)
        self.assertEqual(framing.find_dotted_line(octets), octets.find(b"\r\n."))


class WholeNewlines(SynchronousTestCase):
    """The quick test for bare newlines is right, not only quick."""

    def check(self, octets: bytes) -> None:
        """It says what the regular expression says."""
        self.assertEqual(has_only_whole_newlines(octets), is_whole(octets), octets)

    @examples(120)
    @given(CONTENTS)
    def test_short(self, octets: bytes) -> None:
        """Any short octets."""
        self.check(octets)

    @examples(80)
    @given(
        st.integers(0, 90),
        st.integers(50, 200),
        st.lists(
            st.tuples(st.floats(0, 1), st.sampled_from([b"", b"\r", b"\n", b"\n\r", b"\r\n", b"x"])),
            max_size=4,
        ),
        st.integers(0, 100),
        st.just(b"") | CONTENTS,
    )
    def test_lines_of_one_length(
        self, width: int, count: int, changes: list[tuple[float, bytes]], last: int, head: bytes
    ) -> None:
        """Lines of one length, as base64 has them, and then a flaw somewhere: the shortcut is not fooled."""
        octets = head + (b"A" * width + b"\r\n") * count + b"A" * last
        for place, put in changes:
            start = int(place * len(octets))
            octets = octets[:start] + put + octets[start + len(put) :]
        self.check(octets)

    def test_every_flaw(self) -> None:
        """Short lines of one length, with each flaw of one octet and two at each place, behind any start."""
        self.patch(framing, "_WORTH_A_LOOK", 0)
        for width, head in product((0, 1, 2, 4), (b"", b"\n", b"\r\n", b"A\r\n", b"\r", b"AAAAAA\r\n")):
            octets = head + (b"A" * width + b"\r\n") * 6 + b"A" * (width // 2)
            self.check(octets)
            for place, put in product(range(len(octets)), (b"\r", b"\n", b"A", b"\n\r", b"\r\n", b"AA")):
                self.check(octets[:place] + put + octets[place + len(put) :])
                self.check(octets[:place] + put + octets[place:])

    def test_flaws_that_cancel_out(self) -> None:
        """As many CR as LF, but not in pairs, wherever they stand among many good lines."""
        for width in (0, 1, 2, 10, 76):
            line = b"A" * width + b"\r\n"
            for flaw in (b"\n\r", b"\r \n", b"\n \r", b"\r\r\n\n", b"\n" + b"A" * 76 + b"\r"):
                for before in (0, 1, 50, 5000 // len(line)):
                    for after in (0, 1, 50, 5000 // len(line)):
                        self.check(line * before + flaw + line * after)

    def test_strides_out_of_step(self) -> None:
        """LF at even strides and CR somewhere else, in as great a number."""
        for width in range(2, 12):
            self.check((b"A" * width + b"\n") * 600 + b"\r" * 600)
            self.check(b"\r" * 600 + (b"A" * width + b"\n") * 600)
            self.check((b"\r" + b"A" * width + b"\n") * 600)
            self.check((b"\n" + b"A" * width + b"\r") * 600)
            self.check((b"A" * width + b"\r\n") * 600 + b"\n\r")
            self.check(b"\n" + (b"A" * width + b"\r\n") * 600 + b"\r")


class Lines(SynchronousTestCase):
    """Commands end in CRLF and in nothing else."""

    @staticmethod
    def lines(pieces: Iterable[bytes], limit: int) -> tuple[list[bytes | None], bytes]:
        """The lines, None for one that was too long; and what waits for its end."""
        reader = LineReader(limit)
        lines: list[bytes | None] = []
        for piece in pieces:
            reader.receive(piece)
            while True:
                try:
                    line = reader.next_line()
                except SMTPError as error:
                    assert error.reply == reply.LINE_TOO_LONG
                    lines.append(None)
                    continue
                if line is None:
                    break
                lines.append(line)
            assert len(reader) <= limit
        return lines, reader.take()

    @examples(80)
    @given(CONTENTS | st.binary(max_size=60), PLACES, st.integers(3, 12))
    def test_any_octets(self, octets: bytes, places: list[float], limit: int) -> None:
        """Whatever the split, lines are what stands between CRLFs; a long one is noticed once, at its end."""
        *expected, rest = octets.split(b"\r\n")
        lines, left = self.lines(cut(octets, places), limit)
        self.assertEqual(lines, [line if len(line) + 2 <= limit else None for line in expected])
        if len(rest) <= limit:
            self.assertEqual(left, rest)

    def test_boundary(self) -> None:
        """The limit counts the CRLF; a line of just that length passes, however it is split."""
        for pieces in at_every_split(b"12345678\r\n123456789\r\n12345678\r\n"):
            self.assertEqual(self.lines(pieces, 10)[0], [b"12345678", None, b"12345678"])

    def test_take(self) -> None:
        """What is behind the lines that were read can be taken over whole, and is then gone."""
        reader = LineReader(100)
        reader.receive(b"DATA\r\ncontent\r\n")
        self.assertEqual(reader.next_line(), b"DATA")
        self.assertEqual(len(reader), 9)
        self.assertEqual(reader.take(), b"content\r\n")
        self.assertEqual((len(reader), reader.take(), reader.next_line()), (0, b"", None))
        reader.receive(b"NOOP")
        reader.receive(b"\r\n")
        self.assertEqual(reader.next_line(), b"NOOP")
