"""What a server bears, and the deadlines of one session."""

from dataclasses import dataclass
from typing import Final

from smtpserv import reply
from smtpserv.network import is_local
from smtpserv.reply import Reply

#: Connections from one address that is not loopback, when nothing else was said.
PER_ADDRESS: Final = 100

#: Seconds of mail data before its rate is looked at.
GRACE: Final = 30.0

#: Seconds that shaking hands may take.
HANDSHAKE: Final = 30.0

#: Seconds a client that was told goodbye may take to close.
LINGER: Final = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, rates in octets a second.

    :param max_connections: all that are open at once.
    :param max_connections_per_address: those from one address; None means 100, and no limit for loopback.
    :param idle_timeout: waiting for the client; RFC 5321 section 4.5.3.2.7 wants 300 at least.
    :param session_deadline: one connection, from connect; a message under way is still taken.
    :param data_deadline: the mail data of one message.
    :param min_data_rate: of mail data, on the average, after the first half minute.
    :param processing_deadline: each answer of a policy or processor; a client waits 600 (RFC 5321 4.5.3.2.6).
    :param memory_limit: octets of content held in memory; more goes to a temporary file.
    """

    max_connections: int = 20000
    max_connections_per_address: int | None = None
    idle_timeout: float = 300.0
    session_deadline: float = 3600.0
    data_deadline: float = 1800.0
    min_data_rate: float = 500.0
    processing_deadline: float = 300.0
    memory_limit: int = 1 << 20

    def connections_from(self, host: str) -> int:
        """How many connections the address may have."""
        if self.max_connections_per_address is not None:
            return self.max_connections_per_address
        return self.max_connections if is_local(host) else PER_ADDRESS


class Deadlines:
    """What a session still has time for.

    It has no timer: somebody looks, about once a second, and what changed since the last look just has.
    """

    __slots__ = (
        "octets",
        "_limits",
        "_opened",
        "_looked",
        "_octets_then",
        "_heard",
        "_data_began",
        "_before_data",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        #: How many the client sent; whoever takes them adds to it.
        self.octets = 0
        self._limits = limits
        self._opened = now
        self._looked = now
        #: Those at the last look; None if it was for us to speak.
        self._octets_then: int | None = 0
        self._heard = now
        self._data_began: float | None = None
        self._before_data = 0

    def data_begins(self, now: float) -> None:
        """The client was told to send mail data."""
        self._data_began = now
        self._before_data = self.octets

    def data_ended(self) -> None:
        """The final dot came."""
        self._data_began = None

    def waiting(self, now: float) -> None:
        """Look while the client waits for us: the time since the last look is not its own.

        Of waits that are shorter than a look is long, as many are seen as make up for those that are not.
        """
        if self._data_began is not None:
            self._data_began += now - self._looked
        self._looked, self._octets_then = now, None

    def overdue(self, now: float) -> Reply | None:
        """Look while we wait for the client: what it is told if it has run out of time."""
        limits = self._limits
        if self._octets_then != self.octets:
            self._octets_then, self._heard = self.octets, now
        self._looked = now
        if now - self._heard >= limits.idle_timeout:
            return reply.IDLE_TOO_LONG
        if self._data_began is None:
            return reply.SESSION_TOO_LONG if now - self._opened >= limits.session_deadline else None
        lasted = now - self._data_began
        came = self.octets - self._before_data
        slow = lasted >= GRACE and came < limits.min_data_rate * lasted
        return reply.DATA_TOO_SLOW if slow or lasted >= limits.data_deadline else None
