"""Who is asked at each stage: found once at start, so that a stage nobody cares about costs nothing."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpserv.awaiting import as_deferred
from smtpserv.error import SMTPError
from smtpserv.interfaces import (
    IAuthenticationObserver,
    IEarlyTalkerPolicy,
    IMessageObserver,
    IRecipientPolicy,
    ISenderPolicy,
    ISessionPolicy,
    Verdict,
)
from smtpserv.message import Envelope, Session
from smtpserv.metrics import Counts
from smtpserv.reply import Reply

_log = Logger()

#: A stage's question, or None where nobody is to be asked.
Question = Callable[..., Verdict] | None


@dataclass(frozen=True, slots=True)
class Panel:
    """One question for each stage; all policies of the stage answer it in turn.

    One that says yes does not speak for those after it; the first no ends it.
    """

    connect: Question = None
    hello: Question = None
    sender: Question = None
    recipient: Question = None
    early: Question = None
    message_observers: tuple[IMessageObserver, ...] = ()
    authentication_observers: tuple[IAuthenticationObserver, ...] = ()

    def message_ended(self, session: Session, envelope: Envelope, size: int, answer: Reply) -> None:
        """Tell what became of a message."""
        for each in self.message_observers:
            _tell(each.message_ended, session, envelope, size, answer)

    def authentication_failed(self, session: Session, name: str) -> None:
        """Tell of wrong credentials."""
        for each in self.authentication_observers:
            _tell(each.authentication_failed, session, name)


def seat(policies: Iterable[object], counts: Counts | None = None) -> Panel:
    """Ask each policy once, by adaptation, at which stages it wants a say.

    :param counts: where its refusals are counted.
    """
    seated, refusals = list(policies), (counts or Counts()).policies

    def who(interface: Any) -> list[tuple[str, Any]]:
        found = [(type(each).__name__, interface(each, None)) for each in seated]
        return [(name, adapted) for name, adapted in found if adapted is not None]

    def ask(found: list[tuple[str, Any]], method: str) -> Question:
        return _in_turn([_noted(getattr(each, method), name, refusals) for name, each in found])

    session = who(ISessionPolicy)
    return Panel(
        connect=ask(session, "connect"),
        hello=ask(session, "hello"),
        sender=ask(who(ISenderPolicy), "check_sender"),
        recipient=ask(who(IRecipientPolicy), "check_recipient"),
        early=ask(who(IEarlyTalkerPolicy), "spoke_early"),
        message_observers=tuple(each for _, each in who(IMessageObserver)),
        authentication_observers=tuple(each for _, each in who(IAuthenticationObserver)),
    )


def _noted(
    call: Callable[..., Verdict], name: str, refusals: defaultdict[tuple[str, int], int]
) -> Callable[..., Verdict]:
    """Count what a policy refuses, and let its answer pass."""

    def note(answer: Any) -> Any:
        if isinstance(answer, Reply) and answer.reply_class in (4, 5):
            refusals[name, answer.reply_class] += 1
        return answer

    def note_failure(failure: Failure) -> Failure:
        if isinstance(failure.value, SMTPError):
            note(failure.value.reply)
        return failure

    def ask(*facts: Any) -> Any:
        try:
            verdict = call(*facts)
        except SMTPError as error:
            note(error.reply)
            raise
        if verdict is None:
            return None
        if isinstance(verdict, Awaitable):
            return as_deferred(verdict).addCallbacks(note, note_failure)
        return note(verdict)

    return ask


def _tell(call: Callable[..., None], *facts: object) -> None:
    """Who only watches has no say, not even by failing."""
    try:
        call(*facts)
    except BaseException:
        _log.failure("An observer failed")


def _in_turn(calls: list[Callable[..., Verdict]]) -> Question:
    if len(calls) < 2:
        return calls[0] if calls else None

    async def ask(*facts: Any) -> Any:
        agreed = None
        for call in calls:
            verdict = call(*facts)
            if isinstance(verdict, Awaitable):
                verdict = await as_deferred(verdict)
            if isinstance(verdict, Reply) and verdict.accepted:
                agreed = agreed or verdict
            elif verdict is not None:
                return verdict
        return agreed

    return ask
