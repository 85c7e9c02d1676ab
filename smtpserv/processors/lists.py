"""Handing messages to Mailman: to its LMTP server, or to Mailman 2's wrapper."""

from collections.abc import Awaitable
from typing import Any, Final

from zope.interface import implementer

from smtpserv import reply
from smtpserv.awaiting import as_deferred
from smtpserv.collecting import CollectingSink, InThread
from smtpserv.error import SMTPError
from smtpserv.interfaces import IMessageSink, ITransaction, ITransactionProcessor, Outcome
from smtpserv.mailman.address import ListAddress
from smtpserv.mailman.folder import ListFolder
from smtpserv.mailman.lines import LineCutter
from smtpserv.mailman.wrapper import Wrapper, delivery_fields
from smtpserv.message import Content, Envelope, ForwardPath, ReversePath, Session
from smtpserv.processors.proxy import ProxyProcessor
from smtpserv.reply import Reply
from smtpserv.trace import MAX_HEADER, LoopWatch, received_field

#: Octets of a message held in memory; more goes to a temporary file.
MEMORY: Final = 1 << 20


class ListProxy(ProxyProcessor):
    """Mailman 3's LMTP server, behind which lines are cut that it would refuse."""

    async def open(self, session: Session, reverse_path: ReversePath) -> ITransaction:
        """MAIL: answered as Mailman answers it."""
        return CuttingTransaction(await self._open(session, reverse_path))


@implementer(ITransaction)
class CuttingTransaction:
    """A transaction whose content has no line that is too long."""

    def __init__(self, transaction: ITransaction) -> None:
        self.answer: Final = transaction.answer
        self.add_recipient: Final = transaction.add_recipient
        self.abort: Final = transaction.abort
        self._transaction: Final = transaction

    async def begin(self, envelope: Envelope) -> "CuttingSink":
        """DATA."""
        sink: Any = self._transaction.begin(envelope)
        return CuttingSink(await as_deferred(sink) if isinstance(sink, Awaitable) else sink)


@implementer(IMessageSink)
class CuttingSink:
    """Content on its way through a :class:`~smtpserv.mailman.lines.LineCutter`."""

    def __init__(self, sink: IMessageSink) -> None:
        self.abort: Final = sink.abort
        self._sink: Final = sink
        self._cutter: Final = LineCutter()

    def write(self, octets: bytes) -> Awaitable[None] | None:
        """Cut it, and pass it on."""
        cut = self._cutter.cut(octets)
        return self._sink.write(cut) if cut else None

    async def finish(self) -> Any:
        """The end; where it does not come to that, nobody else gives it up."""
        rest = self._cutter.rest()
        try:
            written: Any = self._sink.write(rest) if rest else None
            if isinstance(written, Awaitable):
                await as_deferred(written)
        except BaseException:
            self.abort()
            raise
        outcome: Any = self._sink.finish()
        return await as_deferred(outcome) if isinstance(outcome, Awaitable) else outcome


@implementer(ITransactionProcessor)
class WrapperLists:
    """Mailman 2: messages are collected, and given to its wrapper.

    :param clock: tells the time, in seconds since 1970.
    :param folder: knows the lists.
    """

    def __init__(self, clock: Any, wrapper: Wrapper, folder: ListFolder, in_thread: InThread) -> None:
        self.clock: Final = clock
        self.wrapper: Final = wrapper
        self.folder: Final = folder
        self.in_thread: Final = in_thread

    def open(self, session: Session, reverse_path: ReversePath) -> "WrapperTransaction":
        """MAIL: nobody else is asked."""
        return WrapperTransaction(self, session)


@implementer(ITransaction)
class WrapperTransaction:
    """A message for one list: of several the wrapper could take one and refuse another."""

    answer = None

    def __init__(self, lists: WrapperLists, session: Session) -> None:
        self._lists: Final = lists
        self._session: Final = session
        self._recipient: ForwardPath | None = None

    def add_recipient(self, forward_path: ForwardPath) -> Reply | None:
        """RCPT: one, that is a list."""
        if self._recipient is not None:
            return reply.ONE_AT_A_TIME
        self._find(forward_path)
        self._recipient = forward_path
        return None

    def begin(self, envelope: Envelope) -> CollectingSink:
        """DATA."""
        if len(envelope.forward_paths) > 1:
            raise SMTPError(reply.ONE_AT_A_TIME)
        (path,) = envelope.forward_paths
        address = self._find(path)
        now = self._lists.clock.seconds()
        received = received_field(self._session, envelope, self._session.hostname, now)

        def complete(content: Content) -> Outcome:
            if _is_loop(content, self._session.hostname):
                raise SMTPError(reply.MAIL_LOOP)
            fields = delivery_fields(envelope, path.address) + received
            return self._lists.wrapper.deliver(address, content.spliced(fields, 0).chunks())

        return CollectingSink(complete, self._lists.in_thread, MEMORY)

    def abort(self) -> None:
        """There is nothing to give up."""

    def _find(self, path: ForwardPath) -> ListAddress:
        address = self._lists.folder.find(path.address)
        if address is None:
            raise SMTPError(reply.NO_SUCH_LIST)
        return address


def _is_loop(content: Content, hostname: str) -> bool:
    """Whether it goes in circles: lists write to each other, and may to themselves."""
    watch = LoopWatch(hostname)
    with content.open() as file:
        return watch.is_loop(file.read(MAX_HEADER)) or watch.ended()
