"""What a processor is given: session, envelope, and the content in memory or in a file."""

import os
import tempfile
from dataclasses import FrozenInstanceError
from typing import Any, BinaryIO

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.message import (
    Content,
    Envelope,
    ForwardPath,
    Message,
    Path,
    Peer,
    ReversePath,
    Session,
    TLSFacts,
)
from tests.fuzz import examples


class ContentContract:
    """What holds for a content wherever it is kept."""

    def make(self, octets: bytes) -> Content:
        """A content of these octets."""
        raise NotImplementedError

    def test_read(self: Any) -> None:
        """All octets, and how many."""
        for octets in (b"", b"x", b"\0\r\n\xff" * 50_000):
            content = self.make(octets)
            self.assertEqual((content.read(), content.size), (octets, len(octets)))
            self.assertEqual(content.read(), octets)

    def test_independent_positions(self: Any) -> None:
        """Two readers of one content do not disturb each other, and closing one leaves the other."""
        content = self.make(b"0123456789" * 20_000)
        with content.open() as first, content.open() as second:
            self.assertEqual(first.read(5), b"01234")
            self.assertEqual(second.read(3), b"012")
            self.assertEqual(first.read(5), b"56789")
            second.close()
            self.assertEqual(first.read(2), b"01")
        with content.open() as third:
            self.assertEqual(third.read(1), b"0")

    def test_seek(self: Any) -> None:
        """A reader can go anywhere, as in any binary file."""
        octets = bytes(range(256)) * 1000
        with self.make(octets).open() as file:
            self.assertTrue(file.readable() and file.seekable())
            self.assertEqual(file.seek(-3, os.SEEK_END), len(octets) - 3)
            self.assertEqual(file.read(), octets[-3:])
            self.assertEqual(file.read(), b"")
            self.assertEqual(file.seek(1000), 1000)
            self.assertEqual((file.read(2), file.tell()), (octets[1000:1002], 1002))
            self.assertEqual(file.seek(100, os.SEEK_CUR), 1102)
            self.assertEqual(file.read(1), octets[1102:1103])
            self.assertEqual(file.seek(len(octets) + 10), len(octets) + 10)
            self.assertEqual(file.read(5), b"")
            file.seek(0)
            self.assertEqual(file.read(), octets)

    def test_lines(self: Any) -> None:
        """It can be read line by line."""
        with self.make(b"a\r\nb\r\n\r\nc").open() as file:
            self.assertEqual(list(file), [b"a\r\n", b"b\r\n", b"\r\n", b"c"])

    def test_chunks(self: Any) -> None:
        """The content in pieces no larger than asked for, none of them empty."""
        octets = b"0123456789" * 20_000
        content = self.make(octets)
        for size in (7_001, 65_536, 1_000_000):
            chunks = list(content.chunks(size))
            self.assertEqual(b"".join(chunks), octets)
            self.assertTrue(all(0 < len(chunk) <= size for chunk in chunks))
        self.assertEqual(max(map(len, content.chunks())), 65_536)
        self.assertEqual(list(self.make(b"").chunks()), [])

    def test_email(self: Any) -> None:
        """The standard library's message."""
        content = self.make(b"Subject: =?utf-8?q?caf=C3=A9?=\r\nTo: a@b.example\r\n\r\nbody\r\n")
        self.assertEqual(content.email["Subject"], "café")
        self.assertEqual(content.email.get_content().strip(), "body")
        self.assertIs(content.email, content.email)

    def test_headers(self: Any) -> None:
        """The header, and only once."""
        content = self.make(b"Subject: a\r\nTo: b\r\n\r\nFrom: c\r\n")
        self.assertEqual(content.headers, (("Subject", "a"), ("To", "b")))
        self.assertIs(content.headers, content.headers)


class InMemory(ContentContract, SynchronousTestCase):
    """A small content."""

    def make(self, octets: bytes) -> Content:
        return Content(octets)


class InAFile(ContentContract, SynchronousTestCase):
    """A large content, in a file that has no name."""

    def make(self, octets: bytes) -> Content:
        file = tempfile.TemporaryFile()
        file.write(octets)
        file.flush()
        self.addCleanup(file.close)
        return Content(file, len(octets))

    def test_file_stays_open(self) -> None:
        """Closing what was opened leaves the content readable, wherever its file's own position is."""
        content = self.make(b"text")
        file: BinaryIO = content.open()
        file.close()
        self.assertTrue(file.closed)
        self.assertEqual(content.read(), b"text")


