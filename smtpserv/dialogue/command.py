"""Commands: a frozen value for each verb, and the table that parses a line into one.

Those that every message brings are frozen for the type checker alone: they are made in half the time.
"""

import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Final

from smtpserv import reply
from smtpserv.dialogue import grammar
from smtpserv.dialogue.state import LAST_CHUNK, LOST, RESPONSE
from smtpserv.error import SMTPError
from smtpserv.message import NO_PARAMETERS, ForwardPath, Parameters, ReversePath, decode_xtext
from smtpserv.reply import Reply


@dataclass(frozen=True, slots=True)
class Hello:
    """EHLO, HELO or LHLO, and what the client calls itself."""

    verb: str
    name: str


@dataclass
class Mail:
    """MAIL: opens a transaction."""

    verb: ClassVar[str] = "MAIL"
    reverse_path: Final[ReversePath]


@dataclass
class Rcpt:
    """RCPT: one more recipient."""

    verb: ClassVar[str] = "RCPT"
    forward_path: Final[ForwardPath]


@dataclass(frozen=True, slots=True)
class Bdat:
    """BDAT: so many octets of content follow the line (RFC 3030)."""

    size: int
    last: bool

    @property
    def verb(self) -> str:
        """The last one makes another move."""
        return LAST_CHUNK if self.last else "BDAT"


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH: begins a SASL exchange (RFC 4954).

    :param initial: the initial response, decoded; None when there is none.
    """

    verb: ClassVar[str] = "AUTH"
    mechanism: str
    initial: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a challenge, decoded."""

    verb: ClassVar[str] = RESPONSE
    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Override:
    """XCLIENT or XFORWARD: who the client really is, as a trusted peer says.

    :param attributes: name in capitals -> value; None where it is not known.
    """

    verb: str
    attributes: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Plain:
    """A verb with nothing to it but words."""

    verb: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A verb of an extension from outside, with whatever followed it."""

    verb: str
    argument: str


Command = Hello | Mail | Rcpt | Bdat | Auth | Response | Override | Plain | Foreign

#: Octets of a chunk that nobody means.
_ABSURD: Final = 1 << 40

#: Parses what follows a verb.
Parse = Callable[[bytes], Command]


def parse_command(line: bytes, parsers: Mapping[bytes, Parse]) -> Command:
    """Parse one line, its CRLF cut off.

    :raises SMTPError: with the reply, for an unknown verb or a syntax error.
    """
    verb, _, argument = line.partition(b" ")
    parse = parsers.get(verb.upper())
    if parse is None:
        raise SMTPError(reply.UNKNOWN_COMMAND)
    return parse(argument)


def parse_response(line: bytes) -> Response:
    """Parse a client's answer to a challenge.

    :raises SMTPError: 501, for an exchange that the client gives up, and for what is not base64.
    """
    if line == b"*":
        raise SMTPError(reply.AUTHENTICATION_CANCELLED)
    return Response(_unbase64(line))


def _unbase64(octets: bytes) -> bytes:
    try:
        return binascii.a2b_base64(octets, strict_mode=True)
    except binascii.Error:
        raise SMTPError(reply.BAD_BASE64) from None


def parse_auth(argument: bytes) -> Auth:
    """AUTH's mechanism and initial response; an equals sign is an empty one (RFC 4954 section 4)."""
    match = grammar.AUTH_ARGUMENT.fullmatch(argument.strip(b" "))
    if match is None:
        raise SMTPError(reply.BAD_ARGUMENT)
    initial = match[2]
    if initial is not None:
        initial = b"" if initial == b"=" else _unbase64(initial)
    return Auth(match[1].decode("ascii").upper(), initial)


def parse_bdat(argument: bytes) -> Bdat | Plain:
    """BDAT's size; of a line that does not tell it, nobody knows where the next one begins."""
    match = grammar.BDAT_ARGUMENT.fullmatch(argument.strip(b" "))
    size = int(match[1]) if match else _ABSURD
    return Bdat(size, match is not None and match[2] is not None) if size < _ABSURD else Plain(LOST)


def _override(verb: str, known: frozenset[str]) -> Callable[[bytes], Override]:
    def parse(argument: bytes) -> Override:
        attributes: dict[str, str | None] = {}
        for part in filter(None, argument.split(b" ")):
            name, equals, value = part.partition(b"=")
            keyword = _decode(name, reply.BAD_ARGUMENT).upper()
            if not equals or keyword not in known:
                raise SMTPError(reply.BAD_ARGUMENT)
            attributes[keyword] = _override_value(keyword, value)
        if not attributes:
            raise SMTPError(reply.BAD_ARGUMENT)
        return Override(verb, MappingProxyType(attributes))

    return parse


#: The attributes that not every text will do for.
_OVERRIDE_FORMS: Final[Mapping[str, Callable[[str], bool]]] = {
    "ADDR": grammar.is_peer_address,
    "PORT": grammar.is_port,
    "DESTADDR": grammar.is_peer_address,
    "DESTPORT": grammar.is_port,
}


