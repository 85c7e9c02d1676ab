"""Processors for the server under test, loaded by dotted path into its process.

They stand here as a stranger's would: they use what the package makes public and nothing else.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from smtpserv.interfaces import IMessageProcessor, IMessageSink, IStreamingProcessor
from smtpserv.message import Envelope, Message, Path, Session
from smtpserv.processors.debugging import make_debugging
from smtpserv.reply import OK, Reply, Results

#: What a processor says when it fails; it must never be told to a client.
SECRET = "the password of the database is hunter2"


@implementer(IMessageProcessor)
class Recorder:
    """Writes each message as two files: its exact content, and then its envelope as JSON.

    :param directory: where ``000.eml``, ``000.json``, ``001.eml`` ... are written.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._count = len(os.listdir(directory))

    def process_message(self, message: Message) -> "Deferred[None]":
        """Accepted when it is written."""
        stem = os.path.join(self._directory, f"{self._count:03}")
        self._count += 1
        return deferToThread(_write, stem, message)


@implementer(IMessageProcessor)
class Mixed(Recorder):
    """Accepts for some recipients: not yet for one called ``later``, not at all for one called ``never``."""

    async def process_message(self, message: Message) -> Results:  # type: ignore[override]
        """A reply for each."""
        await super().process_message(message)
        paths = message.envelope.forward_paths
        return Results(tuple(_MIXED.get(path.local_part, OK) for path in paths))


_MIXED = {"later": Reply(451, "Not yet", "4.2.0"), "never": Reply(550, "Not at all", "5.1.1")}


def _write(stem: str, message: Message) -> None:
    with open(f"{stem}.eml", "wb") as file:
        file.writelines(message.content.chunks())
    tls = message.session.tls
    facts = {
        "hello": message.session.hello_name,
        "peer": message.session.peer.host,
        "identity": message.session.identity,
        "forwarded": dict(message.session.forwarded),
        "tls": tls and {**asdict(tls), "channel_binding": tls.channel_binding.hex()},
        "protocol": message.session.protocol,
        "reverse_path": _path(message.envelope.reverse_path),
        "forward_paths": [_path(path) for path in message.envelope.forward_paths],
        "size": message.content.size,
    }
    with open(f"{stem}.part", "w", encoding="utf-8") as file:
        json.dump(facts, file)
    os.rename(f"{stem}.part", f"{stem}.json")


def _path(path: Path) -> list[object]:
    return [path.address, dict(path.parameters)]


@implementer(IStreamingProcessor)
class Hasher:
    """Streams: keeps nothing but a digest, a line for each message.

    :param report: the file the lines go to.
    """

    def __init__(self, report: str) -> None:
        self._report = report

    def begin(self, session: Session, envelope: Envelope) -> "HashingSink":
        """Anything is welcome."""
        return HashingSink(self._report)


@implementer(IMessageSink)
class HashingSink:
    """Digests one message."""

    def __init__(self, report: str) -> None:
        self._report = report
        self._digest = hashlib.sha256()

    def write(self, octets: bytes) -> None:
        """Digest it."""
        self._digest.update(octets)

    def finish(self) -> None:
        """Note the digest."""
        with open(self._report, "a", encoding="ascii") as file:
            file.write(self._digest.hexdigest() + "\n")

    def abort(self) -> None:
        """Nothing to release."""


def probed(report: str, kind: str, argument: str = "") -> object:
    """A processor in a process whose reactor is watched.

    :param report: the file that gets what :class:`Watch` has seen.
    :param kind: ``debugging``, ``recorder`` or ``hasher``.
    """
    from twisted.internet import reactor

    makers: dict[str, Callable[[], Any]] = {
        "debugging": lambda: make_debugging(reactor),  # type: ignore[arg-type]
        "recorder": lambda: Recorder(argument),
        "hasher": lambda: Hasher(argument),
    }
    processor = makers[kind]()
    watch = Watch(reactor, report)
    for decides in ("begin", "process_message"):
        if hasattr(processor, decides):
            setattr(processor, decides, watch.marking(getattr(processor, decides)))
    return processor


class Watch:
    """Measures what CPU each turn of the reactor takes of its thread; a turn is from one wait to the next.

    :param report: the file that gets two lists of seconds when the reactor stops: all turns, and those in
        which a message began (streaming) or ended (collected).
    """

    def __init__(self, reactor: Any, report: str) -> None:
        self._wait = reactor.doIteration
        self._report = report
        self._began: float | None = None
        self._is_marked = False
        self._turns: list[float] = []
        self._marked: list[float] = []
        reactor.doIteration = self._next_turn
        reactor.addSystemEventTrigger("after", "shutdown", self._tell)

    def marking(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, which marks the turn it is made in."""

        def marked(*facts: Any) -> Any:
            self._is_marked = True
            return call(*facts)

        return marked

    def _next_turn(self, timeout: float) -> None:
        now = time.thread_time()
        if self._began is not None:
            self._turns.append(now - self._began)
            if self._is_marked:
                self._marked.append(now - self._began)
        self._began, self._is_marked = now, False
        self._wait(timeout)

    def _tell(self) -> None:
        with open(self._report, "w", encoding="ascii") as file:
            json.dump([self._turns, self._marked], file)


@implementer(IMessageProcessor)
class Raising:
    """Fails.

    :param late: anything: fail later than at once.
    """

    def __init__(self, late: str = "") -> None:
        self._late = late

    def process_message(self, message: Message) -> Any:
        """Raise, or return a Deferred that fails."""
        if self._late:
            return deferToThread(_fail)
        _fail()


def _fail() -> None:
    raise RuntimeError(SECRET)


@implementer(IMessageProcessor)
class Hanging:
    """Never answers."""

    def process_message(self, message: Message) -> "Deferred[None]":
        """Not in this life."""
        return Deferred()


@implementer(IMessageProcessor)
class Slow:
    """Takes its time, then accepts.

    :param seconds: how long.
    :param report: a file that gets a line for each message it has accepted.
    """

    def __init__(self, seconds: str, report: str = os.devnull) -> None:
        self._seconds = float(seconds)
        self._report = report

    def process_message(self, message: Message) -> "Deferred[None]":
        """Accepted after a while."""
        from twisted.internet import reactor

        def accept() -> None:
            with open(self._report, "a", encoding="utf-8") as file:
                file.write(f"{message.envelope.reverse_path.address}\n")
            answer.callback(None)

        answer: Deferred[None] = Deferred()
        timer = reactor.callLater(self._seconds, accept)
        answer.addErrback(lambda failure: timer.cancel() if timer.active() else failure)
        return answer


@implementer(IMessageProcessor)
class Unfinished:  # type: ignore[misc]
    """Says that it is a processor, and lacks the method of one."""


class Undeclared:
    """Has the method of a processor, and does not say that it is one."""

    def process_message(self, message: Message) -> None:
        """Never called."""


@implementer(IMessageProcessor)
class Misshapen:
    """Has the method of a processor, but can't be called as one."""

    def process_message(self) -> None:  # type: ignore[override]
        """Never called."""


@implementer(IMessageProcessor)
class Unmakeable:
    """Can't be made."""

    def __init__(self, directory: str) -> None:
        with open(os.path.join(directory, "state"), encoding="utf-8") as file:
            print(file.read(), file=sys.stderr)

    def process_message(self, message: Message) -> None:
        """Never called."""