class Headers(SynchronousTestCase):
    """The header fields as they were sent."""

    def fields(self, octets: bytes) -> list[tuple[str, str]]:
        """The header of a content."""
        return list(Content(octets).headers)

    def test_folding(self) -> None:
        """A value over several lines is one value, without the line breaks and nothing else changed."""
        self.assertEqual(
            self.fields(b"A: one\r\n two\r\n\tthree\r\nB: x\r\n"), [("A", "one two\tthree"), ("B", "x")]
        )

    def test_folded_at_once(self) -> None:
        """A value that begins on the second line has no space before it."""
        self.assertEqual(
            self.fields(b"References:\r\n <1@a.example>\r\n <2@a.example>\r\n"),
            [
                ("References", "<1@a.example> <2@a.example>"),
            ],
        )

    def test_order_and_repetition(self) -> None:
        """Fields keep their order, their case, and come as often as they were sent."""
        sent = b"Received: 2\r\nreceived: 1\r\nX: a\r\nReceived: 0\r\n\r\n"
        self.assertEqual(
            self.fields(sent), [("Received", "2"), ("received", "1"), ("X", "a"), ("Received", "0")]
        )

    def test_odd_ones(self) -> None:
        """Empty values, values with colons, no space behind the colon, spaces around, printable names."""
        self.assertEqual(
            self.fields(b"A:\r\nB: c:d\r\nE:f\r\nG :  h  \r\n!#$%&'*+-.^_`|~{}/: i\r\nJ: \tk\r\n"),
            [("A", ""), ("B", "c:d"), ("E", "f"), ("G", "h"), ("!#$%&'*+-.^_`|~{}/", "i"), ("J", "k")],
        )

    def test_end(self) -> None:
        """The header ends at the empty line, at what is no field, or with the message."""
        self.assertEqual(self.fields(b"A: b\r\n\r\nC: d\r\n"), [("A", "b")])
        self.assertEqual(self.fields(b"A: b\r\nno field\r\nC: d\r\n"), [("A", "b")])
        self.assertEqual(self.fields(b"A: b"), [("A", "b")])
        self.assertEqual(self.fields(b"A: b\r\n"), [("A", "b")])
        self.assertEqual(self.fields(b"A: b\r\nC"), [("A", "b")])
        self.assertEqual(self.fields(b""), [])
        self.assertEqual(self.fields(b"\r\nA: b\r\n"), [])
        self.assertEqual(self.fields(b" A: b\r\n"), [])
        self.assertEqual(self.fields(b"From sender Mon Jan  1\r\nA: b\r\n"), [])
        self.assertEqual(self.fields(b": b\r\nA: b\r\n"), [])

    def test_encodings(self) -> None:
        """UTF-8 is read, what is not UTF-8 replaced, encoded words left as they are."""
        self.assertEqual(
            self.fields(b"A: caf\xc3\xa9\r\nB: caf\xe9\r\nC: =?utf-8?q?=C3=A9?=\r\n"),
            [("A", "café"), ("B", "caf\ufffd"), ("C", "=?utf-8?q?=C3=A9?=")],
        )

    def test_other_newlines(self) -> None:
        """Where bare LF was allowed it ends a line; line breaks of Unicode never do."""
        self.assertEqual(self.fields(b"A: b\n c\nD: e\n\nF: g\n"), [("A", "b c"), ("D", "e")])

    def test_only_spaces_and_tabs_are_cut(self) -> None:
        """Space around a value is SP and HTAB; what else a value begins or ends with is part of it."""
        value = "\xa0b\u2028C: d\x0b\x85"
        self.assertEqual(self.fields(f"A: {value} \t\r\n".encode()), [("A", value)])

    @examples(60)
    @given(
        st.lists(
            st.tuples(st.text("azAZ09!#*-_/;~", min_size=1, max_size=8), st.text("ab :\t;ä", max_size=12)),
            max_size=5,
        )
    )
    def test_round_trip(self, fields: list[tuple[str, str]]) -> None:
        """Any fields come out as they were written, but for the space around the value."""
        sent = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
        self.assertEqual(
            self.fields(sent + b"\r\nX: y\r\n"), [(name, value.strip()) for name, value in fields]
        )

    @examples(60)
    @given(st.binary(max_size=80) | st.text("ab: \t\r\n", max_size=40).map(str.encode))
    def test_anything(self, octets: bytes) -> None:
        """Any octets have a header, of printable names and of values in one line."""
        for name, value in self.fields(octets):
            self.assertRegex(name, r"\A[!-9;-~]+\Z")
            self.assertNotIn("\n", value)
            self.assertNotIn("\r", value)

    def test_huge(self) -> None:
        """A header without end is looked at for a megabyte only."""
        self.assertLess(len(self.fields(b"A: b\r\n" * 400_000)), 200_000)


