"""The scripted upstream as it listens."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from smtpserv.dialogue.extension import Extension
from smtpserv.dialogue.extensions import EXTENSIONS
from smtpserv.dialogue.terms import BareNewlines, Terms
from smtpserv.interfaces import IAuthentication
from smtpserv.testing.upstream.connection import UpstreamConnection
from smtpserv.testing.upstream.fault import Fault, Faults, Plan, Step
from smtpserv.testing.upstream.role import Role, UpstreamTransaction

#: What is offered when nothing else is said, as EHLO says it.
KEYWORDS: Final = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "ENHANCEDSTATUSCODES")


class ScriptedUpstream(Factory):
    """An SMTP or LMTP server to relay to: it accepts everything, but for what its script says.

    It checks that commands are in order and in good form and use nothing but what was offered, and refuses
    them else, as a strict server does; and it remembers what it was sent. It has no timer, and keeps nothing
    open that its client has closed.

    :param faults: what goes wrong and where.
    :param keywords: what it offers, as EHLO says it: ``SIZE 1000``, ``XFORWARD NAME ADDR``; what is not among
        them is not understood either. STARTTLS and AUTH are offered if the following say so.
    :param tls: what hands are shaken with, as a transport's ``startTLS`` takes it.
    :param is_implicit: whether they are shaken before the greeting (RFC 8314).
    :param authentication: how clients may prove who they are; nobody must.
    """

    noisy = False

    def __init__(
        self,
        faults: Mapping[Step, Plan] | None = None,
        *,
        lmtp: bool = False,
        keywords: Iterable[str] = KEYWORDS,
        tls: Any = None,
        is_implicit: bool = False,
        authentication: IAuthentication | None = None,
    ) -> None:
        terms = replace(
            _terms(dict(each.partition(" ")[::2] for each in keywords)),
            lmtp=lmtp,
            tls=tls is not None,
            auth=authentication is not None,
        )
        #: What goes wrong and where; it may be changed at any time.
        self.faults: Final = Faults(faults or {})
        role = Role(terms, self.faults, tls, is_implicit, authentication)
        #: Every line that came, without its CRLF, in the order they came; also what was said under AUTH.
        self.commands: Final = role.commands
        #: What they made up, from each MAIL that was accepted.
        self.transactions: Final = role.transactions
        #: All connections there have been.
        self.connections: Final[list[UpstreamConnection]] = []
        self._role: Final = role

    def buildProtocol(self, addr: IAddress | None) -> UpstreamConnection:
        """Somebody connects."""
        self.connections.append(UpstreamConnection(self._role))
        return self.connections[-1]

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return sum(each.is_open for each in self.connections)

    @property
    def messages(self) -> list[UpstreamTransaction]:
        """The transactions that were accepted to the end."""
        return [each for each in self.transactions if each.is_accepted]

    def interrupt(self, fault: Fault) -> None:
        """Do this now on every open connection, whether or not anything was asked."""
        for each in self.connections:
            each.interrupt(fault)

    def resume(self) -> None:
        """Whatever stalls goes on, late, as if nothing had been."""
        for each in self.connections:
            each.resume()


def _terms(keywords: Mapping[str, str]) -> Terms:
    """The terms that offer these keywords, with what follows each."""
    known = {row.keyword: row for row in EXTENSIONS}
    rows = [_with_argument(known.get(name, Extension(name)), said) for name, said in keywords.items()]
    size = keywords.get("SIZE")
    return Terms(
        hostname="upstream.example",
        max_size=int(size) if size else _PLENTY,
        max_recipients=_PLENTY,
        max_errors=_PLENTY,
        max_commands=_PLENTY,
        bare_newlines=BareNewlines.ALLOW,
        honours=frozenset(keywords),
        extensions=(*rows, known["STARTTLS"], known["AUTH"]),
    )


def _with_argument(row: Extension, argument: str) -> Extension:
    return replace(row, argument=lambda *_: argument) if argument or row.keyword == "SIZE" else row


_PLENTY: Final = 1 << 40
