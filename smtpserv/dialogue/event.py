"""What the server's dialogue tells its colleague. Some are owed a reply; nothing more is read before it.

Most commands of :mod:`smtpserv.dialogue.command` are events as they stand, and are owed a reply. Those that
every message brings are frozen for the type checker alone: they are made in half the time.
"""

from dataclasses import dataclass
from typing import Final

from smtpserv.dialogue.command import Auth, Foreign, Hello, Mail, Override, Rcpt, Response
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.reply import Reply


@dataclass
class Data:
    """The client wants to send the content, or has begun to (BDAT). Owed a reply: None lets it."""

    reverse_path: Final[ReversePath]
    forward_paths: Final[tuple[ForwardPath, ...]]


@dataclass
class Content:
    """The next octets of the content, at least one."""

    octets: Final[bytes]


@dataclass(frozen=True, slots=True)
class ContentRefused:
    """No more content comes: it is too big or malformed, and its end still to come; or was given up."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The transaction ended without a message: by RSET, or because its chunks were refused unseen."""


@dataclass
class EndOfData:
    """The mail data ended. Owed a reply.

    :param refusal: what the dialogue has against the message; it is then sent whatever is answered.
    """

    refusal: Final[Reply | None]


@dataclass(frozen=True, slots=True)
class StartTLS:
    """The client wants to shake hands. Owed a reply; when it is sent, what comes is TLS."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Now and then, behind many lines that were answered here: others may have their turn first."""


Event = (
    Hello
    | StartTLS
    | Auth
    | Response
    | Override
    | Foreign
    | Mail
    | Rcpt
    | Data
    | Content
    | ContentRefused
    | EndOfData
    | Reset
    | Pause
)
