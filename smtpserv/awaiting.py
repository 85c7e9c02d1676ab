"""Answers that come later: any form of them is a Deferred, or the leaner Promise; and how long they take."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

T = TypeVar("T")

_UNKNOWN: Final = object()


class Promise(Generic[T]):
    """An answer that goes to one listener. A Deferred, which has room for more, costs four times as much.

    :param cancel: called when nobody wants the answer any more; it sees to it that a failure comes.
    :param then: makes of what is told what is heard.
    :param otherwise: the same for a Failure, that of ``then`` included; what it gives may be a Deferred.
    """

    def __init__(
        self,
        cancel: Callable[[], object],
        then: Callable[[Any], T] | None = None,
        otherwise: Callable[[Failure], Any] | None = None,
    ) -> None:
        self._cancel = cancel
        self._then = then
        self._otherwise = otherwise
        self._heard: Callable[[Any], object] | None = None
        self._answer: Any = _UNKNOWN

    def hear(self, heard: "Callable[[T | Failure], object]") -> None:
        """Call with the answer when it is there; whoever was to hear it before does not."""
        if self._answer is _UNKNOWN:
            self._heard = heard
        else:
            heard(self._answer)

    def tell(self, answer: Any) -> None:
        """The answer, or a Failure in its place."""
        if self._then is not None and not isinstance(answer, Failure):
            try:
                answer = self._then(answer)
            except BaseException:
                answer = Failure()
        if self._otherwise is not None and isinstance(answer, Failure):
            try:
                answer = self._otherwise(answer)
            except BaseException:
                answer = Failure()
            if isinstance(answer, Deferred):
                self._then = self._otherwise = None
                self.follow(answer)
                return
        self._answer = answer
        if self._heard is not None:
            try:
                self._heard(answer)
            except BaseException:  # its own fault, not that of who tells, or of others that wait
                _log.failure("Whoever waited for an answer failed at it")

    def follow(self, deferred: "Deferred[Any]") -> None:
        """What the Deferred comes to is told, and stays its result; but a failure ends here."""
        self._cancel = deferred.cancel
        deferred.addCallbacks(self._pass_on, self.tell)

    def cancel(self) -> None:
        """The answer is not wanted any more."""
        if self._answer is _UNKNOWN:
            self._cancel()

    def __await__(self) -> "Generator[Deferred[T], None, T]":
        deferred: Deferred[T] = Deferred(lambda _: self.cancel())

        def heard(answer: Any) -> None:
            if not deferred.called:
                deferred.callback(answer)

        self.hear(heard)
        return (yield from deferred.__await__())

    def _pass_on(self, answer: Any) -> Any:
        self.tell(answer)
        return answer


def promised(
    deferred: "Deferred[Any]",
    then: Callable[[Any], T] | None = None,
    otherwise: Callable[[Failure], Any] | None = None,
) -> Promise[T]:
    """What a Deferred comes to, as a Promise; see there."""
    promise = Promise(deferred.cancel, then, otherwise)
    promise.follow(deferred)
    return promise


class Watch:
    """How long the same thing has been waited for, as it is seen from one look to the next."""

    __slots__ = ("_awaited", "_since")

    def __init__(self) -> None:
        self._awaited: object = None
        self._since = 0.0

    def lasted(self, awaited: object, now: float) -> float:
        """Look: for how many seconds this has been seen; another thing begins anew."""
        if awaited is not self._awaited:
            self._awaited, self._since = awaited, now
        return now - self._since


def as_deferred(answer: Awaitable[Any]) -> "Deferred[Any]":
    """Any awaitable as a Deferred: a coroutine, an asyncio future, or a Deferred itself."""
    if isinstance(answer, Deferred):
        return answer
    if isinstance(answer, Coroutine):
        return Deferred.fromCoroutine(answer)
    if isinstance(answer, asyncio.Future):
        return Deferred.fromFuture(answer)

    async def wait() -> Any:
        return await answer

    return Deferred.fromCoroutine(wait())
