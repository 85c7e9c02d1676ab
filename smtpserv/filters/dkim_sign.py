"""``dkim-sign``: signs mail of our own domains (RFC 6376, RFC 8463)."""

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from smtpserv import reply
from smtpserv.arguments import read_argument
from smtpserv.collecting import InThread
from smtpserv.domain import Domains, canonical
from smtpserv.edit import InsertField
from smtpserv.error import SMTPError, StartError
from smtpserv.filters.alignment import author_domains
from smtpserv.filters.signing_key import KeyFile
from smtpserv.header import Header
from smtpserv.interfaces import IMessageFilter
from smtpserv.message import Message, Session
from smtpserv.network import Networks

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore

#: Gives the field that signs a message, of which it is given the header too, for a domain. In a thread.
Sign = Callable[[Message, Header, str], InsertField]

#: Whose mail is signed if nothing else is said: this machine's.
LOCAL: Final = "127.0.0.0/8,::1,unix"

# field-name = 1*ftext (RFC 5322 section 2.2)
_FIELD_NAME: Final = re.compile(r"[!-9;-~]+")


@implementer(IMessageFilter)
class DKIMSign:
    """Adds a signature to mail whose authors are all of one of our domains, or of domains below it.

    It vouches for the author, so that only who may speak for him is believed: our own hosts, and clients
    that authenticated. A stranger's mail is left as it is, whatever he writes in its From field.

    :param hosts: whose mail is signed without authentication.
    """

    def __init__(self, domains: Domains, hosts: Networks, sign: Sign, in_thread: InThread) -> None:
        #: The longest first, so that the nearest is used.
        self._domains: Final = sorted(domains.names, key=len, reverse=True)
        self._hosts: Final = hosts
        self._sign: Final = sign
        self._in_thread: Final = in_thread

    def filter_message(self, message: Message) -> "Deferred[tuple[InsertField] | None] | None":
        """Sign it, if it is ours."""
        return Deferred.fromCoroutine(self._filter(message)) if self._trusts(message.session) else None

    def _trusts(self, session: Session) -> bool:
        return session.identity is not None or session.peer.host in self._hosts

    async def _filter(self, message: Message) -> tuple[InsertField] | None:
        header = Header.of(message.content)
        if not header.complete:
            raise SMTPError(reply.HEADER_TOO_LONG)
        domain = self._domain_of(header)
        # Of a header with lines that are no fields everybody has his own idea, and no signature would hold.
        if domain is None or not all(each.name for each in header.fields):
            return None
        return (await self._in_thread(self._sign, message, header, domain),)

    def _domain_of(self, header: Header) -> str | None:
        """The domain of ours that all authors belong to."""
        authors = author_domains(header) or [""]
        return next((ours for ours in self._domains if all(_is_of(each, ours) for each in authors)), None)


def _is_of(domain: str, ours: str) -> bool:
    return domain == ours or domain.endswith(f".{ours}")


def make_dkim_sign(
    reactor: "IReactorCore",
    *,
    domain: str = "",
    selector: str = "",
    key_file: str = "",
    fields: str = "",
    hosts: str = LOCAL,
) -> DKIMSign:
    """The filter of ``--filter=dkim-sign``.

    :raises StartError: for arguments that are wrong, a key that can't be used, or a library that is missing.
    """
    try:
        from smtpserv.filters.signer import FIELDS, NEVER, Signer
    except ImportError as error:
        raise StartError(f"it needs {error.name}: pip install smtpserv[auth]") from None
    domains = read_argument("domain", Domains.parse, domain)
    if not (domains.names and selector and key_file):
        raise StartError("it needs domain=, selector= and key-file=")
    if canonical(selector) is None or not selector.isascii():
        raise StartError(f"selector: {selector!r} is not a name in the DNS")
    names = read_argument("fields", partial(_field_names, never=NEVER), fields) or FIELDS
    try:
        signer = Signer(selector, KeyFile(key_file), names)
    except ValueError as error:
        raise StartError(f"key-file: {error}") from None
    clock: Any = reactor
    in_thread = partial(deferToThreadPool, clock, clock.getThreadPool())
    return DKIMSign(domains, read_argument("hosts", Networks.parse, hosts), signer.sign, in_thread)


def _field_names(written: str, never: frozenset[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().lower() for name in written.split(",") if name.strip()))
    wrong = [name for name in names if name in never or not _FIELD_NAME.fullmatch(name)]
    if wrong:
        raise ValueError(f"a list of header fields to be signed ({wrong[0]})")
    if names and "from" not in names:
        raise ValueError("a list of header fields with From, which must be signed")
    return names
