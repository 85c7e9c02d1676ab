"""Who may relay: send mail through this server to domains that are not its own."""

import re
import unicodedata
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final

from zope.interface import implementer

from smtpserv import reply
from smtpserv.domain import Domains
from smtpserv.interfaces import IRecipientDirectory, IRecipientPolicy, Verdict
from smtpserv.message import ForwardPath, ReversePath, Session
from smtpserv.network import Networks
from smtpserv.reply import Reply

#: What once routed mail onwards from inside a local-part: ``user%other@ours``, ``other!user@ours``,
#: ``"user@other"@ours`` (RFC 5321 section 3.6 and appendix F.2).
_ROUTING: Final = re.compile("[%!@]")


@implementer(IRecipientPolicy)
@dataclass(frozen=True, slots=True)
class RelayAccess:
    """Stands before a processor that sends mail on, so that no stranger relays through it.

    :param relay_from: the peers that may send to any domain.
    :param relay_to: the domains that anybody may send to.
    :param directory: knows recipients besides that anybody may send to.
    :param routed: whether a stranger's local-part may hold what some hosts take for a route.
    """

    relay_from: Networks
    relay_to: Domains
    routed: bool = False
    directory: IRecipientDirectory | None = None

    def may_relay(self, session: Session) -> bool:
        """Whether the session may send to any domain: by its identity, or by its address."""
        return bool(session.identity) or session.peer.host in self.relay_from

    def check_recipient(
        self, session: Session, reverse_path: ReversePath, forward_path: ForwardPath
    ) -> Verdict:
        """Refuse a recipient elsewhere to whoever may not relay; the reverse-path proves nothing."""
        if self.may_relay(session) or self._is_ours(forward_path):
            return None
        if self.directory is None or not forward_path.domain or self._is_routed(forward_path):
            return reply.RELAY_DENIED
        return self._ask(self.directory, forward_path)

    async def _ask(self, directory: IRecipientDirectory, path: ForwardPath) -> Reply | None:
        answer = directory.is_ours(path)
        return None if (await answer if isinstance(answer, Awaitable) else answer) else reply.RELAY_DENIED

    def _is_ours(self, path: ForwardPath) -> bool:
        if not path.domain:
            return path.address.lower() == "postmaster"  # local by definition (RFC 5321 section 4.5.1)
        return path.domain in self.relay_to and not self._is_routed(path)

    def _is_routed(self, path: ForwardPath) -> bool:
        """Compatibility forms count too: what comes after us may take a fullwidth at-sign for one."""
        local_part = unicodedata.normalize("NFKC", path.local_part)
        return not self.routed and _ROUTING.search(local_part) is not None
