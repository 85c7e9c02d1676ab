"""Clients that vanish, shout or stall, and processors that fail: the next client is served, nothing stays."""

import contextlib
import fcntl
import os
import resource
import signal
import socket
import ssl
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.integration.harness import (
    ONE_LINE,
    Client,
    IntegrationTestCase,
    Server,
    free_port,
    large_message,
    wait_for,
)
from tests.integration.recorder import SECRET

MIB = 1 << 20
#: The state of a listening socket in /proc/net/tcp.
LISTENING = "0A"

RECORDER = "tests.integration.recorder"


class AttackTestCase(IntegrationTestCase):
    """Sees that nothing is left behind."""

    def attacked(self, *options: str, processor: str = "discard") -> Server:
        """A server that has served a client already: what it opens once is open."""
        server = self.server(*options, processor=processor)
        self.assert_served(server)
        self.addCleanup(self.assert_no_traceback, server)
        wait_for("rest", lambda: self.connections(server) == 0)
        self.at_rest = server.descriptors()
        return server

    def connections(self, server: Server) -> int:
        """How many TCP connections it has open."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        connected = {f"socket:[{row[9]}]" for row in rows if row[3] != LISTENING}
        return len(connected.intersection(server.open_files()))

    def assert_no_traceback(self, server: Server) -> None:
        """No error of our own was logged."""
        self.assertEqual("Traceback" in server.stderr, False, server.stderr)

    def assert_recovered(self, server: Server) -> None:
        """The next client is served, and nothing is left behind of those before."""
        self.assert_served(server)
        wait_for(f"{self.at_rest} descriptors", lambda: server.descriptors() == self.at_rest)
        self.assertEqual(server.process.poll(), None)


def sends(octets: bytes) -> Callable[[Client], None]:
    """A step: send that."""
    return lambda client: client.send(octets)


#: How each state is reached.
STATES: dict[str, Sequence[Callable[[Client], object]]] = {
    "connect": [],
    "half a command": [sends(b"EHLO cli")],
    "EHLO": [Client.hello],
    "MAIL": [Client.hello, sends(b"MAIL FROM:<a@example.org>\r\n"), Client.reply],
    "RCPT": [
        Client.hello,
        sends(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"),
        Client.reply,
        Client.reply,
    ],
    "DATA": [Client.hello, Client.begin_message],
    "mail data": [Client.hello, Client.begin_message, sends(b"Subject: x\r\n\r\n.")],
    "spooled mail data": [Client.hello, Client.begin_message, sends(b"x\r\n" * MIB)],
    "final dot": [Client.hello, Client.begin_message, sends(ONE_LINE + b".\r\n")],
    "QUIT": [Client.hello, sends(b"QUIT\r\n")],
}


class VanishingTests(AttackTestCase):
    """Clients that go away."""

    def assert_outlives(self, server: Server, leave: Callable[[Client], None]) -> None:
        """Clients leave at every state, five at each."""
        for steps in STATES.values():
            for _ in range(5):
                client = Client(server.address)
                for step in steps:
                    step(client)
                leave(client)
        self.assert_recovered(server)

    def test_in_good_order(self) -> None:
        """A client may close at any state, also while its message is processed."""
        self.assert_outlives(self.attacked(processor=f"{RECORDER}:Slow:0.3"), Client.close)

    def test_reset(self) -> None:
        """A client may break the connection at any state, also while its message is processed."""
        self.assert_outlives(self.attacked(processor=f"{RECORDER}:Slow:0.3"), Client.vanish)

    def test_finished_all_the_same(self) -> None:
        """Behind the final dot a message is processed, whether its client waits for the reply or not."""
        report = self.directory() / "accepted"
        server = self.attacked(processor=f"{RECORDER}:Slow:0.5:{report}")
        client = Client(server.address)
        client.hello()
        client.begin_message("vanished@example.org")
        client.send(ONE_LINE + b".\r\n")
        client.vanish()
        wait_for("the message", lambda: "vanished@example.org" in report.read_text())
        self.assert_recovered(server)

    def test_before_the_end(self) -> None:
        """A message whose end never came is never processed."""
        report = self.directory() / "accepted"
        server = self.attacked(processor=f"{RECORDER}:Slow:0:{report}")
        for content in (b"", ONE_LINE, ONE_LINE + b".\r", b"x\r\n" * MIB):
            client = Client(server.address)
            client.hello()
            client.begin_message("vanished@example.org")
            client.send(content)
            client.close()
        self.assert_recovered(server)
        self.assertEqual(report.read_text().split(), ["sender@example.org"] * 2)

    def test_server_is_killed(self) -> None:
        """A server that is killed while it spools leaves no temporary file."""
        folder = self.directory()
        server = self.server(processor=f"{RECORDER}:Slow:60", env={"TMPDIR": str(folder)})
        clients = [Client(server.address) for _ in range(3)]
        for client in clients:
            self.addCleanup(client.close)
            client.hello()
            client.begin_message()
            client.send(b"x\r\n" * (3 * MIB))
        clients[0].send(b".\r\n")
        wait_for("a file", lambda: any(str(folder) in file for file in server.open_files()))
        os.kill(server.process.pid, signal.SIGKILL)
        server.wait()
        self.assertEqual(list(folder.iterdir()), [])


class NoiseTests(AttackTestCase):
    """Clients that do not speak SMTP."""

    def test_garbage(self) -> None:
        """Random octets, NULs, and line ends of all kinds get error replies or none, and do no harm."""
        server = self.attacked()
        for octets in (
            os.urandom(MIB),
            bytes(MIB),
            b"\0" * 100 + b"\r\n",
            b"\n" * 5000,
            b"\r" * 5000,
            b"\r\n" * 5000,
        ):
            with Client(server.address) as client:
                answers = b""
                with contextlib.suppress(ConnectionError):  # the server is done with it
                    client.send(octets)
                    with contextlib.suppress(OSError):  # of one that is cut already there is no half to close
                        client.socket.shutdown(socket.SHUT_WR)
                    answers = client.rest()
                self.assertEqual({line[:1] for line in answers.splitlines()} <= {b"4", b"5"}, True, answers)
        self.assert_recovered(server)

    def test_nul_in_a_command(self) -> None:
        """A NUL in a command is a syntax error, and is not passed on."""
        server = self.attacked()
        with Client(server.address) as client:
            client.hello()
            for line in ("NOOP \0", "MAIL FROM:<a\0b@example.org>", "EHLO a\0b", "VRFY \0", "\0"):
                client.expect(line, "50")
            client.expect("NOOP", "250")
        self.assert_recovered(server)

    def test_http(self) -> None:
        """A browser gets errors, and can't smuggle a message in the body of a form."""
        report = self.directory() / "accepted"
        server = self.attacked(processor=f"{RECORDER}:Slow:0:{report}")
        body = b"MAIL FROM:<x@example.org>\r\nRCPT TO:<y@example.net>\r\nDATA\r\n\r\nspam\r\n.\r\nQUIT\r\n"
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        with Client(server.address) as client:
            client.send(head + body)
            client.socket.shutdown(socket.SHUT_WR)
            answers = client.rest().splitlines()
        self.assertEqual([line for line in answers if line[:1] not in b"45" and line[:3] != b"221"], [])
        self.assert_recovered(server)
        self.assertEqual(report.read_text().split(), ["sender@example.org"] * 2)

    def test_tls_hello(self) -> None:
        """A client that begins with TLS on a port without it does no harm."""
        server = self.attacked()
        context = ssl.create_default_context()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        self.assertRaises(ssl.SSLWantReadError, tls.do_handshake)
        with Client(server.address) as client:
            client.send(outgoing.read())
            client.send(b"\r\nNOOP\r\n")
            codes = [client.reply()[:3]]
            while codes[-1] == b"500":
                codes.append(client.reply()[:3])
            self.assertEqual(codes[-1], b"250")
        self.assert_recovered(server)

    def test_endless_line(self) -> None:
        """A command line of 64 MiB takes no memory; at its end it gets 500, the next its own answer."""
        server = self.attacked()
        before = server.memory("VmHWM")
        with Client(server.address) as client:
            for _ in range(64):
                client.send(b"x" * MIB)
            client.send(b"\r\nNOOP\r\n")
            self.assertEqual(client.reply()[:9], b"500 5.5.2")
            self.assertEqual(client.reply()[:3], b"250")
        self.assertLess(server.memory("VmHWM") - before, 8 * MIB)
        self.assert_recovered(server)

    def test_endless_line_of_mail_data(self) -> None:
        """Mail data over the size limit, without a line end, takes no memory; at its end it gets 552."""
        server = self.attacked(processor=f"{RECORDER}:Slow:0")
        before = server.memory("VmHWM")
        with Client(server.address) as client:
            client.hello()
            client.begin_message()
            for _ in range(64):
                client.send(b"x" * MIB)
            client.send(b"\r\n.\r\n")
            self.assertEqual(client.reply()[:9], b"552 5.3.4")
            client.expect("NOOP", "250")
        self.assertLess(server.memory("VmHWM") - before, 16 * MIB)
        self.assert_recovered(server)

    def test_early_talker(self) -> None:
        """A client that does not wait for the greeting is greeted first, and answered in order."""
        server = self.attacked()
        client = Client(server.address, greeted=False)
        client.send(b"EHLO client.example\r\nNOOP\r\nQUIT\r\n")
        answers = client.rest().splitlines()
        client.close()
        self.assertEqual(
            [line[:3] for line in answers if line[3:4] == b" "], [b"220", b"250", b"250", b"221"]
        )
        self.assert_recovered(server)

    def test_too_many_commands(self) -> None:
        """Of 100,000 NOOPs some are answered; then comes 421 and the end."""
        server = self.attacked()
        with Client(server.address) as client:
            with contextlib.suppress(ConnectionError):
                client.send(b"NOOP\r\n" * 100000)
            codes: list[bytes] = []
            while not codes or codes[-1] == b"250":
                codes.append(client.reply()[:3])
        self.assertEqual((len(codes) > 900, codes[-1]), (True, b"421"))
        self.assert_recovered(server)

    def test_too_many_errors(self) -> None:
        """A client that makes nothing but mistakes gets 421 and the end."""
        server = self.attacked()
        with Client(server.address) as client:
            client.send(b"FOO\r\n" * 100)
            answers = client.rest().splitlines()
        self.assertEqual({line[:3] for line in answers[:-1]}, {b"500"})
        self.assertEqual(answers[-1][:9], b"421 4.7.0")
        self.assert_recovered(server)

    def test_client_that_never_reads(self) -> None:
        """A client that reads no reply makes the server neither store replies nor wait for ever."""
        server = self.attacked("--max-commands=1000000", "--idle-timeout=2")
        before = server.memory()
        client = Client(server.address)
        self.addCleanup(client.close)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.socket.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(64):
                client.send(b"HELP\r\n" * (MIB // 6))
        self.assertLess(server.memory() - before, 16 * MIB)
        self.assert_recovered(server)

    def test_many_connections(self) -> None:
        """Five hundred idle connections keep nobody from being served, and are gone when they close."""
        server = self.attacked()
        clients = [Client(server.address) for _ in range(500)]
        self.assert_served(server)
        for client in clients:
            client.close()
        self.assert_recovered(server)

    def test_too_many_connections(self) -> None:
        """One connection over the limit gets 421; it is served when another has closed."""
        server = self.attacked("--max-connections=3")
        clients = [Client(server.address) for _ in range(3)]
        with Client(server.address) as refused:
            self.assertEqual((refused.greeting[:9], refused.rest()), (b"421 4.7.0", b""))
        for client in clients:
            client.close()

        def is_welcome() -> bool:
            with Client(server.address) as client:
                return client.greeting.startswith(b"220")

        wait_for("room", is_welcome)
        self.assert_recovered(server)

    def limited(self, soft: int, hard: int) -> Server:
        """A server that may have so many files open: as it finds it, and as much as it may raise that to."""
        port = free_port()
        options = [f"--listen=tcp:{port}:interface=127.0.0.1", "--processor=discard"]

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        command = [sys.executable, "-m", "smtpserv", *options]
        return self.started(Server(command, ("127.0.0.1", port), self.directory(), preexec_fn=limit))

    def test_few_files(self) -> None:
        """Where the system lets few files be open, one connection too many gets 421 all the same."""
        server = self.limited(100, 100)
        with contextlib.ExitStack() as stack:
            greetings = [stack.enter_context(Client(server.address)).greeting[:9] for _ in range(60)]
        self.assertEqual({greeting[:4] for greeting in greetings}, {b"220 ", b"421 "})
        self.assertEqual(greetings[-1], b"421 4.7.0")
        wait_for("room", lambda: self.connections(server) == 0)
        self.assert_served(server)

    def test_files_that_may_be_more(self) -> None:
        """Where it would let more be open when asked, it is asked."""
        server = self.limited(100, min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        with contextlib.ExitStack() as stack:
            greetings = [stack.enter_context(Client(server.address)).greeting[:4] for _ in range(200)]
        self.assertEqual(set(greetings), {b"220 "})
        self.assert_served(server)

    def test_idle(self) -> None:
        """An idle client gets 421 4.4.2 and the end."""
        server = self.attacked("--idle-timeout=1")
        with Client(server.address) as client:
            self.assertEqual(client.reply()[:9], b"421 4.4.2")
            self.assertEqual(client.rest(), b"")
        self.assert_recovered(server)


class ProcessorTests(AttackTestCase):
    """Processors that fail."""

    def reply_of(self, server: Server) -> bytes:
        """What a client hears after its message, and that it may go on."""
        with Client(server.address) as client:
            client.hello()
            answer = client.send_message(ONE_LINE)
            client.expect("NOOP", "250")
        return answer

    def test_raising(self) -> None:
        """A processor that raises is answered with 451 4.3.0; what it said is in the log and nowhere else."""
        for late in ("", ":late"):
            server = self.server(processor=f"{RECORDER}:Raising{late}")
            for _ in range(3):
                answer = self.reply_of(server)
                self.assertEqual((answer[:9], SECRET.encode() in answer), (b"451 4.3.0", False))
            wait_for("the log", lambda server=server: SECRET in server.stderr)  # type: ignore[misc]

    def test_hanging(self) -> None:
        """A processor that never answers is given up at the deadline, with 451 4.4.5."""
        server = self.server("--processing-deadline=1", processor=f"{RECORDER}:Hanging")
        before = server.descriptors()
        self.assertEqual(self.reply_of(server)[:9], b"451 4.4.5")
        wait_for("rest", lambda: server.descriptors() <= before)

    def test_slow(self) -> None:
        """A slow processor keeps its own client waiting and no other."""
        server = self.attacked(processor=f"{RECORDER}:Slow:3")
        with Client(server.address) as slow, Client(server.address) as other:
            slow.hello()
            slow.begin_message()
            slow.send(ONE_LINE + b".\r\nNOOP\r\n")
            began = time.monotonic()
            other.hello()
            other.expect("NOOP", "250")
            self.assertLess(time.monotonic() - began, 3)
            self.assertEqual([slow.reply()[:9], slow.reply()[:9]], [b"250 2.6.0", b"250 2.0.0"])
        self.assert_recovered(server)

    def test_slow_and_flooded(self) -> None:
        """What a client sends ahead while it waits is not piled up in memory."""
        server = self.attacked(processor=f"{RECORDER}:Slow:1")
        before = server.memory()
        with Client(server.address) as client:
            client.hello()
            client.begin_message()
            client.socket.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                client.send(ONE_LINE + b".\r\n" + b"NOOP\r\n" * (64 * MIB // 6))
            self.assertLess(server.memory() - before, 8 * MIB)
        self.assert_recovered(server)


class StoppingTests(AttackTestCase):
    """SIGTERM: nobody is cut off in the middle of a message."""

    def test_message_is_finished(self) -> None:
        """A message that is being processed gets its 250, and then the client 421."""
        report = self.directory() / "accepted"
        server = self.attacked(processor=f"{RECORDER}:Slow:1:{report}")
        with Client(server.address) as client:
            client.hello()
            client.begin_message("last@example.org")
            client.send(ONE_LINE + b".\r\n")
            wait_for("the server to have it", lambda: self.is_read(client))
            server.terminate()
            self.assertEqual([client.reply()[:9], client.reply()[:9]], [b"250 2.6.0", b"421 4.3.2"])
            self.assertEqual(client.rest(), b"")
        self.assertEqual(report.read_text().split()[-1], "last@example.org")
        server.stop()

    def is_read(self, client: Client) -> bool:
        """Whether the server's kernel has all that the client has sent."""
        return fcntl.ioctl(client.socket, termios.TIOCOUTQ, bytes(4)) == bytes(4)

    def test_transaction_is_finished(self) -> None:
        """A client in the middle of mail data may send the rest of it; new clients are not let in."""
        report = self.directory() / "accepted"
        server = self.attacked(processor=f"{RECORDER}:Slow:0:{report}")
        content = large_message(2 * MIB)
        with Client(server.address) as client:
            client.hello()
            client.begin_message("last@example.org")
            client.send(content[:MIB])
            server.terminate()
            wait_for("closed doors", lambda: self.is_closed(server))
            client.send(content[MIB:] + b".\r\n")
            self.assertEqual([client.reply()[:9], client.reply()[:9]], [b"250 2.6.0", b"421 4.3.2"])
        self.assertEqual(report.read_text().split()[-1], "last@example.org")
        server.stop()

    def is_closed(self, server: Server) -> bool:
        """Whether nobody is let in any more."""
        try:
            with Client(server.address, greeted=False) as client:
                return client.reply()[:3] == b"421"
        except OSError:
            return True

    def test_idle_clients(self) -> None:
        """Idle clients get 421 4.3.2, and the server ends at once."""
        server = self.attacked()
        clients = [Client(server.address) for _ in range(10)]
        for client in clients[:5]:
            client.hello()
        server.terminate()
        for client in clients:
            self.assertEqual((client.reply()[:9], client.rest()), (b"421 4.3.2", b""))
            client.close()
        server.stop()

    def test_stdout_that_stalls(self) -> None:
        """Who reads the messages that are printed may stop reading: the server ends all the same."""
        directory, port = self.directory(), free_port()
        os.mkfifo(directory / "stdout")
        self.addCleanup(os.close, os.open(directory / "stdout", os.O_RDWR))
        options = [f"--listen=tcp:{port}:interface=127.0.0.1", "--processing-deadline=1"]
        server = self.started(Server([*options, "--processor=debugging"], ("127.0.0.1", port), directory))
        with Client(server.address) as client:
            client.hello()
            self.assertEqual(client.send_message(large_message(MIB))[:9], b"451 4.4.5")
        server.stop()

    def test_nobody_there(self) -> None:
        """Without clients it just ends."""
        server = self.attacked()
        server.stop()
