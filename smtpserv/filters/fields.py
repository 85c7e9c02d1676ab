"""Filters that add one field to every message: ``add-header`` and ``received``."""

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from smtpserv.edit import AddField, InsertField
from smtpserv.error import StartError
from smtpserv.interfaces import IHeaderFilter
from smtpserv.message import Message
from smtpserv.trace import received_field

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore


@implementer(IHeaderFilter)
class AddHeader:
    """Adds the same field to each message, below its others."""

    def __init__(self, field: AddField) -> None:
        self._edits: Final = (field,)

    def filter_message(self, message: Message) -> tuple[AddField]:
        """Add it."""
        return self._edits


@implementer(IHeaderFilter)
class Received:
    """Adds our Received field at the top (RFC 5321 section 4.4).

    :param hostname: our own name.
    :param clock: its seconds are those since 1970.
    """

    def __init__(self, hostname: str, clock: IReactorTime) -> None:
        self._hostname: Final = hostname
        self._clock: Final = clock

    def filter_message(self, message: Message) -> tuple[InsertField]:
        """Add it."""
        now = self._clock.seconds()
        field = received_field(message.session, message.envelope, self._hostname, now)
        name, _, value = field.decode("utf-8").removesuffix("\r\n").partition(": ")
        return (InsertField(name, value),)


def make_add_header(name: str, value: str) -> AddHeader:
    """The filter of ``--filter=add-header:NAME:VALUE``.

    :raises StartError: for what is no header field.
    """
    try:
        return AddHeader(AddField(name, value))
    except ValueError as error:
        raise StartError(str(error)) from None


def make_received(reactor: "IReactorCore", hostname: str) -> Received:
    """The filter of ``--filter=received``."""
    clock: Any = reactor
    return Received(hostname, clock)
