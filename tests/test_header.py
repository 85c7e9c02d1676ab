"""Headers, changed field by field: what is not named stays octet for octet."""

import tempfile

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.header import MAX_HEADER, Header, make_field
from smtpserv.message import Content
from tests.fuzz import examples

FIELD = make_field("X-New", "new")
#: A header with what headers have: repeated, folded, 8-bit, over-long and broken lines.
BROKEN = (
    b"Received: 1\r\nSubject: one\r\n two\r\nreceived : 2\r\nX: \xff\xfe\r\nLong: "
    + b"x" * 5000
    + b"\r\nno field\r\n of any name\r\nReceived: 3\r\n"
)
BODY = b"\r\nReceived: in the body\r\n\0\r\n"


def filed(case: SynchronousTestCase, octets: bytes) -> Content:
    """Content that lies in a file."""
    file = tempfile.TemporaryFile(buffering=0)
    case.addCleanup(file.close)
    file.write(octets)
    return Content(file, len(octets))


class SplicedTests(SynchronousTestCase):
    """Content with another head."""

    @given(
        st.binary(max_size=40), st.lists(st.tuples(st.binary(max_size=20), st.integers(0, 50)), max_size=4)
    )
    @examples(100)
    def test_as_bytes(self, octets: bytes, splices: list[tuple[bytes, int]]) -> None:
        """In a file and in memory, spliced once and again, it is what slices of bytes are."""
        for content in (Content(octets), filed(self, octets)):
            expected = octets
            for head, skip in splices:
                content, expected = content.spliced(head, skip), head + expected[skip:]
            self.assertEqual((content.read(), content.size), (expected, len(expected)))
            self.assertEqual(b"".join(content.chunks(3)), expected)
            with content.open() as file:
                for offset in (0, 5, len(expected)):
                    file.seek(offset)
                    self.assertEqual(file.read(7), expected[offset:][:7])
                file.seek(0, 2)
                self.assertEqual(file.tell(), len(expected))

    def test_file_stays(self) -> None:
        """What lies in a file is not read for it, and the content it came of stays as it was."""
        content = filed(self, b"a" * 100_000)
        spliced = content.spliced(b"head", 10)
        self.assertEqual(spliced._head, b"head")
        self.assertEqual((content.size, spliced.size), (100_000, 99_994))
        self.assertEqual(content.read(), b"a" * 100_000)


