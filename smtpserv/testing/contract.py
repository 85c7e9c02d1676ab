"""What every processor must stand: mix these into a test case and say how yours is made."""

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface.verify import verifyObject

from smtpserv.awaiting import as_deferred
from smtpserv.interfaces import IMessageProcessor, IMessageSink, IStreamingProcessor
from smtpserv.message import Message
from smtpserv.reply import Reply, Results
from smtpserv.testing.memory import make_message

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Case
else:
    _Case = object

#: Contents that have broken mail programs.
CONTENTS = {
    "empty": b"",
    "no header": b"\r\nbody\r\n",
    "header only": b"Subject: nothing else\r\n",
    "no last newline": b"Subject: cut",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n...\r\n",
    "8-bit": b"Subject: caf\xc3\xa9\r\n\r\n\xff\xfe\x80\r\n",
    "nul": b"Subject: nul\r\n\r\n\0\r\n",
    "long line": b"Subject: long\r\n\r\n" + b"x" * 200_000 + b"\r\n",
    "megabytes": b"Subject: big\r\n\r\n" + b"0123456789abcdef" * 4 * 30_000 + b"\r\n",
}


class MessageProcessorContract(_Case):
    """For a processor of whole messages. Mix into a ``twisted.trial.unittest.TestCase``."""

    def make_processor(self) -> Any:
        """Make the processor under test, one that accepts what it is sent."""
        raise NotImplementedError

    def process(self, message: Message) -> "Deferred[Reply | None]":
        """Give it a message; the outcome, checked, comes later or at once."""
        outcome = maybeDeferred(lambda: _awaited(self.make_processor().process_message(message)))
        return outcome.addCallback(self._check, message)

    def _check(self, outcome: Any, message: Message) -> Any:
        return check_outcome(self, outcome, message)

    def test_honours_the_interface(self) -> None:
        """It has what the interface asks for."""
        self.assertTrue(verifyObject(IMessageProcessor, self.make_processor()))

    def test_answers_every_content(self) -> "Deferred[Any]":
        """Whatever the content, the answer is one that the interface allows."""
        return _one_after_another(self.process, [make_message(content) for content in CONTENTS.values()])

    def test_answers_null_reverse_path(self) -> "Deferred[Any]":
        """A notification is a message like any other."""
        return self.process(make_message(reverse_path=""))

    def test_answers_many_recipients(self) -> "Deferred[Any]":
        """A thousand recipients, some of them twice, get an answer."""
        return self.process(make_message(forward_paths=[f"r{i % 900}@b.example" for i in range(1000)]))


class StreamingProcessorContract(_Case):
    """For a processor that takes content while it arrives. Mix into a ``twisted.trial.unittest.TestCase``."""

    def make_processor(self) -> Any:
        """Make the processor under test, one that accepts what it is sent."""
        raise NotImplementedError

    async def _begin(self) -> Any:
        message = make_message()
        sink = await _awaited(self.make_processor().begin(message.session, message.envelope))
        self.assertTrue(verifyObject(IMessageSink, sink))
        return sink

    async def _write(self, sink: Any, content: bytes, size: int) -> None:
        for start in range(0, len(content), size):
            await _awaited(sink.write(content[start : start + size]))

    def test_honours_the_interface(self) -> None:
        """It has what the interface asks for."""
        self.assertTrue(verifyObject(IStreamingProcessor, self.make_processor()))

    def test_answers_every_content(self) -> "Deferred[Any]":
        """Whatever the content and its pieces, the answer is one that the interface allows."""

        async def run() -> None:
            for content in CONTENTS.values():
                for size in (7 if len(content) < 1000 else 4096, 65536):
                    sink = await self._begin()
                    await self._write(sink, content, size)
                    check_outcome(self, await _awaited(sink.finish()), make_message())

        return Deferred.fromCoroutine(run())

    def test_aborts_at_any_time(self) -> "Deferred[Any]":
        """It can be aborted before the first octet and after any."""

        async def run() -> None:
            for length in (0, 1, 70_000, 2_000_000):
                sink = await self._begin()
                await self._write(sink, b"x" * length, 65536)
                sink.abort()

        return Deferred.fromCoroutine(run())


def check_outcome(case: _Case, outcome: Any, message: Message) -> Any:
    """Assert that an outcome is one that the interface allows."""
    if isinstance(outcome, Results):
        case.assertEqual(len(outcome.replies), len(message.envelope.forward_paths))
        outcome = outcome.combined()
    case.assertTrue(outcome is None or (isinstance(outcome, Reply) and outcome.reply_class in (2, 4, 5)))
    return outcome


def _awaited(answer: Any) -> "Deferred[Any]":
    return as_deferred(answer) if hasattr(answer, "__await__") else maybeDeferred(lambda: answer)


def _one_after_another(call: Any, facts: list[Any]) -> "Deferred[Any]":
    async def run() -> None:
        for fact in facts:
            await call(fact)

    return Deferred.fromCoroutine(run())
