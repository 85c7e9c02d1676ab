"""Ten thousand clients that say nothing, and a thousand that say it slowly, keep nobody from sending."""

import contextlib
import resource
import selectors
import socket
import time
from collections.abc import Iterator

from twisted.python.log import msg

from tests.integration.harness import ONE_LINE, PATIENCE, Client, IntegrationTestCase, Server

#: Clients that are connected and idle; fewer where the system allows no such number of open files.
IDLE = 10_000

SLOW = 1_000

#: Clients that connect at once. Of more than a listener's backlog (50) the system lets some wait a second.
BATCH = 40

#: Messages of the honest client, by which it is measured.
MESSAGES = 1000

#: How often it is measured.
TRIES = 5

#: Octets that an idle connection may cost: a bound for what is wrong by far, not the figure to reach.
ROOM = 64 << 10

#: Seconds that a message may take among idle connections, a bound of the same kind: it takes about one ms.
SOON = 0.05

#: Seconds after which slow clients are shown out.
DEADLINE = 4


def raise_limit(wanted: int) -> int:
    """How many files may be open, when as many are asked for as are wanted and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


@contextlib.contextmanager
def connected(server: Server, count: int) -> Iterator[list[socket.socket]]:
    """That many clients, greeted, and their EHLO answered."""
    clients: list[socket.socket] = []
    try:
        while len(clients) < count:
            room = min(BATCH, count - len(clients))
            batch = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(room)]
            clients += batch
            for said, answer in ((b"", b"220 "), (b"EHLO client.example\r\n", b"250-")):
                for client in batch:
                    client.sendall(said)
                for client in batch:
                    if client.recv(4096)[:4] != answer:
                        raise AssertionError(f"one of {len(clients)} clients is not answered")
        yield clients
    finally:
        for client in clients:
            client.close()


def p99_of(server: Server) -> float:
    """Seconds that 99 of 100 messages of one client take at most, each a whole transaction."""
    with Client(server.address) as client:
        client.hello()
        taken = []
        for _ in range(MESSAGES):
            began = time.perf_counter()
            if client.send_message(ONE_LINE)[:3] != b"250":
                raise AssertionError("a message is refused")
            taken.append(time.perf_counter() - began)
    return sorted(taken)[MESSAGES * 99 // 100 - 1]


class CrowdTests(IntegrationTestCase):
    """An honest client among many others."""

    def test_idle(self) -> None:
        """With ten thousand connections open one client goes on to send; what they cost is in the log.

        Of several tries the best is taken: what another program takes of the machine is nobody's fault here.
        """
        count = min(IDLE, raise_limit(IDLE + 1000) - 500)
        server = self.server("--log=/dev/null")
        p99_of(server)
        alone = min(p99_of(server) for _ in range(TRIES))
        memory = server.memory()
        with connected(server, count):
            each = (server.memory() - memory) / count
            crowded = min(p99_of(server) for _ in range(TRIES))
            self.assertGreater(server.descriptors(), count)
        msg(
            f"{count} idle connections of {each / 1024:.1f} KiB;"
            f" p99 of one client {1000 * alone:.2f} ms alone, {1000 * crowded:.2f} ms among them"
        )
        self.assertLess(crowded, SOON)
        self.assertLess(each, ROOM)
        self.assert_served(server)

    def test_slow(self) -> None:
        """A thousand clients that say an octet now and then are shown out, and an honest one goes on."""
        raise_limit(SLOW + 1000)
        server = self.server("--log=/dev/null", f"--session-deadline={DEADLINE}", "--max-connections=1100")
        with connected(server, SLOW) as clients, selectors.DefaultSelector() as closing:
            for client in clients:
                closing.register(client, selectors.EVENT_READ)
            sent = 0
            deadline = time.monotonic() + PATIENCE
            while closing.get_map():
                self.assertLess(time.monotonic(), deadline, f"{len(closing.get_map())} are still there")
                self.drip(clients)
                self.assert_served(server)
                sent += 1
                for key, _ in closing.select(0.1):
                    closing.unregister(key.fileobj)
        self.assertGreater(sent, 1)
        self.assert_served(server)

    def drip(self, clients: list[socket.socket]) -> None:
        """Each says another octet of a command that never ends."""
        for client in clients:
            with contextlib.suppress(ConnectionError):
                client.send(b"N")
