"""A network in memory: a reactor whose connections lead to factories, a name resolver, and no sockets."""

from collections.abc import Callable
from typing import Any, Final

from twisted.internet import _newtls
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IHostnameResolver,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

#: Octets that wait to be read before a producer is told to pause.
CONGESTED: Final = 65536

#: Turns in which everything has settled, if it ever does.
_TURNS: Final = 5000


class _Pipe:
    """One end of a connection. What is written here arrives at the other in a later turn."""

    TLS = False
    streamingProducer = False

    def __init__(self, network: "Network", protocol: Any, is_client: bool) -> None:
        self.protocol = protocol
        self.connected = True
        self.producer: Any = None
        self.other: End
        self._tlsClientDefault = is_client
        self._network: Final = network
        self._queue: Final[list[bytes]] = []
        self._closing = False
        self.reading = True

    def write(self, data: bytes) -> None:
        """Queue it."""
        if self.connected and not self._closing and data:
            self._queue.append(data)
            if self.queued > CONGESTED and self.producer is not None and self.streamingProducer:
                self.producer.pauseProducing()

    def writeSequence(self, pieces: Any) -> None:
        """Queue them."""
        self.write(b"".join(pieces))

    @property
    def queued(self) -> int:
        """Octets that the other end has not read."""
        return sum(map(len, self._queue))

    def loseConnection(self) -> None:
        """Close when everything is read."""
        self._closing = True

    def abortConnection(self) -> None:
        """Close in the next turn, as a socket does (RST); what is queued is lost."""
        self._queue.clear()
        self._closing = True
        self._network.callLater(0, self._end, ConnectionAborted(), ConnectionLost())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Who is told to pause, or to go on."""
        self.producer, self.streamingProducer = producer, streaming

    def unregisterProducer(self) -> None:
        """Nobody is told any more."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Read nothing for now."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Read again."""
        self.reading = True

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is delayed here."""

    def getPeer(self) -> IPv4Address:
        """The other end."""
        return IPv4Address("TCP", "127.0.0.1", 1)

    getHost = getPeer

    def deliver(self) -> bool:
        """Have the other end read what is queued; whether anything happened."""
        if self._queue and self.other.reading:
            octets = b"".join(self._queue)
            self._queue.clear()
            self.other.protocol.dataReceived(octets)
            if self.producer is not None and self.connected:
                self.producer.resumeProducing()
            return True
        if self._closing and self.connected and not self._queue:
            self._end(ConnectionDone(), ConnectionDone())
            return True
        return False

    def _end(self, here: Exception, there: Exception) -> None:
        for end, reason in ((self, here), (self.other, there)):
            if end.connected:
                end.connected = False
                end.protocol.connectionLost(Failure(reason))
        self._network.ends = [end for end in self._network.ends if end.connected]


@implementer(ITransport)
class End(_Pipe):
    """An end that can become TLS, as the transports of Twisted do."""

    def startTLS(self, context: Any, normal: bool = True) -> None:
        """What the protocol says and hears from now on is TLS."""
        _newtls.startTLS(self, context, normal, _Pipe)

    def _whose(self) -> Any:
        return self.protocol if self.TLS else super()

    def write(self, data: bytes) -> None:
        self._whose().write(data)

    def loseConnection(self) -> None:
        self._whose().loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._whose().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._whose().unregisterProducer()


class _Connector:
    """A connection that is being made."""

    def __init__(self, factory: Any, host: str, port: int) -> None:
        self.factory = factory
        self.call: Any = None
        self.destination = IPv4Address("TCP", host, port)

    def getDestination(self) -> IPv4Address:
        """Where to."""
        return self.destination

    def stopConnecting(self) -> None:
        """Give it up."""
        if self.call is not None and self.call.active():
            self.call.cancel()


@implementer(IReactorTime, IReactorTCP, IReactorPluggableNameResolver, IHostnameResolver)
class Network(Clock):  # type: ignore[misc]  # as much of these as is called
    """A clock that stands still, and servers at addresses.

    :ivar names: the addresses of each name; an IP address is its own name.
    :ivar deaf: addresses that never answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, list[str]] = {}
        self.deaf: set[str] = set()
        self.ends: list[Any] = []
        self._servers: dict[tuple[str, int], Any] = {}

    @property
    def nameResolver(self) -> "Network":
        """This."""
        return self

    def listen(self, host: str, port: int, factory: Any) -> None:
        """A server is there; None: no more."""
        self._servers[host, port] = factory

    def connect(self, factory: Any, protocol: Protocol, host: str = "127.0.0.1") -> End:
        """A client's end of a new connection to a factory.

        :param host: where the client is.
        """
        server = factory.buildProtocol(IPv4Address("TCP", host, 2525))
        here, there = End(self, protocol, True), End(self, server, False)
        here.other, there.other = there, here
        self.ends += [here, there]
        server.makeConnection(there)
        protocol.makeConnection(here)
        return here

    def connectTCP(  # type: ignore[override]
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: object = None
    ) -> _Connector:
        """As a reactor does."""
        connector = _Connector(factory, host, port)
        factory.doStart()
        factory.startedConnecting(connector)
        deaf = host in self.deaf
        connector.call = self.callLater(timeout if deaf else 0, self._connect, connector, deaf)
        return connector

    def _connect(self, connector: _Connector, deaf: bool) -> None:
        address = connector.destination
        server = self._servers.get((address.host, address.port))
        if server is None or deaf:
            error = ConnectTimeout() if deaf else ConnectionRefusedError()
            connector.factory.clientConnectionFailed(connector, Failure(error))
        else:
            self.connect(server, connector.factory.buildProtocol(address))

    def resolveHostName(  # type: ignore[override]
        self, receiver: Any, name: str, portNumber: int = 0, *facts: Any, **more: Any
    ) -> Any:
        """Tell the addresses of a name at once."""
        receiver.resolutionBegan(None)
        for host in self.names.get(name, [name] if name[:1].isdigit() else []):
            receiver.addressResolved(IPv4Address("TCP", host, portNumber))
        receiver.resolutionComplete()
        return receiver

    def settle(self) -> None:
        """Until nothing happens any more but by the passing of time.

        :raises AssertionError: if that never comes.
        """
        for _ in range(_TURNS):
            self.advance(0)
            moved = [end.deliver() for end in list(self.ends) if end.connected]
            due = any(call.getTime() <= self.seconds() for call in self.getDelayedCalls())
            if not due and not any(moved):
                return
        raise AssertionError("it does not settle")

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, a second at a time.

        :param until: what ends it early.
        """
        self.settle()
        for _ in range(int(seconds)):
            if until():
                return
            self.advance(1.0)
            self.settle()
