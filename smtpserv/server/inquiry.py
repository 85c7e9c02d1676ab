"""Asking: a colleague answers at once, or later by a Deferred or awaitable, or by raising."""

import errno
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpserv import reply
from smtpserv.awaiting import Promise, Watch, as_deferred, promised
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


class Inquiry:
    """At most one question is open at a time; an answer to one that was given up is nobody's.

    :param resume: called when an answer that did not come at once has been used.
    :param unwanted: takes an answer that came after its question was given up.
    :param name: names the session in the log.
    """

    __slots__ = (
        "_resume",
        "_unwanted",
        "_name",
        "is_open",
        "_promise",
        "_then",
        "_watch",
    )

    def __init__(
        self,
        resume: Callable[[], None],
        unwanted: Callable[[Any], None],
        name: str = "",
    ) -> None:
        self._resume = resume
        self._unwanted = unwanted
        self._name = name
        #: Whether an answer is still to come; looked at after each event.
        self.is_open = False
        self._promise: Promise[Any] | None = None
        #: Who uses its answer.
        self._then: Then = unwanted
        self._watch = Watch()

    def ask(self, then: Then, call: Callable[..., Any], *facts: Any) -> None:
        """Call, and give what comes of it to ``then``: now if it is there, else when it is."""
        try:
            answer = call(*facts)
        except SMTPError as error:
            answer = error.reply
        except BaseException:  # also what would end the program: it is no processor's to end
            answer = reply_to(Failure(), self._name)
        if type(answer) is Promise:
            self._wait(answer, then)
        elif answer is None or not hasattr(answer, "__await__"):
            then(answer)
        else:
            self._wait(promised(as_deferred(answer).addErrback(reply_to, self._name)), then)

    def give_up(self, answer: Reply | None = None) -> None:
        """Cancel the open question; ``answer``, if there is one, stands for what it would have answered."""
        promise, self._promise = self._promise, None
        if promise is None:
            return
        self.is_open = answer is not None
        promise.hear(self._drop)
        try:
            promise.cancel()
        except BaseException:
            _log.failure("A canceller failed in {id}", HarmlessFailure(), id=self._name)
        if answer is not None:
            self._settle(answer)

    def expire(self, now: float, deadline: float) -> bool:
        """Look, about once a second, and give up a question that has been open too long; whether it had."""
        late = self._watch.lasted(self._promise, now) >= deadline and self.is_open
        if late:
            self.give_up(reply.PROCESSING_TOO_LONG)
        return late

    def _wait(self, promise: Promise[Any], then: Then) -> None:
        self._promise, self._then = promise, then
        promise.hear(self._settle)
        if self._promise is promise:
            self.is_open = True

    def _settle(self, answer: Any) -> None:
        if isinstance(answer, Failure):
            answer = reply_to(answer, self._name)
        came_later, self._promise, self.is_open = self.is_open, None, False
        self._then(answer)
        if came_later:
            self._resume()

    def _drop(self, answer: Any) -> None:
        self._unwanted(reply_to(answer, self._name) if isinstance(answer, Failure) else answer)


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
