"""Connections that a proxy hands on: their client is known when the PROXY header has been read."""

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import TimeoutMixin, WrappingFactory
from twisted.python.failure import Failure

from smtpserv.message import Peer
from smtpserv.server.proxy_header import ProxyError, ProxyHeader

#: Seconds a proxy may take to say whom it speaks for.
DEADLINE: Final = 30.0


class ProxiedFactory(WrappingFactory[Any]):
    """Makes a protocol for the client whose connection a proxy hands on, when its header is complete.

    Twisted's own wrapper makes it before: a greeting, limit or policy would meet the proxy's address.

    :param wrapped: makes the protocol, with the client's address.
    :param trusts: whether a proxy at this host is believed; the host is empty for a Unix socket. A connection
        from any other is closed before anything is read.
    """

    noisy = False

    def __init__(self, wrapped: IProtocolFactory, trusts: Callable[[str], bool], clock: IReactorTime) -> None:
        super().__init__(wrapped)
        self._trusts: Final = trusts
        self._clock: Final = clock

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """What reads the header; nobody for a stranger."""
        if not self._trusts(getattr(addr, "host", "")):
            return None
        return _Reader(self, addr, self._clock)

    def doStop(self) -> None:
        """The last port is closed: who has not said for whom he speaks need not."""
        for reader in list(self.protocols):
            reader.transport.abortConnection()
        super().doStop()


class _Reader(Protocol, TimeoutMixin):
    """Reads the header, then gives its place at the transport to the client's protocol.

    From then on nothing stands between the two: STARTTLS, half-closing and pausing are the transport's own.
    """

    #: Any stream transport of Twisted that holds its protocol in ``protocol``, as TCP and Unix ones do.
    transport: Any

    def __init__(self, factory: ProxiedFactory, address: IAddress | None, clock: IReactorTime) -> None:
        self.factory: Any = factory
        self._address: Final = address
        self._header: Final = ProxyHeader()
        self.callLater = clock.callLater  # type: ignore[method-assign,assignment]

    def connectionMade(self) -> None:
        self.factory.registerProtocol(self)
        self.setTimeout(DEADLINE)

    def dataReceived(self, data: bytes) -> None:
        """Take a piece of the header; what is none ends the connection without a word."""
        try:
            proxied = self._header.receive(data)
        except ProxyError:
            self.transport.abortConnection()
            return
        if proxied is not None:
            address = address_of(proxied.peer) if proxied.peer else self._address
            self._hand_over(self.factory.wrappedFactory.buildProtocol(address), proxied.rest)

    def _hand_over(self, protocol: Any, rest: bytes) -> None:
        if protocol is None:
            self.transport.abortConnection()
            return
        self._leave()
        transport = self.transport
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest and not transport.disconnecting:
            protocol.dataReceived(rest)

    def _leave(self) -> None:
        self.setTimeout(None)
        self.factory.unregisterProtocol(self)

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave()


def address_of(peer: Peer) -> IPv4Address | IPv6Address:
    """A client as Twisted has it."""
    return (IPv6Address if ":" in peer.host else IPv4Address)("TCP", peer.host, peer.port)
