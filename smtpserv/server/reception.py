"""The content of one message on its way to the processor: begun, written, and either finished or aborted."""

from collections.abc import Awaitable
from typing import Any, Final

from twisted.logger import Logger

from smtpserv import reply
from smtpserv.awaiting import as_deferred
from smtpserv.interfaces import IMessageSink, ITransaction
from smtpserv.message import Envelope
from smtpserv.reply import Reply, Results

_log = Logger()


class Reception:
    """One message between the DATA command and its last reply.

    :param began: when DATA came, in seconds of the session's clock.
    """

    def __init__(self, envelope: Envelope, began: float) -> None:
        self.envelope: Final = envelope
        self.began: Final = began
        #: Octets of content so far.
        self.size = 0
        #: When the processor was asked for its answer, on the same clock.
        self.ended: float | None = None
        self._sink: IMessageSink | None = None
        self._refusal: Reply | None = None

    def begun(self, answer: Any) -> Reply | None:
        """What ``begin`` answered: the reply to DATA, None when it may go on."""
        if IMessageSink.providedBy(answer):
            self._sink = answer
            return None
        return refusal(answer, "begin")

    @property
    def sink(self) -> IMessageSink | None:
        """Where the content goes; None when it goes nowhere any more."""
        return self._sink

    def hand_over(self) -> IMessageSink | None:
        """The sink, for its ``finish``: from now on it is not aborted."""
        sink, self._sink = self._sink, None
        return sink

    def written(self, answer: Any) -> None:
        """What ``write`` answered: after a refusal nothing more is written."""
        if answer is not None:
            self._refusal = refusal(answer, "write")
            self.abort()

    def refusal(self, first: Reply | None) -> Reply | None:
        """What there is against the message at its end: what the dialogue has counts before the sink's."""
        refusal = first or self._refusal
        if refusal is not None:
            self.abort()
        return refusal

    def finished(self, outcome: Any) -> Reply | Results:
        """What the client hears, of whatever the processor answered."""
        if outcome is None:
            return reply.accepted(self.envelope.id)
        if isinstance(outcome, Results):
            if len(outcome.replies) == len(self.envelope.forward_paths):
                return Results([checked(each) for each in outcome.replies])
            return misfit(outcome, "the processor")
        return checked(outcome) if isinstance(outcome, Reply) else misfit(outcome, "the processor")

    def abort(self) -> None:
        """Tell the sink, once, that the message will not be."""
        sink = self.hand_over()
        if sink is not None:
            release(sink)


def release(answer: Any) -> None:
    """Abort what may be a sink or a transaction; one that fails at it has only itself to blame."""
    if not (IMessageSink.providedBy(answer) or ITransaction.providedBy(answer)):
        return
    try:
        abort: Any = answer.abort
        aborted = abort()
    except BaseException:
        _log.failure("A processor failed to abort")
        return
    if isinstance(aborted, Awaitable):
        as_deferred(aborted).addErrback(lambda failure: _log.failure("A processor failed to abort", failure))


def refusal(answer: Any, source: str) -> Reply:
    """What a colleague answered that had to give something else, or to refuse."""
    is_failure = isinstance(answer, Reply) and answer.reply_class in (4, 5)
    return answer if is_failure else misfit(answer, source)


def checked(answer: Reply) -> Reply:
    """A reply that a colleague gave; 3yz is none of its business."""
    return answer if answer.reply_class != 3 else misfit(answer, "a colleague")


def misfit(answer: Any, source: str) -> Reply:
    """What the peer hears when a colleague answers what its interface does not allow."""
    _log.error(
        "{source} returned {answer!r}, which its interface does not allow", source=source, answer=answer
    )
    return reply.LOCAL_ERROR
