"""The filters of a server in their order, and behind them its processor: together a processor again."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from zope.interface import implementer

from smtpserv import reply
from smtpserv.awaiting import as_deferred
from smtpserv.collecting import InThread
from smtpserv.edit import changed
from smtpserv.interfaces import IMessageFilter, IMessageProcessor, IStreamingProcessor, Outcome
from smtpserv.message import ForwardPath, Message
from smtpserv.reply import Reply, Results
from smtpserv.server.reception import release

#: Octets of content that are read at once in a thread; what is not larger is read where we are.
BLOCK: Final = 1 << 19


@implementer(IMessageProcessor)
class FilteringProcessor:
    """Asks each filter about each message, then gives what is left of it to the processor.

    :param processor: provides IStreamingProcessor or IMessageProcessor; it is given nothing else of the
        transaction, so what it provides besides is for whoever seats the policies.
    :param in_thread: runs the reading of files.
    """

    def __init__(
        self, processor: object, filters: Iterable[IMessageFilter], in_thread: InThread = maybeDeferred
    ) -> None:
        streaming = IStreamingProcessor(processor, None)
        self._process: Final[Callable[[Message], Outcome]] = (
            IMessageProcessor(processor).process_message
            if streaming is None
            else partial(_stream, streaming, in_thread)
        )
        self._filters: Final = tuple(filters)

    async def process_message(self, message: Message) -> Reply | Results | None:
        """The processor's outcome, told in terms of the recipients that the client named.

        A message that the filters left nobody to receive is accepted, and dropped: they wanted that.
        """
        original = message.envelope.forward_paths
        for each in self._filters:
            decision: Any = await _answer(each.filter_message(message))
            if isinstance(decision, Reply):
                return decision
            if decision is not None:
                message = changed(message, decision)
        if not message.envelope.forward_paths:
            return None
        outcome: Any = await _answer(self._process(message))
        if isinstance(outcome, Results) and message.envelope.forward_paths != original:
            return _told(outcome, message.envelope.forward_paths, original)
        return outcome  # type: ignore[no-any-return]


async def _answer(answer: Any) -> Any:
    return await as_deferred(answer) if isinstance(answer, Awaitable) else answer


async def _stream(processor: IStreamingProcessor, in_thread: InThread, message: Message) -> Any:
    """Give a message to a processor that takes it in pieces."""
    sink = await _answer(processor.begin(message.session, message.envelope))
    try:
        with message.content.open() as file:
            read = file.read if message.content.size <= BLOCK else partial(in_thread, file.read)
            while chunk := await _answer(read(BLOCK)):
                await _answer(sink.write(chunk))
    except BaseException:
        release(sink)
        raise
    return await _answer(sink.finish())


def _told(outcome: Results, new: Sequence[ForwardPath], original: Sequence[ForwardPath]) -> Results:
    """A reply for each recipient that the client named, of those for the recipients that the filters left.

    Who stayed is told his own. What became of those who were added is told to those whose place they took,
    who are all that went; where nobody went, to everybody, so that no failure goes unheard. Who went and was
    not replaced was taken care of by a filter: 250.

    :raises ValueError: for a number of replies that is not that of the recipients.
    """
    left = list(zip(new, outcome.replies, strict=True))
    own: list[Reply | None] = []
    for path in original:
        place = next((place for place, (each, _) in enumerate(left) if each == path), None)
        own.append(None if place is None else left.pop(place)[1])
    added = Results([answer for _, answer in left] or [reply.RECIPIENT_OK]).combined()
    if None not in own:
        return Results([Results([answer, added]).combined() for answer in own if answer])
    return Results([answer or added for answer in own])
