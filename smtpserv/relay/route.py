"""The way to a mail server that answers: several in order of preference."""

from collections.abc import Iterable
from typing import Final

from smtpserv import reply
from smtpserv.message import Peer
from smtpserv.relay.client import SMTPClient
from smtpserv.relay.failure import Crowded, UpstreamFailed
from smtpserv.relay.pool import Pool


class Route:
    """The pools of servers that do the same, the preferred one first."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self.pools: Final = tuple(pools)

    def take_kept(self) -> "Lent | None":
        """A free connection to the preferred server, if one had been kept."""
        pool = self.pools[0]
        client = pool.take_kept()
        return Lent(pool, client) if client is not None else None

    async def take(self, fresh: bool = False) -> "Lent":
        """A connection to the first server that answers.

        The others come before one that has none to spare, for which one would have to wait, whether that is
        known or turns out. Last comes one that failed and is just being tried again, for it may take long to
        fail once more.

        :param fresh: a new one, whatever is free.
        :raises UpstreamFailed: what the last one failed with.
        """
        failure = UpstreamFailed(reply.UPSTREAM_DOWN)
        crowded = None
        for pool in sorted(self.pools, key=lambda pool: (pool.is_on_trial, pool.is_busy)):
            try:
                return Lent(pool, await pool.take(fresh, stays=False))
            except UpstreamFailed as error:
                failure = error
                if isinstance(error, Crowded) and pool.is_busy:
                    crowded = crowded or pool
        if crowded is not None:
            return Lent(crowded, await crowded.take(fresh))
        raise failure

    def comes_from(self, peer: Peer) -> bool:
        """Whether the connection that a server took is one of ours."""
        return any(pool.holds(peer) for pool in self.pools)

    @property
    def is_lmtp(self) -> bool:
        """Whether a server speaks LMTP, and so may answer for each recipient."""
        return any(pool.door.is_lmtp for pool in self.pools)

    def call_us(self, name: str) -> None:
        """What we are to call ourselves."""
        for pool in self.pools:
            pool.door.hello_name = name

    @property
    def offers(self) -> frozenset[str]:
        """The extensions that all servers offered when they were last spoken to; none of them if none was."""
        known = [frozenset(offers) for pool in self.pools if (offers := pool.door.offers) is not None]
        return frozenset.intersection(*known) if known else frozenset()

    def close(self) -> None:
        """Make no more connections, and close those that are free."""
        for pool in self.pools:
            pool.close()


class Lent:
    """A connection that is used for one transaction."""

    def __init__(self, pool: Pool, client: SMTPClient) -> None:
        self.client: Final = client
        #: Whether it was kept from another transaction.
        self.is_reused: Final = pool.is_reused(client)
        self._pool: Pool | None = pool
        self._is_spent = False

    @property
    def is_back(self) -> bool:
        """Whether it may be used no more."""
        return self._pool is None

    def spend(self) -> None:
        """It is of no use for another transaction."""
        self._is_spent = True

    def give_back(self) -> None:
        """The transaction is over; only the first call counts."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.give_back(self.client, self._is_spent)
