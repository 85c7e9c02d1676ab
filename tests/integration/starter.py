"""Starts ``smtpserv`` many times over, each in a process of its own that has imported everything already.

A start takes a second, nearly all of it for imports. Here one process has done them, and forks a server
whenever a test wants one. (What a start proves by itself, :mod:`tests.integration.test_start` looks at.)
"""

import array
import atexit
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, NoReturn

_NUMBER = struct.Struct("i")


class Started:
    """A server that was started so; it is used as a :class:`subprocess.Popen`.

    :param options: the command line, without the command.
    :param env: all of its environment.
    """

    def __init__(
        self, options: Sequence[str], cwd: Path, env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]
    ) -> None:
        self.returncode: int | None = None
        self._report, report = os.pipe()
        order = [options, str(cwd), dict(env), resource.getrlimit(resource.RLIMIT_NOFILE)]
        files = array.array("i", [stdout.fileno(), stderr.fileno(), report])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)]
        _starter().sendmsg([json.dumps(order).encode()], ancillary)
        os.close(report)
        self.pid = self._reported()

    def _reported(self) -> int:
        return int(_NUMBER.unpack(os.read(self._report, _NUMBER.size))[0])

    def poll(self) -> int | None:
        """How it has ended, None while it runs."""
        return self._ended(0)

    def _ended(self, patience: float) -> int | None:
        if self.returncode is None and select.select([self._report], [], [], patience)[0]:
            self.returncode = self._reported()
            os.close(self._report)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """How it has ended, when it has.

        :raises subprocess.TimeoutExpired: after so many seconds.
        """
        code = self._ended(3600.0 if timeout is None else timeout)
        if code is None:
            raise subprocess.TimeoutExpired("smtpserv", timeout or 3600.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


@cache
def _starter() -> socket.socket:
    """The way to the process that starts; it ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    root = Path(__file__).resolve().parents[2]
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def main() -> None:
    """Start servers as ordered on stdin, a socket, until it is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who attend
    orders = socket.socket(fileno=0)
    while True:
        order, files, _, _ = socket.recv_fds(orders, 1 << 20, 3)
        if not order:
            return
        if not os.fork():
            attend(json.loads(order), *files)
        for file in files:
            os.close(file)


def attend(order: list[object], stdout: int, stderr: int, report: int) -> NoReturn:
    """In a child: start a server, and report its number and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if not child:
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
            os.dup2(source, target)
        os.closerange(3, max(stdout, stderr, report) + 2)
        os._exit(serve(*order))  # type: ignore[arg-type]
    os.write(report, _NUMBER.pack(child))
    os.write(report, _NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    os._exit(0)


def serve(options: list[str], cwd: str, env: dict[str, str], files: tuple[int, int]) -> int:
    """In the server: what the interpreter would do with the command; the exit code."""
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # an import may have asked for it, of another environment
    os.chdir(cwd)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)
    sys.path[:1] = [cwd, *env["PYTHONPATH"].split(os.pathsep)]
    sys.argv[1:] = options
    from smtpserv.__main__ import main as smtpserv

    try:
        smtpserv()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    import smtpserv.__main__
    import smtpserv.tap  # noqa: F401  (twistd would import it by name, once for each start)
    import tests.integration.recorder  # noqa: F401

    main()
