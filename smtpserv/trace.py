"""The Received field, which each server that takes a message puts above it (RFC 5321 section 4.4).

What a peer said goes into it only where it keeps to the grammar; else it stands in a comment, disarmed.
"""

import re
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Final

from smtpserv.dialogue.grammar import RCPT_ARGUMENT, USUAL_MAILBOX, is_address_literal
from smtpserv.message import Envelope, Session, protocol_name
from smtpserv.network import ip_address

#: Characters of a line, its CRLF not counted, that a folded line should keep to (RFC 5322 section 2.1.1).
_LINE: Final = 78

# sub-domain = Let-dig [Ldh-str] ; Domain = sub-domain *("." sub-domain)
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?!.{{256}}){_LABEL}(?:\.{_LABEL})*", re.IGNORECASE | re.ASCII)

# IPv4-address-literal / IPv6-address-literal ; a general one may hold what ends a comment
_LITERAL: Final = re.compile(r"\[(?:IPv6:[0-9a-f:.]+|[0-9.]+)\]", re.IGNORECASE | re.ASCII)

# Atom = 1*atext
_ATOM: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+", re.ASCII)

#: What may not stand in a comment, and a word of one without it.
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._:-]")
_MAX_WORD: Final = 255
_SAFE: Final = re.compile(rf"[A-Za-z0-9._:-]{{1,{_MAX_WORD}}}")


def received_field(session: Session, envelope: Envelope, hostname: str, now: float) -> bytes:
    """The field for one message, folded, its last CRLF included.

    It is ASCII, unless the client asked for SMTPUTF8 (RFC 6531 section 3.7.3).

    :param hostname: our name, a domain or an address literal.
    :param now: when the message came, in seconds since 1970; it is told in the local zone.
    """
    tls = session.tls
    begun = _begun(
        session.peer.host,
        session.hello_name,
        session.greeting_verb,
        None if tls is None else (tls.version, tls.cipher),
        bool(session.identity),
        envelope.reverse_path.smtputf8,
        hostname,
    )
    words = [f"\t{_id(envelope.id, hostname)}", *_for(envelope)]
    words[-1] += ";"
    line = " ".join(words)
    if len(line) > _LINE:
        line = _folded(words)
    return f"{begun}\r\n{line}\r\n\t{_date(int(now), time.tzname)}\r\n".encode()


@lru_cache(1024)
def _begun(
    host: str,
    name: str,
    verb: str,
    tls: tuple[str, str] | None,
    is_known: bool,
    is_wide: bool,
    hostname: str,
) -> str:
    """What is the same in all messages of a session."""
    protocol = protocol_name(verb, tls is not None, is_known)
    if is_wide:
        protocol = f"UTF8{protocol.removeprefix('E')}"  # RFC 6531 section 4.3
    protection = _protection(*map(_disarmed, tls or ("", "")))
    return _folded([*_from(host, name, verb), *_by(hostname), f"with {protocol}", *protection])


@lru_cache(8)
def _date(second: int, zone: tuple[str, str]) -> str:
    """In that zone, which is the local one."""
    return format_datetime(datetime.fromtimestamp(second, UTC).astimezone())


def address_literal(host: str) -> str | None:
    """The peer's address in brackets (RFC 5321 section 4.1.3); None for a Unix socket."""
    address = ip_address(host)
    if address is None:
        return None
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"


# From-domain = "FROM" FWS Extended-Domain ; By-domain = CFWS "BY" FWS Extended-Domain
# Extended-Domain = Domain / ( Domain FWS "(" TCP-info ")" ) / ( address-literal FWS "(" TCP-info ")" )
# TCP-info = address-literal / ( Domain FWS address-literal )
def _from(host: str, name: str, verb: str) -> list[str]:
    peer = address_literal(host)
    if _is_name(name):
        return _together(["Received:", "from", *_extended(name, peer)])
    aside = [f"({verb or 'HELO'}", f"{_disarmed(name)})"] if name else []
    return _together(["Received:", "from", *_extended(peer or "localhost", peer), *aside])


def _by(hostname: str) -> list[str]:
    return _together(["by", *_extended(hostname if _is_name(hostname) else _disarmed(hostname), None)])


def _extended(name: str, literal: str | None) -> list[str]:
    literal = literal or (name if name.startswith("[") else None)
    return [name, f"({literal})"] if literal else [name]


def _is_name(name: str) -> bool:
    if _LITERAL.fullmatch(name):
        return is_address_literal(name)
    return _DOMAIN.fullmatch(name) is not None


