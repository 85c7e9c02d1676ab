"""Filters between the engine and the processor."""

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from smtpserv.edit import AddField, AddRecipient, Edit, Redirect, RemoveRecipient, ReplaceBody
from smtpserv.error import Defer, Reject, SMTPError
from smtpserv.filters.chain import BLOCK, FilteringProcessor
from smtpserv.interfaces import IMessageProcessor
from smtpserv.message import Content, ForwardPath, Message
from smtpserv.reply import LOCAL_ERROR, Reply, Results
from smtpserv.testing import HandThread, MessageProcessorContract, RecordingProcessor, memory_session
from smtpserv.testing.memory import make_message
from tests.filter_tools import Filter, HeaderFilter
from tests.server_tools import HELLO, TRANSACTION, Later, Processor, Sink, codes
from tests.test_header import filed


class ChainContract(MessageProcessorContract, TestCase):
    """With filters a processor is what it was."""

    def make_processor(self) -> FilteringProcessor:
        return FilteringProcessor(Sink(), [Filter(), Filter([AddField("X", "y")])])


class ChainTests(SynchronousTestCase):
    """Who is asked, in which order, about what."""

    def process(self, processor: object, *filters: Filter, message: Message | None = None) -> Any:
        """The outcome for a message."""
        filtering = FilteringProcessor(processor, filters)
        return self.successResultOf(
            Deferred.fromCoroutine(filtering.process_message(message or make_message()))
        )

    def test_interface(self) -> None:
        """It is a processor of whole messages, for the engine to collect for."""
        self.assertTrue(verifyObject(IMessageProcessor, FilteringProcessor(Sink(), [])))

    def test_in_order(self) -> None:
        """Each sees what the one before it left, the processor what all did; the outcome is its own."""
        first, second = Filter([AddField("A", "1")]), Filter(succeed([AddField("B", "2")]))
        processor = RecordingProcessor([Reply(250, "mine")])
        self.assertEqual(self.process(processor, first, second), Reply(250, "mine"))
        self.assertNotIn(b"A: 1", first.asked[0].content.read())
        self.assertEqual(second.asked[0].content.headers[-1], ("A", "1"))
        self.assertEqual(processor.messages[0].content.headers[-2:], (("A", "1"), ("B", "2")))

    def test_awaited(self) -> None:
        """A filter may take its time, by a coroutine too."""

        async def decide() -> list[Edit]:
            return [AddField("A", "1")]

        processor, later = RecordingProcessor(), Later()
        outcome = Deferred.fromCoroutine(
            FilteringProcessor(processor, [Filter(later()), Filter(decide())]).process_message(make_message())
        )
        self.assertNoResult(outcome)
        later.fire()
        self.assertIsNone(self.successResultOf(outcome))
        self.assertEqual(processor.messages[0].content.headers[-1], ("A", "1"))

    def test_reply(self) -> None:
        """A reply ends it there, whether it refuses or accepts; nobody further is asked."""
        for answer in (Reply(550, "no"), Reply(451, "later"), Reply(250, "yes")):
            processor, second = RecordingProcessor(), Filter()
            self.assertEqual(self.process(processor, Filter(answer), second), answer)
            self.assertEqual((processor.messages, second.asked), ([], []))

    def test_on_the_wire(self) -> None:
        """What a filter raises or answers is what the client hears; what it must not answer is 451."""
        for decision, code in (
            (Reject("no"), "550 5.7.1"),
            (Defer("later"), "451 4.7.1"),
            (None, "250 2.6.0"),
            ([], "250 2.6.0"),
            (Reply(354, "", ""), "451 4.3.0"),
            (KeyError("x"), "451 4.3.0"),
            (17, "451 4.3.0"),
            (["x"], "451 4.3.0"),
            (Results([Reply(250)]), "451 4.3.0"),
        ):
            session = memory_session(FilteringProcessor(RecordingProcessor(), [Filter(decision)]))
            self.assertEqual(codes(session.say(HELLO + TRANSACTION))[-1], code)
            self.flushLoggedErrors()

    def test_body_of_a_header_filter(self) -> None:
        """Who says that he looks at the header alone replaces no body: it may have gone past him."""
        session = memory_session(
            FilteringProcessor(RecordingProcessor(), [HeaderFilter([ReplaceBody(Content(b"x"))])])
        )
        self.assertEqual(codes(session.say(HELLO + TRANSACTION))[-1], "451 4.3.0")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_nobody_left(self) -> None:
        """A message that nobody is left to receive is accepted, and the processor not asked."""
        processor = RecordingProcessor()
        self.assertIsNone(self.process(processor, Filter([Redirect(())])))
        self.assertEqual(processor.messages, [])

    def test_cancelled(self) -> None:
        """The deadline cancels whoever is at work: a filter, or the processor."""
        for position in (0, 1):
            later = Later()
            filters = [Filter(later())] if position == 0 else []
            processor = Processor(later) if position else RecordingProcessor()
            outcome = Deferred.fromCoroutine(
                FilteringProcessor(processor, filters).process_message(make_message())
            )
            outcome.cancel()
            self.failureResultOf(outcome)
            self.assertEqual(later.cancelled, 1)


