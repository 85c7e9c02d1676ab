"""One connection to another mail server: commands in, Promises of their answers out."""

from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpserv import reply
from smtpserv.awaiting import Promise, Watch
from smtpserv.dialogue import state
from smtpserv.dialogue.client import UNASKED, ClientDialogue
from smtpserv.dialogue.command import Command, Hello, Plain
from smtpserv.dialogue.replies import MalformedReply
from smtpserv.message import Peer, TLSFacts
from smtpserv.relay.failure import GivenUp, UpstreamFailed
from smtpserv.relay.patience import GOODBYE, Patience
from smtpserv.relay.verdict import passed_on
from smtpserv.reply import Reply

#: What is made of an answer, and of what stands for one; as :class:`smtpserv.awaiting.Promise` takes them.
Then = Callable[[Any], Any] | None
Otherwise = Callable[[Failure], Any] | None

#: What is waited for when it is no answer: that the server goes on behind its 421, and that all is sent.
_LEAVING: Final = object()
_CLOSING: Final = object()

_RSET: Final = Plain("RSET")
_QUIT: Final = Plain("QUIT")

#: Octets of mail data that are sent at once; a small message goes out in one piece with its end.
WORTH_SENDING: Final = 16384

#: Where a transaction can be given up. Elsewhere, above all where part of the content went out, there is no
#: way back but to cut the connection.
_RESETTABLE: Final = frozenset({state.READY, state.MAIL, state.RCPT})