def _disarmed(text: str) -> str:
    return _UNSAFE.sub("?", text[:_MAX_WORD])


def _protection(version: str, cipher: str) -> list[str]:
    """A comment: the clauses of RFC 5321 have no room for it."""
    if not version.strip():
        return []
    words = ["(using", version]
    words += ["with", "cipher", cipher] if cipher.strip() else []
    return [*words[:-1], f"{words[-1]})"]


# ID = CFWS "ID" FWS ( Atom / msg-id ) ; our ids have a dot in them, which no Atom may have
def _id(id: str, hostname: str) -> str:
    if "." not in id and _ATOM.fullmatch(id):
        return f"id {id}"
    return f"id <{id if _SAFE.fullmatch(id) else _disarmed(id)}{_at(hostname)}>"


@lru_cache(8)
def _at(hostname: str) -> str:
    return f"@{hostname if _is_name(hostname) else 'localhost'}"


# For = CFWS "FOR" FWS ( Path / Mailbox ) ; of several recipients none may learn of another (section 7.6)
def _for(envelope: Envelope) -> list[str]:
    if len(envelope.forward_paths) != 1:
        return []
    address = envelope.forward_paths[0].address
    return (
        _together(["for", f"<{address}>"])
        if USUAL_MAILBOX.fullmatch(address) or _is_told(address, envelope)
        else []
    )


def _is_told(address: str, envelope: Envelope) -> bool:
    if not address.isprintable() or not (address.isascii() or envelope.smtputf8):
        return False
    match = RCPT_ARGUMENT.fullmatch(f"TO:<{address}>".encode())
    return match is not None and match[1] == address.encode()


def _together(words: list[str]) -> list[str]:
    """A clause that is not folded where it fits into a line."""
    clause = " ".join(words)
    return [clause] if len(clause) + len("\t;") <= _LINE else words


def fold(words: list[str]) -> str:
    """A field of its words, in lines of 78 characters where they allow it, its last CRLF included."""
    return f"{_folded(words)}\r\n"


def _folded(words: list[str]) -> str:
    folded = words[0]
    room = _LINE - len(folded)
    for word in words[1:]:
        room -= len(word) + 1
        if room >= 0:
            folded += f" {word}"
        else:
            folded += f"\r\n\t{word}"
            room = _LINE - len(word) - 1
    return folded


class LoopWatch:
    """Looks at a message's header while it passes, for one that goes in circles (RFC 5321 section 6.3).

    :param hostname: our own name.
    """

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname
        #: The header so far, from the CRLF before it; None when it is past.
        self._header: bytearray | None = bytearray(b"\r\n")

    def is_loop(self, octets: bytes) -> bool:
        """Whether it is one, by all that has passed; the header is looked at when enough of it is there."""
        header = self._header
        if header is None:
            return False
        if len(header) == _NOTHING and not octets.startswith(b"\r\n"):
            end = octets.find(b"\r\n\r\n", 0, MAX_HEADER - _NOTHING)
            if end >= 0:  # it came in one piece, as most do
                self._header = None
                return self._counts(b"\r\n" + octets[:end])
        start = max(0, len(header) - 3)
        header += octets
        end = header.find(b"\r\n\r\n", start, MAX_HEADER)
        if end < 0 and len(header) < MAX_HEADER:
            return False
        self._header = None
        return self._counts(bytes(header[: MAX_HEADER if end < 0 else end]))

    def ended(self) -> bool:
        """Whether it is one, when there is no more of it."""
        header, self._header = self._header, None
        return header is not None and self._counts(bytes(header))

    def _counts(self, header: bytes) -> bool:
        if b"received" not in header.lower():
            return False
        fields = _RECEIVED.findall(header)
        ours = re.compile(
            rb"\bby[ \t\r\n]+" + re.escape(self._hostname.encode()) + rb"(?![\w.-])", re.IGNORECASE
        )
        return len(fields) > MAX_HOPS or sum(1 for each in fields if ours.search(each)) > MAX_OWN_HOPS


#: Received fields that a message may have; and those of them that may be ours: one that goes through mailing
#: lists comes here again for each, and a server that shares our name is taken for us.
MAX_HOPS: Final = 100
MAX_OWN_HOPS: Final = 10

#: Length of a header of which nothing came.
_NOTHING: Final = 2

#: Octets in which a header is looked for.
MAX_HEADER: Final = 1 << 18

_RECEIVED: Final = re.compile(rb"\r\nReceived[ \t]*:(?:[^\r]|\r\n[ \t])*", re.IGNORECASE)
