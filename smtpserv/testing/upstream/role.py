"""What the connections of a scripted upstream share: how it behaves, and what it has seen."""

from dataclasses import dataclass, field
from typing import Any

from smtpserv.dialogue.terms import Terms
from smtpserv.interfaces import IAuthentication
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.reply import Reply
from smtpserv.testing.upstream.fault import Faults


@dataclass
class UpstreamTransaction:
    """One mail transaction as it arrived, from a MAIL that was accepted.

    :param forward_paths: the recipients that were accepted, with their parameters.
    :param chunks: the content as it came, dots unstuffed.
    :param is_complete: whether all of the content came. If not, nobody may ever deliver it.
    :param answers: what the end of the content was answered: one reply, under LMTP one for each recipient.
    """

    reverse_path: ReversePath
    forward_paths: list[ForwardPath] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    is_complete: bool = False
    answers: list[Reply] = field(default_factory=list)

    @property
    def content(self) -> bytes:
        """The octets of the content so far."""
        return b"".join(self.chunks)

    @property
    def is_accepted(self) -> bool:
        """Whether the message is the upstream's now, for one recipient at least."""
        return any(each.accepted for each in self.answers)


@dataclass(frozen=True)
class Role:
    """What the connections of an upstream have in common: how it behaves, and what it has seen."""

    terms: Terms
    faults: Faults
    tls: Any = None
    is_implicit: bool = False
    authentication: IAuthentication | None = None
    commands: list[bytes] = field(default_factory=list)
    transactions: list[UpstreamTransaction] = field(default_factory=list)
