"""A real server in a process of its own, and a client of plain sockets, for the tests in this folder."""

import base64
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.starter import Started

ROOT = Path(__file__).resolve().parents[2]

#: Seconds that anything may take before a test gives up.
PATIENCE = 90.0

#: A host and port, or the path of a Unix socket.
Address = tuple[str, int] | str

T = TypeVar("T")
S = TypeVar("S", bound="Server")


def wait_for(what: str, check: Callable[[], T], patience: float = PATIENCE) -> T:
    """Ask again and again until the answer is true.

    :param what: what is waited for, for the failure.
    """
    deadline = time.monotonic() + patience
    while True:
        if answer := check():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:.0f} s in vain for {what}; last: {answer!r}")
        time.sleep(0.02)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def require(program: str, package: str = "") -> str:
    """The path of a program; without it the test is skipped.

    :param package: of Debian, that has it; the program's own name if nothing is said.
    """
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise SkipTest(f"{program} is not installed; Debian's package {package or program} has it")
    return path


def script(name: str) -> str:
    """A command that is installed beside this Python."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise SkipTest(f"{name} is not installed beside {sys.executable}")
    return str(path)


def environment(**more: str) -> dict[str, str]:
    """The environment of a server: this checkout comes first, and no settings of whoever runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT)} | more


#: Exit codes after SIGTERM; twistd ends itself by the signal that stopped its reactor.
STOPPED = (0, -signal.SIGTERM)


class Server:
    """A server process under test.

    :param command: the whole command line; options alone are those of a server that is started quickly.
    :param address: where it is reached.
    :param directory: gets the files ``stdout`` and ``stderr``.
    """

    def __init__(
        self,
        command: Sequence[str],
        address: Address,
        directory: Path,
        env: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> None:
        self.command = command
        self.address = address
        self.directory = directory
        with open(directory / "stdout", "wb") as out, open(directory / "stderr", "wb") as err:
            more: dict[str, Any] = {
                "cwd": directory,
                "env": environment(**(env or {})),
                "stdout": out,
                "stderr": err,
            }
            self.process: subprocess.Popen[bytes] | Started
            if command[0].startswith("-"):
                self.process = Started(command, **more)
            else:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **more, **popen)

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.address[1])

    @property
    def stdout(self) -> bytes:
        """What it has printed so far."""
        return (self.directory / "stdout").read_bytes()

    @property
    def stderr(self) -> str:
        """What it has logged so far."""
        return (self.directory / "stderr").read_text("utf-8", "replace")

    def wait_until_ready(self) -> None:
        """Until it greets."""

        def greets() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.stderr}")
            try:
                with Client(self.address) as client:
                    client.command("QUIT")
            except OSError:
                return False
            return True

        wait_for("a greeting", greets)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code, when it has ended."""
        return self.process.wait(patience)

    def stop(self) -> int:
        """Ask it to stop; its exit code, which must be that of a good end."""
        self.terminate()
        code = self.wait()
        if code not in STOPPED:
            raise AssertionError(f"the server ended with {code}: {self.stderr}")
        return code

    def kill(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def open_files(self) -> list[str]:
        """What it has open, as the system calls it: paths, ``socket:[123]`` ..."""
        found = []
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.append(os.readlink(descriptor))
        return found

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(self.open_files())

    def memory(self, figure: str = "VmRSS") -> int:
        """Resident octets: ``VmRSS`` now, ``VmHWM`` at their highest."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{figure}:")[2].split()[0]) * 1024


@dataclass(frozen=True)
class Recorded:
    """One message as the recording processor saw it."""

    content: bytes
    facts: dict[str, Any]

    @property
    def sender(self) -> str:
        """The reverse-path."""
        return str(self.facts["reverse_path"][0])

    @property
    def recipients(self) -> list[str]:
        """The forward-paths."""
        return [address for address, _ in self.facts["forward_paths"]]

    @property
    def parameters(self) -> dict[str, str | None]:
        """The parameters of MAIL."""
        return dict(self.facts["reverse_path"][1])


class RecordingServer(Server):
    """A server with the recording processor."""

    def again(self) -> "RecordingServer":
        """Start it once more, where it was."""
        return RecordingServer(self.command, self.address, self.directory)

    def messages(self) -> list[Recorded]:
        """All messages it has accepted, in the order they came."""
        return [
            Recorded(file.with_suffix(".eml").read_bytes(), json.loads(file.read_text("utf-8")))
            for file in sorted((self.directory / "messages").glob("*.json"))
        ]

    def message(self) -> Recorded:
        """The one message it has accepted; forgets it."""
        (message,) = self.messages()
        self.forget()
        return message

    def forget(self) -> None:
        """Forget the messages that came."""
        for file in (self.directory / "messages").iterdir():
            file.unlink()


