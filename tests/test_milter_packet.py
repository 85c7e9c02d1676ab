"""Packets of the milter protocol, in both directions."""

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.milter.negotiation import OFFER, Actions, Steps, Terms
from smtpserv.milter.packet import (
    MAX_RECEIVED,
    Command,
    MilterError,
    Packet,
    PacketReader,
    read_number,
    read_strings,
    strings,
)
from tests.milter_tools import negotiated, packets

PACKETS = st.lists(
    st.builds(Packet, st.integers(0, 255).map(lambda octet: bytes([octet])), st.binary(max_size=40)),
    max_size=5,
)


class PacketTests(SynchronousTestCase):
    """Cutting what comes into packets."""

    def test_wire(self) -> None:
        """The length counts the kind, and not itself."""
        self.assertEqual(bytes(Packet(b"c")), b"\0\0\0\1c")
        self.assertEqual(bytes(Packet(b"H", b"x\0")), b"\0\0\0\3Hx\0")

    @settings(max_examples=100, deadline=None, database=None)
    @given(PACKETS, st.lists(st.integers(0, 300)))
    def test_splits(self, sent: list[Packet], cuts: list[int]) -> None:
        """What is written is read, wherever the network cuts it."""
        octets = b"".join(map(bytes, sent))
        reader = PacketReader()
        found: list[Packet] = []
        for start, end in pairwise([0, *sorted(cuts), len(octets)]):
            reader.feed(octets[start:end])
            found += iter(reader.next, None)
        self.assertEqual((found, len(reader)), (sent, 0))

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.binary(max_size=200))
    @example(b"\0\0\0\0")
    @example(b"\xff\xff\xff\xff")
    def test_anything(self, octets: bytes) -> None:
        """Anything is packets, or waits for more, or is an error; none is longer than it may be."""
        reader = PacketReader()
        reader.feed(octets)
        try:
            found = list(iter(reader.next, None))
        except MilterError:
            return
        self.assertEqual(sum(len(bytes(each)) for each in found) + len(reader), len(octets))

    def test_length(self) -> None:
        """One of no octet, and one of too many, are refused before they are there."""
        for length in (0, MAX_RECEIVED + 1):
            reader = PacketReader()
            reader.feed(length.to_bytes(4, "big"))
            self.assertRaises(MilterError, reader.next)
        reader = PacketReader()
        reader.feed(MAX_RECEIVED.to_bytes(4, "big") + b"x")
        self.assertIsNone(reader.next())

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.lists(st.binary(max_size=9).filter(lambda text: b"\0" not in text), min_size=1, max_size=4))
    def test_strings(self, texts: list[bytes]) -> None:
        """Strings are read as they were written; a NUL in one can't end it."""
        self.assertEqual(read_strings(strings(*texts), 1, 4), texts)
        self.assertEqual(strings(b"a\0b"), b"a b\0")

    def test_no_strings(self) -> None:
        """Too few, too many, one without its end; a number that is cut short."""
        for payload in (b"", b"a\0", b"a\0b", b"a\0b\0c", b"a\0b\0c\0"):
            self.assertRaises(MilterError, read_strings, payload, 2, 2)
        self.assertRaises(MilterError, read_number, b"abc")
        self.assertEqual(read_number(b"\0\0\1\0abc"), (256, b"abc"))


class NegotiationTests(SynchronousTestCase):
    """What is agreed on."""

    def terms(self, **answer: int) -> Terms:
        """What is agreed on with a milter."""
        (packet,) = packets(negotiated(**answer))
        return Terms.parse(packet)

    def test_offer(self) -> None:
        """Version 6, each action that we can do, each step that there is but macros of its own choice."""
        self.assertEqual(bytes(OFFER), b"\0\0\0\x0dO\0\0\0\6\0\0\0\xff\0\x1f\xf7\xff")

    def test_steps(self) -> None:
        """What the milter does not want to hear, and what it does not answer; the end is always both."""
        terms = self.terms(steps=Steps.NO_HELO | Steps.UNANSWERED_BODY)
        self.assertEqual([terms.wants(kind) for kind in (Command.HELO, Command.BODY)], [False, True])
        self.assertEqual([terms.answers(kind) for kind in (Command.HELO, Command.BODY)], [True, False])
        terms = self.terms(steps=0xFFFFFFFF)
        self.assertTrue(terms.wants(Command.END_OF_MESSAGE) and terms.answers(Command.END_OF_MESSAGE))

    def test_versions(self) -> None:
        """An older milter is not told of DATA; one that is newer, or older than any, is none."""
        self.assertEqual(
            [self.terms(version=each).wants(Command.DATA) for each in (2, 3, 4, 6)], [0, 0, 1, 1]
        )
        for version in (0, 1, 7):
            self.assertRaises(MilterError, self.terms, version=version)

    def test_too_much(self) -> None:
        """A milter that would do what was not offered is none; what follows is of no interest."""
        self.assertRaises(MilterError, self.terms, actions=0x1FF)
        self.assertEqual(self.terms(actions=1).actions, Actions.ADD_HEADERS)
        (packet,) = packets(negotiated())
        self.assertEqual(Terms.parse(Packet(b"O", packet.payload + b"\0\0\0\0x\0")), self.terms())

    def test_no_answer(self) -> None:
        """Anything else is none."""
        for packet in (Packet(b"c"), Packet(b"O"), Packet(b"O", b"x" * 11)):
            self.assertRaises(MilterError, Terms.parse, packet)
