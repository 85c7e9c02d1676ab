"""The directory that needs no configuration: Mailman's own LMTP server is asked."""

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from smtpserv.mailman.address import bare_address
from smtpserv.mailman.cache import Answers
from smtpserv.mailman.directory import IListDirectory


@implementer(IListDirectory)
class ProbeDirectory:
    """Asks whether RCPT would be taken; addresses that differ in a token alone are one question.

    :param would_take: asks about one mailbox: RCPT, and RSET. False for a 5yz; raises for anything else.
    """

    def __init__(self, would_take: Callable[[str], Awaitable[bool]], clock: IReactorTime) -> None:
        self._answers: Final = Answers("Mailman's LMTP server", would_take, clock)

    async def knows(self, mailbox: str) -> bool:
        """What its LMTP server answered."""
        bare = bare_address(mailbox)
        return bare is not None and await self._answers.find(bare)
