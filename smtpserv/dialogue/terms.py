"""The terms on which a server speaks, and what of its extensions a session is offered."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Final

from smtpserv import reply
from smtpserv.dialogue.command import PARSERS, Parse
from smtpserv.dialogue.extension import Check, Extension, Standing
from smtpserv.dialogue.extensions import EXTENSIONS
from smtpserv.reply import Reply


class BareNewlines(Enum):
    """What becomes of a CR or LF in mail data that is not part of a CRLF (RFC 5321 section 2.3.8)."""

    REFUSE = "refuse"
    NORMALIZE = "normalize"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Offer:
    """What is in force after a hello.

    :param answer: says so to the client.
    :param mail: every parameter that MAIL may have, and how each is checked.
    :param rcpt: the same for RCPT.
    :param one_of: sets of parameters that exclude each other.
    :param verbs: the commands of the extensions that are offered.
    """

    answer: Reply
    mail: Mapping[str, Check] = field(default_factory=dict)
    rcpt: Mapping[str, Check] = field(default_factory=dict)
    one_of: tuple[frozenset[str], ...] = ()
    verbs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Terms:
    """What a server offers and bears; one value for all its sessions.

    :param hostname: the name in the greeting.
    :param lmtp: whether it speaks LMTP (RFC 2033): LHLO, and a reply for each recipient.
    :param max_size: octets of the largest message.
    :param max_recipients: RCPT commands in one transaction, refused ones included.
    :param max_line: octets of the longest command line, CRLF included, before the extensions' allowances.
    :param max_errors: syntax and order errors in a session; then 421.
    :param max_commands: commands that bring no message forward, before one is accepted; then 421.
    :param tls: whether STARTTLS is possible.
    :param auth: whether AUTH is.
    :param require_tls: whether there is no mail without TLS.
    :param require_auth: whether there is no mail from a client that has not authenticated.
    :param honours: keywords of the extensions that the processor honours, which may change.
    """

    hostname: str = "localhost"
    lmtp: bool = False
    max_size: int = 33554432
    max_recipients: int = 1000
    max_line: int = 4096
    max_errors: int = 20
    max_commands: int = 1000
    bare_newlines: BareNewlines = BareNewlines.REFUSE
    tls: bool = False
    auth: bool = False
    require_tls: bool = False
    require_auth: bool = False
    honours: Collection[str] = frozenset()
    extensions: tuple[Extension, ...] = EXTENSIONS

    @cached_property
    def greeting(self) -> Reply:
        """What is said first."""
        return reply.greeting(self.hostname, "LMTP" if self.lmtp else "ESMTP")

    @cached_property
    def closing(self) -> Reply:
        """What is said last."""
        return reply.closing(self.hostname)

    @cached_property
    def parsers(self) -> Mapping[bytes, Parse]:
        """The parser of each verb, whether or not a session is offered it."""
        parsers = dict(PARSERS)
        for row in self.extensions:
            parsers.update({verb.encode("ascii"): parse for verb, parse in row.verbs.items()})
        for verb in _OF_THE_OTHER[self.lmtp]:
            parsers.pop(verb, None)
        return parsers

    @cached_property
    def withheld(self) -> Mapping[str, Reply]:
        """The reply to each verb of an extension while it is not offered."""
        return {verb: row.withheld for row in self.extensions for verb in row.verbs}

    @cached_property
    def line_limit(self) -> int:
        """Octets of the longest command line: with the allowances of what a session may ever be offered."""
        return self.max_line + sum(
            row.allowance
            for row in self.extensions
            if any(row.offered(self, standing) for standing in _EXTREMES)
        )

    @cached_property
    def plain_offer(self) -> Offer:
        """What HELO puts in force: no extension."""
        return Offer(reply.hello(self.hostname))

    @cached_property
    def _offers(self) -> dict[tuple[Standing, frozenset[str]], Offer]:
        return {}

    def offer(self, verb: str, standing: Standing) -> Offer:
        """What a hello puts in force: HELO no extension, EHLO and LHLO those that are offered."""
        if verb == "HELO":
            return self.plain_offer
        key = standing, frozenset(self.honours)
        if key not in self._offers:
            self._offers[key] = self._make_offer(standing)
        return self._offers[key]

    def _make_offer(self, standing: Standing) -> Offer:
        rows = [row for row in self.extensions if row.offered(self, standing)]
        keywords = [f"{row.keyword} {row.argument(self, standing)}".rstrip() for row in rows]
        return Offer(
            answer=reply.hello(self.hostname, keywords),
            mail={parameter: check for row in rows for parameter, check in row.mail.items()},
            rcpt={parameter: check for row in rows for parameter, check in row.rcpt.items()},
            one_of=tuple(row.one_of for row in rows if row.one_of),
            verbs=frozenset(verb for row in rows for verb in row.verbs),
        )


#: Those who are offered least and most.
_EXTREMES: Final = (Standing(), Standing(secure=True, mechanisms=("PLAIN",), trusted=True))

#: The verbs that are unknown to SMTP, and to LMTP (RFC 2033 section 4.1).
_OF_THE_OTHER: Final = {False: (b"LHLO",), True: (b"HELO", b"EHLO")}
