"""Who knows which addresses are a list's."""

# Interface methods take no self, and have no body but their contract.
# mypy: disable-error-code="empty-body"

from collections.abc import Awaitable
from typing import ClassVar, Final

from zope.interface import Interface

from smtpserv import reply
from smtpserv.error import SMTPError


class DirectoryAway(SMTPError):
    """Nobody can tell now. Whoever asked hears 451: mail for a list must not be taken for somebody else's.

    :param reason: for the log alone.
    """

    classes: ClassVar[tuple[int, ...]] = (4,)

    def __init__(self, reason: str) -> None:
        super().__init__(reply.DIRECTORY_AWAY)
        self.reason: Final = reason


class IListDirectory(Interface):
    """Knows which mailboxes Mailman takes mail for."""

    def knows(mailbox: str) -> Awaitable[bool]:
        """Whether the mailbox is a list's or a sub-address of one; may be asked any number at once.

        :param mailbox: as it stood in RCPT.
        :raises DirectoryAway: when that is not known, and can't be found out now.
        """
