"""``milter``: asks a milter about each message, and does what it says."""

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from smtpserv import reply
from smtpserv.arguments import read_argument
from smtpserv.collecting import InThread
from smtpserv.error import SMTPError, StartError
from smtpserv.escape import escape_controls
from smtpserv.header import Header
from smtpserv.interfaces import IMessageFilter
from smtpserv.message import Message
from smtpserv.milter.connection import connect
from smtpserv.milter.endpoint import read_endpoint
from smtpserv.milter.event import Shown
from smtpserv.milter.inquiry import Decision, Inquiry
from smtpserv.milter.packet import MAX_SENT, MilterError
from smtpserv.reply import Reply

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore

_log = Logger()


@implementer(IMessageFilter)
class Milter:
    """Holds a conversation about each message, on a connection of its own.

    :param name: of the milter, for the log.
    :param default: what becomes of a message when the milter is away or breaks the protocol.
    """

    def __init__(
        self,
        name: str,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        in_thread: InThread,
        timeout: float,
        default: Reply | None,
    ) -> None:
        self._name: Final = name
        self._endpoint: Final = endpoint
        self._clock: Final = clock
        self._in_thread: Final = in_thread
        self._timeout: Final = timeout
        self._default: Final = default

    def filter_message(self, message: Message) -> "Deferred[Decision]":
        """Ask about it. Cancelling closes the connection."""
        return Deferred.fromCoroutine(self._filter(message))

    async def _filter(self, message: Message) -> Decision:
        header = Header.of(message.content)
        shown = Shown(header)
        if not header.complete or any(len(each.octets) >= MAX_SENT for each in shown.fields):
            raise SMTPError(reply.HEADER_TOO_LONG)
        try:
            connection = await connect(self._endpoint, self._clock, self._timeout)
            try:
                return await Inquiry(connection, message, shown, self._in_thread).decision()
            finally:
                connection.close()
        except MilterError as error:
            reason = escape_controls(str(error))
            _log.warn("{milter} failed for {id}: {reason}", milter=self._name, id=message.id, reason=reason)
            return self._default


def make_milter(
    reactor: "IReactorCore", *where: str, default: str = "tempfail", timeout: str = "30", **more: str
) -> Milter:
    """The filter of ``--filter=milter:ENDPOINT``.

    :raises StartError: for arguments that are wrong.
    """
    clock: Any = reactor
    if default not in _DEFAULTS:
        raise StartError(f"default: {default!r} is not tempfail or accept")
    seconds = read_argument("timeout", _seconds, timeout)
    name = read_endpoint(where, more)
    try:
        endpoint = clientFromString(reactor, name)
    except Exception as error:
        raise StartError(f"{name!r} is no endpoint: {error}") from None
    in_thread = partial(deferToThreadPool, clock, clock.getThreadPool())
    return Milter(name, endpoint, clock, in_thread, seconds, _DEFAULTS[default])


_DEFAULTS: Final = {"tempfail": reply.FILTER_UNAVAILABLE, "accept": None}


def _seconds(written: str) -> float:
    if not (re.fullmatch(r"[0-9]{1,3}", written) and int(written)):
        raise ValueError("a number of seconds from 1 to 999")
    return float(written)
