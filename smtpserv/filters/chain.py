"""The filters of a server in their order, and behind them its processor: together a processor again."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from zope.interface import implementer

from smtpserv import reply
from smtpserv.awaiting import as_deferred
from smtpserv.collecting import InThread
from smtpserv.edit import Edit, ReplaceBody, changed
from smtpserv.error import SMTPError
from smtpserv.interfaces import (
    IHeaderFilter,
    IMessageFilter,
    IMessageProcessor,
    IMessageSink,
    IStreamingProcessor,
    Outcome,
)
from smtpserv.message import Envelope, ForwardPath, Message
from smtpserv.reply import Reply, Results
from smtpserv.server.reception import refusal, release

#: Octets of content that are read at once in a thread; what is not larger is read where we are.
BLOCK: Final = 1 << 19

Process = Callable[[Message], Outcome]
Begin = Callable[[Envelope], IMessageSink | Awaitable[IMessageSink]]


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
        self._process: Final[Process] = (
            IMessageProcessor(processor).process_message
            if streaming is None
            else lambda message: stream(partial(streaming.begin, message.session), in_thread, message)
        )
        self._filters: Final = tuple(filters)

    async def process_message(self, message: Message) -> Reply | Results | None:
        """The processor's outcome, told in terms of the recipients that the client named."""
        return await process(message, self._filters, self._process)


async def process(
    message: Message, filters: Iterable[IMessageFilter], then: Process
) -> Reply | Results | None:
    """Ask the filters, and give what they leave of a message to whoever is next."""
    left = await ask(message, filters)
    if not isinstance(left, Message):
        return left
    outcome: Reply | Results | None = await answered(then(left))
    return told(outcome, left.envelope.forward_paths, message.envelope.forward_paths)


async def ask(message: Message, filters: Iterable[IMessageFilter]) -> Message | Reply | None:
    """What filters leave of a message, or what is said if it ends here.

    A message that they left nobody to receive is accepted, and dropped: they wanted that.
    """
    for each in filters:
        decision: Any = await answered(each.filter_message(message))
        if isinstance(decision, Reply):
            return decision
        if decision is not None:
            message = changed(message, _permitted(each, decision))
    return message if message.envelope.forward_paths else None


def _permitted(each: IMessageFilter, edits: Sequence[Edit]) -> Sequence[Edit]:
    """Edits as they are, if the filter is one that may make them: the body may have gone past it."""
    if IHeaderFilter.providedBy(each) and any(isinstance(edit, ReplaceBody) for edit in edits):
        raise TypeError(f"{type(each).__name__} is a filter of headers, and wants to replace a body")
    return edits


async def answered(answer: Any) -> Any:
    """The answer, whether it is there or will be."""
    return await as_deferred(answer) if isinstance(answer, Awaitable) else answer


async def stream(begin: Begin, in_thread: InThread, message: Message) -> Any:
    """Give a message to a processor that takes it in pieces."""
    sink = await answered(begin(message.envelope))
    try:
        with message.content.open() as file:
            read = file.read if message.content.size <= BLOCK else partial(in_thread, file.read)
            while chunk := await answered(read(BLOCK)):
                await put(sink, chunk)
    except BaseException:
        release(sink)
        raise
    return await answered(sink.finish())


async def put(sink: IMessageSink, octets: bytes) -> None:
    """Write.

    :raises smtpserv.error.SMTPError: for a sink that answers what it should raise.
    """
    said: Any = await answered(sink.write(octets))
    if said is not None:
        raise SMTPError(refusal(said, "write"))


def told(
    outcome: Reply | Results | None, new: Sequence[ForwardPath], original: Sequence[ForwardPath]
) -> Reply | Results | None:
    """An outcome in terms of the recipients that the client named, of one for those that the filters left.

    Who stayed is told his own. What became of those who were added is told to those whose place they took,
    who are all that went; where nobody went, to everybody, so that no failure goes unheard. Who went and was
    not replaced was taken care of by a filter: 250.

    :raises ValueError: for a number of replies that is not that of the recipients.
    """
    if not isinstance(outcome, Results) or new == original:
        return outcome
    left = list(zip(new, outcome.replies, strict=True))
    own: list[Reply | None] = []
    for path in original:
        place = next((place for place, (each, _) in enumerate(left) if each == path), None)
        own.append(None if place is None else left.pop(place)[1])
    added = Results([answer for _, answer in left] or [reply.RECIPIENT_OK]).combined()
    if None not in own:
        return Results([Results([answer, added]).combined() for answer in own if answer])
    return Results([answer or added for answer in own])
