"""A header, field by field, to be changed without touching an octet of the fields that stay.

Broken headers too: a line that is no field is one without a name, and stays where it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from smtpserv.message import CHUNK, Content

#: Octets of content in which its header ends; of a longer one the rest is taken for the body.
MAX_HEADER: Final = 1 << 18

#: Octets of a line, its CRLF not counted (RFC 5322 section 2.1.1).
_MAX_LINE: Final = 998

# field = field-name ":" unstructured CRLF ; of old, white space before the colon (RFC 5322 section 4.5)
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*\n?)")
_OTHER: Final = re.compile(rb"[^\n]*(?:\n[ \t][^\n]*)*\n?")
_END: Final = re.compile(rb"\r?\n")

# field-name = 1*ftext ; ftext = %d33-57 / %d59-126
_NAME: Final = re.compile(r"[!-9;-~]{1,76}")


@dataclass(frozen=True)
class Field:
    """A header field as it stands, its line ends included.

    :param octets: all of it.
    :param name: in lower case; empty for what is no field.
    :param value: what follows the colon, folded as it came.
    """

    octets: bytes
    name: bytes = b""
    value: bytes = b""

    @property
    def text(self) -> str:
        """The value, unfolded, without the space around it; octets that are not UTF-8 are replaced."""
        return b"".join(self.value.splitlines()).strip(b" \t").decode("utf-8", "replace")


def make_field(name: str, value: str) -> Field:
    """A new field, ended by CRLF.

    :param value: folded already where it is long; surrogates stand for octets that are not UTF-8.
    :raises ValueError: for a name that is none (RFC 5322 section 2.2), a line over 998 octets, a NUL, and a
        line end that does not fold, behind which a value could begin a field of its own.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a header field's name: {name!r}")
    octets = f"{name}: {value}\r\n".encode("utf-8", "surrogateescape")
    lines = octets[:-2].split(b"\r\n")
    if any(each in line for line in lines for each in (b"\r", b"\n", b"\0")):
        raise ValueError(f"a bare CR, LF or NUL in the value of {name}")
    if any(line[:1] not in (b" ", b"\t") or not line.strip() for line in lines[1:]):
        raise ValueError(f"a line in the value of {name} that does not go on with what was before")
    if any(len(line) > _MAX_LINE for line in lines):
        raise ValueError(f"a line over {_MAX_LINE} octets in the value of {name}")
    return Field(octets, name.lower().encode("ascii"), octets[len(name) + 1 :])


@dataclass(frozen=True)
class Header:
    """The fields of a header, in their order; each change gives a new one.

    :param size: the octets of content that it takes the place of.
    :param complete: whether its end was found.
    """

    fields: tuple[Field, ...]
    size: int = 0
    complete: bool = True

    @classmethod
    def of(cls, content: Content) -> "Header":
        """The header of some content, up to the empty line or the end; that line is no part of it."""
        head, ended = _head(content)
        fields = tuple(_fields(head))
        return cls(fields, sum(len(each.octets) for each in fields), ended)

    @cached_property
    def octets(self) -> bytes:
        """The header as it goes over the wire."""
        return b"".join([each.octets for each in self.fields])

    def of_content(self, content: Content) -> Content:
        """The content with this for its header."""
        return content.spliced(self.octets, self.size)

    def with_body(self, body: Content) -> Content:
        """Content of this header, an empty line and other octets."""
        return body.spliced(_line_ended(self.octets) + b"\r\n", 0)

    def named(self, name: str) -> list[Field]:
        """The fields of a name, in any case."""
        return [self.fields[position] for position in self._places(name)]

    def inserted(self, field: Field, index: int) -> "Header":
        """With a field above the one that ``index`` counts from 0; below all if there are not so many."""
        before, after = self.fields[:index], self.fields[index:]
        if before:
            before = (*before[:-1], replace(before[-1], octets=_line_ended(before[-1].octets)))
        return replace(self, fields=(*before, field, *after))

    def added(self, field: Field) -> "Header":
        """With a field below the others, but above a line that is none: there many a reader sees the end."""
        places = (place for place, each in enumerate(self.fields) if not each.name)
        return self.inserted(field, next(places, len(self.fields)))

    def replaced(self, field: Field, occurrence: int) -> "Header":
        """With a field in place of one of its name, counted from 1 above; added if they are not so many."""
        places = self._places(field.name.decode("ascii"))
        if occurrence > len(places):
            return self.added(field)
        return self._changed(places[occurrence - 1], (field,))

    def deleted(self, name: str, occurrence: int | None) -> "Header":
        """Without one of the fields of a name, counted from 1 above; None is all of them."""
        places = self._places(name)
        gone = set(places if occurrence is None else places[occurrence - 1 : occurrence])
        return replace(self, fields=tuple(each for i, each in enumerate(self.fields) if i not in gone))

    def _changed(self, place: int, by: tuple[Field, ...]) -> "Header":
        return replace(self, fields=(*self.fields[:place], *by, *self.fields[place + 1 :]))

    def _places(self, name: str) -> list[int]:
        wanted = name.lower().encode("ascii", "replace")
        return [place for place, each in enumerate(self.fields) if each.name == wanted]


def _line_ended(octets: bytes) -> bytes:
    """With its line's end, which the last line of a content may lack."""
    return octets if octets.endswith(b"\n") or not octets else octets + b"\r\n"


def _head(content: Content) -> tuple[bytes, bool]:
    """As much of the content as holds its header, and whether it holds all of it."""
    head = bytearray()
    with content.open() as file:
        while len(head) < MAX_HEADER and not _ends(head):
            chunk = file.read(CHUNK)
            if not chunk:
                return bytes(head), True
            head += chunk
    ended = _ends(head) or len(head) == content.size
    return bytes(head if ended else head[: head.rfind(b"\n") + 1]), ended


def _ends(head: bytearray) -> bool:
    return _END.match(head) is not None or b"\n\r\n" in head or b"\n\n" in head


def _fields(head: bytes) -> Iterator[Field]:
    position = 0
    while position < len(head) and not _END.match(head, position):
        match = _FIELD.match(head, position)
        if match:
            yield Field(match[0], match[1].lower(), match[2])
        else:
            match = _OTHER.match(head, position)
            assert match is not None
            yield Field(match[0])
        position = match.end()
