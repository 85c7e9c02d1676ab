"""Collects content while it arrives: in memory, then in a temporary file that has no name.

So ``process_message`` is a streaming processor like any other: its sink collects.
"""

import os
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from smtpserv.awaiting import as_deferred
from smtpserv.interfaces import IMessageProcessor, IMessageSink, IStreamingProcessor, Outcome
from smtpserv.message import Content, Envelope, Message, Session
from smtpserv.reply import Reply, Results

#: Runs a function that may block, off the reactor's thread.
InThread = Callable[..., "Deferred[Any]"]

#: Octets that go to the file at once: each turn of the thread costs 0.2 ms.
BLOCK: Final = 1 << 19


@implementer(IStreamingProcessor)
class CollectingProcessor:
    """Gives a processor of whole messages the form of a streaming one.

    :param in_thread: runs the writing of files.
    :param memory_limit: octets of a message held in memory.
    """

    def __init__(self, processor: IMessageProcessor, in_thread: InThread, memory_limit: int) -> None:
        self._process_message: Final = processor.process_message
        self._in_thread: Final = in_thread
        self._memory_limit: Final = memory_limit

    def begin(self, session: Session, envelope: Envelope) -> "CollectingSink":
        """Start collecting."""

        def complete(content: Content) -> Outcome:
            return self._process_message(Message(session, envelope, content))

        return CollectingSink(complete, self._in_thread, self._memory_limit)


@implementer(IMessageSink)
class CollectingSink:
    """Collects one message, and hands it on complete."""

    __slots__ = ("_complete", "_in_thread", "_room", "_held", "_size", "_file")

    def __init__(
        self, complete: Callable[[Content], Outcome], in_thread: InThread, memory_limit: int
    ) -> None:
        self._complete = complete
        self._in_thread = in_thread
        self._room = memory_limit
        self._held = bytearray()
        self._size = 0
        self._file: UnnamedFile | None = None

    def write(self, octets: bytes) -> "Deferred[Any] | None":
        """Keep the octets; a Deferred while a block of them goes to the file."""
        self._held += octets
        self._size += len(octets)
        return self._spill().addCallback(_done) if len(self._held) > self._room else None

    def finish(self) -> Outcome:
        """Give the whole message to the processor."""
        return self._complete(Content(bytes(self._held))) if self._file is None else self._finish_file()

    async def _finish_file(self) -> Reply | Results | None:
        outcome = self._complete(Content(await self._spill(), self._size))
        return await as_deferred(outcome) if isinstance(outcome, Awaitable) else outcome

    def abort(self) -> None:
        """Forget everything; a block under way holds on to the file until it is written."""
        self._held = bytearray()
        self._file = None

    def _spill(self) -> "Deferred[Any]":
        held, self._held = self._held, bytearray()
        self._room = BLOCK
        return self._in_thread(_append, self._file, held).addCallback(self._keep)

    def _keep(self, file: "UnnamedFile") -> "UnnamedFile":
        self._file = file
        return file


def _done(_: "UnnamedFile") -> None:
    """The block is in the file; there is nothing to say of it."""


class UnnamedFile:
    """A temporary file without a name: gone when nobody refers to it, whatever ends the process."""

    __slots__ = ("_descriptor",)

    def __init__(self) -> None:
        self._descriptor = -1
        with tempfile.TemporaryFile(buffering=0) as file:
            self._descriptor = os.dup(file.fileno())

    def fileno(self) -> int:
        """The descriptor, for as long as this object lives."""
        return self._descriptor

    def append(self, octets: bytearray) -> None:
        """Write all of it behind what is there."""
        rest = memoryview(octets)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _append(file: UnnamedFile | None, octets: bytearray) -> UnnamedFile:
    """In the thread: write behind what the file holds; the first time, make it."""
    if file is None:
        file = UnnamedFile()
    file.append(octets)
    return file
