"""Shows each message on stdout, then drops it: ``smtpd.DebuggingServer``'s form, or one for programs."""

import json
import sys
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from smtpserv.error import StartError
from smtpserv.escape import escape_controls
from smtpserv.interfaces import IMessageProcessor
from smtpserv.message import Message, Path

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorThreads


@implementer(IMessageProcessor)
class DebuggingProcessor:
    """Prints messages, one at a time and off the reactor's thread: a pager may make it wait.

    :param show: makes the text of a message, piece by piece.
    :param in_thread: runs a function that may block.
    :param output: where it is printed, in UTF-8.
    """

    def __init__(
        self,
        show: Callable[[Message], Iterator[str]],
        in_thread: "Callable[..., Deferred[Any]]",
        output: BinaryIO,
    ) -> None:
        self._show: Final = show
        self._in_thread: Final = in_thread
        self._output: Final = output
        self._turn: Final = DeferredLock()

    def process_message(self, message: Message) -> "Deferred[None]":
        """Print it, after those that came before; accepted when it is printed."""
        # A Deferred of its own: giving it up must not end the turn while the thread still prints.
        printed: Deferred[None] = Deferred()

        def take_turn() -> Any:
            return None if printed.called else self._in_thread(self._print, message)

        self._turn.run(take_turn).chainDeferred(printed)
        return printed

    def _print(self, message: Message) -> None:
        for piece in self._show(message):
            self._output.write(piece.encode("utf-8"))
        self._output.flush()


def show_text(message: Message) -> Iterator[str]:
    """``smtpd``'s own form; what could drive a terminal is written as an escape.

    As in ``smtpd`` the header's end brings X-Peer, and a blank line at the very end is not shown.
    """
    yield "---------- MESSAGE FOLLOWS ----------\n"
    decode = getincrementaldecoder("utf-8")("replace").decode
    header_end = f"X-Peer: {escape_controls(message.session.peer.host)}\n\n"
    held, at_start = "", True
    for octets in _pieces(message):
        yield held
        held, ended = "", octets.endswith(b"\n")
        line = decode(octets, ended)
        if at_start and line in ("\r\n", "\n"):
            held, header_end = header_end, "\n"
        else:
            yield escape_controls(line.removesuffix("\n").removesuffix("\r") + "\n" if ended else line)
        at_start = ended
    yield "" if at_start else "\n"
    yield "------------ END MESSAGE ------------\n"


def _pieces(message: Message) -> Iterator[bytes]:
    """The lines with their ends, very long ones in pieces that do not part a CRLF."""
    with message.content.open() as file:
        while octets := file.readline(_LONGEST):
            yield octets + file.readline(1) if octets.endswith(b"\r") else octets


#: Octets of a line that are read at a time.
_LONGEST: Final = 1 << 16


def show_json(message: Message) -> Iterator[str]:
    """One object a line: envelope, parameters, session facts, header fields, sizes."""
    session, envelope = message.session, message.envelope
    tls = session.tls
    shown = {
        "id": message.id,
        "session": {
            "id": session.id,
            "peer": {"host": session.peer.host, "port": session.peer.port},
            "hello": session.hello_name,
            "protocol": session.protocol,
            "tls": {"version": tls.version, "cipher": tls.cipher} if tls else None,
            "identity": session.identity,
        },
        "envelope": {
            "reverse_path": _path(envelope.reverse_path),
            "forward_paths": [_path(path) for path in envelope.forward_paths],
            "size": envelope.size,
            "body": envelope.body,
            "smtputf8": envelope.smtputf8,
        },
        "headers": message.content.headers,
        "size": message.content.size,
    }
    yield json.dumps(shown) + "\n"


def _path(path: Path) -> dict[str, object]:
    return {"address": path.address, "parameters": dict(path.parameters)}


class _Printers(ThreadPool):
    """Threads that nobody waits for when the server stops: who reads what they print may never read on."""

    threadFactory = staticmethod(partial(Thread, daemon=True))  # type: ignore[assignment]


_FORMS: Final = {"text": show_text, "json": show_json}


def make_debugging(reactor: "IReactorThreads", format: str = "text") -> DebuggingProcessor:
    """Make it from its argument.

    :raises StartError: for a format that is neither ``text`` nor ``json``, and when stdout is closed.
    """
    if format not in _FORMS:
        raise StartError(f"format={format!r} is neither text nor json")
    printers = _Printers(0, 1, "printing")
    printers.start()
    in_thread = partial(deferToThreadPool, reactor, printers)
    # sys.stdout may have become a part of Twisted's log, with a stamp before each line.
    stdout = sys.__stdout__ or sys.stdout
    if stdout is None:
        raise StartError("stdout is closed")
    return DebuggingProcessor(_FORMS[format], in_thread, stdout.buffer)
