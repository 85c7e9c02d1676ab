"""TCP connections that send at once what can be sent at once, and are read without ceremony.

A reactor does a lot for each event of each of its readers, and two system calls more for each write. Of a
small message that is the larger half. Here all connections of a port are one reader of the reactor, and
replies go straight to their socket.
"""

import select
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from twisted.internet import main, tcp
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.posixbase import PosixReactorBase
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

_log = Logger()

#: Connections that are read before it is looked again who can be.
AT_ONCE: Final = 64

#: Seconds after which the reactor has its turn, though more could be read.
ENOUGH: Final = 0.002

_DONE: Final = Failure(ConnectionDone())


@implementer(IReadDescriptor)
class Readers:
    """The connections of a port that wait to be read, as one reader of the reactor: an epoll in its own.

    It is the reactor's reader for as long as one of them waits.

    :param seconds: a clock that never goes back.
    """

    def __init__(self, reactor: IReactorFDSet, seconds: Callable[[], float] = monotonic) -> None:
        self._reactor: Final = reactor
        self._seconds: Final = seconds
        self._epoll: Final = select.epoll()
        self._connections: Final[dict[int, tcp.Connection]] = {}
        #: Those that want to be closed when this turn is over; None outside of one.
        self.closing: list[tcp.Connection] | None = None

    def add(self, connection: tcp.Connection) -> None:
        """Read it when it can be read."""
        descriptor = connection.fileno()
        if descriptor in self._connections:
            return
        self._epoll.register(descriptor, select.EPOLLIN)
        if not self._connections:
            self._reactor.addReader(self)
        self._connections[descriptor] = connection

    def remove(self, connection: tcp.Connection) -> None:
        """Read it no more; its descriptor is still open."""
        descriptor = connection.fileno()
        if self._connections.get(descriptor) is not connection:
            return
        del self._connections[descriptor]
        self._epoll.unregister(descriptor)
        if not self._connections:
            self._reactor.removeReader(self)

    def doRead(self) -> None:
        """Read those that can be read, and close those that are done.

        A client answers a reply faster than a reactor comes round, so look again before it does.
        """
        enough = self._seconds() + ENOUGH
        while ready := self._epoll.poll(0, AT_ONCE):
            closing = self.closing = []
            self._read(ready)
            self.closing = None
            _close(closing)
            if self._seconds() >= enough:
                break

    def _read(self, ready: Iterable[tuple[int, int]]) -> None:
        find = self._connections.get
        for descriptor, _ in ready:
            connection = find(descriptor)
            if connection is None:  # one that was read before it ended this one
                continue
            try:
                lost = connection.doRead()
                if lost is not None:
                    self._lost(connection, lost)
            except BaseException as error:  # the reactor would cut all of them
                _cut(connection, error)

    def _lost(self, connection: tcp.Connection, reason: Exception) -> None:
        """As a reactor does: the peer has closed its half, or is gone."""
        self.remove(connection)
        half = isinstance(reason, ConnectionDone)
        (connection.readConnectionLost if half else connection.connectionLost)(Failure(reason))

    def fileno(self) -> int:
        """The epoll's descriptor, which can be read when one of its connections can."""
        return self._epoll.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
        for connection in list(self._connections.values()):
            connection.connectionLost(reason)

    def logPrefix(self) -> str:
        """Names us in Twisted's log."""
        return "smtpserv"


def _close(connections: Iterable[tcp.Connection]) -> None:
    for connection in connections:
        if not connection.disconnected:
            try:
                connection.connectionLost(_DONE)
            except BaseException as error:
                _cut(connection, error)


def _cut(connection: tcp.Connection, error: BaseException) -> None:
    """One that fails does not hold up the others."""
    _log.failure("A connection failed, and is cut", Failure(error))
    with suppress(BaseException):
        connection.connectionLost(Failure(error))


class _Direct(tcp.Connection):
    """A TCP connection that writes straight to its socket while nothing is queued.

    Twisted queues every write and lets the reactor tell when it may go: two system calls and a turn of the
    reactor for each reply, a third of the cost of a small message.

    :param readers: reads it; without them the reactor does.
    """

    #: Whether nothing stands between a write and the socket; looked at again whenever that may have changed.
    _is_clear = False
    _queueing = False

    def __init__(self, readers: Readers | None, *facts: Any) -> None:
        self._readers: Final = readers
        super().__init__(*facts)
        self._look()

    def startReading(self) -> None:
        """Wait to be read; a connection that is made begins with it."""
        self._look()
        if self._readers is None:
            super().startReading()
        else:
            self._readers.add(self)

    def stopReading(self) -> None:
        """Wait no more."""
        if self._readers is None:
            super().stopReading()
        else:
            self._readers.remove(self)

    def startWriting(self) -> None:
        """Something is queued."""
        self._queueing = True
        self._look()
        super().startWriting()

    def stopWriting(self) -> None:
        """The queue is empty; or it will not be sent."""
        self._queueing = False
        self._look()
        super().stopWriting()

    def startTLS(self, *facts: Any) -> None:
        """What is written goes through TLS."""
        super().startTLS(*facts)
        self._look()

    def doRead(self) -> ConnectionLost | ConnectionDone | None:  # type: ignore[override]  # of a lax mixin
        """Hear what there is to hear, and no more than that."""
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def write(self, data: bytes) -> None:
        """Send what the kernel takes, queue the rest; what is wrong with the socket the queue finds out."""
        if self._is_clear:
            try:
                sent = self.socket.send(data)
            except OSError:
                sent = 0
            data = data[sent:]
        if data:
            super().write(data)

    def loseConnection(self) -> None:
        """Close when everything is sent: if it is, at the end of this turn, and without another one."""
        closing = self._readers.closing if self._readers is not None else None
        if closing is None or self._queueing or self.TLS or self.disconnecting or not self.connected:
            super().loseConnection()
            return
        self.disconnecting = True
        self._look()
        self.stopReading()
        closing.append(self)

    def _look(self) -> None:
        self._is_clear = bool(self.connected) and not (
            self._queueing or self.TLS or self.disconnecting or self._aborting
        )


class DirectServer(_Direct, tcp.Server):
    """Such a connection that a client made."""


class DirectClient(_Direct, tcp.Client):
    """Such a connection that we made."""


def make_direct(port: tcp.Port) -> None:
    """Have a port make such connections from now on."""
    readers = Readers(port.reactor) if hasattr(select, "epoll") else None

    def connection(*facts: Any) -> DirectServer:
        return DirectServer(readers, *facts)

    port.transport = connection  # type: ignore[assignment]


def direct_reactor(reactor: Any) -> Any:
    """A reactor whose ``connectTCP`` makes such connections; any endpoint takes it for the one it is given.

    :return: the reactor itself, where it is none of real sockets.
    """
    return _DirectReactor(reactor) if isinstance(reactor, PosixReactorBase) else reactor


class _DirectReactor:
    def __init__(self, reactor: Any) -> None:
        self._reactor: Final = reactor
        self._readers: Final = Readers(reactor) if hasattr(select, "epoll") else None
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> tcp.Connector:
        """As the reactor's own."""
        connector = _DirectConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.readers = self._readers
        connector.connect()
        return connector


class _DirectConnector(tcp.Connector):
    readers: Readers | None = None

    def _makeTransport(self) -> DirectClient:
        return DirectClient(self.readers, self.host, self.port, self.bindAddress, self, self.reactor)