def _override_value(keyword: str, octets: bytes) -> str | None:
    if octets.upper() in (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]"):
        return None
    try:
        value = decode_xtext(_decode(octets, reply.BAD_ARGUMENT))
    except ValueError:
        raise SMTPError(reply.BAD_ARGUMENT) from None
    if not _OVERRIDE_FORMS.get(keyword, str.isprintable)(value):
        raise SMTPError(reply.BAD_ARGUMENT)
    return value


XCLIENT_ATTRIBUTES: Final = frozenset(
    {"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"}
)
XFORWARD_ATTRIBUTES: Final = frozenset({"NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"})

parse_xclient: Final = _override("XCLIENT", XCLIENT_ATTRIBUTES)
parse_xforward: Final = _override("XFORWARD", XFORWARD_ATTRIBUTES)


def parse_parameters(tail: bytes) -> Parameters:
    """Parse what follows a path: ``SIZE=1000 BODY=8BITMIME``; keywords in any case, each at most once.

    :raises SMTPError: 501 for anything else.
    """
    parameters: dict[str, str | None] = {}
    for part in filter(None, tail.split(b" ")):
        match = grammar.PARAMETER.fullmatch(part)
        keyword = match[1].decode("ascii").upper() if match else ""
        value = _decode(match[2] or b"", reply.BAD_PARAMETER) if match else ""
        if match is None or keyword in parameters or not value.isprintable():
            raise SMTPError(reply.BAD_PARAMETER)
        parameters[keyword] = value or None
    return MappingProxyType(parameters)


def _decode(octets: bytes, failure: Reply) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise SMTPError(failure) from None


def _hello(verb: str) -> Callable[[bytes], Hello]:
    def parse(argument: bytes) -> Hello:
        name = argument.strip(b" ")
        if not grammar.is_hello_name(name):
            raise SMTPError(reply.BAD_HELLO_NAME)
        return Hello(verb, name.decode("ascii"))

    return parse


def _mail(argument: bytes) -> Mail:
    match = grammar.MAIL_ARGUMENT.fullmatch(argument)
    if match is None:
        raise SMTPError(reply.BAD_REVERSE_PATH)
    mailbox, tail = match.groups()
    address = _address(mailbox or b"", reply.BAD_REVERSE_PATH)
    return Mail(ReversePath(address, parse_parameters(tail) if tail else NO_PARAMETERS))


def _rcpt(argument: bytes) -> Rcpt:
    match = grammar.RCPT_ARGUMENT.fullmatch(argument)
    if match is None:
        raise SMTPError(reply.BAD_FORWARD_PATH)
    mailbox, postmaster, tail = match.groups()
    address = _address(mailbox or postmaster, reply.BAD_FORWARD_PATH)
    return Rcpt(ForwardPath(address, parse_parameters(tail) if tail else NO_PARAMETERS))


def _address(octets: bytes, failure: Reply) -> str:
    try:
        address = octets.decode()
    except UnicodeDecodeError:
        raise SMTPError(failure) from None
    unusual = len(octets) > grammar.MAX_PATH - 2 or octets[-1:] == b"]"
    if not address.isprintable() or (unusual and not grammar.is_path_of_good_length(address)):
        raise SMTPError(failure)
    return address


def _bare(verb: str) -> Callable[[bytes], Plain]:
    """A verb that takes no argument."""
    command = Plain(verb)

    def parse(argument: bytes) -> Plain:
        if argument.strip(b" "):
            raise SMTPError(reply.BAD_ARGUMENT)
        return command

    return parse


def _web(_: bytes) -> Plain:
    """A web browser that was made to talk to us: its request's body must never be heard as commands."""
    raise SMTPError(reply.NOT_A_WEB_SERVER)


def _worded(verb: str, required: bool) -> Callable[[bytes], Plain]:
    """A verb that takes words, or may take them."""

    def parse(argument: bytes) -> Plain:
        words = _decode(argument.strip(b" "), reply.BAD_ARGUMENT)
        if not words.isprintable() or (required and not words):
            raise SMTPError(reply.BAD_ARGUMENT)
        return Plain(verb, words)

    return parse


def foreign(verb: str) -> Parse:
    """The parser of a verb from outside: it gets whatever follows, as text.

    :raises SMTPError: for what is not UTF-8, or holds control characters.
    """

    def parse(argument: bytes) -> Foreign:
        words = _decode(argument.strip(b" "), reply.BAD_ARGUMENT)
        if words and not words.isprintable():
            raise SMTPError(reply.BAD_ARGUMENT)
        return Foreign(verb, words)

    return parse


parse_starttls: Final = _bare("STARTTLS")

PARSERS: Final[Mapping[bytes, Parse]] = {
    b"EHLO": _hello("EHLO"),
    b"HELO": _hello("HELO"),
    b"LHLO": _hello("LHLO"),
    b"MAIL": _mail,
    b"RCPT": _rcpt,
    b"DATA": _bare("DATA"),
    b"RSET": _bare("RSET"),
    b"NOOP": _worded("NOOP", required=False),
    b"HELP": _worded("HELP", required=False),
    b"VRFY": _worded("VRFY", required=True),
    b"EXPN": _worded("EXPN", required=True),
    b"QUIT": _bare("QUIT"),
    **dict.fromkeys((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"PATCH"), _web),
}
