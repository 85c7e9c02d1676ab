"""Answers that come later: who hears them, and what becomes of those that nobody wants."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.awaiting import Promise, Watch, as_deferred, promised
from tests.server_tools import always


class PromiseTests(SynchronousTestCase):
    """An answer for one."""

    def setUp(self) -> None:
        self.heard: list[Any] = []
        self.cancelled = 0

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self.cancelled += 1

    def hear(self, promise: Promise[Any]) -> Any:
        """What was heard, that is told already or told now; of a Failure what is in it."""
        promise.hear(
            lambda answer: self.heard.append(answer.value if isinstance(answer, Failure) else answer)
        )
        return self.heard

    def test_told(self) -> None:
        """It is heard when it is told, or if it was told before, at once; a Failure as well."""
        error = ValueError("no")
        for answer, expected in (("yes", "yes"), (None, None), (Failure(error), error)):
            self.heard = []
            later = Promise[Any](self.cancel)
            self.assertEqual(self.hear(later), [])
            later.tell(answer)
            self.hear(later)
            self.assertEqual(self.heard, [expected, expected])

    def test_one_listener(self) -> None:
        """Who comes later hears it in place of who came before."""
        promise = Promise[str](self.cancel)
        promise.hear(self.fail)
        self.hear(promise)
        promise.tell("yes")
        self.assertEqual(self.heard, ["yes"])

    def test_listener_that_fails(self) -> None:
        """It is logged, and whoever tells goes on."""
        promise = Promise[str](self.cancel)
        promise.hear(lambda answer: 1 / 0)
        promise.tell("yes")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_made_of_it(self) -> None:
        """What is heard is made of what is told; what fails on the way, of a Failure."""
        error, worse = ValueError("no"), KeyError("worse")

        def refuse(answer: Any) -> Any:
            raise error

        def mend(failure: Failure) -> Any:
            return f"mended {failure.value}"

        def make_worse(failure: Failure) -> Any:
            raise worse

        for then, otherwise, told, heard in (
            (str.upper, None, "yes", "YES"),
            (str.upper, mend, "yes", "YES"),
            (str.upper, None, Failure(error), error),
            (refuse, None, "yes", error),
            (refuse, mend, "yes", "mended no"),
            (None, mend, Failure(error), "mended no"),
            (None, lambda failure: failure, Failure(error), error),
            (refuse, make_worse, "yes", worse),
        ):
            self.heard = []
            promise = Promise[Any](self.cancel, then, otherwise)
            self.hear(promise)
            promise.tell(told)
            self.assertEqual(self.heard, [heard])

    def test_another_try(self) -> None:
        """In place of a failure may come what a Deferred comes to, as it is; that is cancelled instead."""
        outcomes: tuple[Any, ...] = "yes", ValueError("again")
        for outcome in outcomes:
            self.heard = []
            other: Deferred[Any] = Deferred()
            promise = Promise[Any](self.cancel, str.upper, always(other))
            self.hear(promise)
            promise.tell(Failure(ValueError("no")))
            self.assertEqual(self.heard, [])
            (other.callback if isinstance(outcome, str) else other.errback)(outcome)
            self.assertEqual(self.heard, [outcome])
        cancelled: Deferred[Any] = Deferred()
        promise = Promise[Any](self.cancel, None, always(cancelled))
        promise.tell(Failure(ValueError("no")))
        promise.cancel()
        self.assertIsInstance(self.hear(promise)[-1], CancelledError)
        self.assertEqual(self.cancelled, 0)

    def test_cancelled(self) -> None:
        """Only what is not known yet is cancelled."""
        promise = Promise[Any](self.cancel)
        promise.cancel()
        promise.tell("yes")
        promise.cancel()
        self.assertEqual((self.cancelled, self.hear(promise)), (1, ["yes"]))

    def test_of_a_deferred(self) -> None:
        """What a Deferred comes to stays its result, for others; a failure ends there, and is not logged."""
        deferred: Deferred[Any] = Deferred()
        for then in (None, str.upper):
            self.hear(promised(deferred, then))
        deferred.callback("yes")
        self.assertEqual(self.heard, ["yes", "YES"])
        failed: Deferred[Any] = Deferred()
        self.hear(promised(failed))
        failed.errback(error := ValueError("no"))
        del failed
        self.assertEqual(self.heard[-1], error)

    def test_deferred_is_cancelled(self) -> None:
        """Who gives up a Promise gives up the Deferred."""
        deferred: Deferred[Any] = Deferred()
        promise: Promise[Any] = promised(deferred)
        promise.cancel()
        self.assertIsInstance(self.hear(promise)[-1], CancelledError)

    def test_awaited(self) -> None:
        """A coroutine gets the answer, or the error."""
        for told in (True, False):
            promise, other = Promise[str](self.cancel), Promise[str](self.cancel)
            if told:
                promise.tell("yes")
                other.tell(Failure(ValueError("no")))
            waiting, failing = as_deferred(promise), as_deferred(other)
            if not told:
                promise.tell("yes")
                other.tell(Failure(ValueError("no")))
            self.assertEqual(self.successResultOf(waiting), "yes")
            self.failureResultOf(failing, ValueError)

    def test_awaited_in_vain(self) -> None:
        """Giving up to wait cancels it; what it comes to then is nobody's."""
        promise = Promise[str](self.cancel)
        waiting = as_deferred(promise)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        promise.tell("late")
        self.assertEqual(self.cancelled, 1)


class WatchTests(SynchronousTestCase):
    """Time, as somebody sees it who looks now and then."""

    def test_lasted(self) -> None:
        """What is the same as at the last look has lasted since it was first seen; equal is not the same."""
        watch, one, other = Watch(), [0], [0]
        looks = [(one, 5.0), (one, 6.0), (one, 8.5), (other, 9.0), (other, 9.5), (None, 10.0), (one, 20.0)]
        lasted = [watch.lasted(awaited, now) for awaited, now in looks]
        self.assertEqual(lasted, [0.0, 1.0, 3.5, 0.0, 0.5, 0.0, 0.0])


class AwaitableTests(SynchronousTestCase):
    """Whatever can be awaited is an answer to come."""

    def test_deferred_is_itself(self) -> None:
        """A Deferred stays the one it is."""
        deferred: Deferred[None] = Deferred()
        self.assertIs(as_deferred(deferred), deferred)

    def test_coroutine(self) -> None:
        """A coroutine is run."""

        async def answer() -> str:
            return "yes"

        self.assertEqual(self.successResultOf(as_deferred(answer())), "yes")

    def test_object_with_await(self) -> None:
        """So is any object with ``__await__``."""

        class Oracle:
            def __await__(self) -> Any:
                return (yield from succeed("yes").__await__())

        self.assertEqual(self.successResultOf(as_deferred(Oracle())), "yes")
