"""Who is asked at each stage: found once at start, so that a stage nobody cares about costs nothing."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

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
from smtpserv.server.inquiry import as_deferred

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

    @property
    def observes(self) -> bool:
        """Whether anybody wants to be told of messages."""
        return bool(self.message_observers)

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
    session = [policy for each in seated if (policy := ISessionPolicy(each, None)) is not None]
    senders = [sender for each in seated if (sender := ISenderPolicy(each, None)) is not None]
    recipients = [recipient for each in seated if (recipient := IRecipientPolicy(each, None)) is not None]
    early = [listener for each in seated if (listener := IEarlyTalkerPolicy(each, None)) is not None]
    messages = [observer for each in seated if (observer := IMessageObserver(each, None)) is not None]
    failures = [guard for each in seated if (guard := IAuthenticationObserver(each, None)) is not None]
    return Panel(
        connect=_in_turn([policy.connect for policy in session]),
        hello=_in_turn([policy.hello for policy in session]),
        sender=_in_turn([sender.check_sender for sender in senders]),
        recipient=_in_turn([recipient.check_recipient for recipient in recipients]),
        early=_in_turn([listener.spoke_early for listener in early]),
        message_observers=tuple(messages),
        authentication_observers=tuple(failures),
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
