"""What commands are answered where nobody says anything else: a row for each verb."""

from collections.abc import Mapping
from typing import Final

from smtpserv import reply
from smtpserv.dialogue import state
from smtpserv.reply import Reply

#: What the dialogue decides by itself.
OWN_ANSWERS: Final[Mapping[str, Reply]] = {
    "NOOP": reply.OK,
    "RSET": reply.OK,
    "HELP": reply.HELP,
    "VRFY": reply.CANNOT_VERIFY,
    "EXPN": reply.NOT_IMPLEMENTED,
    state.LOST: reply.BAD_CHUNK_SIZE,
}

#: What somebody else decides, in the usual words.
ACCEPTANCES: Final[Mapping[str, Reply]] = {
    "MAIL": reply.SENDER_OK,
    "RCPT": reply.RECIPIENT_OK,
    "DATA": reply.START_MAIL_INPUT,
    "STARTTLS": reply.READY_FOR_TLS,
    "AUTH": reply.AUTHENTICATED,
    state.RESPONSE: reply.AUTHENTICATED,
}

#: Answers of the dialogue's own after which its colleague is told: it may have others to hear.
OWN_ANSWERS_AT_ONCE: Final = 200