@implementer(IPushProducer, IHandshakeListener)
class SMTPClient(Protocol):
    """One connection. When it ends, every question fails with :class:`UpstreamFailed`.

    Cancelling a question cuts the connection: nobody would know what the next answer belongs to.

    :param patience: how long it waits for what; :meth:`sweep` is to be called every second or so.
    :param lmtp: whether the server speaks LMTP.
    """

    #: Any stream transport of Twisted; None when the connection is gone.
    transport: Any = None

    def __init__(self, patience: Patience, lmtp: bool = False) -> None:
        self.dialogue: Final = ClientDialogue(lmtp)
        #: What protects the connection, once hands are shaken.
        self.tls: TLSFacts | None = None
        #: Whether we know by its certificate who that is.
        self.is_verified = False
        #: Our end of it, as the server sees it.
        self.local: Peer | None = None
        #: Called once, when the connection is gone.
        self.when_gone: Deferred[None] = Deferred()
        self._patience: Final = patience
        #: One for each command that is not answered; the greeting is the first.
        self._greeting: Final = Promise[Reply](self.abort)
        self._questions: Final[deque[Promise[Any]]] = deque([self._greeting])
        #: What was last said for a hello.
        self.hello: Hello | None = None
        self._shaking: Deferred[None] | None = None
        self._watch: Final = Watch()
        self._congested = False
        self._room: Deferred[None] | None = None
        #: Octets of mail data that wait for more, or for its end.
        self._unsent = 0
        #: Whether it closes when all is sent.
        self._is_closing = False
        #: Why the connection is of no use any more; the dialogue is closed then.
        self._fate: UpstreamFailed | GivenUp | None = None
        #: What the server said before the content had ended: its answer, whatever follows.
        self._verdict: UpstreamFailed | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it may be asked anything."""
        return not self.dialogue.state.is_deaf

    @property
    def offers(self) -> Mapping[str, str]:
        """What the server announced; REQUIRETLS only where it can be held (RFC 8689 section 4.2.1)."""
        offers = self.dialogue.offers
        if self.is_verified or "REQUIRETLS" not in offers:
            return offers
        return {keyword: argument for keyword, argument in offers.items() if keyword != "REQUIRETLS"}

    def say_hello(self, hello: Hello) -> Promise[Reply]:
        """Say EHLO or LHLO; or say it again."""
        self.hello = hello
        return self.ask(hello)

    def greeted(self) -> Promise[Reply]:
        """The greeting."""
        return self._greeting

    def ask(self, command: Command, then: Then = None, otherwise: Otherwise = None) -> Promise[Any]:
        """Say a command.

        :return: its answer, a Reply, or what ``then`` or ``otherwise`` makes of it.
        :raises UpstreamFailed: when the connection is gone.
        :raises ValueError: for what can't be said, or not now.
        """
        if self.dialogue.state is state.CLOSED:
            raise self._gone()
        self.dialogue.say(command)
        return self._asked(then, otherwise)

    def write(self, content: bytes) -> "Deferred[None] | None":
        """Send mail data.

        :return: None for more at once, or a Deferred that fires when there is room for more.
        :raises SMTPError: with what the server said before its time, or when the connection is gone.
        """
        if self.dialogue.state is state.CLOSED:
            raise self._gone()
        self.dialogue.write(content)
        self._unsent += len(content)
        if self._unsent >= WORTH_SENDING:
            self._unsent = 0
            self._flush()
        return self._wait_for_room() if self._congested else None

    def end(self, then: Then = None, otherwise: Otherwise = None) -> Promise[Any]:
        """Send the end of mail data.

        :return: the server's verdict, a Reply or Results, or what ``then`` or ``otherwise`` makes of it.
        :raises SMTPError: as :meth:`write`.
        """
        if self.dialogue.state is state.CLOSED:
            raise self._gone()
        self.dialogue.end()
        self._unsent = 0
        if self._room is not None:
            self._room.addErrback(_ignored)  # who waits for the verdict hears of it
        return self._asked(then, otherwise)

    def write_chunk(
        self, octets: bytes, last: bool = False, then: Then = None, otherwise: Otherwise = None
    ) -> Promise[Any]:
        """Send a chunk of content by BDAT.

        :return: the answer, as that of :meth:`end`.
        :raises SMTPError: as :meth:`write`.
        """
        if self.dialogue.state is state.CLOSED:
            raise self._gone()
        self.dialogue.write_chunk(octets, last)
        return self._asked(then, otherwise)

    def secure(self, connection_creator: Any) -> "Deferred[None]":
        """Shake hands, after STARTTLS was accepted.

        :param connection_creator: what ``startTLS`` takes.
        """
        self._shaking = Deferred(self._cancelled)
        self.transport.startTLS(connection_creator)
        return self._shaking

    def reset(self) -> None:
        """Give up the transaction, if one is open; who asks next is answered behind it."""
        if not self._questions and self.dialogue.state is state.READY:
            return
        if self._is_resettable:
            self.ask(_RSET, self._see_whether_it_did)
        else:
            self.abort()

    def quit(self) -> None:
        """Say goodbye, and close."""
        if self._is_resettable:
            self.ask(_QUIT).hear(lambda _: self._close())
        else:
            self.abort()

    def abort(self, why: UpstreamFailed | None = None) -> None:
        """Cut the connection: what was not complete will not be delivered."""
        self._fail(why or GivenUp("given up"))
        if self.transport is not None:
            self.transport.abortConnection()

    def sweep(self, now: float) -> None:
        """Look, about once a second, for what lasts too long; who connects has a time of his own."""
        awaited, patience = self._awaited()
        if self._watch.lasted(awaited, now) >= patience:
            self.abort(UpstreamFailed(reply.UPSTREAM_SLOW))

    def connectionMade(self) -> None:
        """Wait for the greeting; under TLS, hands are shaken first."""
        address = self.transport.getHost() if ITCPTransport.providedBy(self.transport) else None
        if isinstance(address, IPv4Address | IPv6Address):  # a Unix socket's transport provides as much
            self.transport.setTcpNoDelay(True)
            self.local = Peer(address.host, address.port)
        self.transport.registerProducer(self, True)

    def handshakeCompleted(self) -> None:
        """Hands are shaken: at the connection's begin, or after STARTTLS."""
        from smtpserv.tls import tls_facts  # needs pyOpenSSL, which is there where hands are shaken

        self.tls = TLSFacts(**tls_facts(self.transport.getHandle()))
        shaking, self._shaking = self._shaking, None
        if shaking is not None:
            self.dialogue.secured()
            shaking.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Hand out the answers."""
        dialogue = self.dialogue
        dialogue.receive(data)
        try:
            while (answer := dialogue.next_answer()) is not None:
                command, said = answer
                if command is UNASKED:
                    assert isinstance(said, Reply), "what is said unasked is of nobody"
                    self._verdict = UpstreamFailed(passed_on(said))
                    break
                self._questions.popleft().tell(said)
        except MalformedReply as error:
            self.abort(UpstreamFailed(reply.UPSTREAM_CONFUSED, error))
            return
        if self._questions:  # what they wait for may have been held until now
            self._flush()
        if dialogue.state is state.CLOSED:
            self._close()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Whoever waits hears of it."""
        value = reason.value if reason is not None else None
        kind = reply.UPSTREAM_INSECURE if self._is_shaking else reply.UPSTREAM_LOST
        self.transport = None
        self._fail(UpstreamFailed(kind, value or ""))
        self.when_gone.callback(None)

    def pauseProducing(self) -> None:
        """The server takes no more for now."""
        self._congested = True

    def resumeProducing(self) -> None:
        """It takes more."""
        self._congested = False
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """The transport is closing; ``connectionLost`` does what there is to do."""

    def _awaited(self) -> tuple[object, float]:
        """What is waited for, and how long."""
        blocked, command = self._blocked, self.dialogue.awaited
        if self.transport is None or not (blocked or self._questions):
            return None, inf
        limit = self._patience.of("" if blocked or command is None else command.verb)
        if self.dialogue.is_leaving:
            return _LEAVING, min(limit, GOODBYE)
        return blocked or self._questions[0], limit

    @property
    def _blocked(self) -> object:
        """What it waits for that is no answer: room, TLS, or that all is sent; None when it does not."""
        return self._room or self._shaking or (_CLOSING if self._is_closing else None)

    @property
    def _is_resettable(self) -> bool:
        return self.is_usable and {self.dialogue.state, self.dialogue.ahead} <= _RESETTABLE

    @property
    def _is_shaking(self) -> bool:
        return self._shaking is not None or (ISSLTransport.providedBy(self.transport) and self.tls is None)

    def _asked(self, then: Then, otherwise: Otherwise) -> Promise[Any]:
        """Send what the dialogue has to say, and have its answer."""
        question = Promise(self.abort, then, otherwise)
        self._questions.append(question)
        output = self.dialogue.take_output()
        if output and self.transport is not None:
            self.transport.write(output)
        return question

    def _wait_for_room(self) -> "Deferred[None]":
        if self._room is None:
            self._room = Deferred(self._cancelled)
        return self._room

    def _cancelled(self, _: object) -> None:
        self.abort()

    def _gone(self) -> UpstreamFailed | GivenUp:
        """Why it is; if that is not known yet, it is by the answer that is just handed out."""
        return self._fate or UpstreamFailed(reply.UPSTREAM_LOST, "closed")

    def _flush(self) -> None:
        output = self.dialogue.take_output()
        if output and self.transport is not None:
            self.transport.write(output)

    def _see_whether_it_did(self, answer: Reply) -> None:
        if not answer.accepted:
            self.abort(UpstreamFailed(reply.UPSTREAM_CONFUSED, f"RSET was refused: {answer}"))

    def _close(self) -> None:
        self._fail(self._verdict or UpstreamFailed(reply.UPSTREAM_LOST, "closed"))
        if self.transport is not None and not self._is_closing:
            self._is_closing = True
            self.transport.unregisterProducer()  # none closes before its producer is done
            self.transport.loseConnection()

    def _fail(self, fate: UpstreamFailed | GivenUp) -> None:
        """It is over; who waits is told, in the order of the questions."""
        if self._fate is not None:
            return
        self._fate = fate
        results = self.dialogue.conclude(
            fate.reply if isinstance(fate, UpstreamFailed) else reply.UPSTREAM_LOST
        )
        self.dialogue.close()
        if results is not None:
            self._questions.popleft().tell(results)
        questions = [*self._questions]
        waiting = self._shaking, self._room
        self._questions.clear()
        self._shaking = self._room = None
        for question in questions:
            question.tell(Failure(fate))
        for each in waiting:
            if each is not None and not each.called:
                each.errback(Failure(fate))


def _ignored(_: Failure) -> None:
    """The connection is gone, and whoever uses it next finds that out."""
