"""Between the transport and a conversation: octets in, octets out, and when to stop reading."""

import os
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpserv.dialogue import state
from smtpserv.message import Peer, Session, TLSFacts
from smtpserv.reply import Reply
from smtpserv.server.conversation import Conversation
from smtpserv.server.house import House
from smtpserv.server.limits import HANDSHAKE, LINGER

#: States in which hands may still be shaken: until they are, a TLS transport is congested, and must read.
_SHAKING: Final = frozenset({state.CONNECTING, state.TLS})

#: Octets a client may send ahead while it waits for an answer; then it is read no further.
READ_AHEAD: Final = 65536


@implementer(IPushProducer, IHalfCloseableProtocol, IHandshakeListener)
class SMTPServerProtocol(Protocol):
    """One connection.

    :param ended: called when the connection is gone and nothing is under way any more.
    """

    def __init__(self, house: House, peer: Peer, ended: "Callable[[SMTPServerProtocol], None]") -> None:
        self.peer: Final = peer
        self._house: Final = house
        self._ended: Final = ended
        session = Session(os.urandom(6).hex(), peer, hostname=house.terms.hostname)
        self._conversation: Final = Conversation(house, session, self._settled)
        self._dialogue: Final = self._conversation.dialogue
        self._inquiry: Final = self._conversation.inquiry
        #: When shaking hands began, while it lasts.
        self._shaking_since: float | None = None
        self._congested = False
        self._paused = False
        self._deaf = False
        self._closed_at: float | None = None

    #: Any stream transport of Twisted; None when the connection is gone.
    transport: Any

    def connectionMade(self) -> None:
        """Greet the client; under TLS, when hands are shaken."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        if ISSLTransport.providedBy(self.transport):
            self._shaking_since = self._house.clock.seconds()
        else:
            self._conversation.start()
            self._flush()

    def handshakeCompleted(self) -> None:
        """Hands are shaken: at the connection's begin, or after STARTTLS."""
        if self._shaking_since is None:
            return
        from smtpserv.tls import tls_facts  # needs pyOpenSSL, which is there where hands are shaken

        self._shaking_since = None
        self._conversation.secured(TLSFacts(**tls_facts(self.transport.getHandle())))
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        """Hear the client, and send all that there is to answer in one write."""
        if self._closed_at is None:
            speaks_early = self._inquiry.is_open or len(data) > READ_AHEAD
            self._conversation.receive(data)
            output = self._dialogue.take_output()
            if output:
                self._send(output)
            if speaks_early:
                self._regulate()

    def readConnectionLost(self) -> None:
        """The client closed its half of the connection: it may still wait for a message's last reply."""
        self._deaf = True
        self._flush()

    def writeConnectionLost(self) -> None:
        """Ours is never closed alone."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Release everything, but for a message that is complete."""
        self.transport = None
        self._conversation.disconnected()
        self._settled()

    def sweep(self, now: float) -> None:
        """Called every second: end what lasts too long."""
        if self._shaking_since is not None:
            if now - self._shaking_since >= HANDSHAKE and self.transport is not None:
                self.transport.abortConnection()
        elif self._closed_at is None:
            if self._conversation.sweep(now):
                self._settled()
        elif self.transport is not None and now - self._closed_at >= LINGER:
            self.transport.abortConnection()

    def leave(self, farewell: Reply) -> None:
        """Close as soon as no message is under way, with a 421."""
        self._conversation.leave(farewell)
        self._settled()

    def hang_up(self, farewell: Reply) -> None:
        """Close now, with a 421."""
        self._conversation.hang_up(farewell)
        self._settled()

    def cut(self) -> None:
        """Something of ours failed: end it without a word, and with it whatever is under way."""
        self._conversation.abandon()
        if self.transport is not None:
            self.transport.abortConnection()
        self._ended(self)

    def pauseProducing(self) -> None:
        """The client does not read its replies: hear it no further."""
        self._congested = True
        self._regulate()

    def resumeProducing(self) -> None:
        """It reads again."""
        self._congested = False
        self._regulate()

    def stopProducing(self) -> None:
        """The transport is closing; ``connectionLost`` does what there is to do."""

    def _settled(self) -> None:
        """Something was answered or given up, when the connection may be long gone."""
        if self.transport is not None:
            self._send(self._dialogue.take_output())
        elif not self._inquiry.is_open:
            self._ended(self)

    def _flush(self) -> None:
        self._send(self._dialogue.take_output())

    def _send(self, output: bytes) -> None:
        """Say what there is to say, and do what the dialogue has come to."""
        transport, dialogue = self.transport, self._dialogue
        if transport is None or self._closed_at is not None:
            return
        if output:
            transport.write(output)
        if self._deaf:
            self._see_whether_it_is_gone()
        if dialogue.state.is_deaf:
            (self._close if dialogue.state is state.CLOSED else self._shake_hands)()
        elif self._paused or self._congested:
            self._regulate()

    def _close(self) -> None:
        self._closed_at = self._house.clock.seconds()
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _see_whether_it_is_gone(self) -> None:
        """Of a client that closed its half, what it sent before may still make a message; else it is gone."""
        dialogue = self._dialogue
        if not (self._inquiry.is_open and (dialogue.buffered or dialogue.is_content_there)):
            self._conversation.abandon()

    def _shake_hands(self) -> None:
        if self._shaking_since is None:
            self._shaking_since = self._house.clock.seconds()
            self._regulate()
            self.transport.startTLS(self._house.certificates)

    def _regulate(self) -> None:
        """Read from the client, or not, as its replies and our answers stand."""
        dialogue = self._dialogue
        ahead = self._inquiry.is_open and dialogue.buffered > READ_AHEAD
        pause = ahead or (self._congested and dialogue.state not in _SHAKING)
        if pause is not self._paused and self.transport is not None and not self._deaf:
            self._paused = pause
            (self.transport.pauseProducing if pause else self.transport.resumeProducing)()
