"""Who is asked at each stage: found once at start, so that a stage nobody cares about costs nothing."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from smtpserv.interfaces import IRecipientPolicy, ISenderPolicy, ISessionPolicy, Verdict
from smtpserv.reply import Reply
from smtpserv.server.inquiry import as_deferred

#: A stage's question, or None where nobody is to be asked.
Question = Callable[..., Verdict] | None


@dataclass(frozen=True, slots=True)
class Panel:
    """One question for each stage; all policies of the stage answer it in turn.

    One that says yes does not speak for those after it; the first no ends it.
    """

    connect: Question
    hello: Question
    sender: Question
    recipient: Question


def seat(policies: Iterable[object]) -> Panel:
    """Ask each policy once, by adaptation, at which stages it wants a say."""
    seated = list(policies)
    session = [policy for each in seated if (policy := ISessionPolicy(each, None)) is not None]
    senders = [sender for each in seated if (sender := ISenderPolicy(each, None)) is not None]
    recipients = [recipient for each in seated if (recipient := IRecipientPolicy(each, None)) is not None]
    return Panel(
        connect=_in_turn([policy.connect for policy in session]),
        hello=_in_turn([policy.hello for policy in session]),
        sender=_in_turn([sender.check_sender for sender in senders]),
        recipient=_in_turn([recipient.check_recipient for recipient in recipients]),
    )


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
