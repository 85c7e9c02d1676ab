"""Mailman 2 takes mail by a program: ``WRAPPER post LIST``, the message on its standard input."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Final

from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpserv import reply
from smtpserv.error import StartError
from smtpserv.escape import escape_controls
from smtpserv.mailman.address import EXTENSIONS, ListAddress, is_mailman2_name
from smtpserv.message import Envelope
from smtpserv.reply import Reply

#: Children at once; each starts a Python.
PARALLEL: Final = 8

#: Seconds that one may take.
DEADLINE: Final = 120.0

#: Octets kept of what one says.
MOST_SAID: Final = 4096

# Exit codes: of the wrapper's source (src/common.h), before it calls a script, and of sysexits.h. Any other
# is taken to blame the message.
_EX_OK: Final = 0
_GROUP: Final = frozenset({2, 8})  # GROUP_MISMATCH, GROUP_NAME_NOT_FOUND
_SET_UP: Final = frozenset({3, 4, 5, 6})  # SETREGID_FAILURE, EXECVE_FAILURE, MAIL_USAGE_ERROR ..._COMMAND
_DEFERRED: Final = frozenset({71, 75})  # EX_OSERR, EX_TEMPFAIL

#: How its complaint begins where it can be heard, should a program around it have changed the code.
_GROUP_MISMATCH: Final = b"Group mismatch"
_GROUP_TRAP: Final = (
    "{path} was built to be called by processes of one group alone (configure's --with-mail-gid), and"
    " smtpserv runs in another: run smtpserv in that group (twistd --gid), or build the wrapper anew."
    " It ended with {status}, and said: {said}"
)

_log = Logger()


class Wrapper:
    """Runs the wrapper for each message and list, so many at once; more wait.

    A child reads from a file, which has the whole message before it begins: the end of a pipe would pass for
    that of the message, were we to end too soon.

    :param path: Mailman 2's ``mail/mailman``.
    :param in_thread: writes those files.
    :param deadline: seconds after which a child is killed.
    :raises StartError: where no program is at the path that may be run.
    """

    def __init__(
        self,
        reactor: Any,
        path: str,
        in_thread: "Callable[..., Deferred[Any]]",
        parallel: int = PARALLEL,
        deadline: float = DEADLINE,
    ) -> None:
        if not (os.path.isfile(path) and os.access(path, os.X_OK)):
            raise StartError(f"{path} is no program that may be run")
        self._reactor: Final = reactor
        self._path: Final = os.path.abspath(path)
        self._in_thread: Final = in_thread
        self._deadline: Final = deadline
        self._turns: Final = DeferredSemaphore(parallel)

    async def deliver(self, address: ListAddress, octets: Iterable[bytes]) -> Reply | None:
        """Give the list a message; cancelled, the child is killed.

        :param octets: the message in pieces; its lines may end in CRLF.
        :return: None when Mailman has it, else what the client hears.
        :raises ValueError: for what Mailman 2 calls no list and no extension so.
        """
        arguments = _arguments(address)
        await self._turns.acquire()
        child = _Child(self._turns.release)
        try:
            with await self._in_thread(_written, octets) as file:
                self._spawn(child, arguments, file.fileno())
        except BaseException:
            self._turns.release()
            raise
        try:
            status = await child.ended.addTimeout(self._deadline, self._reactor)
        except TimeoutError:
            _log.error("{path}: killed after {seconds} s", path=self._path, seconds=self._deadline)
            return reply.PROCESSING_TOO_LONG
        return self._judge(status, bytes(child.said))

    def _spawn(self, child: "_Child", arguments: Iterable[str], file: int) -> None:
        self._reactor.spawnProcess(
            child,
            self._path,
            [self._path, *arguments],
            _ENVIRONMENT,
            "/",
            childFDs={0: file, 1: "r", 2: "r"},
        )

    def _judge(self, status: int | None, said: bytes) -> Reply | None:
        """What an exit code means.

        :param status: None when a signal ended it.
        """
        if status == _EX_OK:
            return None
        group = status in _GROUP or _GROUP_MISMATCH in said
        told = _GROUP_TRAP if group else "{path} ended with {status}, and said: {said}"
        _log.error(told, path=self._path, status=status, said=_readable(said))
        if group or status in _SET_UP:
            return reply.LISTS_MISCONFIGURED
        return reply.LISTS_DEFERRED if status is None or status in _DEFERRED else reply.LISTS_REFUSED


#: A wrapper that is setgid makes its own; this one holds nothing of ours.
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def _arguments(address: ListAddress) -> tuple[str, str]:
    """The wrapper's command line.

    :raises ValueError: for what must not stand in it.
    """
    extension = address.subaddress or "post"
    if not is_mailman2_name(address.list_name) or extension not in EXTENSIONS | {"post"}:
        raise ValueError(f"no list of Mailman 2: {address}")
    return extension, address.list_name


def _readable(said: bytes) -> str:
    return escape_controls(" ".join(said.decode("utf-8", "replace").split()))


class _Child(ProcessProtocol):
    """One run of the wrapper.

    :param gone: called when nothing of it is left.
    """

    transport: Any

    def __init__(self, gone: Callable[[], object]) -> None:
        self._gone: Final = gone
        #: The exit code, None for one that a signal ended. Cancelling it kills.
        self.ended: Final[Deferred[int | None]] = Deferred(lambda _: self._kill())
        #: The beginning of what it said, on both of its outputs.
        self.said: Final = bytearray()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It said something; what is more than enough is dropped."""
        self.said.extend(data[: MOST_SAID - len(self.said)])

    def processEnded(self, reason: Failure) -> None:
        """It has ended, and its pipes are closed."""
        self._gone()
        error = reason.value
        code = error.exitCode if isinstance(error, ProcessTerminated) else _EX_OK
        if not self.ended.called:
            self.ended.callback(code)

    def _kill(self) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
        self.transport.loseConnection()


def _written(octets: Iterable[bytes]) -> BinaryIO:
    """A file without a name that has the message, as programs are given it, to be read from its begin."""
    file: BinaryIO = TemporaryFile()
    try:
        file.writelines(unix_lines(octets))
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def unix_lines(octets: Iterable[bytes]) -> Iterator[bytes]:
    """The same with lines that end in LF, as programs are given mail; no piece is empty.

    A CRLF may be parted by the pieces.
    """
    held = b""
    for piece in octets:
        piece = held + piece
        held = b"\r" if piece.endswith(b"\r") else b""
        if text := piece[: len(piece) - len(held)].replace(b"\r\n", b"\n"):
            yield text
    if held:
        yield held


def delivery_fields(envelope: Envelope, mailbox: str) -> bytes:
    """What stands above a message at final delivery (RFC 5321 section 4.4), as local delivery has it.

    Mailman 2 finds whose mail bounced in the second: its wrapper is not told the address.
    """
    return f"Return-Path: {envelope.reverse_path}\r\nDelivered-To: {mailbox}\r\n".encode()
