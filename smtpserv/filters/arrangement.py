"""Which filters stand where before a processor."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

from smtpserv.collecting import CollectingProcessor, InThread
from smtpserv.filters.chain import FilteringProcessor
from smtpserv.filters.recipients import RecipientFilteringProcessor
from smtpserv.filters.streaming import (
    FilteringTransactions,
    HeaderFilteringProcessor,
    MessageFilters,
    are_of_headers,
)
from smtpserv.interfaces import (
    IMessageFilter,
    IMessageProcessor,
    IRecipientFilter,
    IStreamingProcessor,
    ITransactionProcessor,
)

#: What the engine has use for.
Arranged = ITransactionProcessor | IStreamingProcessor


def arrange(processor: object, filters: Iterable[object], in_thread: InThread, memory_limit: int) -> Arranged:
    """The processor behind its filters, as the engine uses it.

    It takes part in transactions if the processor does, or if there are filters of recipients: they come
    before the filters of messages, whatever the order in which they were named.

    :param in_thread: runs the reading and writing of files.
    :param memory_limit: octets of a message held in memory, where it is collected.
    """
    filters = list(filters)
    of_messages = [each for each in filters if IMessageFilter.providedBy(each)]
    of_recipients = [each for each in filters if IRecipientFilter.providedBy(each)]
    behind = _behind(processor, of_messages, in_thread, memory_limit)
    return cast(Arranged, RecipientFilteringProcessor(behind, of_recipients)) if of_recipients else behind


def _behind(
    processor: object, filters: Sequence[IMessageFilter], in_thread: InThread, memory_limit: int
) -> Any:
    """The processor behind filters of messages."""
    transactional = ITransactionProcessor(processor, None)
    streaming = IStreamingProcessor(processor, None)
    before = MessageFilters(filters, in_thread, memory_limit)
    if transactional is not None:
        return FilteringTransactions(transactional, before) if filters else transactional
    if not are_of_headers(filters):
        whole = FilteringProcessor(processor, filters, in_thread)
        return CollectingProcessor(whole, in_thread, memory_limit)
    if streaming is None:
        streaming = CollectingProcessor(IMessageProcessor(processor), in_thread, memory_limit)
    return HeaderFilteringProcessor(streaming, before) if filters else streaming