class IntegrationTestCase(SynchronousTestCase):
    """Starts servers, and sees that nothing of them stays."""

    def directory(self) -> Path:
        """A new folder, gone after the test."""
        path = Path(tempfile.mkdtemp(prefix="smtpserv-"))
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path

    def server(self, *options: str, processor: str = "discard", **more: Any) -> Server:
        """A server on a free loopback port, ready."""
        return self._started(Server, self.directory(), processor, options, more)

    def recording_server(self, *options: str, kind: str = "Recorder", **more: Any) -> RecordingServer:
        """A server that records what it receives, ready."""
        directory = self.directory()
        (directory / "messages").mkdir()
        processor = f"tests.integration.recorder:{kind}:{directory / 'messages'}"
        return self._started(RecordingServer, directory, processor, options, more)

    def _started(
        self, kind: type[S], directory: Path, processor: str, options: Sequence[str], more: dict[str, Any]
    ) -> S:
        port = free_port()
        listen = f"--listen=tcp:{port}:interface=127.0.0.1"
        command = [listen, f"--processor={processor}", *options]
        return self.started(kind(command, ("127.0.0.1", port), directory, **more))

    def started(self, server: S) -> S:
        """A server that was made here, when it is ready; ended with the test."""
        self.addCleanup(server.kill)
        server.wait_until_ready()
        return server

    def assert_served(self, server: Server) -> None:
        """The next client is served."""
        with Client(server.address) as client:
            client.hello()
            self.assertEqual(client.send_message(b"Subject: next\r\n\r\nHello\r\n")[:3], b"250")


class Client:
    """A client that sends exactly what it is told to."""

    def __init__(self, address: Address, greeted: bool = True) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
        else:
            self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(address)
            self._replies = self.socket.makefile("rb")
            self.greeting = self.reply() if greeted else b""
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it in good order (FIN)."""
        self._replies.close()
        self.socket.close()

    def vanish(self) -> None:
        """Close it without any order (RST)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, octets: bytes) -> None:
        """Send it all."""
        self.socket.sendall(octets)

    def reply(self) -> bytes:
        """The next reply, all its lines; empty when the server has closed."""
        lines = [self._replies.readline()]
        while lines[-1][3:4] == b"-":
            lines.append(self._replies.readline())
        return b"".join(lines)

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        return self._replies.read()

    def command(self, line: str) -> bytes:
        """Send a command; its reply."""
        self.send(line.encode("utf-8") + b"\r\n")
        return self.reply()

    def expect(self, line: str, code: str) -> bytes:
        """Send a command that must be answered with a code."""
        answer = self.command(line)
        if not answer.startswith(code.encode("ascii")):
            raise AssertionError(f"{line!r} was answered with {answer!r}")
        return answer

    def hello(self) -> None:
        """Say EHLO."""
        self.expect("EHLO client.example", "250")

    def begin_message(
        self, sender: str = "sender@example.org", recipients: Sequence[str] = ("recipient@example.net",)
    ) -> None:
        """MAIL, RCPT and DATA: mail data is awaited."""
        self.expect(f"MAIL FROM:<{sender}>", "250")
        for recipient in recipients:
            self.expect(f"RCPT TO:<{recipient}>", "250")
        self.expect("DATA", "354")

    def send_message(self, content: bytes, sender: str = "sender@example.org") -> bytes:
        """A whole transaction, dots stuffed; the reply after the final dot.

        :param content: empty, or ending in CRLF.
        """
        self.begin_message(sender)
        self.send((b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
        return self.reply()


HEADER = (
    b"From: Sender <sender@example.org>\r\n"
    b"To: recipient@example.net\r\n"
    b"Date: Sun, 22 Nov 2026 16:00:00 +0000\r\n"
    b"Message-ID: <1@example.org>\r\n"
    b"Subject: a test\r\n"
    b"\r\n"
)

ONE_LINE = HEADER + b"Hello\r\n"

DOTS = HEADER + (
    b".\r\n..\r\n...\r\n.leading\r\n..leading twice\r\n\r\n.\r\n.\r\n\r\ninner . dot\r\ntrailing.\r\n"
    b" .\r\n\t.\r\n.\t\r\n. \r\n" + b"." * 900 + b"\r\n" + b"x" * 800 + b".\r\n" + b".\r\n" * 40000
)

EIGHT_BIT = (
    HEADER.replace(b"\r\n\r\n", b"\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n")
    + b"Content-Transfer-Encoding: 8bit\r\n\r\n"
    + "Grüße aus Köln, 你好, שלום, 🙂\r\n".encode()
    + bytes(octet for octet in range(128, 256))
    + b"\r\n"
)

LONG_LINES = HEADER + b"a" * 5000 + b"\r\n" + b"." + b"b" * 70000 + b"\r\n." + b"c" * 300000 + b"\r\n"


def large_message(size: int = 20 << 20, seed: int = 1) -> bytes:
    """A message of about as many octets, with two attachments in base64."""
    octets = random.Random(seed).randbytes(size * 57 // 78 // 2)
    attachment = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    head = b"--=_x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
    parts = [
        HEADER.replace(
            b"\r\n\r\n", b'\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="=_x"\r\n\r\n'
        ),
        b"--=_x\r\nContent-Type: text/plain\r\n\r\nTwo files.\r\n",
    ]
    for name in (b"one.bin", b"two.bin"):
        parts += [head, b'Content-Disposition: attachment; filename="%s"\r\n\r\n' % name, attachment]
    return b"".join([*parts, b"--=_x--\r\n"])
