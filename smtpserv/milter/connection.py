"""A connection to a milter: packets both ways, each wait with an end."""

from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpserv.milter.packet import MAX_RECEIVED, MilterError, Packet, PacketReader


@implementer(IPushProducer)
class MilterConnection(Protocol):
    """Sends no more than the milter takes, and reads no more than is asked for.

    :param timeout: seconds that each wait may take.
    """

    transport: Any

    def __init__(self, clock: IReactorTime, timeout: float) -> None:
        self._clock: Final = clock
        self._timeout: Final = timeout
        self._reader: Final = PacketReader()
        self._awaited: Deferred[None] | None = None
        self._congested: Deferred[None] | None = None
        self._is_full = False
        self._is_lost = False
        self._closing: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Be told when the milter takes no more."""
        self.transport.registerProducer(self, True)

    async def send(self, octets: bytes) -> None:
        """Send octets; done when there is room for more.

        :raises MilterError: when the connection is lost, or nothing is taken in time.
        """
        self._see_that_it_is_there()
        self.transport.write(octets)
        if self._is_full:
            self._congested = Deferred()
            await self._wait(self._congested)

    async def receive(self) -> Packet:
        """The next packet.

        :raises MilterError: when the connection is lost, nothing comes in time, or what comes is no packet.
        """
        while (packet := self._reader.next()) is None:
            self._see_that_it_is_there()
            self.transport.resumeProducing()
            self._awaited = Deferred()
            await self._wait(self._awaited)
        return packet

    def close(self, octets: bytes = b"") -> None:
        """Send the last octets, if there are any, and close; without them at once, if it is not closing."""
        if self._is_lost or self._closing is not None:
            return
        self.transport.unregisterProducer()
        if octets and not self._is_full:
            self.transport.write(octets)
            self._closing = self._clock.callLater(self._timeout, self.transport.abortConnection)
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()

    async def _wait(self, deferred: "Deferred[None]") -> None:
        try:
            await deferred.addTimeout(self._timeout, self._clock)
        except DeferredTimeout:
            raise MilterError(f"nothing happens for {self._timeout:g} s") from None

    def _see_that_it_is_there(self) -> None:
        if self._is_lost:
            raise MilterError("it closed the connection")

    def dataReceived(self, octets: bytes) -> None:
        """Keep what came; if nobody waits for it, there is no hurry to read more."""
        self._reader.feed(octets)
        if len(self._reader) > MAX_RECEIVED and self._awaited is None:
            self.transport.pauseProducing()
        self._go_on("_awaited")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody waits any more."""
        self._is_lost = True
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._go_on("_awaited")
        self._go_on("_congested")

    def pauseProducing(self) -> None:
        """The milter takes no more for now."""
        self._is_full = True

    def resumeProducing(self) -> None:
        """It does again."""
        self._is_full = False
        self._go_on("_congested")

    def stopProducing(self) -> None:
        """The connection is lost, which is told too."""

    def _go_on(self, name: str) -> None:
        waiting: Deferred[None] | None = getattr(self, name)
        setattr(self, name, None)
        if waiting is not None:
            waiting.callback(None)


class _MilterFactory(Factory):
    noisy = False

    def __init__(self, clock: IReactorTime, timeout: float) -> None:
        self._facts: Final = (clock, timeout)

    def buildProtocol(self, address: IAddress | None) -> MilterConnection:
        return MilterConnection(*self._facts)


async def connect(endpoint: IStreamClientEndpoint, clock: IReactorTime, timeout: float) -> MilterConnection:
    """A new connection.

    :raises MilterError: when there is none in time.
    """
    connecting: Deferred[Any] = endpoint.connect(_MilterFactory(clock, timeout))
    try:
        connection: MilterConnection = await connecting.addTimeout(timeout, clock)
        return connection
    except CancelledError:
        raise
    except DeferredTimeout:
        raise MilterError(f"no connection within {timeout:g} s") from None
    except Exception as error:
        raise MilterError(f"no connection: {error}") from error
