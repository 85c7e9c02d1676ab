"""The ``proxy`` processor: passes every transaction through to another mail server, live.

The server behind us is asked at each stage before the client is answered, and its answer is ours. Nothing is
kept, so nothing can be lost: until the server has taken a message, the client has it.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from smtpserv import reply
from smtpserv.awaiting import as_deferred
from smtpserv.error import SMTPError
from smtpserv.interfaces import (
    IExtensionSupport,
    IMessageSink,
    IRelayingProcessor,
    ISessionPolicy,
    ITransaction,
    ITransactionProcessor,
)
from smtpserv.message import Envelope, ForwardPath, ReversePath, Session
from smtpserv.network import is_local
from smtpserv.relay.making import make_route, yes
from smtpserv.relay.passage import Manner, open_passage
from smtpserv.relay.route import Route
from smtpserv.reply import Reply
from smtpserv.trace import fold, received_field

#: The extensions that are passed on where every server of the route offers them.
PASSED_ON: Final = ("DSN", "BINARYMIME", "REQUIRETLS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY")


@implementer(ITransactionProcessor, IRelayingProcessor, IExtensionSupport, ISessionPolicy)
class ProxyProcessor(Service):
    """Relays to the servers of a route.

    :param clock: tells the time, in seconds since 1970.
    :param forward_client: whether the server is told who our client is, if it wants to hear that.
    :param x_peer: whether an X-Peer field tells it, as smtpd did.
    :param is_final: whether messages have arrived there, and take one recipient at a time.
    """

    def __init__(
        self,
        clock: Any,
        route: Route,
        forward_client: bool = False,
        x_peer: bool = False,
        is_final: bool = False,
    ) -> None:
        self.honours: Final = Honoured(route)
        self._clock: Final = clock
        self._route: Final = route
        self._x_peer: Final = x_peer
        self._manner: Final = Manner(self._fields, forward_client, route.is_lmtp, is_final)
        #: What the servers are asked at the start.
        self._asking: Deferred[Any] | None = None

    def startService(self) -> None:
        """Find out what the servers offer."""
        super().startService()
        self._asking = Deferred.fromCoroutine(self._route.take())
        self._asking.addCallbacks(lambda lent: lent.give_back(), _heard_later)

    def stopService(self) -> None:
        """Let the connections go."""
        super().stopService()
        if self._asking is not None:
            self._asking.cancel()
        self._route.close()

    def connect(self, session: Session) -> Reply | None:
        """Refuse ourselves: the server behind us would be this one."""
        return reply.MAIL_LOOP if self._route.comes_from(session.peer) else None

    def hello(self, session: Session) -> Reply | None:
        """The same, once the connection is surely known at its other end."""
        return self.connect(session)

    def open(self, session: Session, reverse_path: ReversePath) -> ITransaction | Awaitable[ITransaction]:
        """MAIL: answered as the server behind us answers it.

        A stranger has no connection there before somebody may be written to: else a hundred that say MAIL,
        and then nothing, would leave none for others.
        """
        if session.identity is None and not is_local(session.peer.host):
            return Later(lambda: self._open(session, reverse_path))
        return self._open(session, reverse_path)

    def _open(self, session: Session, reverse_path: ReversePath) -> Awaitable[ITransaction]:
        self._route.call_us(session.hostname)
        return open_passage(self._route, session, reverse_path, self._manner)

    def _fields(self, session: Session, envelope: Envelope) -> bytes:
        """What goes on top of a message."""
        now = self._clock.seconds()
        field = received_field(session, envelope, session.hostname, now)
        return field + fold(["X-Peer:", session.peer.host]).encode() if self._x_peer else field


@implementer(ITransaction)
class Later:
    """A transaction that is opened with the first recipient that no policy is against.

    :param open: opens it.
    """

    answer = None

    def __init__(self, open: Callable[[], Awaitable[ITransaction]]) -> None:
        self._open: Final = open
        self._transaction: ITransaction | None = None

    async def add_recipient(self, forward_path: ForwardPath) -> Any:
        """RCPT; the first is answered with what there is against MAIL, if anything."""
        if self._transaction is None:
            self._transaction = await self._open()
        answer: Any = self._transaction.add_recipient(forward_path)
        return await as_deferred(answer) if isinstance(answer, Awaitable) else answer

    def begin(self, envelope: Envelope) -> IMessageSink | Awaitable[IMessageSink]:
        """DATA."""
        assert self._transaction is not None, "a message has recipients"
        return self._transaction.begin(envelope)

    def abort(self) -> None:
        """Give it up, if it was opened."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.abort()


class Honoured:
    """The extensions that are honoured now: those that the servers were last seen to offer."""

    def __init__(self, route: Route) -> None:
        self._route: Final = route

    def __iter__(self) -> Iterator[str]:
        offers = self._route.offers
        return (keyword for keyword in PASSED_ON if keyword in offers)

    def __contains__(self, keyword: object) -> bool:
        return keyword in PASSED_ON and keyword in self._route.offers

    def __len__(self) -> int:
        return sum(1 for _ in self)


def make_proxy(
    reactor: Any,
    host: str = "localhost",
    port: str = "",
    *,
    forward_client: str = "no",
    x_peer: str = "no",
    **named: str,
) -> ProxyProcessor:
    """The processor of ``--processor=proxy:HOST:PORT``.

    :param named: as :func:`smtpserv.relay.making.make_route` takes them.
    :raises StartError: for what is wrong with them.
    """
    route = make_route(reactor, host, port, **named)
    return ProxyProcessor(reactor, route, yes("forward_client", forward_client), yes("x_peer", x_peer))


def _heard_later(failure: Any) -> None:
    """The pool has said so; who wants to send mail finds out whether it still is."""
    failure.trap(SMTPError, CancelledError)
