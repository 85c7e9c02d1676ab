"""Guessing is made slow: each failure of a session is answered later than the one before, then by 421.

Who does not wait for the answer but connects again meets the limit of his address: after so many failures no
password is looked at, right or wrong, but as many in an hour, and of those who were let in from there.
"""

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from smtpserv import reply
from smtpserv.error import SMTPError
from smtpserv.message import Session
from smtpserv.network import is_local, place_of
from smtpserv.policy.limits import Buckets, Rate

#: Failures after which a session is closed.
MAX_FAILURES: Final = 3

#: Seconds before the first is answered; it doubles with each.
FIRST_DELAY: Final = 1.0

#: Failures from one address in an hour, when nothing else was said: more than those who share it make by
#: mistake.
PER_ADDRESS: Final = 100

#: Replies to what may have been a guess.
GUESSES: Final = frozenset({525, 534, 535})

#: Seconds and sessions that failures are remembered for: nobody says when a session ends.
_MEMORY: Final = 3600.0
_MAX_SESSIONS: Final = 50000

#: Users who are remembered for having been let in.
_MAX_KNOWN: Final = 10000


class Penalties:
    """What the sessions that failed, and their addresses, have to bear.

    :param most: failures from one address in an hour; None means 100, and no limit for this machine, where a
        program may ask for many users.
    """

    def __init__(self, clock: IReactorTime, most: int | None = None) -> None:
        self._clock: Final = clock
        self._spares_local: Final = most is None
        self._places: Final = Buckets(Rate(PER_ADDRESS if most is None else most, 3600.0))
        #: Places, and users who were let in there and not wrong since; who was longest ago is first.
        self._known: Final[dict[tuple[str, str], None]] = {}
        #: Session id -> how often it failed, and when it did last; that one which did longest ago is first.
        self._failures: Final[dict[str, tuple[int, float]]] = {}

    def bars(self, session: Session, name: str) -> bool:
        """Whether its address has guessed too often for a user to try now."""
        place = place_of(session.peer.host)
        return (place, name) not in self._known and not self._places.has_token(place, self._clock.seconds())

    def welcome(self, session: Session, name: str) -> None:
        """A user was let in: other users' failures at the address shall not keep him out."""
        known = (place_of(session.peer.host), name)
        self._known.pop(known, None)
        self._known[known] = None
        if len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]

    async def impose(self, session: Session, name: str, error: SMTPError) -> SMTPError:
        """Count a failure that may have been a guess, and let it wait; what to raise then."""
        if error.reply.code not in GUESSES:
            return error
        failures = self.count(session, name)
        await deferLater(self._clock, FIRST_DELAY * 2 ** (failures - 1))
        return SMTPError(reply.TOO_MANY_AUTHENTICATIONS) if failures >= MAX_FAILURES else error

    def count(self, session: Session, name: str, is_wrong: bool = True) -> int:
        """Count a guess of a user's password; how many that makes in the session.

        :param is_wrong: whether it is known to be: one that nobody waited for is counted all the same.
        """
        now, host = self._clock.seconds(), session.peer.host
        if is_wrong:
            self._known.pop((place_of(host), name), None)
        if not (self._spares_local and is_local(host)):
            self._places.take(place_of(host), 1, now)
        failures = self._failures.pop(session.id, (0, now))[0] + 1
        self._failures[session.id] = (failures, now)
        while len(self._failures) > _MAX_SESSIONS or now - self._oldest() > _MEMORY:
            del self._failures[next(iter(self._failures))]
        return failures

    def _oldest(self) -> float:
        return next(iter(self._failures.values()))[1]
