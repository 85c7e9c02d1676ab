"""Digests of a body as DKIM sees it (RFC 6376 section 3.4), without holding it: a chunk at a time.

The library that checks signatures would take time that grows with the square of a run of spaces.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from smtpserv.message import Content

_SPACE: Final = re.compile(rb"[ \t]+")


class _Digest:
    """SHA-256 of a canonical body, of which chunks come as they are.

    :param relaxed: whether white space is made one space, and none at a line's end.
    :param length: octets of the canonical body that count; None for all (the tag ``l=``).
    """

    def __init__(self, relaxed: bool, length: int | None) -> None:
        self._relaxed: Final = relaxed
        self._left = length
        self._hash: Final = hashlib.sha256()
        #: The end of what came, which may become a line's end, or white space that goes on.
        self._held = b""
        #: Line ends that count only if something follows.
        self._line_ends = 0
        self._is_empty = True

    def update(self, chunk: bytes) -> None:
        """The next octets."""
        octets = self._held + chunk
        end = len(octets) - octets.endswith(b"\r")
        if self._relaxed:
            end = len(octets[:end].rstrip(b" \t"))
        self._held = self._spaced(octets[end:])
        self._take(self._spaced(octets[:end]).replace(b" \r\n", b"\r\n") if self._relaxed else octets[:end])

    def digest(self) -> bytes:
        """The digest, when all came: one line end is the last, even if the last line came without."""
        self._take(self._held)
        if not (self._relaxed and self._is_empty):
            self._count(b"\r\n")
        return self._hash.digest()

    def _spaced(self, octets: bytes) -> bytes:
        return _SPACE.sub(b" ", octets) if self._relaxed else octets

    def _take(self, octets: bytes) -> None:
        text = octets.rstrip(b"\r\n")
        ends = octets[len(text) :]
        pairs = 0
        while ends.endswith(b"\r\n", 0, len(ends) - 2 * pairs):
            pairs += 1
        text += ends[: len(ends) - 2 * pairs]
        if text:
            self._count(b"\r\n" * self._line_ends)
            self._count(text)
            self._line_ends, self._is_empty = 0, False
        self._line_ends += pairs

    def _count(self, octets: bytes) -> None:
        if self._left is not None:
            octets = octets[: self._left]
            self._left -= len(octets)
        self._hash.update(octets)


def body_digest(chunks: Iterable[bytes], relaxed: bool, length: int | None) -> bytes:
    """SHA-256 of a body in canonical form."""
    digest = _Digest(relaxed, length)
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


class Body:
    """The body of some content; a digest is worked out once.

    :param start: octets of the header, without the empty line.
    """

    def __init__(self, content: Content, start: int) -> None:
        self._content: Final = content
        self._start: Final = start
        self._digests: Final[dict[tuple[bool, int | None], bytes]] = {}

    def digest(self, relaxed: bool, length: int | None = None) -> bytes:
        """In a thread, for it reads all of it."""
        if (relaxed, length) not in self._digests:
            self._digests[relaxed, length] = body_digest(self._chunks(), relaxed, length)
        return self._digests[relaxed, length]

    def _chunks(self) -> Iterable[bytes]:
        with self._content.open() as file:
            file.seek(self._start)
            file.readline(2)
            while chunk := file.read(1 << 16):
                yield chunk
