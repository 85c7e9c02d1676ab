"""A proxy in memory: clients on one side, scripted upstreams on the other, and time that stands still."""

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue.replies import whole_replies
from smtpserv.processors.proxy import make_proxy
from smtpserv.server.factory import SMTPServerFactory
from smtpserv.testing import ScriptedUpstream, memory_house
from smtpserv.testing.upstream import Plan, Step
from tests.memory_network import Network
from tests.server_tools import codes

#: Where the upstreams are.
FIRST, SECOND, PORT = "192.0.2.25", "192.0.2.26", 25

#: How long the proxy waits for its upstream, each less than its own client is made to wait.
PATIENCE = {"tls": "none"} | {
    f"{each}_timeout": "100" for each in ("greeting", "command", "data", "block", "end")
}

#: Seconds in which everything that waits gives up, and after which a server that failed is tried again.
LONG, AGAIN = 700, 2


class Client(Protocol):
    """A client of the proxy."""

    transport: Any

    def __init__(self, network: Network) -> None:
        self._network = network
        self._heard = b""
        self.is_gone = False

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self._heard += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The proxy closed, or we did."""
        self.is_gone = True

    def send(self, octets: bytes) -> bytes:
        """Say something, and let happen what happens at once; what is heard."""
        self.transport.write(octets)
        self._network.settle()
        heard, self._heard = self._heard, b""
        return heard

    def say(self, octets: bytes, replies: int = 1) -> list[str]:
        """Say something and wait, however long it takes, for that many replies; code and status of each."""
        self.transport.write(octets)
        self._network.wait(LONG, lambda: self.is_gone or len(whole_replies(self._heard)) >= replies)
        return codes(self.send(b""))

    def vanish(self) -> None:
        """Close without a word (RST)."""
        self.transport.abortConnection()
        self._network.settle()


class ProxyCase(SynchronousTestCase):
    """A proxy before a scripted upstream."""

    def setUp(self) -> None:
        """There is no proxy yet."""
        self.network = Network()
        self.journal: list[str] = []

    def script(self, faults: dict[Step, Plan] | None = None, host: str = FIRST, **choices: Any) -> None:
        """Have an upstream."""
        self.upstream = ScriptedUpstream(faults, **choices)
        self.network.listen(host, PORT, self.upstream)

    def proxy(self, host: str = FIRST, policies: Any = (), terms: Any = None, **arguments: str) -> None:
        """Start the proxy, made as ``--processor=proxy:HOST:25:tls=none...`` makes it."""
        self.processor = make_proxy(self.network, host, str(PORT), **_written(PATIENCE | arguments))
        self.house = memory_house(self.processor, self.network, self.journal, policies, terms)
        self.factory = SMTPServerFactory(self.house)

    def client(self, greeted: bool = True, host: str = "127.0.0.1") -> Client:
        """One more client, which has said hello."""
        client = Client(self.network)
        self.network.connect(self.factory, client, host)
        if greeted:
            client.send(b"EHLO client.example\r\n")
        return client

    def assert_works(self, client: Client | None = None) -> None:
        """The next transaction of a client is passed through."""
        client = client or self.client()
        before = len(self.upstream.messages)
        octets = b"MAIL FROM:<next@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n"
        self.assertEqual(client.say(octets, 3), ["250 2.1.0", "250 2.1.5", "354"])
        self.assertEqual(client.say(b"Subject: next\r\n\r\n.\r\n"), ["250 2.0.0"])
        self.assertEqual(len(self.upstream.messages), before + 1)

    def assert_nothing_left(self) -> None:
        """When clients are gone and the proxy stops there is no connection, and nothing is to be called."""
        for end in list(self.network.ends):
            if isinstance(end.protocol, Client):
                end.protocol.vanish()
        self.processor.stopService()
        self.house.journal.flush()
        self.network.settle()
        self.network.wait(2)
        self.assertEqual(self.network.ends, [])
        self.assertEqual(self.upstream.open_connections, 0)
        self.assertEqual([str(call) for call in self.network.getDelayedCalls()], [])


def _written(arguments: dict[str, str]) -> dict[str, str]:
    """Those that say something."""
    return {name: value for name, value in arguments.items() if value}
