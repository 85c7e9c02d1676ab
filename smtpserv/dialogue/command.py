"""Commands: a frozen value for each verb, and the table that parses a line into one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final

from smtpserv import reply
from smtpserv.dialogue import grammar
from smtpserv.error import SMTPError
from smtpserv.message import NO_PARAMETERS, ForwardPath, Parameters, ReversePath
from smtpserv.reply import Reply


@dataclass(frozen=True, slots=True)
class Hello:
    """EHLO or HELO, and what the client calls itself."""

    verb: str
    name: str


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL: opens a transaction."""

    verb: ClassVar[str] = "MAIL"
    reverse_path: ReversePath


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT: one more recipient."""

    verb: ClassVar[str] = "RCPT"
    forward_path: ForwardPath


@dataclass(frozen=True, slots=True)
class Plain:
    """Any other verb, with whatever followed it."""

    verb: str
    argument: str = ""


Command = Hello | Mail | Rcpt | Plain


def parse_command(line: bytes) -> Command:
    """Parse one line, its CRLF cut off.

    :raises SMTPError: with the reply, for an unknown verb or a syntax error.
    """
    verb, _, argument = line.partition(b" ")
    row = _PARSERS.get(verb.upper())
    if row is None:
        raise SMTPError(reply.UNKNOWN_COMMAND)
    return row(argument)


def parse_parameters(tail: bytes) -> Parameters:
    """Parse what follows a path: ``SIZE=1000 BODY=8BITMIME``; keywords in any case, each at most once.

    :raises SMTPError: 501 for anything else.
    """
    parameters: dict[str, str | None] = {}
    for part in filter(None, tail.split(b" ")):
        match = grammar.PARAMETER.fullmatch(part)
        keyword = match[1].decode("ascii").upper() if match else ""
        if match is None or keyword in parameters:
            raise SMTPError(reply.BAD_PARAMETER)
        parameters[keyword] = _decode(match[2], reply.BAD_PARAMETER) if match[2] else None
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
    address = _address(match[1] or b"", reply.BAD_REVERSE_PATH)
    return Mail(ReversePath(address, parse_parameters(match[2]) if match[2] else NO_PARAMETERS))


def _rcpt(argument: bytes) -> Rcpt:
    match = grammar.RCPT_ARGUMENT.fullmatch(argument)
    if match is None:
        raise SMTPError(reply.BAD_FORWARD_PATH)
    address = _address(match[1] or match[2], reply.BAD_FORWARD_PATH)
    return Rcpt(ForwardPath(address, parse_parameters(match[3]) if match[3] else NO_PARAMETERS))


def _address(octets: bytes, failure: Reply) -> str:
    address = _decode(octets, failure)
    unusual = len(octets) > grammar.MAX_PATH - 2 or octets.endswith(b"]")
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


_PARSERS: Final[Mapping[bytes, Callable[[bytes], Command]]] = {
    b"EHLO": _hello("EHLO"),
    b"HELO": _hello("HELO"),
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
