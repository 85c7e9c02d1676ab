"""What all sessions of a listener share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from smtpserv.dialogue.terms import Terms
from smtpserv.interfaces import IAuthentication, IStreamingProcessor, ITransactionProcessor, Verdict
from smtpserv.message import Session
from smtpserv.metrics import Counts
from smtpserv.network import Networks
from smtpserv.server.journal import Journal
from smtpserv.server.limits import Limits
from smtpserv.server.panel import Panel

#: What answers a verb from outside: it is given the session and what followed the verb.
Foreigner = Callable[[Session, str], Verdict]


_NOBODY: Final = Networks()


@dataclass(frozen=True, slots=True)
class House:
    """What all sessions of a listener share.

    :param processor: gets the messages.
    :param certificates: what ``startTLS`` takes; None where STARTTLS is not offered.
    :param authentication: None where AUTH is not.
    :param trusted: whose XCLIENT and XFORWARD count.
    :param foreigners: what answers the verbs that extensions from outside add.
    :param counts: shared by the houses of a server.
    """

    clock: IReactorTime
    terms: Terms
    limits: Limits
    panel: Panel
    processor: ITransactionProcessor | IStreamingProcessor
    journal: Journal
    certificates: Any = None
    authentication: IAuthentication | None = None
    trusted: Networks = _NOBODY
    foreigners: Mapping[str, Foreigner] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    #: What the processor is, found out once: one that takes part in transactions, or one that streams.
    transactions: ITransactionProcessor | None = field(init=False)
    streaming: IStreamingProcessor | None = field(init=False)
    #: MAIL and RCPT, where nobody wants to know of them before the message.
    unasked: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        transactions = ITransactionProcessor(self.processor, None)
        asked = (transactions, self.panel.sender, self.panel.recipient)
        object.__setattr__(self, "transactions", transactions)
        object.__setattr__(self, "streaming", IStreamingProcessor(self.processor, None))
        is_asked = any(each is not None for each in asked)
        object.__setattr__(self, "unasked", frozenset(() if is_asked else ("MAIL", "RCPT")))

    def refused(self, session: Session, verb: str | None, code: int, status: str | None) -> None:
        """Put a refusal on record."""
        self.counts.refusals[verb or "", code // 100] += 1
        fields = {"id": session.id, "peer": session.peer.host, "verb": verb}
        self.journal.record("refused", **fields, code=code, status=status)
