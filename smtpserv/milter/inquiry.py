"""Tells a milter of one message, on a connection, and gathers what it wants."""

from collections.abc import Sequence
from itertools import chain
from typing import BinaryIO, Final

from smtpserv.collecting import CollectingSink, InThread
from smtpserv.edit import DeleteField, Edit, ReplaceBody
from smtpserv.message import Content, Message
from smtpserv.milter.change import Context
from smtpserv.milter.connection import MilterConnection
from smtpserv.milter.conversation import Conversation
from smtpserv.milter.event import Event, Shown, end_event, envelope_events, header_events
from smtpserv.milter.negotiation import OFFER, Terms
from smtpserv.milter.packet import MAX_SENT, Command, MilterError
from smtpserv.reply import Reply

#: Octets of a new body that are held in memory, and by which it may be larger than the message was.
MEMORY: Final = 1 << 20
GROWTH: Final = 1 << 25

#: Octets of content that are read at once in a thread; what is not larger is read where we are.
BLOCK: Final = 8 * MAX_SENT

Decision = Sequence[Edit] | Reply | None


class Inquiry:
    """One message, and the connection on which it is told.

    :param shown: what the milter sees of its header.
    :param in_thread: runs the reading and writing of files.
    """

    def __init__(
        self, connection: MilterConnection, message: Message, shown: Shown, in_thread: InThread
    ) -> None:
        self._connection: Final = connection
        self._message: Final = message
        self._shown: Final = shown
        self._in_thread: Final = in_thread
        self._body: _NewBody | None = None

    async def decision(self) -> Decision:
        """What the milter wants; the connection is closed then.

        :raises MilterError: when it does not say it.
        """
        await self._connection.send(bytes(OFFER))
        terms = Terms.parse(await self._connection.receive())
        context = Context(self._message.envelope, terms.has_leading_space)
        conversation = Conversation(terms, context, self._message.id)
        await self._tell_all(conversation)
        self._connection.close(conversation.parting)
        decision = conversation.decision
        if self._body is None or isinstance(decision, Reply):
            return decision
        # What the milter took for the body goes with it.
        cut: list[Edit] = [DeleteField("")] if self._shown.is_cut else []
        return [*(decision or ()), *cut, ReplaceBody(await self._body.content())]

    async def _tell_all(self, conversation: Conversation) -> None:
        header = header_events(self._message, self._shown, conversation.terms.has_leading_space)
        for event in chain(envelope_events(self._message), header):
            await self._tell(conversation, event)
        with self._message.content.open() as file:
            file.seek(self._shown.size)
            if not self._shown.is_cut:
                file.readline(2)
            while conversation.wants(Command.BODY) and (block := await self._read(file)):
                for start in range(0, len(block), MAX_SENT):
                    await self._tell(conversation, Event(Command.BODY, block[start : start + MAX_SENT]))
        await self._tell(conversation, end_event(self._message))

    async def _tell(self, conversation: Conversation, event: Event) -> None:
        if octets := conversation.tell(event):
            await self._connection.send(octets)
        while conversation.awaits:
            packet = await self._connection.receive()
            if (body := conversation.hear(packet)) is not None:
                await self._take(body)

    async def _take(self, octets: bytes) -> None:
        if self._body is None:
            self._body = _NewBody(self._in_thread, self._message.content.size + GROWTH)
        await self._body.write(octets)

    async def _read(self, file: BinaryIO) -> bytes:
        if self._message.content.size <= BLOCK:
            return file.read(BLOCK)
        block: bytes = await self._in_thread(file.read, BLOCK)
        return block


class _NewBody:
    """A body in place of the one that came, in the pieces in which a milter says it.

    :param limit: octets that it may have.
    """

    def __init__(self, in_thread: InThread, limit: int) -> None:
        self._left = limit
        self._content = Content(b"")
        self._sink: Final = CollectingSink(self._keep, in_thread, MEMORY)

    async def write(self, octets: bytes) -> None:
        """Take the next octets.

        :raises MilterError: for too many.
        """
        self._left -= len(octets) + 1
        if self._left < 0:
            raise MilterError("the new body is too large")
        if (written := self._sink.write(octets)) is not None:
            await written

    async def content(self) -> Content:
        """All of it."""
        if (finished := self._sink.finish()) is not None:
            await finished  # type: ignore[misc]
        return self._content

    def _keep(self, content: Content) -> None:
        self._content = content
