"""Filters and a processor for the tests of filters, which answer as they are told to."""

from typing import Any

from zope.interface import implementer

from smtpserv.interfaces import (
    IHeaderFilter,
    IMessageFilter,
    IRecipientFilter,
    ITransaction,
    ITransactionProcessor,
)
from smtpserv.message import Envelope, ForwardPath, Message, ReversePath, Session
from tests.server_tools import Sink


@implementer(IMessageFilter)
class Filter:
    """Decides as it is told to, and remembers what it was asked about."""

    def __init__(self, *decisions: Any) -> None:
        self.asked: list[Message] = []
        self._decisions = iter(decisions)

    def filter_message(self, message: Message) -> Any:
        self.asked.append(message)
        decision = next(self._decisions, None)
        if isinstance(decision, Exception):
            raise decision
        return decision


@implementer(IHeaderFilter)
class HeaderFilter(Filter):
    """One that looks at the header alone."""


@implementer(IRecipientFilter)
class RecipientFilter:
    """Rewrites recipients by a table of addresses; one that is not in it it lets be."""

    def __init__(self, **table: Any) -> None:
        self.asked: list[str] = []
        self._table = table

    def filter_recipient(self, session: Session, reverse_path: ReversePath, path: ForwardPath) -> Any:
        self.asked.append(path.address)
        decision = self._table.get(path.local_part)
        if isinstance(decision, Exception):
            raise decision
        if isinstance(decision, str):
            return [ForwardPath(f"{name}@b.example", path.parameters) for name in decision.split()]
        return decision


@implementer(ITransactionProcessor, ITransaction)
class Upstream:
    """Takes part in transactions, is its own one, and notes each call.

    :param sink: what takes the content.
    :param answers: by local-part, what a recipient is answered.
    """

    answer = None

    def __init__(self, sink: Any = None, **answers: Any) -> None:
        self.calls: list[Any] = []
        self.envelope: Envelope | None = None
        self.sink = sink or Sink()
        self._answers = answers

    def open(self, session: Session, reverse_path: ReversePath) -> Any:
        self.calls.append("open")
        return self

    def add_recipient(self, forward_path: ForwardPath) -> Any:
        self.calls.append(forward_path.address)
        answer = self._answers.get(forward_path.local_part)
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    def begin(self, envelope: Envelope) -> Any:
        self.calls.append("begin")
        self.envelope = envelope
        return self.sink._called("begin")

    def abort(self) -> None:
        self.calls.append("abort")
