"""Commands as a client says them: the counterpart of the table that parses them.

A line is built from values, and looked at once more as a whole before it goes out: whoever made them, what
comes of one command is one line, and no second command.
"""

import re
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from functools import lru_cache
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
    return f"{_word(command.verb)} {command.name}"


def _mail(command: Mail) -> str:
    path = command.reverse_path
    line = f"MAIL {_path('FROM', path.address, grammar.MAIL_ARGUMENT)}"
    return line + _tail(path.parameters) if path.parameters else line


def _rcpt(command: Rcpt) -> str:
    path = command.forward_path
    line = f"RCPT {_path('TO', path.address, grammar.RCPT_ARGUMENT)}"
    return line + _tail(path.parameters) if path.parameters else line


def _path(lead: str, address: str, form: re.Pattern[bytes]) -> str:
    """An address in brackets, if all of it is one: its own bracket might end it, and parameters follow."""
    argument = f"{lead}:<{address}>"
    if grammar.USUAL_MAILBOX.fullmatch(address):
        return argument
    match = form.fullmatch(argument.encode())
    if match is None or (match[1] or match[2] or b"") != address.encode():
        raise ValueError(f"not a path: {argument!r}")
    return argument


def _tail(parameters: Parameters) -> str:
    words = [keyword if value is None else f"{keyword}={value}" for keyword, value in parameters.items()]
    for word, keyword in zip(words, parameters, strict=True):
        match = grammar.PARAMETER.fullmatch(word.encode())
        if match is None or match[1] != keyword.encode():
            raise ValueError(f"not a parameter: {word!r}")
    return " ".join(["", *words])


def _bdat(command: Bdat) -> str:
    return f"BDAT {command.size} LAST" if command.last else f"BDAT {command.size}"


def _auth(command: Auth) -> str:
    mechanism = _word(command.mechanism)
    if command.initial is None:
        return f"AUTH {mechanism}"
    return f"AUTH {mechanism} {_base64(command.initial) or '='}"


def _response(command: Response) -> str:
    return _base64(command.octets)


def _base64(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).decode("ascii")


def _override(command: Override) -> str:
    attributes = command.attributes.items()
    words = [
        f"{_word(name)}={'[UNAVAILABLE]' if value is None else encode_xtext(value)}"
        for name, value in attributes
    ]
    return " ".join([_word(command.verb), *words])


def _worded(command: Plain | Foreign) -> str:
    if command.verb == RESPONSE:
        return "*"
    verb = _word(command.verb)
    return f"{verb} {command.argument}" if command.argument else verb


@lru_cache(256)
def _word(text: str) -> str:
    """A verb, a mechanism or the name of an attribute, if it is one word and no more."""
    if not _WORD.fullmatch(text):
        raise ValueError(f"not a word: {text!r}")
    return text


_WORD: Final = re.compile("[A-Za-z0-9_-]+")

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
