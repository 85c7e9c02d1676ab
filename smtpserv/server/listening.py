"""Listening on endpoints."""

from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpserv.error import StartError
from smtpserv.transport import make_direct

_log = Logger()


class Listener(Service):
    """Listens on one endpoint, from the moment when ports below 1024 may still be bound.

    :param option: what the operator named it by: ``listen``, ``lmtp`` or ``http``.
    :param description: the endpoint as the operator wrote it.
    """

    def __init__(
        self, option: str, description: str, endpoint: IStreamServerEndpoint, factory: IProtocolFactory
    ) -> None:
        self._option: Final = option
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
            raise StartError(f"--{self._option}={self._description}: {failures[0].getErrorMessage()}")

    def startService(self) -> None:
        """Bind, if that was not done with more privileges; from here on it is said to be open."""
        super().startService()
        if self._port is None:
            self.privilegedStartService()
        assert self._port is not None
        self._port.addCallback(self._announce)

    def stopService(self) -> "Deferred[None] | None":
        """Take no more connections; a port that comes only now is closed when it comes."""
        super().stopService()
        waiting, self._port = self._port, None
        if waiting is None:
            return None
        stopped = waiting.addCallback(lambda port: port and port.stopListening())
        return stopped if stopped.called else None

    def _listening(self, port: IListeningPort) -> IListeningPort:
        if self._option != "http" and isinstance(port, tcp.Port) and port.transport is tcp.Server:
            make_direct(port)
        return port

    def _announce(self, port: IListeningPort | None) -> IListeningPort | None:
        if port is not None:
            where = named(port.getHost())
            speaks = "SMTP" if self._option == "listen" else self._option.upper()
            _log.info(
                "{speaks} on {description}: {address}",
                speaks=speaks,
                description=self._description,
                address=where,
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
