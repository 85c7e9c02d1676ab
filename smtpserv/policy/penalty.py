"""Guessing is made slow: each failure of a session is answered later than the one before, then by 421."""

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from smtpserv import reply
from smtpserv.error import SMTPError

#: Failures after which a session is closed.
MAX_FAILURES: Final = 3

#: Seconds before the first is answered; it doubles with each.
FIRST_DELAY: Final = 1.0

#: Replies to what may have been a guess.
GUESSES: Final = frozenset({525, 534, 535})

#: Seconds and sessions that failures are remembered for: nobody says when a session ends.
_MEMORY: Final = 3600.0
_MAX_SESSIONS: Final = 50000


class Penalties:
    """What the sessions that failed have to bear."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock: Final = clock
        #: Session id -> how often it failed, and when it did last; that one which did longest ago is first.
        self._failures: Final[dict[str, tuple[int, float]]] = {}

    async def impose(self, session_id: str, error: SMTPError) -> SMTPError:
        """Count a failure that may have been a guess, and let it wait; what to raise then."""
        if error.reply.code not in GUESSES:
            return error
        failures = self._count(session_id)
        await deferLater(self._clock, FIRST_DELAY * 2 ** (failures - 1))
        return SMTPError(reply.TOO_MANY_AUTHENTICATIONS) if failures >= MAX_FAILURES else error

    def _count(self, session_id: str) -> int:
        now = self._clock.seconds()
        failures = self._failures.pop(session_id, (0, now))[0] + 1
        self._failures[session_id] = (failures, now)
        while len(self._failures) > _MAX_SESSIONS or now - self._oldest() > _MEMORY:
            del self._failures[next(iter(self._failures))]
        return failures

    def _oldest(self) -> float:
        return next(iter(self._failures.values()))[1]
