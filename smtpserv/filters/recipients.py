"""Filters of recipients, and behind them a processor, which hears of none but those that they leave."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Final

from twisted.logger import Logger
from zope.interface import implementer

from smtpserv import reply
from smtpserv.domain import canonical
from smtpserv.edit import Redirect
from smtpserv.error import SMTPError
from smtpserv.filters.chain import answered
from smtpserv.filters.sinks import DroppingSink, ToldSink
from smtpserv.filters.streaming import Open, PlainTransaction
from smtpserv.interfaces import (
    IMessageSink,
    IRecipientFilter,
    IStreamingProcessor,
    ITransaction,
    ITransactionProcessor,
)
from smtpserv.message import Envelope, ForwardPath, ReversePath, Session
from smtpserv.reply import Reply, Results
from smtpserv.server.introduction import verdict
from smtpserv.server.reception import refusal, release

#: Recipients that one may become.
MOST: Final = 1000

#: What filters make of a recipient; a Reply refuses it.
Rewrite = Callable[[ForwardPath], Awaitable[tuple[ForwardPath, ...] | Reply]]

_log = Logger()


@implementer(ITransactionProcessor)
class RecipientFilteringProcessor:
    """Makes others of the recipients that a client names, before the processor is asked about them.

    :param processor: provides ITransactionProcessor or IStreamingProcessor.
    """

    def __init__(self, processor: object, filters: Iterable[IRecipientFilter]) -> None:
        self._open: Final = _opener(processor)
        self._filters: Final = tuple(filters)

    async def open(self, session: Session, reverse_path: ReversePath) -> Any:
        """Let the processor open one."""
        opened = await answered(self._open(session, reverse_path))
        if not ITransaction.providedBy(opened):
            return opened
        return RewritingTransaction(opened, partial(self._rewrite, session, reverse_path))

    async def _rewrite(
        self, session: Session, reverse_path: ReversePath, forward_path: ForwardPath
    ) -> tuple[ForwardPath, ...] | Reply:
        """Each filter is asked about each path that the one before it made.

        :raises ValueError: for a path that could not have come by RCPT.
        """
        paths: tuple[ForwardPath, ...] = (forward_path,)
        for each in self._filters:
            made: list[ForwardPath] = []
            for path in paths:
                decision: Any = await answered(each.filter_recipient(session, reverse_path, path))
                if isinstance(decision, Reply):
                    return refusal(decision, "a filter of recipients")
                made += [path] if decision is None else Redirect(tuple(decision)).forward_paths
                if len(made) > MOST:
                    return reply.LIST_TOO_LONG
            paths = _distinct(made)
        return paths


def _opener(processor: object) -> Open:
    transactional = ITransactionProcessor(processor, None)
    if transactional is not None:
        return transactional.open
    streaming = IStreamingProcessor(processor)
    return lambda session, reverse_path: PlainTransaction(streaming, session)


@implementer(ITransaction)
class RewritingTransaction:
    """A transaction whose recipients the client knows by other names.

    :param transaction: the processor's, which knows those that the filters made.
    """

    __slots__ = ("answer", "_transaction", "_rewrite", "_accepted", "_made")

    def __init__(self, transaction: ITransaction, rewrite: Rewrite) -> None:
        self.answer = transaction.answer
        self._transaction = transaction
        self._rewrite = rewrite
        #: The good answers, by mailbox: where two recipients lead to one, it is asked about once.
        self._accepted: dict[_Key, Reply] = {}
        #: What was made of each recipient of the client's that was accepted.
        self._made: dict[ForwardPath, tuple[ForwardPath, ...]] = {}

    async def add_recipient(self, forward_path: ForwardPath) -> Reply:
        """Rewrite it, and ask about all that it became: only if all are welcome, it is.

        One that became nobody is accepted: a filter wanted it dropped.
        """
        paths = await self._rewrite(forward_path)
        if isinstance(paths, Reply):
            return paths
        answers = [await self._ask(path) for path in paths]
        answer = Results(answers or [reply.RECIPIENT_OK]).combined()
        if answer.accepted:
            self._made[forward_path] = paths
        elif answer.status == reply.ONE_ROUTE.status and len(paths) > 1 and not self._made:
            _log.error("{path} becomes recipients that no one message can have", path=str(forward_path))
            return reply.DIVIDED
        return answer

    async def _ask(self, path: ForwardPath) -> Reply:
        key = _key(path)
        if key in self._accepted:
            return self._accepted[key]
        try:
            answer = verdict(await answered(self._transaction.add_recipient(path))) or reply.RECIPIENT_OK
        except SMTPError as error:
            return error.reply
        if answer.accepted:
            self._accepted[key] = answer
        return answer

    def begin(self, envelope: Envelope) -> IMessageSink | Awaitable[IMessageSink]:
        """Begin it for those that the filters made; the outcome is told to those that the client named."""
        made = [self._made.get(path, (path,)) for path in envelope.forward_paths]
        paths = _distinct(chain.from_iterable(made))
        if not paths:
            release(self._transaction)
            return DroppingSink()
        if paths == envelope.forward_paths:
            return self._transaction.begin(envelope)
        return self._begin(replace(envelope, forward_paths=paths), made)

    async def _begin(self, envelope: Envelope, made: Sequence[Sequence[ForwardPath]]) -> Any:
        sink = await answered(self._transaction.begin(envelope))
        if not IMessageSink.providedBy(sink):
            return sink
        return ToldSink(sink, partial(_told, paths=envelope.forward_paths, made=made))

    def abort(self) -> None:
        """Let it end."""
        self._transaction.abort()


def _told(
    outcome: Reply | Results | None, paths: Sequence[ForwardPath], made: Sequence[Sequence[ForwardPath]]
) -> Reply | Results | None:
    """What each recipient is told, of replies for all that were made of them.

    :raises ValueError: for a number of replies that is not that of the paths.
    """
    if not isinstance(outcome, Results):
        return outcome
    replies = dict(zip(map(_key, paths), outcome.replies, strict=True))
    each = ([replies[_key(path)] for path in group] or [reply.RECIPIENT_OK] for group in made)
    return Results([Results(group).combined() for group in each])


#: A mailbox in the form in which it is compared.
_Key = tuple[str, str]


def _key(path: ForwardPath) -> _Key:
    return path.local_part, canonical(path.domain) or path.domain.lower()


def _distinct(paths: Iterable[ForwardPath]) -> tuple[ForwardPath, ...]:
    """Each mailbox once, with the parameters that it came with first."""
    distinct: dict[_Key, ForwardPath] = {}
    for path in paths:
        distinct.setdefault(_key(path), path)
    return tuple(distinct.values())
