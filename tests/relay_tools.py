"""Connections to a mail server that the test plays itself, and a door that makes them."""

from collections.abc import Awaitable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.awaiting import as_deferred
from smtpserv.dialogue.command import Command, Hello, Mail, Plain, Rcpt
from smtpserv.message import ForwardPath, Peer, ReversePath
from smtpserv.relay.client import SMTPClient
from smtpserv.relay.patience import Patience
from tests.server_tools import Wire

GREETING: Final = b"220 mx.example\r\n"
OK: Final = b"250 2.0.0 Ok\r\n"
GO: Final = b"354 Go\r\n"
NO: Final = b"550 5.1.1 No\r\n"
BYE: Final = b"421 4.3.2 Bye\r\n"

EHLO: Final = Hello("EHLO", "client.example")
MAIL: Final = Mail(ReversePath("a@a.example"))
RCPT: Final = Rcpt(ForwardPath("b@b.example"))
DATA: Final = Plain("DATA")
NOOP: Final = Plain("NOOP")


class Connection:
    """A client of ours, and the other end of its connection.

    :param closes: whether the server closes its side when we do; if not, it must be cut off.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        patience: Patience | None = None,
        lmtp: bool = False,
        closes: bool = True,
    ) -> None:
        self.clock = clock or Clock()
        self.client = SMTPClient(patience or Patience(), lmtp)
        self.wire = Wire(self.client, closes)

    def connect(self) -> "Connection":
        """It is made."""
        self.client.makeConnection(self.wire)
        return self

    def ready(self, *offers: str) -> "Connection":
        """It is made, greeted, and has said hello."""
        self.connect()
        self.say(GREETING)
        lmtp = self.client.dialogue._lmtp
        self.client.say_hello(Hello("LHLO" if lmtp else "EHLO", "client.example"))
        lines = ["mx.example", *offers]
        self.say("".join(f"250{'- '[each is lines[-1]]}{each}\r\n" for each in lines).encode())
        self.hear()
        return self

    def exchange(self, *exchanges: tuple[Command, bytes]) -> "Connection":
        """Commands that are said, and the answer to each."""
        for command, answer in exchanges:
            self.client.ask(command)
            self.say(answer)
        self.hear()
        return self

    def data(self) -> "Connection":
        """A transaction that is at its content."""
        return self.exchange((MAIL, OK), (RCPT, OK), (DATA, GO))

    def say(self, octets: bytes) -> bytes:
        """The server says something; what it hears then."""
        if self.wire.connected:
            self.client.dataReceived(octets)
        return self.hear()

    def hear(self) -> bytes:
        """What the server heard since the last call."""
        heard = bytes(self.wire.value())
        self.wire.clear()
        return heard

    @property
    def is_gone(self) -> bool:
        """Whether the connection is no more."""
        return not self.wire.connected


class Door:
    """Makes connections when it is told to.

    :ivar asked: those who wait for one.
    :ivar made: the connections so far.
    """

    def __init__(self, clock: Clock, *offers: str, lmtp: bool = False, closes: bool = True) -> None:
        self.offers: Mapping[str, str] | None = None
        self.hello_name = "client.example"
        self.is_lmtp = lmtp
        self.asked: list[Deferred[Any]] = []
        self.made: list[Connection] = []
        self.swept: list[float] = []
        self.peer: Peer | None = None
        self._offers = offers
        self._clock = clock
        self._closes = closes

    async def connect(self) -> SMTPClient:
        asked: Deferred[SMTPClient] = Deferred()
        self.asked.append(asked)
        return await asked

    def comes_from(self, peer: Peer) -> bool:
        return peer == self.peer

    def sweep(self, now: float) -> None:
        self.swept.append(now)

    def open(self) -> Connection:
        """Give who waits longest a connection that is ready for MAIL."""
        made = Connection(self._clock, lmtp=self.is_lmtp, closes=self._closes).ready(*self._offers)
        self.offers = made.client.dialogue.offers
        self.made.append(made)
        self.asked.pop(0).callback(made.client)
        return made

    def fail(self, error: Exception) -> None:
        """Tell who waits longest that there is none."""
        self.asked.pop(0).errback(error)

    def __str__(self) -> str:
        return "mx.example:25"


def begun(call: Any, *facts: Any, **more: Any) -> "Deferred[Any]":
    """What comes of a call, whether it raises, returns, or is a coroutine that is begun."""

    async def begin() -> Any:
        answer = call(*facts, **more)
        return await answer if isinstance(answer, Awaitable) else answer

    return Deferred.fromCoroutine(begin())


class RelayCase(SynchronousTestCase):
    """Has what a relay's tests ask about failures."""

    def assert_failed(self, waiting: Awaitable[Any], kind: type[Exception], code: str = "") -> Any:
        """It failed like this, with this code and status; the failure."""
        error: Any = self.failureResultOf(as_deferred(waiting), kind).value
        if code:
            self.assertEqual(f"{error.reply.code} {error.reply.status}", code)
        return error
