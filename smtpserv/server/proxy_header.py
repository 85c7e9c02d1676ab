"""The header of the PROXY protocol, versions 1 and 2: whose connection a proxy hands on.

As HAProxy's ``doc/proxy-protocol.txt`` describes it, whose sections are named here.
"""

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final

from smtpserv.message import Peer
from smtpserv.network import UNKNOWN

#: Octets of a line, CRLF included (2.1).
MAX_LINE: Final = 107

#: Octets behind the fixed part of a binary header. What comes after the addresses is not looked at; the
#: longest that proxies put there is the certificate of a client.
MAX_BLOCK: Final = 16384

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = struct.Struct("!12sBBH")
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_UNSPEC: Final = 0x00

#: The families of which a line may tell (2.1).
_LINE_FAMILIES: Final[Mapping[str, int]] = {"TCP4": AF_INET, "TCP6": AF_INET6}
_UNTOLD: Final = re.compile(rb"PROXY UNKNOWN(?: .*)?", re.DOTALL)
_PORT: Final = re.compile("0|[1-9][0-9]{0,4}", re.ASCII)

#: A client of whom a proxy can't tell.
_SOMEBODY: Final = Peer(UNKNOWN, 0)

#: The families of which a block may tell (2.2): none, TCP over IPv4 and IPv6, and Unix sockets, whose client
#: is at home with the proxy. Datagrams bring no mail.
_BLOCK_FAMILIES: Final[Mapping[int, tuple[struct.Struct, int | None]]] = {
    _UNSPEC: (struct.Struct(""), None),
    0x11: (struct.Struct("!4s4sHH"), AF_INET),
    0x21: (struct.Struct("!16s16sHH"), AF_INET6),
    0x31: (struct.Struct("!108s108s"), None),
}


class ProxyError(ValueError):
    """What came is no PROXY header, and will not become one."""


@dataclass(frozen=True, slots=True)
class Proxied:
    """What a header told.

    :param peer: the client; None where the proxy speaks for itself (a check of our health) or for a Unix
        socket of its own: then the connection's own address counts (2.2). A client of whom the proxy can't
        tell is nobody's neighbour: he may not have what the proxy has.
    :param rest: the octets behind the header.
    """

    peer: Peer | None
    rest: bytes


class ProxyHeader:
    """Takes a header as it comes, in pieces of any size."""

    def __init__(self) -> None:
        self._octets = b""

    def receive(self, octets: bytes) -> Proxied | None:
        """Take some octets; what the header told, once it is complete.

        :raises ProxyError: as soon as it can't be one.
        """
        self._octets += octets
        for opening, read in _FORMS:
            if self._octets.startswith(opening):
                return read(self._octets)
            if opening.startswith(self._octets):
                return None
        raise ProxyError("neither version of the protocol")


def _read_line(octets: bytes) -> Proxied | None:
    """``PROXY TCP4 192.0.2.1 192.0.2.2 56324 25`` (2.1)."""
    end = octets.find(b"\r\n", 0, MAX_LINE)
    if end < 0:
        if len(octets) >= MAX_LINE:
            raise ProxyError("a line without end")
        return None
    line, rest = octets[:end], octets[end + 2 :]
    if _UNTOLD.fullmatch(line):
        return Proxied(_SOMEBODY, rest)
    return Proxied(_line_peer(line.decode("ascii", "replace").split(" ")), rest)


def _line_peer(fields: list[str]) -> Peer:
    """The client, when all six fields are what they must be.

    :raises ProxyError: when one is not.
    """
    try:
        _, name, source, destination, source_port, destination_port = fields
        family = _LINE_FAMILIES[name]
        inet_pton(family, destination)
        _port(destination_port)
        return Peer(inet_ntop(family, inet_pton(family, source)), _port(source_port))
    except (LookupError, ValueError, OSError):
        raise ProxyError("not the fields of a line") from None


def _port(written: str) -> int:
    """:raises ValueError: for what is no port; leading zeros are none."""
    if not _PORT.fullmatch(written) or int(written) > 65535:
        raise ValueError("not a port")
    return int(written)


def _read_block(octets: bytes) -> Proxied | None:
    """A signature, the command, the family, the length of the block; addresses and additions (2.2)."""
    if len(octets) < _FIXED.size:
        return None
    _, command, family, length = _FIXED.unpack_from(octets)
    if command not in (_LOCAL, _PROXY) or length > MAX_BLOCK:
        raise ProxyError("not version 2, no command of it, or too long")
    layout, kind = _BLOCK_FAMILIES.get(family if command == _PROXY else 0, (None, None))
    if layout is None or length < layout.size:
        raise ProxyError("an unknown family, or an address cut short")
    if len(octets) < _FIXED.size + length:
        return None
    rest = octets[_FIXED.size + length :]
    if kind is None:
        return Proxied(_SOMEBODY if (command, family) == (_PROXY, _UNSPEC) else None, rest)
    source, _, port, _ = layout.unpack_from(octets, _FIXED.size)
    return Proxied(Peer(inet_ntop(kind, source), port), rest)


_FORMS: Final[tuple[tuple[bytes, Callable[[bytes], Proxied | None]], ...]] = (
    (b"PROXY ", _read_line),
    (_SIGNATURE, _read_block),
)
