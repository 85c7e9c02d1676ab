"""Packets of the milter protocol: a length of four octets, one that tells the kind, and the rest.

Both are as ``libmilter/mfdef.h`` of Sendmail has them, which is the standard there is.
"""

import struct
from dataclasses import dataclass
from typing import Final

#: Octets of a packet's payload that a milter takes, and in which a body is cut (``MILTER_CHUNK_SIZE``).
MAX_SENT: Final = 65535

#: Octets of a packet that is taken from a milter.
MAX_RECEIVED: Final = 1 << 18

_LENGTH: Final = struct.Struct("!I")


class MilterError(Exception):
    """The milter is away, or does not keep to the protocol. The text is for the log."""


class Command:
    """What is said to a milter."""

    NEGOTIATE: Final = b"O"
    MACROS: Final = b"D"
    CONNECT: Final = b"C"
    HELO: Final = b"H"
    MAIL: Final = b"M"
    RCPT: Final = b"R"
    DATA: Final = b"T"
    HEADER: Final = b"L"
    END_OF_HEADER: Final = b"N"
    BODY: Final = b"B"
    END_OF_MESSAGE: Final = b"E"
    ABORT: Final = b"A"
    QUIT: Final = b"Q"
    QUIT_FOR_NEXT: Final = b"K"


class Answer:
    """What a milter says."""

    ACCEPT: Final = b"a"
    CONTINUE: Final = b"c"
    DISCARD: Final = b"d"
    REJECT: Final = b"r"
    TEMPFAIL: Final = b"t"
    REPLY: Final = b"y"
    SHUTDOWN: Final = b"4"
    FAIL_CONNECTION: Final = b"f"
    SKIP: Final = b"s"
    PROGRESS: Final = b"p"
    QUARANTINE: Final = b"q"
    ADD_HEADER: Final = b"h"
    INSERT_HEADER: Final = b"i"
    CHANGE_HEADER: Final = b"m"
    ADD_RECIPIENT: Final = b"+"
    ADD_RECIPIENT_WITH_PARAMETERS: Final = b"2"
    DELETE_RECIPIENT: Final = b"-"
    CHANGE_SENDER: Final = b"e"
    REPLACE_BODY: Final = b"b"


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet.

    :param kind: one octet, of :class:`Command` or :class:`Answer`.
    """

    kind: bytes
    payload: bytes = b""

    def __bytes__(self) -> bytes:
        return _LENGTH.pack(1 + len(self.payload)) + self.kind + self.payload


class PacketReader:
    """Cuts what comes from a milter into packets."""

    def __init__(self) -> None:
        self._held: Final = bytearray()

    def __len__(self) -> int:
        """Octets that are held."""
        return len(self._held)

    def feed(self, octets: bytes) -> None:
        """Take what came."""
        self._held.extend(octets)

    def next(self) -> Packet | None:
        """The next packet, once it is there whole.

        :raises MilterError: for one that has no kind, or is too long; no more can be read then.
        """
        if len(self._held) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._held)
        if not 1 <= length <= MAX_RECEIVED:
            raise MilterError(f"a packet of {length} octets")
        end = _LENGTH.size + length
        if len(self._held) < end:
            return None
        packet = Packet(bytes(self._held[4:5]), bytes(self._held[5:end]))
        del self._held[:end]
        return packet


def strings(*texts: bytes) -> bytes:
    """A payload of strings, each with its NUL; those in them would end them, and become spaces."""
    return b"".join([text.replace(b"\0", b" ") + b"\0" for text in texts])


def read_strings(payload: bytes, least: int, most: int) -> list[bytes]:
    """The strings of a payload.

    :raises MilterError: for a payload of fewer or more, or one whose last is not ended.
    """
    *found, rest = payload.split(b"\0")
    if rest or not least <= len(found) <= most:
        raise MilterError(f"{len(found)} strings in an answer")
    return found


def read_number(payload: bytes) -> tuple[int, bytes]:
    """The number at the head of a payload, and what follows it.

    :raises MilterError: where there is none.
    """
    if len(payload) < _LENGTH.size:
        raise MilterError("an answer is cut short")
    return _LENGTH.unpack_from(payload)[0], payload[_LENGTH.size :]
