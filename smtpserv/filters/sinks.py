"""What stands between the engine and a processor's sink: what holds back a header or a whole message, what
drops, and what tells the outcome in other terms."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from zope.interface import implementer

from smtpserv import reply
from smtpserv.collecting import CollectingSink
from smtpserv.error import SMTPError
from smtpserv.filters.chain import answered, put
from smtpserv.header import MAX_HEADER
from smtpserv.interfaces import IMessageSink, Outcome
from smtpserv.message import Content
from smtpserv.server.reception import release

#: The empty line behind a header, and the one of a content that has none; as in :mod:`smtpserv.header`.
_END: Final = re.compile(rb"\n\r?\n")
_AT_ONCE: Final = re.compile(rb"\r?\n")

#: Takes a header with its empty line, and gives the sink of the message with what is written to it first.
Start = Callable[[Content], Awaitable[tuple[IMessageSink, bytes]]]


@implementer(IMessageSink)
class HeaderSink:
    """Holds the content until its header is complete, and lets the rest go past.

    :param start: called once, with the header, before there is a sink to write to.
    :param give_up: called when there will be no message, maybe more than once, and maybe after ``start``.
    """

    __slots__ = ("_start", "_give_up", "_held", "_looked", "_sink")

    def __init__(self, start: Start, give_up: Callable[[], None]) -> None:
        self._start = start
        self._give_up = give_up
        self._held = bytearray()
        #: Octets of it in which no empty line begins.
        self._looked = 0
        self._sink: IMessageSink | None = None

    def write(self, octets: bytes) -> Awaitable[None] | None:
        """Hold it, or let it go past.

        :raises smtpserv.error.SMTPError: for a header that has no end in sight.
        """
        if self._sink is not None:
            return self._sink.write(octets)
        self._held += octets
        found = _AT_ONCE.match(self._held) or _END.search(self._held, self._looked)
        end = found.end() if found else len(self._held)
        if end > MAX_HEADER:
            raise SMTPError(reply.HEADER_TOO_LONG)
        self._looked = max(0, end - 2)
        return self._pass(end) if found else None

    def finish(self) -> Outcome:
        """The end; what has come without an empty line is a header all the same."""
        return self._finish() if self._sink is None else self._sink.finish()

    async def _finish(self) -> Any:
        sink = await self._begin(len(self._held))
        return await answered(sink.finish())

    def abort(self) -> None:
        """Forget what is held, and release what is begun."""
        self._held = bytearray()
        sink, self._sink = self._sink, None
        self._give_up()
        release(sink)

    async def _pass(self, end: int) -> None:
        await self._begin(end)

    async def _begin(self, end: int) -> IMessageSink:
        held, self._held = bytes(self._held), bytearray()
        try:
            sink, head = await self._start(Content(held[:end]))
            self._sink = sink
            if octets := head + held[end:]:
                await put(sink, octets)
        except BaseException:
            self.abort()
            raise
        return sink


@implementer(IMessageSink)
class WholeSink:
    """Collects a message for filters that look at all of it.

    :param give_up: called at the end, whichever it was.
    """

    __slots__ = ("_collecting", "_give_up")

    def __init__(self, collecting: CollectingSink, give_up: Callable[[], None]) -> None:
        self._collecting = collecting
        self._give_up = give_up

    def write(self, octets: bytes) -> Awaitable[None] | None:
        """Collect it."""
        return self._collecting.write(octets)

    async def finish(self) -> Any:
        """Hand it on."""
        try:
            return await answered(self._collecting.finish())
        finally:
            self._give_up()

    def abort(self) -> None:
        """Forget it."""
        self._collecting.abort()
        self._give_up()


@implementer(IMessageSink)
class DroppingSink:
    """Takes what goes no further, and has the answer ready."""

    __slots__ = ("_outcome",)

    def __init__(self, outcome: Outcome = None) -> None:
        self._outcome = outcome

    def write(self, octets: bytes) -> None:
        """Drop it."""

    def finish(self) -> Outcome:
        """What was decided before."""
        return self._outcome

    def abort(self) -> None:
        """There is nothing to release."""


@implementer(IMessageSink)
class ToldSink:
    """Another sink, whose outcome is told otherwise."""

    __slots__ = ("_sink", "_tell")

    def __init__(self, sink: IMessageSink, tell: Callable[[Any], Outcome]) -> None:
        self._sink = sink
        self._tell = tell

    def write(self, octets: bytes) -> Awaitable[None] | None:
        """Hand it on."""
        return self._sink.write(octets)

    async def finish(self) -> Any:
        """The outcome, told otherwise."""
        return self._tell(await answered(self._sink.finish()))

    def abort(self) -> None:
        """Hand it on."""
        self._sink.abort()