class HeaderTests(SynchronousTestCase):
    """The fields of a header."""

    def after(self, octets: bytes, change: str, *facts: object) -> bytes:
        """The content once its header was changed."""
        content = Content(octets)
        return getattr(Header.of(content), change)(*facts).of_content(content).read()  # type: ignore[no-any-return]

    def test_fields(self) -> None:
        """Names in lower case, values as they came, lines that are no field without a name."""
        header = Header.of(Content(BROKEN + BODY))
        self.assertEqual(
            [each.name for each in header.fields],
            [b"received", b"subject", b"received", b"x", b"long", b"", b"received"],
        )
        self.assertEqual([each.text for each in header.named("RECEIVED")], ["1", "2", "3"])
        self.assertEqual(header.named("subject")[0].text, "one two")
        self.assertEqual((header.octets, header.size, header.complete), (BROKEN, len(BROKEN), True))

    def test_inserted(self) -> None:
        """At the top, between fields, and below all."""
        lines = [each.octets for each in Header.of(Content(BROKEN)).fields]
        for index in (0, 2, 99):
            expected = b"".join([*lines[:index], FIELD.octets, *lines[index:]]) + BODY
            self.assertEqual(self.after(BROKEN + BODY, "inserted", FIELD, index), expected)

    def test_added(self) -> None:
        """Below the others; above a line that is none; a last line that has no end is given one."""
        for before, after in {
            b"A: b\r\n\r\nbody": b"A: b\r\nX-New: new\r\n\r\nbody",
            b"A: b\r\n\r\n": b"A: b\r\nX-New: new\r\n\r\n",
            b"A: b\r\n": b"A: b\r\nX-New: new\r\n",
            b"A: b": b"A: b\r\nX-New: new\r\n",
            b"A: b\n\nbody": b"A: b\nX-New: new\r\n\nbody",
            b"\r\nbody": b"X-New: new\r\n\r\nbody",
            b"": b"X-New: new\r\n",
            b"no field": b"X-New: new\r\nno field",
            b" A: b\r\nC: d\r\n": b"X-New: new\r\n A: b\r\nC: d\r\n",
        }.items():
            self.assertEqual(self.after(before, "added", FIELD), after)

    def test_replaced(self) -> None:
        """One of several, in place; where there is none it is added."""
        field = make_field("Received", "new")
        for occurrence, gone in ((1, b"Received: 1\r\n"), (2, b"received : 2\r\n"), (3, b"Received: 3\r\n")):
            expected = BROKEN.replace(gone, field.octets) + BODY
            self.assertEqual(self.after(BROKEN + BODY, "replaced", field, occurrence), expected)
        self.assertEqual(self.after(b"A: b\r\n", "replaced", field, 1), b"A: b\r\nReceived: new\r\n")

    def test_deleted(self) -> None:
        """One of several, or all, broken lines notwithstanding; the body has no fields."""
        left = self.after(BROKEN + BODY, "deleted", "received", 2)
        self.assertEqual(left, BROKEN.replace(b"received : 2\r\n", b"") + BODY)
        left = self.after(BROKEN + BODY, "deleted", "received", None)
        self.assertEqual([each.text for each in Header.of(Content(left)).named("received")], [])
        self.assertEqual(left.count(b"eceived"), 1)
        self.assertEqual(self.after(BROKEN + BODY, "deleted", "received", 4), BROKEN + BODY)

    @given(
        st.lists(st.sampled_from([b"A: b", b"\r\n", b"\n", b"\r", b" ", b"\t", b"c", b":", b"\xff", b"\0"]))
    )
    @examples(100)
    def test_any_octets(self, pieces: list[bytes]) -> None:
        """Of any octets a header is a part from the start; a field put in and taken out leaves no trace."""
        octets = b"".join(pieces)
        for content in (Content(octets), filed(self, octets)):
            header = Header.of(content)
            self.assertEqual(header.octets, octets[: header.size])
            self.assertIn(octets[header.size :][:1], (b"", b"\r", b"\n"))
            self.assertEqual(header.of_content(content).read(), octets)
            again = Header.of(header.inserted(FIELD, 0).of_content(content))
            if octets[:1] not in (b" ", b"\t"):
                self.assertEqual(again.deleted("x-new", None).octets, header.octets)

    def test_without_end(self) -> None:
        """A header without end is looked at for 256 KiB; the rest is passed on as it is."""
        line = b"A: %s\r\n" % (b"b" * 1019)
        octets = line * (MAX_HEADER // len(line) + 100)
        content = Content(octets)
        header = Header.of(content)
        self.assertFalse(header.complete)
        self.assertLessEqual(header.size, MAX_HEADER)
        self.assertEqual(header.deleted("a", 1).of_content(content).read(), octets[len(line) :])
        self.assertTrue(Header.of(Content(octets[: MAX_HEADER - 6])).complete)


class MakeFieldTests(SynchronousTestCase):
    """New fields."""

    def test_octets(self) -> None:
        """Name, colon, value as given, folds and octets that are no text included."""
        self.assertEqual(make_field("X", "one\r\n\ttwo").octets, b"X: one\r\n\ttwo\r\n")
        self.assertEqual(make_field("X", "caf\u00e9 \udcff").octets, b"X: caf\xc3\xa9 \xff\r\n")

    def test_nothing_else_gets_in(self) -> None:
        """A name that is none, and a value that would end its field, are refused."""
        for name in ("", "a b", "a:", "a\r\nb", "\u00e4", "a\0", "x" * 77):
            self.assertRaises(ValueError, make_field, name, "v")
        for value in (
            "a\r\nB: c",
            "a\nb",
            "a\n b",
            "a\rb",
            "a\0",
            "a\r\n",
            "a\r\n \r\n b",
            "x" * 998,
            "\r\n\r\nb",
        ):
            self.assertRaises(ValueError, make_field, "X", value)

    @given(st.text("ab :\r\n\t\0"), st.text("ab :\r\n\t\0\u2028\u00e4"))
    @examples(100)
    def test_one_field(self, name: str, value: str) -> None:
        """What is made is one field in a header, whatever it was made of."""
        try:
            field = make_field(name, value)
        except ValueError:
            return
        header = Header.of(Content(b"A: b\r\n" + field.octets + b"C: d\r\n\r\n"))
        self.assertEqual([each.name for each in header.fields], [b"a", name.lower().encode(), b"c"])
