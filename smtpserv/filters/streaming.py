"""Filters of messages before a processor that takes part in transactions, or takes content while it arrives.

Where all of them look at the header alone, the body goes past them; else the message is collected for them.
Either way the processor hears of the content when they have answered: what they make of the envelope holds.
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import CancelledError
from zope.interface import implementer

from smtpserv.collecting import CollectingSink, InThread
from smtpserv.error import SMTPError
from smtpserv.filters.chain import answered, ask, process, stream, told
from smtpserv.filters.sinks import DroppingSink, HeaderSink, ToldSink, WholeSink
from smtpserv.interfaces import (
    IHeaderFilter,
    IMessageFilter,
    IMessageSink,
    IStreamingProcessor,
    ITransaction,
    ITransactionProcessor,
    Outcome,
    Verdict,
)
from smtpserv.message import Content, Envelope, ForwardPath, Message, ReversePath, Session
from smtpserv.server.reception import refusal, release

#: Opens a transaction, as :class:`~smtpserv.interfaces.ITransactionProcessor` does.
Open = Callable[[Session, ReversePath], ITransaction | Awaitable[ITransaction]]


def are_of_headers(filters: Iterable[IMessageFilter]) -> bool:
    """Whether a body can go past all of them."""
    return all(IHeaderFilter.providedBy(each) for each in filters)


class MessageFilters:
    """The filters of messages in their order, which stand before whatever sink a transaction has.

    :param in_thread: runs the reading and writing of files.
    :param memory_limit: octets of a message held in memory, where it is collected.
    """

    def __init__(self, filters: Iterable[IMessageFilter], in_thread: InThread, memory_limit: int) -> None:
        self._filters: Final = tuple(filters)
        self._in_thread: Final = in_thread
        self._memory_limit: Final = memory_limit
        self._sink: Final = self._header_sink if are_of_headers(self._filters) else self._whole_sink

    def sink(self, session: Session, envelope: Envelope, transaction: ITransaction) -> IMessageSink:
        """What takes the content, then begins the transaction or aborts it."""
        return self._sink(session, envelope, _Once(transaction))

    def _header_sink(self, session: Session, envelope: Envelope, transaction: "_Once") -> IMessageSink:
        async def start(header: Content) -> tuple[IMessageSink, bytes]:
            left = await ask(Message(session, envelope, header), self._filters)
            if not isinstance(left, Message):
                transaction.abort()
                return DroppingSink(left), b""
            sink = await transaction.begin(left.envelope)
            new, original = left.envelope.forward_paths, envelope.forward_paths
            tell = partial(told, new=new, original=original)
            return sink if new == original else ToldSink(sink, tell), left.content.read()

        return HeaderSink(start, transaction.abort)

    def _whole_sink(self, session: Session, envelope: Envelope, transaction: "_Once") -> IMessageSink:
        def complete(content: Content) -> Outcome:
            return process(Message(session, envelope, content), self._filters, then)

        then = partial(stream, transaction.begin, self._in_thread)
        return WholeSink(CollectingSink(complete, self._in_thread, self._memory_limit), transaction.abort)


class _Once:
    """A transaction that gives its sink or is aborted once, however many have a reason to."""

    __slots__ = ("_transaction",)

    def __init__(self, transaction: ITransaction) -> None:
        self._transaction: ITransaction | None = transaction

    async def begin(self, envelope: Envelope) -> IMessageSink:
        """Begin it.

        :raises twisted.internet.defer.CancelledError: when it was aborted; a sink that comes then is, too.
        :raises smtpserv.error.SMTPError: for what is no sink.
        """
        if self._transaction is None:
            raise CancelledError
        sink: Any = await answered(self._transaction.begin(envelope))
        if self._transaction is None:
            release(sink)
            raise CancelledError
        if not IMessageSink.providedBy(sink):
            raise SMTPError(refusal(sink, "begin"))
        self._transaction = None
        return sink

    def abort(self) -> None:
        """Abort it, if it has given no sink."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            release(transaction)


@implementer(ITransactionProcessor)
class FilteringTransactions:
    """A processor that takes part in transactions, with filters before its content."""

    def __init__(self, processor: ITransactionProcessor, filters: MessageFilters) -> None:
        self._processor: Final = processor
        self._filters: Final = filters

    async def open(self, session: Session, reverse_path: ReversePath) -> Any:
        """Let it open one."""
        opened = await answered(self._processor.open(session, reverse_path))
        return _Filtered(session, opened, self._filters) if ITransaction.providedBy(opened) else opened


@implementer(ITransaction)
class _Filtered:
    """A transaction of the processor's, but for its content."""

    __slots__ = ("answer", "_session", "_transaction", "_filters")

    def __init__(self, session: Session, transaction: ITransaction, filters: MessageFilters) -> None:
        self.answer = transaction.answer
        self._session = session
        self._transaction = transaction
        self._filters = filters

    def add_recipient(self, forward_path: ForwardPath) -> Verdict:
        """Let it answer."""
        return self._transaction.add_recipient(forward_path)

    def begin(self, envelope: Envelope) -> IMessageSink:
        """The filters come first."""
        return self._filters.sink(self._session, envelope, self._transaction)

    def abort(self) -> None:
        """Let it end."""
        self._transaction.abort()


@implementer(IStreamingProcessor)
class HeaderFilteringProcessor:
    """A streaming processor, with filters of headers before its content."""

    def __init__(self, processor: IStreamingProcessor, filters: MessageFilters) -> None:
        self._processor: Final = processor
        self._filters: Final = filters

    def begin(self, session: Session, envelope: Envelope) -> IMessageSink:
        """The filters come first."""
        return self._filters.sink(session, envelope, PlainTransaction(self._processor, session))


@implementer(ITransaction)
class PlainTransaction:
    """The transaction of a processor that takes no part in it before there is content."""

    __slots__ = ("answer", "_processor", "_session")

    def __init__(self, processor: IStreamingProcessor, session: Session) -> None:
        self.answer = None
        self._processor = processor
        self._session = session

    def add_recipient(self, forward_path: ForwardPath) -> None:
        """It has nothing to say."""

    def begin(self, envelope: Envelope) -> IMessageSink | Awaitable[IMessageSink]:
        """Begin the content."""
        return self._processor.begin(self._session, envelope)

    def abort(self) -> None:
        """It knows of nothing."""
