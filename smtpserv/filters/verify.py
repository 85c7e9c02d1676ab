"""``verify``: checks who sent a message and who signed it, and tells it in a field of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from smtpserv import reply
from smtpserv.arguments import read_argument
from smtpserv.collecting import InThread
from smtpserv.edit import DeleteField, HeaderEdit, InsertField
from smtpserv.error import SMTPError, StartError
from smtpserv.filters.questions import Find, Questions
from smtpserv.filters.results import NAME, Findings, Result, claims, field_value
from smtpserv.header import Header
from smtpserv.interfaces import IMessageFilter
from smtpserv.message import Message
from smtpserv.network import Networks
from smtpserv.policy.lookup import system_lookup

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore

#: Forged fields that are taken out one by one; with more of them all go, others' too.
_MOST_FORGED: Final = 20


#: Checks one message, of which it is given the header as well.
Check = Callable[[Message, Header, Questions], "Deferred[Findings]"]


@dataclass(frozen=True, slots=True)
class Means:
    """What a check needs: whom to ask, where to run and what time it is."""

    find: Find
    in_thread: InThread
    clock: IReactorTime


@implementer(IMessageFilter)
class Verify:
    """Adds what it found, and removes fields that came with the message and say that they are ours.

    Of who authenticated nothing is asked but that: a user's mail is signed later, if at all. What the DNS
    can't tell in time is a ``temperror``, and refuses nothing.

    :param hostname: our own name, the authserv-id of RFC 8601.
    :param refuses: whether a message is refused when its author's domain says so by DMARC.
    :param exempt: peers whose messages are left as they are: our own hosts.
    """

    def __init__(self, hostname: str, check: Check, means: Means, refuses: bool, exempt: Networks) -> None:
        self._hostname: Final = hostname
        self._check: Final = check
        self._means: Final = means
        self._refuses: Final = refuses
        self._exempt: Final = exempt

    def filter_message(self, message: Message) -> "Deferred[list[HeaderEdit]] | None":
        """Check it, and tell."""
        if message.session.peer.host in self._exempt:
            return None
        return Deferred.fromCoroutine(self._filter(message))

    async def _filter(self, message: Message) -> list[HeaderEdit]:
        header = Header.of(message.content)
        if not header.complete:
            # What could not be looked through might say in our name what it likes.
            raise SMTPError(reply.HEADER_TOO_LONG)
        findings = await self._findings(message, header)
        if findings.is_refused and self._refuses:
            raise SMTPError(reply.DMARC_REFUSED)
        return [*self._removed(header), InsertField(NAME, field_value(self._hostname, findings.results))]

    async def _findings(self, message: Message, header: Header) -> Findings:
        if message.session.identity is not None:
            return Findings((Result("auth", "pass"),), False)
        means = self._means
        return await self._check(message, header, Questions(means.find, means.in_thread, means.clock))

    def _removed(self, header: Header) -> list[HeaderEdit]:
        """From below to above, so that the count of those above holds."""
        fields = header.named(NAME)
        forged = [n for n, each in enumerate(fields, 1) if claims(each.text, self._hostname)]
        if len(forged) > _MOST_FORGED:
            return [DeleteField(NAME)]
        return [DeleteField(NAME, occurrence) for occurrence in reversed(forged)]


def make_verify(reactor: "IReactorCore", hostname: str, reject: str = "", exempt: str = "") -> Verify:
    """The filter of ``--filter=verify``.

    :raises StartError: for arguments that are wrong, or a library that is missing.
    """
    try:
        from smtpserv.filters.checks import make_check
    except ImportError as error:
        raise StartError(f"it needs {error.name}: pip install smtpserv[auth]") from None
    if reject not in ("", "dmarc"):
        raise StartError(f"reject: {reject!r} is not dmarc")
    clock: Any = reactor
    in_thread = partial(deferToThreadPool, clock, clock.getThreadPool())
    means = Means(system_lookup(reactor).find, in_thread, clock)
    return Verify(
        hostname, make_check(), means, bool(reject), read_argument("exempt", Networks.parse, exempt)
    )
