"""What a server says, cut into replies: the same however it is split, bounded, and nothing but replies."""

from collections.abc import Iterable
from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue.replies import MAX_LINE, MAX_REPLY, MalformedReply, ReplyReader, whole_replies
from smtpserv.reply import Reply
from smtpserv.testing import at_every_split
from tests.fuzz import examples
from tests.fuzz.strategies import PLACES, cut

CODES: Final = st.builds(
    lambda a, b, c: a * 100 + b * 10 + c, st.integers(2, 5), st.integers(0, 5), st.integers(0, 9)
)
#: Text that cannot be taken for an enhanced status code.
TEXTS: Final = st.lists(st.text("abc XYZ.-;<>~!", max_size=20), min_size=1, max_size=4).map("\n".join)


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    """Any reply that is read as it is said."""
    code = draw(CODES)
    numbers = st.integers(0, 999)
    status = (
        f"{code // 100}.{draw(numbers)}.{draw(numbers)}" if code // 100 != 3 and draw(st.booleans()) else ""
    )
    return Reply(code, draw(TEXTS), status)


#: What a hostile server may say: replies, their pieces in disorder, line noise.
NOISE: Final = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"250 ", b"250-", b"250\r\n", b"550 5.1.1 x\r\n", b"4.1.1 "])
    | st.sampled_from([b"\0", b"\xff", b"\t", b"\x1b", b"250-a\nb\r\n", "\u2028ä".encode(), b"x" * 600])
    | replies().map(lambda each: each.octets)
    | st.binary(max_size=8),
    max_size=25,
).map(b"".join)


def read(pieces: Iterable[bytes]) -> tuple[list[Reply], bool]:
    """All replies, and whether it ended with what is none."""
    reader, found = ReplyReader(), list[Reply]()
    for piece in pieces:
        reader.unread += piece
        try:
            while (each := reader.next_reply()) is not None:
                found.append(each)
        except MalformedReply:
            return found, True
    return found, False


def one(octets: bytes) -> Reply:
    """The one reply that it is."""
    found, malformed = read([octets])
    assert len(found) == 1 and not malformed, found
    return found[0]


class Reading(SynchronousTestCase):
    """Replies as servers say them."""

    @examples(50)
    @given(st.lists(replies(), max_size=4), PLACES)
    def test_both_directions(self, said: list[Reply], places: list[float]) -> None:
        """Any replies, however they are split, are read as they were said."""
        octets = b"".join(each.octets for each in said)
        self.assertEqual(read(cut(octets, places)), (said, False))

    def test_every_split(self) -> None:
        """Replies of one line and of several, cut at each place."""
        octets = (
            b"220 mx.example\r\n250-mx.example\r\n250-SIZE 1\r\n250 DSN\r\n550-5.1.1 a\r\n550 5.1.1 b\r\n"
        )
        expected = [
            Reply(220, "mx.example", ""),
            Reply(250, "mx.example\nSIZE 1\nDSN", ""),
            Reply(550, "a\nb", "5.1.1"),
        ]
        for pieces in at_every_split(octets):
            self.assertEqual(read(pieces), (expected, False), pieces)

    def test_odd_but_right(self) -> None:
        """A code alone, a status alone, and text that only begins like a status."""
        for octets, expected in {
            b"250\r\n": Reply(250, "", ""),
            b"250 \r\n": Reply(250, "", ""),
            b"550 5.1.1\r\n": Reply(550, "", "5.1.1"),
            b"550 5.1.1 \r\n": Reply(550, "", "5.1.1"),
            b"220 4.5x\r\n": Reply(220, "4.5x", ""),
            b"250 2.0.0.1 x\r\n": Reply(250, "2.0.0.1 x", ""),
            b"250 2.1000.1 x\r\n": Reply(250, "2.1000.1 x", ""),
            b"250-a\r\n250\r\n": Reply(250, "a\n", ""),
        }.items():
            self.assertEqual(one(octets), expected)

    def test_status_of_all_lines(self) -> None:
        """A status counts if all lines have the same one of the reply's class; no text is lost if not."""
        for octets, expected in {
            b"250-mx.example\r\n250 2.0.0 x\r\n": Reply(250, "mx.example\n2.0.0 x", ""),
            b"250-2.0.0 x\r\n250 y\r\n": Reply(250, "2.0.0 x\ny", ""),
            b"250-2.0.0 x\r\n250 2.1.0 y\r\n": Reply(250, "2.0.0 x\n2.1.0 y", ""),
            b"250-2.0.0\r\n250 2.0.0 y\r\n": Reply(250, "\ny", "2.0.0"),
            b"550 4.1.1 x\r\n": Reply(550, "4.1.1 x", ""),
            b"354 2.0.0 x\r\n": Reply(354, "2.0.0 x", ""),
        }.items():
            self.assertEqual(one(octets), expected)

    def test_unsayable(self) -> None:
        """What we could not say ourselves is escaped, a bare CR or LF above all: it ends no line."""
        for octets, text in {
            b"250 a\x00b\r\n": "a\\x00b",
            b"250 a\rb\r\n": "a\\rb",
            b"250 a\nb\r\n": "a\\nb",
            b"250 a\n250 b\r\n": "a\\n250 b",
            b"250 \x1b[0m\r\n": "\\x1b[0m",
            b"250 \xc3\xa4\xff\r\n": "\\xe4\\ufffd",
            b"250 " + b"x" * 900 + b"\r\n": "x" * 482,
        }.items():
            self.assertEqual(one(octets).text, text)
        self.assertEqual(one(b"250-a\nSIZE 1\r\n250 b\r\n").text, "a\\nSIZE 1\nb")

    def test_incomplete(self) -> None:
        """What is not whole yet waits, and is counted."""
        for octets in (b"", b"250", b"250 Ok\r", b"250-a"):
            reader = ReplyReader()
            reader.unread += b"220 x\r\n" + octets
            self.assertEqual(reader.next_reply(), Reply(220, "x", ""))
            self.assertIsNone(reader.next_reply())
            self.assertEqual(reader.unread, octets)

    def test_whole(self) -> None:
        """All that are complete can be had at once."""
        self.assertEqual(
            whole_replies(b"220 x\r\n250-a\r\n250 b\r\n250-c\r\n250"),
            [Reply(220, "x", ""), Reply(250, "a\nb", "")],
        )
        self.assertEqual(whole_replies(b""), [])
        self.assertRaises(MalformedReply, whole_replies, b"220 x\r\nwhat\r\n")

    def test_unknown_codes(self) -> None:
        """A code that RFC 5321 does not know is what its first digit says (section 4.3.2)."""
        self.assertEqual(one(b"571 5.7.1 No\r\n"), Reply(550, "No", "5.7.1"))
        self.assertEqual(one(b"499-a\r\n499 b\r\n"), Reply(450, "a\nb", ""))
        self.assertEqual(one(b"290 x\r\n"), Reply(250, "x", ""))
        self.assertEqual(one(b"361 x\r\n"), Reply(354, "x", ""))

    def test_remembered(self) -> None:
        """The same line is the same reply, and is not parsed again."""
        self.assertIs(one(b"250 2.1.0 Ok\r\n"), one(b"250 2.1.0 Ok\r\n"))


