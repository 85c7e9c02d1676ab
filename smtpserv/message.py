"""The values a processor is given: who speaks (session), for whom (envelope), and what was sent (content)."""

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP as SMTP_POLICY
from functools import cached_property
from types import MappingProxyType
from typing import BinaryIO, Final, Protocol, cast

#: Parameters of a MAIL or RCPT command: keyword in capitals -> value as sent, None where it has none.
Parameters = Mapping[str, str | None]
NO_PARAMETERS: Final[Parameters] = MappingProxyType({})

#: Octets read at a time.
CHUNK: Final = 65536

_HEADER_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:[ \t]*([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)\r?\n?")


_HEX: Final = re.compile(rb"\+([0-9A-F]{2})|\+")


def decode_xtext(text: str) -> str:
    """What xtext stands for (RFC 3461 section 4).

    :raises ValueError: for a plus sign that no two hexadecimal digits follow, and for what is not UTF-8.
    """
    return _HEX.sub(lambda match: bytes([int(match[1] or b"-", 16)]), text.encode("utf-8")).decode("utf-8")


def encode_xtext(text: str) -> str:
    """Any text as xtext (RFC 3461 section 4)."""
    return _NO_XCHAR.sub(lambda match: f"+{match[0][0]:02X}".encode(), text.encode()).decode("ascii")


#: One octet that xtext may not hold as it is.
_NO_XCHAR: Final = re.compile(rb"[^!-*,-<>-~]")

_HEXPOINT: Final = re.compile(r"\\x\{([0-9A-F]+)\}")


def _decode_utf8_address(text: str) -> str:
    """What an address of type ``utf-8`` stands for (RFC 6533 section 3)."""
    return _HEXPOINT.sub(lambda match: chr(int(match[1], 16)), text)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end: an IP address and port, or a Unix socket's path (maybe empty) and 0."""

    host: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class TLSFacts:
    """What protects the connection, as the TLS library names it: ``TLSv1.3``, ``TLS_AES_256_GCM_SHA384``.

    :param server_name: what the client called us (SNI), as sent; empty when it did not.
    :param client_name: whom the client's certificate names, None without one that was found good.
    :param channel_binding: the ``tls-exporter`` of RFC 9266, 32 octets; empty before TLS 1.3.
    """

    version: str
    cipher: str
    server_name: str = ""
    client_name: str | None = None
    channel_binding: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Session:
    """One connection, as far as it is known when a policy or processor is asked.

    :param id: names it in the log; a message's id begins with it.
    :param greeting_verb: ``HELO``, ``EHLO`` or ``LHLO``; empty before any.
    :param hello_name: what the client called itself, unchecked.
    :param identity: who authenticated, None when nobody did.
    :param forwarded: what a trusted proxy says of the client it relays for (XFORWARD), by attribute; None
        where it does not know.
    :param hostname: our own name, as the greeting has it.
    """

    id: str
    peer: Peer
    greeting_verb: str = ""
    hello_name: str = ""
    tls: TLSFacts | None = None
    identity: str | None = None
    forwarded: Parameters = field(default_factory=lambda: NO_PARAMETERS, hash=False)
    hostname: str = "localhost"

    @property
    def protocol(self) -> str:
        """The ``with`` name of RFC 3848: ``SMTP``, ``ESMTP``, ``ESMTPS``, ``ESMTPSA``, ``LMTP`` ..."""
        return protocol_name(self.greeting_verb, self.tls is not None, bool(self.identity))


def protocol_name(greeting_verb: str, is_secure: bool, is_known: bool) -> str:
    """The name of RFC 3848 for a session that was greeted so; under TLS or not, authenticated or not."""
    base = _PROTOCOLS.get(greeting_verb, "SMTP")
    return base if base == "SMTP" else f"{base}{'S' if is_secure else ''}{'A' if is_known else ''}"


_PROTOCOLS: Final = {"EHLO": "ESMTP", "LHLO": "LMTP"}


@dataclass(frozen=True, slots=True)
class Path:
    """A mailbox as MAIL or RCPT named it.

    :param address: what stood between the angle brackets, as sent, without a source route; empty for the
        null reverse-path, without a domain for ``postmaster``.
    """

    address: str
    parameters: Parameters = field(default_factory=lambda: NO_PARAMETERS, hash=False)

    @property
    def local_part(self) -> str:
        """What stands before the last at-sign, with the quotes it was sent in."""
        return self.address.rpartition("@")[0] if "@" in self.address else self.address

    @property
    def domain(self) -> str:
        """What stands behind the last at-sign: a domain or an address literal in brackets; may be empty."""
        return self.address.rpartition("@")[2] if "@" in self.address else ""

    def __str__(self) -> str:
        return f"<{self.address}>"


class ReversePath(Path):
    """Where notifications go (RFC 5321 section 4.1.1.2)."""

    __slots__ = ()

    @property
    def is_null(self) -> bool:
        """Whether it is ``<>``: a notification, to which none must ever be sent."""
        return not self.address

    @property
    def size(self) -> int | None:
        """What the client said the message will measure, in octets (RFC 1870)."""
        size = self.parameters.get("SIZE")
        return int(size) if size else None

    @property
    def body(self) -> str:
        """``7BIT``, ``8BITMIME`` (RFC 6152) or ``BINARYMIME`` (RFC 3030)."""
        return (self.parameters.get("BODY") or "7BIT").upper()

    @property
    def smtputf8(self) -> bool:
        """Whether addresses and header may hold UTF-8 (RFC 6531)."""
        return "SMTPUTF8" in self.parameters

    @property
    def envid(self) -> str | None:
        """The sender's name for the transaction, decoded (RFC 3461 section 4.4)."""
        envid = self.parameters.get("ENVID")
        return decode_xtext(envid) if envid else None

    @property
    def ret(self) -> str | None:
        """How much a notification of failure returns: ``FULL`` or ``HDRS`` (RFC 3461 section 4.3)."""
        ret = self.parameters.get("RET")
        return ret.upper() if ret else None


class ForwardPath(Path):
    """One recipient (RFC 5321 section 4.1.1.3)."""

    __slots__ = ()

    @property
    def notify(self) -> frozenset[str]:
        """When to notify (RFC 3461 section 4.1): of ``NEVER``, ``SUCCESS``, ``FAILURE`` and ``DELAY``.

        Empty when the client did not say: then as if ``FAILURE``, or ``FAILURE`` and ``DELAY``, was said.
        """
        notify = self.parameters.get("NOTIFY")
        return frozenset(notify.upper().split(",")) if notify else frozenset()

    @property
    def original_recipient(self) -> tuple[str, str] | None:
        """What ORCPT says: the type of the address, and the address, decoded (RFC 3461 section 4.2)."""
        kind, semicolon, address = (self.parameters.get("ORCPT") or "").partition(";")
        decode = _decode_utf8_address if kind.lower() == "utf-8" else decode_xtext
        return (kind.lower(), decode(address)) if semicolon else None


@dataclass(frozen=True, slots=True)
class Envelope:
    """What MAIL and RCPT said.

    :param id: names the message in our 250 and in the log.
    :param forward_paths: the recipients that were accepted, in their order, repeated ones included.
    """

    id: str
    reverse_path: ReversePath
    forward_paths: tuple[ForwardPath, ...]

    @property
    def size(self) -> int | None:
        """The announced size in octets; what came is :attr:`Content.size`."""
        return self.reverse_path.size

    @property
    def body(self) -> str:
        """``7BIT`` or ``8BITMIME``."""
        return self.reverse_path.body

    @property
    def smtputf8(self) -> bool:
        """Whether the client asked for SMTPUTF8."""
        return self.reverse_path.smtputf8


class HasDescriptor(Protocol):
    """A file, known by its descriptor."""

    def fileno(self) -> int:
        """The descriptor, open for reading."""


class Content:
    """The octets between DATA and the final dot, dots unstuffed and nothing else changed.

    Small ones are held in memory, large ones in a file that has no name any more. Each :meth:`open` is a
    position of its own. What is open reads on for as long as this object is kept.

    :param source: the octets; or a file of as many octets as ``size`` says, which nobody writes to any more.
    :param head: octets that stand in memory, in place of the first ``skip`` of the source.
    """

    def __init__(
        self, source: "bytes | HasDescriptor", size: int = 0, head: bytes = b"", skip: int = 0
    ) -> None:
        if isinstance(source, bytes):
            source, size, head, skip = head + source[skip:] if head or skip else source, 0, b"", 0
        self._source: Final = source
        self._head: Final = head
        self._skip: Final = skip
        #: Octets in all.
        self.size: Final = len(source) if isinstance(source, bytes) else len(head) + size - skip

    def spliced(self, head: bytes, skip: int) -> "Content":
        """Content that has ``head`` in place of the first ``skip`` octets, and shares the rest.

        What lies in a file stays there, and is not copied.
        """
        if isinstance(self._source, bytes):
            return Content(self._source, 0, head, skip)
        skip = min(skip, self.size)
        beyond = max(0, skip - len(self._head))
        size = self.size - len(self._head) + self._skip
        return Content(self._source, size, head + self._head[skip:], self._skip + beyond)

    def open(self) -> BinaryIO:
        """A binary file at the first octet, for reading and seeking."""
        if isinstance(self._source, bytes):
            return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, io.BytesIO(self._source))))
        return cast(BinaryIO, io.BufferedReader(_FileView(self._source, self._head, self._skip), CHUNK))

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """The octets in pieces of at most ``size``."""
        with self.open() as file:
            while chunk := file.read(size):
                yield chunk

    def read(self) -> bytes:
        """All octets at once: for messages known to be small."""
        return self._source if isinstance(self._source, bytes) else b"".join(self.chunks())

    @cached_property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The header fields, (name, value), in their order; values are unfolded and not decoded.

        Octets that are not UTF-8 are replaced. What is no header field ends the header, and so does the
        thousandth one.
        """
        with self.open() as file:
            head = file.read(_MAX_HEADER)
        fields: list[tuple[str, str]] = []
        position = 0
        while len(fields) < _MAX_FIELDS and (match := _HEADER_FIELD.match(head, position)):
            value = b"".join(match[2].splitlines())
            fields.append((match[1].decode("ascii"), value.strip(b" \t").decode("utf-8", "replace")))
            position = match.end()
        return tuple(fields)

    @cached_property
    def email(self) -> EmailMessage:
        """The whole message, parsed by the standard library; this holds it in memory."""
        with self.open() as file:
            return BytesParser(policy=SMTP_POLICY).parse(file)


#: Octets of a message in which its header is looked for.
_MAX_HEADER: Final = 1 << 18
_MAX_FIELDS: Final = 1000


class _FileView(io.RawIOBase):
    """A position of its own in a shared file; closing it leaves the file open.

    :param head: octets that are read before the file, of which then ``skip`` are not.
    """

    def __init__(self, file: "HasDescriptor", head: bytes, skip: int) -> None:
        self._file = file
        self._head = head
        #: How much further in the file an octet stands than here.
        self._ahead = skip - len(head)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        if piece := self._head[self._position : self._position + len(buffer)]:
            buffer[: len(piece)] = piece
            read = len(piece)
        else:
            read = os.preadv(self._file.fileno(), [buffer], self._position + self._ahead)
        self._position += read
        return read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        base = start[whence] if whence in start else os.fstat(self._file.fileno()).st_size - self._ahead
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position


@dataclass(frozen=True, slots=True)
class Message:
    """An envelope and its content, and the session that brought them."""

    session: Session
    envelope: Envelope
    content: Content

    @property
    def id(self) -> str:
        """Names the message in our 250 and in the log."""
        return self.envelope.id
