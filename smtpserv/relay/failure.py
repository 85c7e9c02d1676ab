"""Why a mail server behind us gives no answer."""

from typing import Final

from twisted.internet.defer import CancelledError

from smtpserv.error import SMTPError
from smtpserv.reply import Reply


class UpstreamFailed(SMTPError):
    """A mail server behind us did not do its part; the reply is what a client hears of it.

    :param why: for the log.
    """

    def __init__(self, answer: Reply, why: object = "") -> None:
        super().__init__(answer)
        self.why: Final = str(why) or answer.text


class Crowded(UpstreamFailed):
    """The server takes no more connections for now; those that it has it serves."""


class GivenUp(CancelledError):
    """Whoever waited does so no more: it is no fault of the server's, and no answer that anybody goes by."""