class Paths(SynchronousTestCase):
    """Addresses and their parts."""

    def test_parts(self) -> None:
        """Local part and domain, divided at the at-sign that divides them."""
        for address, local, domain in (
            ("a@b.example", "a", "b.example"),
            ('"a@b"@c.example', '"a@b"', "c.example"),
            ("a@[192.0.2.1]", "a", "[192.0.2.1]"),
            ("postmaster", "postmaster", ""),
            ("", "", ""),
        ):
            path = Path(address)
            self.assertEqual((path.local_part, path.domain, str(path)), (local, domain, f"<{address}>"))

    def test_reverse_path(self) -> None:
        """What MAIL said, and what holds when it said nothing."""
        plain = ReversePath("a@b.example")
        self.assertEqual(
            (plain.is_null, plain.size, plain.body, plain.smtputf8), (False, None, "7BIT", False)
        )
        full = ReversePath("", {"SIZE": "10", "BODY": "8bitmime", "SMTPUTF8": None})
        self.assertEqual((full.is_null, full.size, full.body, full.smtputf8), (True, 10, "8BITMIME", True))
        self.assertEqual(ReversePath("", {"SIZE": "0"}).size, 0)

    def test_equality(self) -> None:
        """Paths are equal by what they say, and a sender is no recipient."""
        self.assertEqual(ForwardPath("a@b"), ForwardPath("a@b", {}))
        self.assertNotEqual(ForwardPath("a@b"), ForwardPath("A@b"))
        self.assertNotEqual(ForwardPath("a@b"), ForwardPath("a@b", {"X": None}))
        self.assertNotEqual(ForwardPath("a@b"), ReversePath("a@b"))

    def test_in_a_set(self) -> None:
        """Recipients can be put in a set, as frozen values can."""
        paths = [ForwardPath("a@b"), ForwardPath("a@b"), ForwardPath("a@b", {"X": None}), ForwardPath("c@b")]
        self.assertEqual(len(set(paths)), 3)


class Values(SynchronousTestCase):
    """Session, envelope and message."""

    def test_protocol(self) -> None:
        """The name that RFC 3848 gives to how a message came."""
        tls = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")
        for verb, secured, identity, name in (
            ("", None, None, "SMTP"),
            ("HELO", None, None, "SMTP"),
            ("HELO", tls, "alice", "SMTP"),
            ("EHLO", None, None, "ESMTP"),
            ("EHLO", tls, None, "ESMTPS"),
            ("EHLO", None, "alice", "ESMTPA"),
            ("EHLO", tls, "alice", "ESMTPSA"),
            ("LHLO", None, None, "LMTP"),
            ("LHLO", tls, None, "LMTPS"),
            ("LHLO", None, "alice", "LMTPA"),
            ("LHLO", tls, "alice", "LMTPSA"),
        ):
            session = Session("1", Peer("192.0.2.1", 25), verb, "x", secured, identity)
            self.assertEqual(session.protocol, name)

    def test_envelope(self) -> None:
        """The envelope tells what MAIL said; the message has the envelope's id."""
        reverse_path = ReversePath("a@b", {"SIZE": "10", "BODY": "8BITMIME", "SMTPUTF8": None})
        envelope = Envelope("s.1", reverse_path, (ForwardPath("c@d"),))
        self.assertEqual((envelope.size, envelope.body, envelope.smtputf8), (10, "8BITMIME", True))
        plain = Envelope("s.2", ReversePath(""), ())
        self.assertEqual((plain.size, plain.body, plain.smtputf8), (None, "7BIT", False))
        session = Session("s", Peer("/run/sock"))
        self.assertEqual((session.hello_name, session.greeting_verb, session.peer.port), ("", "", 0))
        self.assertEqual(Message(Session("s", Peer("")), envelope, Content(b"")).id, "s.1")

    def test_frozen(self) -> None:
        """No processor can change what the next one is told."""
        session = Session("s", Peer("192.0.2.1"))
        envelope = Envelope("s.1", ReversePath("a@b"), (ForwardPath("c@d"),))
        values: list[tuple[Any, str]] = [
            (session, "hello_name"),
            (session.peer, "host"),
            (TLSFacts("", ""), "cipher"),
            (envelope, "id"),
            (envelope.reverse_path, "address"),
            (envelope.forward_paths[0], "parameters"),
            (Message(session, envelope, Content(b"")), "content"),
        ]
        for value, name in values:
            with self.assertRaises(FrozenInstanceError):
                setattr(value, name, "changed")