class Malformed(SynchronousTestCase):
    """What is no reply is an error, not a guess."""

    def test_lines(self) -> None:
        """Lines of no form, of codes there are not, and codes that change within a reply."""
        for octets in (
            b"\r\n",
            b"25 x\r\n",
            b"250x\r\n",
            b"250\tx\r\n",
            b"150 x\r\n",
            b"650 x\r\n",
            b"\xb2\xb5\xb0 x\r\n",
            b"250-a\r\n251 b\r\n",
            b"250-a\r\n251-b\r\n",
            b"250-a\r\n\r\n",
            b" 250 x\r\n",
            b"HTTP/1.1 200 OK\r\n",
        ):
            for pieces in at_every_split(octets):
                self.assertEqual(read(pieces), ([], True), pieces)

    def test_known_by_its_first_line(self) -> None:
        """A first line that is none is not waited with, though it may look as if it went on."""
        for octets in (b"SSH-2.0\r\n", b"999-x\r\n", b"---\r\n-"):
            self.assertEqual(read([octets]), ([], True), octets)

    def test_after_good_ones(self) -> None:
        """What came before it counts."""
        self.assertEqual(
            read([b"220 x\r\n250 y\r\nwhat\r\n"]), ([Reply(220, "x", ""), Reply(250, "y", "")], True)
        )

    def test_endless_line(self) -> None:
        """A line is borne up to its limit, CRLF included, and no octet more, however it comes."""
        for size, malformed in ((MAX_LINE, False), (MAX_LINE + 1, True)):
            octets = b"250 " + b"x" * (size - 6) + b"\r\n"
            for pieces in ([octets], [octets[:-1], octets[-1:]], [octets[:100], octets[100:]]):
                self.assertEqual(read(pieces)[1], malformed, size)
        self.assertEqual(read([b"x"] * (MAX_LINE - 1)), ([], False))
        self.assertEqual(read([b"x"] * MAX_LINE), ([], True))

    def test_endless_reply(self) -> None:
        """A reply is borne up to its limit, and one without an end is not."""
        line = b"250-" + b"x" * 996
        fits = MAX_REPLY // len(line)
        found, malformed = read([line + b"\r\n"] * fits + [b"250 end\r\n"])
        self.assertEqual((len(found), malformed), (1, False))
        self.assertEqual(read([line + b"\r\n"] * (fits + 1)), ([], True))
        self.assertEqual(read([b"250-\r\n" * (MAX_REPLY // 4 + 1)]), ([], True))

    @examples(100)
    @given(NOISE, PLACES)
    def test_noise(self, noise: bytes, places: list[float]) -> None:
        """Whatever comes, however split: nothing but replies that can be said again, or MalformedReply."""
        found, malformed = read([noise])
        self.assertEqual(read(cut(noise, places)), (found, malformed))
        self.assertEqual(read([bytes([octet]) for octet in noise]), (found, malformed))
        for each in found:
            self.assertEqual(read([each.octets])[0], [each])
