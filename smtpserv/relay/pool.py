"""The connections to one mail server: made when needed, kept for a while, and never too many."""

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from smtpserv import reply
from smtpserv.escape import escape_controls
from smtpserv.message import Peer
from smtpserv.relay.client import SMTPClient
from smtpserv.relay.failure import Crowded, UpstreamFailed

_log = Logger()

#: Seconds between looks at what lasts too long.
SWEEP: Final = 1.0

#: Seconds after the first failure that a server is left alone, and the longest; each failure doubles them.
BACK_OFF: Final = 1.0
MAX_BACK_OFF: Final = 60.0

#: Doublings after which that is reached; many more are more than a number can hold.
_DOUBLINGS: Final = 10


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Times in seconds.

    :param connections: open at once.
    :param idle: that a connection is kept without use; servers close theirs after 300 (RFC 5321 4.5.3.2.7).
    :param uses: transactions of one connection.
    :param wait: for one to become free, before a client is sent away.
    """

    connections: int = 100
    idle: float = 60.0
    uses: int = 1000
    wait: float = 30.0


class Door(Protocol):
    """Makes connections to one server."""

    #: What the server offered when it was last spoken to; None before that.
    offers: Mapping[str, str] | None

    #: What we call ourselves.
    hello_name: str

    @property
    def is_lmtp(self) -> bool:
        """Whether it speaks LMTP."""

    def comes_from(self, peer: Peer) -> bool:
        """Whether one of those that are being made has its end of ours there."""

    async def connect(self) -> SMTPClient:
        """A new one that is ready for MAIL, or :class:`UpstreamFailed`."""

    def sweep(self, now: float) -> None:
        """End what lasts too long."""


@dataclass(slots=True)
class _Kept:
    """A connection that is used or kept."""

    uses: int = 0
    since: float = 0.0


class Pool:
    """Lends connections to one server, a connection to one transaction at a time.

    :param door: makes them.
    :param reactor: tells the time.
    :param chance: a random number from 0 to 1, so that many of us do not come back all at once.
    """

    def __init__(
        self,
        reactor: Any,
        door: Door,
        limits: PoolLimits | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.door: Final = door
        self._reactor: Final = reactor
        self._limits: Final = limits or PoolLimits()
        self._chance: Final = chance
        self._clients: Final[dict[SMTPClient, _Kept]] = {}
        #: Connections that are being made.
        self._connecting = 0
        #: Those that are free, the last used at the end.
        self._idle: Final[list[SMTPClient]] = []
        self._waiting: Final[deque[tuple[float, Deferred[None]]]] = deque()
        self._failures = 0
        self._down_until = 0.0
        self._was_crowded = False
        self._sweeping: IDelayedCall | None = None
        self._closed = False

    @property
    def is_down(self) -> bool:
        """Whether it failed so lately that it is left alone."""
        return bool(self._reactor.seconds() < self._down_until)

    @property
    def is_busy(self) -> bool:
        """Whether a connection is only to be had when another transaction is over."""
        return not self._idle and (self._is_full or self._is_crowded)

    @property
    def is_on_trial(self) -> bool:
        """Whether it failed when it was last asked, and somebody finds out whether it answers again.

        A connection that is free is there to be taken meanwhile.
        """
        return not self._idle and self._failures > 0 and self._connecting > 0

    def take_kept(self) -> SMTPClient | None:
        """A connection for one transaction, if one is free."""
        while self._idle:
            client = self._idle.pop()
            if client.is_usable:
                self._clients[client].uses += 1
                return client
        return None

    async def take(self, fresh: bool = False, stays: bool = True) -> SMTPClient:
        """A connection for one transaction; :meth:`give_back` it, whatever becomes of it.

        :param fresh: a new one, whatever is free: those that were kept proved stale.
        :param stays: to wait for another's where the server turns out to take no more; if not, it is Crowded.
        :raises UpstreamFailed: when none can be had.
        """
        since = self._reactor.seconds()
        while not self._closed:
            client = None if fresh else self.take_kept()
            if client is not None:
                return client
            if self._idle and self._is_full:
                self._idle.pop(0).quit()
            if not (self._is_full or self._is_crowded):
                try:
                    return await self._make()
                except Crowded:
                    if not (stays and self._is_crowded):
                        raise
            await self._wait(since)
        raise UpstreamFailed(reply.UPSTREAM_DOWN, "we are stopping")

    def is_reused(self, client: SMTPClient) -> bool:
        """Whether it had a transaction before: one that fails at once may just have been kept too long."""
        return client in self._clients and self._clients[client].uses > 1

    def holds(self, peer: Peer) -> bool:
        """Whether one of the connections has its end of ours there: whoever sees it as a peer talks to us."""
        return self.door.comes_from(peer) or any(client.local == peer for client in self._clients)

    def give_back(self, client: SMTPClient, is_spent: bool = False) -> None:
        """The transaction is over. An open one is reset; what is of no use any more is closed."""
        client.reset()
        kept = self._clients.get(client)
        if kept is not None and client.is_usable:
            if is_spent or kept.uses >= self._limits.uses or self._closed:
                client.quit()  # there is room for another when it is gone
            else:
                kept.since = self._reactor.seconds()
                self._idle.append(client)
                self._wake()

    def close(self) -> None:
        """Make no more connections, and close those that are free; the others go when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().quit()
        self._wake(len(self._waiting))

    @property
    def _is_full(self) -> bool:
        return len(self._clients) + self._connecting >= self._limits.connections

    @property
    def _is_crowded(self) -> bool:
        """Whether the server takes no more than it has: one of these will do."""
        return self._was_crowded and self.is_down and self._is_in_use

    @property
    def _is_in_use(self) -> bool:
        return len(self._clients) > len(self._idle)

    async def _make(self) -> SMTPClient:
        if self.is_down:
            raise UpstreamFailed(reply.UPSTREAM_DOWN, "it failed a moment ago")
        self._connecting += 1
        if self._sweeping is None:
            self._sweeping = self._reactor.callLater(SWEEP, self._sweep)
        try:
            client = await self.door.connect()
        except BaseException as error:
            self._connecting -= 1
            if isinstance(error, UpstreamFailed):
                self._failed(error)
                self._wake(len(self._waiting))  # they hear of it too: what failed will not come back to them
            else:
                self._wake()
            raise
        self._connecting -= 1
        if self._failures:
            _log.info("{name} answers again", name=str(self.door))
        self._failures, self._down_until = 0, 0.0
        self._clients[client] = _Kept(1)
        client.when_gone.addCallback(lambda _: self._forget(client))
        self._wake_next()  # a server that was crowded takes more again
        return client

    def _failed(self, error: UpstreamFailed) -> None:
        longest = min(MAX_BACK_OFF, BACK_OFF * 2.0 ** min(self._failures, _DOUBLINGS))
        pause = longest * (0.5 + self._chance() / 2)
        self._was_crowded = isinstance(error, Crowded)
        if self.is_down:
            return  # others tried at the same time, and it is known
        self._failures += 1
        self._down_until = self._reactor.seconds() + pause
        _log.warn(
            "{name} fails, and is left alone for {pause:.1f} s: {why}",
            name=str(self.door),
            pause=pause,
            why=escape_controls(error.why),
        )

    async def _wait(self, since: float) -> None:
        free: Deferred[None] = Deferred()
        self._waiting.append((since, free))
        await free

    def _wake(self, most: int = 1) -> None:
        while self._waiting and most:
            _, free = self._waiting.popleft()
            if not free.called:
                most -= 1
                free.callback(None)

    def _wake_next(self) -> None:
        """Somebody, if there is one for him that is free, or room for another."""
        if not self.is_busy:
            self._wake(len(self._idle) or 1)

    def _forget(self, client: SMTPClient) -> None:
        self._clients.pop(client, None)
        if client in self._idle:
            self._idle.remove(client)
        if self._is_in_use:
            self._wake_next()
        else:
            self._wake(len(self._waiting))  # none of them has anything to wait for

    def _sweep(self) -> None:
        now = self._reactor.seconds()
        self.door.sweep(now)
        for client in list(self._clients):
            client.sweep(now)
        while self._idle and now - self._clients[self._idle[0]].since >= self._limits.idle:
            self._idle.pop(0).quit()
        self._sweep_waiting(now)
        self._sweeping = (
            self._reactor.callLater(SWEEP, self._sweep) if self._clients or self._connecting else None
        )

    def _sweep_waiting(self, now: float) -> None:
        for since, free in list(self._waiting):
            if now - since >= self._limits.wait and not free.called:
                free.errback(UpstreamFailed(reply.UPSTREAM_BUSY))
        while self._waiting and self._waiting[0][1].called:
            self._waiting.popleft()
        self._wake_next()