class StreamingTests(SynchronousTestCase):
    """A processor that takes content in pieces."""

    def stream(self, sink: Sink, message: Message, in_thread: Any = None) -> "Deferred[Any]":
        """Give it a message with one more field."""
        facts = [in_thread] if in_thread else []
        filtering = FilteringProcessor(sink, [Filter([AddField("A", "1")])], *facts)
        return Deferred.fromCoroutine(filtering.process_message(message))

    def test_pieces(self) -> None:
        """It is begun, given all of it, and finished; the outcome is its own."""
        sink = Sink(finish=lambda: succeed(Reply(250, "mine")))
        self.assertEqual(
            self.successResultOf(self.stream(sink, make_message(b"\r\nbody"))), Reply(250, "mine")
        )
        self.assertEqual((sink.calls, sink.content), (["begin", "write", "finish"], b"A: 1\r\n\r\nbody"))

    def test_large(self) -> None:
        """What lies in a file is read block by block in a thread, with no more than a block on its way."""
        octets = b"\r\n" + b"x" * (3 * BLOCK)
        message = make_message()
        content: Content = filed(self, octets)
        large = Message(message.session, message.envelope, content)
        thread, later = HandThread(), Later()
        sink = Sink(write=later)
        outcome = self.stream(sink, large, thread)
        while not outcome.called:
            self.assertLessEqual(len(thread.waiting), 1)
            if thread.waiting:
                thread.step()
            else:
                later.fire()
        self.assertEqual(sink.content, b"A: 1\r\n" + octets)
        self.assertEqual(sink.calls, ["begin", "write", "write", "write", "write", "finish"])

    def test_refused(self) -> None:
        """A sink that fails or is cancelled while it is written is aborted once; after its end it is not."""

        def fail() -> None:
            raise Reject("no")

        for name, calls in (
            ("begin", ["begin"]),
            ("write", ["begin", "write", "abort"]),
            ("finish", ["begin", "write", "finish"]),
        ):
            for answer in (fail, Later()):
                sink = Sink(**{name: answer})
                outcome = self.stream(sink, make_message())
                outcome.cancel()
                self.failureResultOf(outcome)
                self.assertEqual(sink.calls, calls)

    def test_answer_of_write(self) -> None:
        """What write must not answer refuses the message, and is not passed over."""
        for answer, code in ((Reply(550, "no"), "550"), (17, "451"), (Reply(250), "451")):
            sink = Sink(write=lambda answer=answer: answer)
            error: Any = self.failureResultOf(self.stream(sink, make_message()), SMTPError).value
            self.assertEqual((str(error)[:3], sink.calls), (code, ["begin", "write", "abort"]))


YES, NO, LATER = Reply(250, "b"), Reply(550, "no"), Reply(450, "later")


class ResultsTests(SynchronousTestCase):
    """Replies for each recipient, where filters changed who they are."""

    def told(self, edits: list[Any], replies: list[Reply]) -> list[Reply]:
        """What the recipients b, c and b again are told."""
        message = make_message(forward_paths=("b@b.example", "c@c.example", "b@b.example"))
        filtering = FilteringProcessor(RecordingProcessor([Results(replies)]), [Filter(edits)])
        outcome = self.successResultOf(Deferred.fromCoroutine(filtering.process_message(message)))
        assert isinstance(outcome, Results)
        return list(outcome.replies)

    def test_same(self) -> None:
        """Where nobody came or went they are the processor's."""
        self.assertEqual(self.told([AddField("A", "1")], [YES, NO, LATER]), [YES, NO, LATER])

    def test_removed(self) -> None:
        """Who was removed is told that all is well, the others their own."""
        told = self.told([RemoveRecipient("c@c.example")], [NO, LATER])
        self.assertEqual([each.code for each in told], [550, 250, 450])

    def test_replaced(self) -> None:
        """Who was removed is told what became of those who took his place."""
        edits = [RemoveRecipient("c@c.example"), AddRecipient(ForwardPath("d@d.example"))]
        self.assertEqual(self.told(edits, [YES, YES, NO]), [YES, NO, YES])

    def test_redirected(self) -> None:
        """All are told what became of those they were redirected to; of several, what loses nobody's mail."""
        edits = [Redirect((ForwardPath("d@d.example"), ForwardPath("e@e.example")))]
        self.assertEqual(self.told(edits, [YES, LATER]), [LATER] * 3)

    def test_added(self) -> None:
        """The failure of one who was added is told to all, for there is nobody else to be told."""
        edits = [AddRecipient(ForwardPath("d@d.example"))]
        self.assertEqual(self.told(edits, [YES, NO, YES, LATER]), [LATER] * 3)
        self.assertEqual(self.told(edits, [YES, NO, YES, YES]), [YES, NO, YES])

    def test_wrong_number(self) -> None:
        """Replies for others than the recipients there are answer nothing."""
        session = memory_session(
            FilteringProcessor(
                RecordingProcessor([Results([YES])]), [Filter([AddRecipient(ForwardPath("d@d.example"))])]
            )
        )
        self.assertEqual(codes(session.say(HELLO + TRANSACTION))[-1], str(LOCAL_ERROR)[:9])
        self.flushLoggedErrors()
