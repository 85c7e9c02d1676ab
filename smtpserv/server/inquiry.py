"""Asking: a colleague answers at once, or later by a Deferred or awaitable, or by raising."""

import errno
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpserv import reply
from smtpserv.awaiting import as_deferred
from smtpserv.error import SMTPError
from smtpserv.escape import escape_controls
from smtpserv.reply import Reply

#: Takes the answer; whatever was raised has become a Reply by then.
Then = Callable[[Any], None]

_log = Logger()

#: Errors that say a disk, a quota, memory or a table of descriptors is full.
_EXHAUSTED: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EFBIG}
)


class _Question:
    """One that is not answered yet."""

    __slots__ = ("deferred", "since", "then")

    def __init__(self, deferred: "Deferred[Any]", since: float, then: Then) -> None:
        self.deferred = deferred
        self.since = since
        self.then = then


class Inquiry:
    """At most one question is open at a time; an answer to one that was given up is nobody's.

    :param waited: called before an answer that did not come at once is used, with the time, and that of the
        question.
    :param resume: called when it has been used.
    :param unwanted: takes an answer that came after its question was given up.
    :param name: names the session in the log.
    """

    __slots__ = ("_clock", "_waited", "_resume", "_unwanted", "_name", "is_open", "_question")

    def __init__(
        self,
        clock: IReactorTime,
        waited: Callable[[float, float], None],
        resume: Callable[[], None],
        unwanted: Callable[[Any], None],
        name: str = "",
    ) -> None:
        self._clock = clock
        self._waited = waited
        self._resume = resume
        self._unwanted = unwanted
        self._name = name
        #: Whether an answer is still to come; looked at after each event.
        self.is_open = False
        self._question: _Question | None = None

    def ask(self, then: Then, call: Callable[..., Any], *facts: Any) -> None:
        """Call, and give what comes of it to ``then``: now if it is there, else when it is."""
        try:
            answer = call(*facts)
        except SMTPError as error:
            answer = error.reply
        except BaseException:  # also what would end the program: it is no processor's to end
            answer = reply_to(Failure(), self._name)
        if type(answer) is Deferred:
            self._wait(answer, then)
        elif answer is None or not hasattr(answer, "__await__"):
            then(answer)
        else:
            self._wait(as_deferred(answer), then)

    def give_up(self, answer: Reply | None = None) -> None:
        """Cancel the open question; ``answer``, if there is one, stands for what it would have answered."""
        question, self._question = self._question, None
        self.is_open = False
        if question is None:
            return
        try:
            question.deferred.cancel()
        except BaseException:
            _log.failure("A canceller failed in {id}", HarmlessFailure(), id=self._name)
        if answer is not None:
            self._use(answer, question)

    def expire(self, now: float, deadline: float) -> bool:
        """Give up a question that has been open too long; whether it had."""
        late = self._question is not None and now - self._question.since >= deadline
        if late:
            self.give_up(reply.PROCESSING_TOO_LONG)
        return late

    def _wait(self, deferred: "Deferred[Any]", then: Then) -> None:
        question = self._question = _Question(deferred, self._clock.seconds(), then)
        deferred.addCallbacks(self._settle, self._fail, (question,), errbackArgs=(question,))
        if self._question is question:
            self.is_open = True

    def _fail(self, failure: Failure, question: _Question) -> Any:
        return self._settle(reply_to(failure, self._name), question)

    def _settle(self, answer: Any, question: _Question) -> Any:
        """Use the answer, and leave it where it is: the Deferred may be others' answer as well."""
        if self._question is not question:
            self._unwanted(answer)
            return answer
        came_later, self._question, self.is_open = self.is_open, None, False
        if came_later:
            self._use(answer, question)
        else:
            question.then(answer)
        return answer

    def _use(self, answer: Any, question: _Question) -> None:
        self._waited(self._clock.seconds(), question.since)
        question.then(answer)
        self._resume()


class HarmlessFailure(Failure):
    """A failure whose text may quote a peer: it is escaped, whoever writes the log."""

    def getTraceback(self, *args: Any, **kwargs: Any) -> str:
        """The traceback without control characters."""
        return escape_controls(super().getTraceback(*args, **kwargs))


def reply_to(failure: Failure, name: str = "") -> Reply:
    """What a peer hears of an exception. What was not raised for it to hear is for the log alone."""
    error = failure.value
    if isinstance(error, SMTPError):
        return error.reply
    if isinstance(error, CancelledError):
        return reply.LOCAL_ERROR
    _log.failure("An answer failed in {id}", HarmlessFailure(error), id=name)
    exhausted = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _EXHAUSTED)
    return reply.INSUFFICIENT_STORAGE if exhausted else reply.LOCAL_ERROR
