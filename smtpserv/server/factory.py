"""All sessions of a server: opens them, counts them, sweeps them every second, and sees them out."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from math import ceil
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from smtpserv import reply
from smtpserv.message import Peer
from smtpserv.metrics import Counts
from smtpserv.network import place_of
from smtpserv.reply import Reply
from smtpserv.server.house import House
from smtpserv.server.limits import LINGER, Limits
from smtpserv.server.protocol import SMTPServerProtocol

_log = Logger()

#: Seconds between two looks at the deadlines of a session.
SWEEP: Final = 1.0

#: How often a second some of the sessions are looked at; and more often, of more than so many at a time: a
#: client at work should not notice that ten thousand others are there.
TURNS: Final = 20
SHARE: Final = 50


class Sessions:
    """All sessions of a server, whatever port they came by: counted, swept every second, and seen out."""

    def __init__(self, clock: IReactorTime, limits: Limits, counts: Counts) -> None:
        self._clock: Final = clock
        self._limits: Final = limits
        self._counts: Final = counts
        #: Who was looked at last comes last.
        self._sessions: Final[OrderedDict[SMTPServerProtocol, None]] = OrderedDict()
        self._places: Final[Counter[str]] = Counter()
        #: Looks at some of them; there while there are any.
        self._turn: IDelayedCall | None = None
        self._farewell: Reply | None = None
        self._empty: Deferred[None] | None = None

    def refusal(self, peer: Peer) -> Reply | None:
        """What is said to a peer for whom there is no room."""
        if self._farewell is not None:
            return self._farewell
        full = len(self._sessions) >= self._limits.max_connections
        if full or self._places[place_of(peer.host)] >= self._limits.connections_from(peer.host):
            return reply.TOO_MANY_CONNECTIONS
        return None

    def open(self, house: House, peer: Peer) -> SMTPServerProtocol:
        """One more."""
        session = SMTPServerProtocol(house, peer, self._ended)
        self._sessions[session] = None
        self._counts.connections["accepted"] += 1
        self._counts.open = len(self._sessions)
        self._places[place_of(peer.host)] += 1
        if self._turn is None:
            self._await_turn()
        return session

    @property
    def is_draining(self) -> bool:
        """Whether no more are taken."""
        return self._farewell is not None

    def drain(self, deadline: float) -> "Deferred[None]":
        """Take no more; let messages under way finish, until the deadline (seconds).

        :return: fires when the last session has ended.
        """
        self._farewell = reply.SHUTTING_DOWN
        if not self._sessions:
            return succeed(None)
        self._empty = Deferred()
        cut = self._clock.callLater(
            deadline, self._each, self._sessions, SMTPServerProtocol.hang_up, self._farewell
        )
        self._empty.addBoth(lambda _: cut.cancel() if cut.active() else None)
        empty = self._empty
        self._each(self._sessions, SMTPServerProtocol.leave, self._farewell)
        return empty

    def _each(self, sessions: Iterable[SMTPServerProtocol], call: Callable[..., None], fact: object) -> None:
        """Call it for each; one that fails at it is cut, and does not hold up the others."""
        for session in list(sessions):
            try:
                call(session, fact)
            except BaseException:
                _log.failure("A session failed, and is cut")
                session.cut()

    def _ended(self, session: SMTPServerProtocol) -> None:
        if session not in self._sessions:
            return
        del self._sessions[session]
        self._counts.open = len(self._sessions)
        place = place_of(session.peer.host)
        self._places[place] -= 1
        if not self._places[place]:
            del self._places[place]
        if not self._sessions:
            if self._turn is not None:
                self._turn.cancel()
                self._turn = None
            if self._empty is not None:
                self._empty.callback(None)

    def _await_turn(self) -> None:
        turns = max(TURNS, len(self._sessions) / SHARE)
        self._turn = self._clock.callLater(SWEEP / turns, self._sweep, self._clock.seconds())

    def _sweep(self, since: float) -> None:
        """Look at those whose turn it is: the more, the later the reactor is.

        :param since: the time of the turn before.
        """
        self._turn = None
        part = min((self._clock.seconds() - since) / SWEEP, 1.0)
        share = list(islice(self._sessions, ceil(len(self._sessions) * part)))
        for session in share:
            self._sessions.move_to_end(session)
        self._each(share, SMTPServerProtocol.sweep, self._clock.seconds())
        if self._sessions and self._turn is None:
            self._await_turn()


class SMTPServerFactory(Factory):
    """Makes a protocol for each connection, for any number of ports that speak on the same terms.

    :param sessions: shared by the factories of a server.
    """

    noisy = False

    def __init__(self, house: House, sessions: Sessions | None = None) -> None:
        self.house: Final = house
        self.sessions: Final = sessions or Sessions(house.clock, house.limits, house.counts)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """A session, or one that is told at once that there is no room."""
        peer = peer_of(addr)
        refusal = self.sessions.refusal(peer)
        if refusal is None:
            return self.sessions.open(self.house, peer)
        self.house.counts.connections["refused"] += 1
        self.house.journal.record("refused", peer=peer.host, code=refusal.code, status=refusal.status)
        return _Refusal(refusal, self.house.clock)


class _Refusal(Protocol, TimeoutMixin):
    """A connection that there is no room for; it is cut when its client does not close."""

    def __init__(self, refusal: Reply, clock: IReactorTime) -> None:
        self._refusal: Final = refusal
        self.callLater = clock.callLater  # type: ignore[method-assign,assignment]

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.setTimeout(LINGER)
        self.transport.write(self._refusal.octets)
        self.transport.loseConnection()

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)


def peer_of(address: IAddress | None) -> Peer:
    """The value of a Twisted address; a Unix socket's peer mostly has no name."""
    host = getattr(address, "host", None)
    if host is not None:
        return Peer(host, getattr(address, "port", 0))
    name = getattr(address, "name", None) or b""
    return Peer(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name))
