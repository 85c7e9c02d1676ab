"""Service extensions: one row each, and the terms on which a server speaks (RFC 5321 section 2.2)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Final

from smtpserv import reply
from smtpserv.error import SMTPError
from smtpserv.message import Parameters
from smtpserv.reply import Reply

#: Says whether a parameter's value, None where it has none, is in good form.
Check = Callable[[str | None], bool]


class BareNewlines(Enum):
    """What becomes of a CR or LF in mail data that is not part of a CRLF (RFC 5321 section 2.3.8)."""

    REFUSE = "refuse"
    NORMALIZE = "normalize"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Extension:
    """What one EHLO keyword means.

    :param keyword: as EHLO announces it.
    :param argument: what follows the keyword, made from the terms.
    :param mail: the parameters it adds to MAIL, and how each is checked.
    :param rcpt: the same for RCPT.
    :param allowance: octets it adds to the longest command line.
    """

    keyword: str
    argument: "Callable[[Terms], str]" = lambda terms: ""
    mail: Mapping[str, Check] = field(default_factory=dict)
    rcpt: Mapping[str, Check] = field(default_factory=dict)
    allowance: int = 0


def _absent(value: str | None) -> bool:
    return value is None


def _matches(pattern: str) -> Check:
    compiled = re.compile(pattern, re.IGNORECASE | re.ASCII)
    return lambda value: value is not None and compiled.fullmatch(value) is not None


EXTENSIONS: Final = (
    Extension("PIPELINING"),  # RFC 2920
    Extension(
        "SIZE", lambda terms: str(terms.max_size), {"SIZE": _matches("[0-9]{1,20}")}, allowance=26
    ),  # RFC 1870
    Extension("8BITMIME", mail={"BODY": _matches("7BIT|8BITMIME")}),  # RFC 6152
    Extension("SMTPUTF8", mail={"SMTPUTF8": _absent}, allowance=10),  # RFC 6531
    Extension("ENHANCEDSTATUSCODES"),  # RFC 2034
    Extension("LIMITS", lambda terms: f"RCPTMAX={terms.max_recipients}"),  # RFC 9422
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What is in force after a hello.

    :param answer: says so to the client.
    :param mail: every parameter that MAIL may have, and how each is checked.
    :param rcpt: the same for RCPT.
    """

    answer: Reply
    mail: Mapping[str, Check] = field(default_factory=dict)
    rcpt: Mapping[str, Check] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """What a server offers and bears; one value for all its sessions.

    :param hostname: the name in the greeting.
    :param max_size: octets of the largest message.
    :param max_recipients: RCPT commands in one transaction, refused ones included.
    :param max_line: octets of the longest command line, CRLF included, before the extensions' allowances.
    :param max_errors: syntax and order errors in a session; then 421.
    :param max_commands: commands that bring no message forward, before one is accepted; then 421.
    """

    hostname: str = "localhost"
    max_size: int = 33554432
    max_recipients: int = 1000
    max_line: int = 4096
    max_errors: int = 20
    max_commands: int = 1000
    bare_newlines: BareNewlines = BareNewlines.REFUSE
    extensions: tuple[Extension, ...] = EXTENSIONS

    @cached_property
    def greeting(self) -> Reply:
        """What is said first."""
        return reply.greeting(self.hostname)

    @cached_property
    def closing(self) -> Reply:
        """What is said last."""
        return reply.closing(self.hostname)

    @cached_property
    def offers(self) -> Mapping[str, Offer]:
        """What each greeting verb puts in force: EHLO the extensions, HELO none."""
        keywords = [f"{row.keyword} {row.argument(self)}".rstrip() for row in self.extensions]
        mail = {parameter: check for row in self.extensions for parameter, check in row.mail.items()}
        rcpt = {parameter: check for row in self.extensions for parameter, check in row.rcpt.items()}
        return {
            "EHLO": Offer(reply.hello(self.hostname, keywords), mail, rcpt),
            "HELO": Offer(reply.hello(self.hostname)),
        }

    @cached_property
    def line_limit(self) -> int:
        """Octets of the longest command line, allowances included."""
        return self.max_line + sum(row.allowance for row in self.extensions)


def check_parameters(parameters: Parameters, permitted: Mapping[str, Check]) -> None:
    """Check each parameter by its row.

    :raises SMTPError: 555 for one that no announced extension has, 501 for a value in bad form.
    """
    for keyword, value in parameters.items():
        check = permitted.get(keyword)
        if check is None:
            raise SMTPError(reply.unknown_parameter(keyword[:40]))
        if not check(value):
            raise SMTPError(reply.BAD_PARAMETER)
