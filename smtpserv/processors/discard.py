"""Accepts and drops: the do-nothing processor."""

from zope.interface import implementer

from smtpserv.interfaces import IMessageSink, IStreamingProcessor
from smtpserv.message import Envelope, Session


@implementer(IStreamingProcessor, IMessageSink)
class DiscardProcessor:
    """Keeps nothing, so that it is the sink of every message itself."""

    def begin(self, session: Session, envelope: Envelope) -> "DiscardProcessor":
        """Anything is welcome."""
        return self

    def write(self, octets: bytes) -> None:
        """Drop it."""

    def finish(self) -> None:
        """Accepted."""

    def abort(self) -> None:
        """Nothing to release."""
