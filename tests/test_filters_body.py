"""Digests of bodies: as dkimpy makes them, but chunk by chunk and in linear time."""

import hashlib
import time

from dkim.canonicalization import Relaxed, Simple  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.filters.body import Body, body_digest
from smtpserv.message import Content
from tests.fuzz import examples

LINES = st.lists(st.text("ab \t", max_size=6).map(lambda line: line.encode() + b"\r\n"), max_size=8)


class DigestTests(SynchronousTestCase):
    """What DKIM signs of a body."""

    @given(LINES, st.lists(st.integers(0, 60), max_size=6), st.none() | st.integers(0, 30), st.booleans())
    @examples(150)
    def test_as_the_library(
        self, lines: list[bytes], cuts: list[int], length: int | None, relaxed: bool
    ) -> None:
        """The same digest, however the body comes in pieces."""
        body = b"".join(lines)
        ends = [*sorted(cuts), len(body)]
        chunks = [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        canonical = (Relaxed if relaxed else Simple).canonicalize_body(body)
        expected = hashlib.sha256(canonical[:length]).digest()
        self.assertEqual(body_digest(chunks, relaxed, length), expected, (chunks, canonical))

    @given(st.binary(max_size=30).map(lambda octets: octets.translate(b"\r\n \tab" * 42 + b"\r\n \t")))
    @examples(80)
    def test_any_split(self, body: bytes) -> None:
        """Bare CR and LF, and a last line without an end, make no difference to that."""
        for relaxed in (False, True):
            pieces = [bytes([each]) for each in body]
            self.assertEqual(body_digest(pieces, relaxed, None), body_digest([body], relaxed, None))

    def test_linear(self) -> None:
        """Megabytes of spaces, or of line ends, take no longer than those of text."""
        for chunk in (b" " * 65536, b"\r\n" * 32768, b"\r" * 65536, b" \r" * 32768):
            began = time.process_time()
            body_digest([chunk] * 16 + [b"x"], True, None)
            self.assertLess(time.process_time() - began, 5)

    def test_body(self) -> None:
        """It begins behind the empty line, and is empty where there is none."""
        empty = hashlib.sha256(b"").digest()
        for octets, start, expected in (
            (b"A: b\r\n\r\nbody\r\n", 6, hashlib.sha256(b"body\r\n").digest()),
            (b"A: b\r\n\nbody\r\n", 6, hashlib.sha256(b"body\r\n").digest()),
            (b"A: b\r\n", 6, empty),
            (b"", 0, empty),
        ):
            body = Body(Content(octets), start)
            self.assertEqual((body.digest(True), body.digest(True)), (expected, expected))
