"""Commands as a client says them: the counterpart of the table that parses them.

A line is built from values, and looked at once more as a whole before it goes out: whoever made them, what
comes of one command is one line, and no second command.
"""

from binascii import b2a_base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from smtpserv.dialogue import grammar
from smtpserv.dialogue.command import (
    Auth,
    Bdat,
    Command,
    Foreign,
    Hello,
    Mail,
    Override,
    Plain,
    Rcpt,
    Response,
)
from smtpserv.dialogue.state import RESPONSE
from smtpserv.message import Parameters, encode_xtext

#: The answer to a challenge that gives the exchange up (RFC 4954 section 4).
CANCEL: Final = Plain(RESPONSE, "*")


def render(command: Command) -> bytes:
    """The line, its CRLF included.

    :raises ValueError: for a command that could not be said in one line, or not so that it is understood.
    """
    line = _RENDER[type(command)](command)
    if not line.isprintable():
        raise ValueError(f"{command.verb} holds what no command line may")
    return f"{line}\r\n".encode()


def _hello(command: Hello) -> str:
    if not grammar.is_hello_name(command.name.encode()):
        raise ValueError(f"not a name to say hello with: {command.name!r}")
    return f"{command.verb} {command.name}"


def _mail(command: Mail) -> str:
    path = command.reverse_path
    return f"MAIL {_checked(f'FROM:<{path.address}>', grammar.MAIL_ARGUMENT)}{_tail(path.parameters)}"


def _rcpt(command: Rcpt) -> str:
    path = command.forward_path
    return f"RCPT {_checked(f'TO:<{path.address}>', grammar.RCPT_ARGUMENT)}{_tail(path.parameters)}"


def _checked(argument: str, form: Any) -> str:
    if not form.fullmatch(argument.encode()):
        raise ValueError(f"not a path: {argument!r}")
    return argument


def _tail(parameters: Parameters) -> str:
    if not parameters:
        return ""
    words = [keyword if value is None else f"{keyword}={value}" for keyword, value in parameters.items()]
    for word in words:
        if not grammar.PARAMETER.fullmatch(word.encode()):
            raise ValueError(f"not a parameter: {word!r}")
    return " ".join(["", *words])


def _bdat(command: Bdat) -> str:
    return f"BDAT {command.size} LAST" if command.last else f"BDAT {command.size}"


def _auth(command: Auth) -> str:
    if command.initial is None:
        return f"AUTH {command.mechanism}"
    return f"AUTH {command.mechanism} {_base64(command.initial) or '='}"


def _response(command: Response) -> str:
    return _base64(command.octets)


def _base64(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).decode("ascii")


def _override(command: Override) -> str:
    attributes = command.attributes.items()
    words = [
        f"{name}={'[UNAVAILABLE]' if value is None else encode_xtext(value)}" for name, value in attributes
    ]
    return " ".join([command.verb, *words])


def _worded(command: Plain | Foreign) -> str:
    if command.verb == RESPONSE:
        return "*"
    if not command.verb.isalnum():
        raise ValueError(f"not a verb: {command.verb!r}")
    return f"{command.verb} {command.argument}" if command.argument else command.verb


_RENDER: Final[Mapping[type[Command], Callable[[Any], str]]] = {
    Hello: _hello,
    Mail: _mail,
    Rcpt: _rcpt,
    Bdat: _bdat,
    Auth: _auth,
    Response: _response,
    Override: _override,
    Plain: _worded,
    Foreign: _worded,
}
