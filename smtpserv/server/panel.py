"""Who is asked at each stage: found once at start, so that a stage nobody cares about costs nothing."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from smtpserv.awaiting import as_deferred
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


def seat(policies: Iterable[object]) -> Panel:
    """Ask each policy once, by adaptation, at which stages it wants a say."""
    seated = list(policies)

    def who(interface: Any) -> list[Any]:
        return [adapted for each in seated if (adapted := interface(each, None)) is not None]

    session = who(ISessionPolicy)
    return Panel(
        connect=_in_turn([each.connect for each in session]),
        hello=_in_turn([each.hello for each in session]),
        sender=_in_turn([each.check_sender for each in who(ISenderPolicy)]),
        recipient=_in_turn([each.check_recipient for each in who(IRecipientPolicy)]),
        early=_in_turn([each.spoke_early for each in who(IEarlyTalkerPolicy)]),
        message_observers=tuple(who(IMessageObserver)),
        authentication_observers=tuple(who(IAuthenticationObserver)),
    )


def _tell(call: Callable[..., None], *facts: object) -> None:
    """Who only watches has no say, not even by failing."""
    try:
        call(*facts)
    except Exception:
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
