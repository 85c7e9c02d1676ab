"""What one message makes us ask the DNS, for libraries that want their answers at once.

A check runs in a thread, on what is known. It ends when it misses an answer; that is asked for, holding no
thread, and the check is run again. Checks are quick, and ask few questions.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from smtpserv.collecting import InThread
from smtpserv.policy.lookup import Records

#: Seconds after which no more questions are asked for a message, and how many are asked at most.
DEADLINE: Final = 20.0
MOST: Final = 80

#: Asks for the records of a type and a name, and never fails; None when nobody could tell.
Find = Callable[[int, str], "Deferred[Records]"]

_Found = TypeVar("_Found")


class Untold(Exception):
    """Nobody could tell, for now: what depends on it is a ``temperror``."""


class Missing(Exception):
    """An answer is wanted that was not asked for yet; a check lets it pass."""

    def __init__(self, kind: int, name: str) -> None:
        super().__init__(kind, name)
        self.question: Final = (kind, name)


class Questions:
    """Those of one message, and their answers.

    :param in_thread: runs the checks.
    """

    def __init__(self, find: Find, in_thread: InThread, clock: IReactorTime) -> None:
        self._find: Final = find
        self._in_thread: Final = in_thread
        self._clock: Final = clock
        self._until: Final = clock.seconds() + DEADLINE
        self._known: Final[dict[tuple[int, str], Records]] = {}

    def records(self, kind: int, name: str) -> tuple[Any, ...]:
        """The records of a type and name. For a check, in its thread.

        :raises Untold: when nobody could tell.
        """
        if (kind, name) not in self._known:
            raise Missing(kind, name)
        found = self._known[kind, name]
        if found is None:
            raise Untold(name)
        return found

    async def settle(self, check: Callable[..., _Found], *facts: Any) -> _Found:
        """What a check finds, once all that it wants to know was asked for."""
        while True:
            try:
                found: _Found = await self._in_thread(check, *facts)
                return found
            except Missing as missing:
                self._known[missing.question] = await self._ask(*missing.question)

    async def _ask(self, kind: int, name: str) -> Records:
        if len(self._known) >= MOST or self._clock.seconds() >= self._until:
            return None
        return await self._find(kind, name)
