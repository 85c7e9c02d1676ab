"""A message told as a milter hears it: one event after the other, each with its macros.

A milter of one's own sits where the client does, and hears it all while it happens; here it is told when the
message is there whole.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from smtpserv import __version__
from smtpserv.header import Field, Header
from smtpserv.message import Message, Path, Session
from smtpserv.milter.packet import MAX_SENT, Command, MilterError, Packet, strings
from smtpserv.network import ip_address

Macros = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a milter is told.

    :param macros: what it may look up from then on; names longer than a character stand in braces.
    """

    kind: bytes
    payload: bytes = b""
    macros: Macros = field(default_factory=dict)

    @property
    def definitions(self) -> bytes:
        """The packet of the macros; nothing where there are none."""
        pairs = [_octets(each) for pair in self.macros.items() if pair[1] for each in pair]
        return bytes(Packet(Command.MACROS, self.kind + strings(*pairs))) if pairs else b""

    @property
    def packet(self) -> bytes:
        """The packet of the event itself.

        :raises MilterError: for one that is longer than milters take.
        """
        if len(self.payload) > MAX_SENT:
            raise MilterError("the message has a header field that is too long for it")
        return bytes(Packet(self.kind, self.payload))


def envelope_events(message: Message) -> Iterator[Event]:
    """All that comes before the header: connection, hello, sender, recipients, DATA."""
    session, envelope = message.session, message.envelope
    yield Event(Command.CONNECT, _connection(session), _connection_macros(session))
    if session.hello_name:
        yield Event(Command.HELO, strings(_octets(session.hello_name)), _tls_macros(session))
    sender = envelope.reverse_path
    yield Event(Command.MAIL, _path(sender), _sender_macros(message))
    for path in envelope.forward_paths:
        yield Event(Command.RCPT, _path(path), {"i": message.id, "{rcpt_addr}": path.address})
    yield Event(Command.DATA, b"", {"i": message.id})


def header_events(message: Message, shown: "Shown", leading_space: bool) -> Iterator[Event]:
    """The header, field by field, and its end.

    :param leading_space: whether the space behind the colon is said too.
    """
    for each in shown.fields:
        name = each.octets.partition(b":")[0].rstrip(b" \t")
        value = each.value.removesuffix(b"\n").removesuffix(b"\r").replace(b"\r\n", b"\n")
        yield Event(Command.HEADER, strings(name, value if leading_space else value.removeprefix(b" ")))
    yield Event(Command.END_OF_HEADER, b"", {"i": message.id})


def end_event(message: Message) -> Event:
    """The end of the message."""
    return Event(Command.END_OF_MESSAGE, b"", {"i": message.id})


class Shown:
    """The part of a header that a milter sees as such.

    A line that is no field ends it, as many a reader sees it: what follows could not be looked through else.
    """

    def __init__(self, header: Header) -> None:
        fields = header.fields
        end = next((place for place, each in enumerate(fields) if not each.name), len(fields))
        self.fields: Final[tuple[Field, ...]] = fields[:end]
        #: Whether such a line ends it, and not the empty line.
        self.is_cut: Final = end < len(fields)
        #: Octets of it, the empty line not counted.
        self.size: Final = sum(len(each.octets) for each in self.fields)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _path(path: Path) -> bytes:
    parameters = [name if value is None else f"{name}={value}" for name, value in path.parameters.items()]
    return strings(_octets(str(path)), *map(_octets, parameters))


#: By the version of IP: how the family is written.
_FAMILIES: Final = {4: b"4", 6: b"6"}


def _connection(session: Session) -> bytes:
    """The client's name, or its address in brackets where nobody knows one; family, port, address."""
    peer, address = session.peer, ip_address(session.peer.host)
    if address is None:
        where = b"L\0\0" + strings(_octets(peer.host)) if peer.host else b"U"
        return strings(b"localhost") + where
    port = peer.port.to_bytes(2, "big")
    return (
        strings(_octets(f"[{address}]")) + _FAMILIES[address.version] + port + strings(_octets(str(address)))
    )


def _connection_macros(session: Session) -> Macros:
    address = ip_address(session.peer.host)
    name = "unknown" if address else "localhost"
    return {
        "j": session.hostname,
        "{daemon_name}": "smtpserv",
        "v": f"smtpserv {__version__}",
        "_": f"{name} [{address or session.peer.host}]",
        "{client_addr}": str(address or session.peer.host),
        "{client_name}": name,
        "{client_port}": str(session.peer.port),
    }


def _tls_macros(session: Session) -> Macros:
    tls = session.tls
    return {"{tls_version}": tls.version, "{cipher}": tls.cipher} if tls else {}


def _sender_macros(message: Message) -> Macros:
    identity = message.session.identity
    # OpenDKIM takes who authenticated by the mechanism, of which it only wants to hear that there is one.
    authenticated = {"{auth_type}": "AUTH", "{auth_authen}": identity} if identity else {}
    return {"i": message.id, "{mail_addr}": message.envelope.reverse_path.address, **authenticated}
