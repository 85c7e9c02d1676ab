"""Listening on endpoints; TCP connections send at once what can be sent at once."""

from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpserv.error import StartError

_log = Logger()


class DirectServer(tcp.Server):
    """A TCP connection that writes straight to its socket while nothing is queued.

    Twisted queues every write and lets the reactor tell when it may go: two system calls and a turn of the
    reactor for each reply, a third of the cost of a small message.
    """

    _queueing = False

    def startWriting(self) -> None:
        """Something is queued."""
        self._queueing = True
        super().startWriting()

    def stopWriting(self) -> None:
        """The queue is empty."""
        self._queueing = False
        super().stopWriting()

    def write(self, data: bytes) -> None:
        """Send what the kernel takes, queue the rest; what is wrong with the socket the queue finds out."""
        if not self._queueing and not self.TLS and self.connected and not self.disconnecting:
            try:
                sent = self.socket.send(data)
            except OSError:
                sent = 0
            data = data[sent:]
        if data:
            super().write(data)


class Listener(Service):
    """Listens on one endpoint, from the moment when ports below 1024 may still be bound.

    :param description: the endpoint as the operator wrote it.
    """

    def __init__(self, description: str, endpoint: IStreamServerEndpoint, factory: IProtocolFactory) -> None:
        self._description: Final = description
        self._endpoint: Final = endpoint
        self._factory: Final = factory
        self._port: Deferred[Any] | None = None

    def privilegedStartService(self) -> None:
        """Bind.

        :raises StartError: when the address can't be had.
        """
        self._port = self._endpoint.listen(self._factory).addCallback(self._listening)
        if not self._port.called:
            self._port.addErrback(self._failed)
            return
        failures: list[Failure] = []
        self._port.addErrback(failures.append)
        if failures:
            raise StartError(f"--listen={self._description}: {failures[0].getErrorMessage()}")

    def startService(self) -> None:
        """Bind, if that was not done with more privileges."""
        super().startService()
        if self._port is None:
            self.privilegedStartService()

    def stopService(self) -> "Deferred[None] | None":
        """Take no more connections; a port that comes only now is closed when it comes."""
        super().stopService()
        waiting, self._port = self._port, None
        if waiting is None:
            return None
        stopped = waiting.addCallback(lambda port: port and port.stopListening())
        return stopped if stopped.called else None

    def _listening(self, port: IListeningPort) -> IListeningPort:
        if isinstance(port, tcp.Port) and port.transport is tcp.Server:
            port.transport = DirectServer
        _log.info(
            "SMTP on {description}: {address}", description=self._description, address=named(port.getHost())
        )
        return port

    def _failed(self, failure: Failure) -> None:
        _log.failure("Cannot listen on {description}", failure, description=self._description)


def named(address: IAddress) -> str:
    """An address as an operator writes it."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        name = getattr(address, "name", address)
        return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
