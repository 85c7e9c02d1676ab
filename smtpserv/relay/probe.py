"""Asking a server whether it would take mail for a mailbox, without sending any."""

from smtpserv.dialogue.command import Mail, Rcpt
from smtpserv.error import SMTPError
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.relay.route import Route
from smtpserv.relay.verdict import passed_on
from smtpserv.reply import Reply

#: What says of a mailbox that it is none; whatever else there is may be no fault of the mailbox.
_NOBODY_THERE = frozenset({550, 551, 553})

_NOBODY = Mail(ReversePath(""))


async def would_take(route: Route, mailbox: str) -> bool:
    """Say MAIL and RCPT, and give it up.

    :return: False for a recipient that is refused for good.
    :raises SMTPError: with the answer, where that is not it.
    """
    lent = await route.take()
    try:
        answer: Reply = await lent.client.ask(_NOBODY)
        if answer.accepted:
            answer = await lent.client.ask(Rcpt(ForwardPath(mailbox)))
            if answer.accepted or answer.code in _NOBODY_THERE:
                return answer.accepted
    finally:
        lent.give_back()
    raise SMTPError(passed_on(answer))
