"""What the server's dialogue tells its colleague. Some are owed a reply; nothing more is read before it.

The commands :class:`~smtpserv.dialogue.command.Hello`, :class:`~smtpserv.dialogue.command.Mail` and
:class:`~smtpserv.dialogue.command.Rcpt` are events as they stand, and are owed a reply.
"""

from dataclasses import dataclass

from smtpserv.dialogue.command import Hello, Mail, Rcpt
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.reply import Reply


@dataclass(frozen=True, slots=True)
class Data:
    """The client wants to send the content. Owed a reply: a 354, in the usual words by None, lets it."""

    reverse_path: ReversePath
    forward_paths: tuple[ForwardPath, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """The next octets of the content, at least one."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class ContentRefused:
    """No more content comes: the message is too big or malformed. Its end is still to come."""


@dataclass(frozen=True, slots=True)
class EndOfData:
    """The mail data ended. Owed a reply.

    :param refusal: what the dialogue has against the message; it is then sent whatever is answered.
    """

    refusal: Reply | None


Event = Hello | Mail | Rcpt | Data | Content | ContentRefused | EndOfData
