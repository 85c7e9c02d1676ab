"""Answers that are kept: for a while, and longer when nobody can give a new one."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, NoReturn, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpserv.escape import escape_controls
from smtpserv.mailman.directory import DirectoryAway

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Lives:
    """How long an answer counts, in seconds.

    :param yes: one that is true, or not empty.
    :param stale: an old one, before it is tried again to get a new one.
    :param old_no: one that is not true, when there is no new one.
    """

    yes: float = 300.0
    no: float = 30.0
    stale: float = 5.0
    old_no: float = 300.0


LIVES: Final = Lives()

#: Answers kept; of more, those that were not asked for the longest are dropped.
MOST: Final = 10_000

#: Seconds after which a question has no answer.
DEADLINE: Final = 10.0

_log = Logger()


@dataclass(slots=True)
class _Kept(Generic[Answer]):
    answer: Answer
    since: float
    until: float


class Answers(Generic[Answer]):
    """Asks each question once at a time, however many want to know, and remembers the answers.

    :param name: whom it asks, for the log.
    :param ask: gives the answer to a question; whatever it raises says that there is none now.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[[str], Awaitable[Answer]],
        clock: IReactorTime,
        lives: Lives = LIVES,
        most: int = MOST,
    ) -> None:
        self._name: Final = name
        self._ask: Final = ask
        self._clock: Final = clock
        self._lives: Final = lives
        self._most: Final = most
        self._is_away = False
        self._kept: Final[OrderedDict[str, _Kept[Answer]]] = OrderedDict()
        self._waiting: Final[dict[str, list[Deferred[Answer]]]] = {}

    def find(self, question: str) -> "Deferred[Answer]":
        """The answer: a kept one, or a new one, or an old one when there is no new one.

        Giving it up does not end the question for others.

        :raises DirectoryAway: where there never was one.
        """
        kept = self._kept.get(question)
        if kept is not None:
            self._kept.move_to_end(question)
            if kept.until > self._clock.seconds():
                return succeed(kept.answer)
        answer: Deferred[Answer] = Deferred()
        waiting = self._waiting.setdefault(question, [])
        waiting.append(answer)
        if len(waiting) == 1:
            asked = Deferred.fromCoroutine(self._asked(question)).addTimeout(DEADLINE, self._clock, _too_late)
            asked.addCallbacks(self._learn, self._do_without, (question,), errbackArgs=(question,))
        return answer

    async def _asked(self, question: str) -> Answer:
        return await self._ask(question)

    def _learn(self, answer: Answer, question: str) -> None:
        if self._is_away:
            self._is_away = False
            _log.info("{name} answers again", name=self._name)
        life = self._lives.yes if answer else self._lives.no
        now = self._clock.seconds()
        self._kept[question] = _Kept(answer, now, now + life)
        self._kept.move_to_end(question)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        self._tell(question, lambda: answer)

    def _do_without(self, failure: Failure, question: str) -> None:
        reason = _reason(failure.value)
        if not self._is_away:
            self._is_away = True
            _log.warn("{name} can't be asked: {reason}", name=self._name, reason=reason)
        kept = self._kept.get(question)
        if kept is None or self._is_too_old(kept):
            self._tell(question, lambda: Failure(DirectoryAway(reason)))
        else:
            kept.until = self._clock.seconds() + self._lives.stale
            self._tell(question, lambda: kept.answer)

    def _is_too_old(self, kept: _Kept[Answer]) -> bool:
        """An old yes does no harm, it makes mail wait; an old no sends it back."""
        return not kept.answer and self._clock.seconds() - kept.since >= self._lives.old_no

    def _tell(self, question: str, answer: "Callable[[], Answer | Failure]") -> None:
        for each in self._waiting.pop(question):
            each.callback(answer())


def _too_late(_: object, seconds: float) -> NoReturn:
    """Whoever is asked may call it something else to be given up."""
    raise DirectoryAway(f"no answer in {seconds:.0f} s")


def _reason(error: BaseException | None) -> str:
    """What the log says of it, in one line."""
    text = error.reason if isinstance(error, DirectoryAway) else f"{type(error).__name__}: {error}"
    return escape_controls(" ".join(text.split()))
