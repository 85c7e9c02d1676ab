"""Filters of headers, past which the body streams, and filters of messages amid transactions."""

from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from smtpserv import reply
from smtpserv.collecting import CollectingProcessor
from smtpserv.edit import AddField, AddRecipient, ChangeReversePath, Redirect, RemoveRecipient
from smtpserv.error import Defer, Reject, SMTPError
from smtpserv.filters.arrangement import arrange
from smtpserv.filters.chain import answered
from smtpserv.header import MAX_HEADER
from smtpserv.interfaces import IMessageSink, IStreamingProcessor, ITransaction, ITransactionProcessor
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.reply import Reply, Results
from smtpserv.testing import RecordingProcessor, memory_session
from smtpserv.testing.contract import StreamingProcessorContract
from smtpserv.testing.memory import make_message, run_now
from tests.filter_tools import Filter, HeaderFilter, Upstream
from tests.server_tools import CONTENT, HELLO, TRANSACTION, Later, Sink, always, codes


def arranged(processor: object, *filters: object) -> Any:
    """A processor behind filters."""
    return arrange(processor, filters, run_now, 1 << 20)


class HeaderFilteringContract(StreamingProcessorContract, TestCase):
    """With filters of headers a streaming processor is what it was."""

    def make_processor(self) -> Any:
        return arranged(Sink(), HeaderFilter([AddField("X", "y")]))

    def test_aborts_at_any_time(self) -> Any:
        """Behind a header that has an end, for of one that has none not so much is taken."""
        write = self._write
        self.patch(self, "_write", lambda sink, content, size: write(sink, b"\r\n" + content, size))
        return super().test_aborts_at_any_time()


class ArrangementTests(SynchronousTestCase):
    """Which form the processor takes."""

    def test_no_filters(self) -> None:
        """Without filters what the engine has use for is used as it is."""
        for processor in (Sink(), Upstream()):
            self.assertIs(arranged(processor), processor)
        self.assertIsInstance(arranged(RecordingProcessor()), CollectingProcessor)

    def test_kept(self) -> None:
        """With filters it is of the kind that it was."""
        for filter in (Filter(), HeaderFilter()):
            self.assertTrue(verifyObject(IStreamingProcessor, arranged(Sink(), filter)))
            self.assertTrue(verifyObject(IStreamingProcessor, arranged(RecordingProcessor(), filter)))
            self.assertTrue(verifyObject(ITransactionProcessor, arranged(Upstream(), filter)))

    def test_collected(self) -> None:
        """One filter that wants whole messages is enough for them to be collected."""
        sink = Sink()
        message = make_message()
        taking = arranged(sink, HeaderFilter(), Filter()).begin(message.session, message.envelope)
        taking.write(CONTENT)
        self.assertEqual(sink.calls, [])
        self.successResultOf(Deferred.fromCoroutine(taking.finish()))
        self.assertEqual(sink.calls, ["begin", "write", "finish"])


class HeaderTests(SynchronousTestCase):
    """The header is held, the body is not."""

    def begin(self, sink: Sink, *filters: Any) -> Any:
        """The sink of a message to b."""
        message = make_message()
        return arranged(sink, *filters).begin(message.session, message.envelope)

    def test_streams(self) -> None:
        """The filters are asked when the header is there, and all that follows goes past at once."""
        sink, filter = Sink(), HeaderFilter([AddField("A", "1")])
        taking = self.begin(sink, filter)
        self.assertTrue(verifyObject(IMessageSink, taking))
        self.assertIsNone(taking.write(b"Subject: x\r\n\r"))
        self.assertEqual((sink.calls, filter.asked), ([], []))
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(taking.write(b"\nbo"))))
        self.assertEqual(sink.content, b"Subject: x\r\nA: 1\r\n\r\nbo")
        self.assertEqual(filter.asked[0].content.read(), b"Subject: x\r\n\r\n")
        self.assertIsNone(taking.write(b"dy\r\n\r\n"))
        self.assertEqual(sink.content, b"Subject: x\r\nA: 1\r\n\r\nbody\r\n\r\n")
        self.assertEqual(sink.calls, ["begin", "write", "write"])
        self.assertIsNone(taking.finish())

    @settings(max_examples=200, deadline=None, database=None)
    @given(
        st.lists(st.sampled_from([b"A: b", b"\r\n", b"\n", b"\r", b" c", b".", b"x", b"\r\n\r\n"])).map(
            b"".join
        ),
        st.lists(st.integers(0, 40)),
    )
    @example(b"\r\n\r\nx", [1])
    @example(b"A: b\n\r\n\r\nx", [6])
    def test_every_split(self, content: bytes, cuts: list[int]) -> None:
        """However it comes in pieces, the processor is given what it was given if it were collected."""
        places = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
        seen = []
        for filter in (HeaderFilter([AddField("N", "1")]), Filter([AddField("N", "1")])):
            sink = Sink()
            taking = self.begin(sink, filter)
            for start, end in pairwise(places):
                if start < end:
                    self.successResultOf(Deferred.fromCoroutine(answered(taking.write(content[start:end]))))
            self.successResultOf(Deferred.fromCoroutine(answered(taking.finish())))
            seen.append((sink.content, sink.calls[0], sink.calls[-1]))
        self.assertEqual(seen[0], seen[1])

    def test_backpressure(self) -> None:
        """The client waits for the filters, for the processor to begin, and for it to write."""
        deciding, beginning, writing = Later(), Later(), Later()
        sink = Sink(begin=beginning, write=writing)
        written = Deferred.fromCoroutine(self.begin(sink, HeaderFilter(deciding())).write(CONTENT))
        deciding.fire()
        self.assertEqual(sink.calls, ["begin"])
        beginning.fire(sink)
        self.assertNoResult(written)
        writing.fire()
        self.assertIsNone(self.successResultOf(written))

    def test_backpressure_of_the_body(self) -> None:
        """So it does later: what the processor's sink answers is what ours does."""
        writing = Later()
        taking = self.begin(sink := Sink(), HeaderFilter())
        self.successResultOf(Deferred.fromCoroutine(taking.write(CONTENT)))
        sink._answers["write"] = writing
        self.assertIs(taking.write(b"more"), writing.given[0])

    def test_on_the_wire(self) -> None:
        """What a filter raises or answers is what the client hears at the end; a 2yz drops the message."""
        for decision, code in (
            (Reject("no"), "550 5.7.1"),
            (Defer("later"), "451 4.7.1"),
            (Reply(554, "no", "5.6.0"), "554 5.6.0"),
            (Reply(250, "swallowed", "2.7.0"), "250 2.7.0"),
            ([Redirect(())], "250 2.6.0"),
            (None, "250 2.6.0"),
            (succeed([]), "250 2.6.0"),
            (Reply(354, "", ""), "451 4.3.0"),
            (KeyError("x"), "451 4.3.0"),
            (17, "451 4.3.0"),
            (["x"], "451 4.3.0"),
        ):
            sink, second = Sink(), HeaderFilter()
            session = memory_session(arranged(sink, HeaderFilter(decision), second))
            self.assertEqual(codes(session.say(HELLO + TRANSACTION))[-2:], ["354", code])
            passed = code == "250 2.6.0" and not isinstance(decision, list)
            self.assertEqual(sink.calls, ["begin", "write", "finish"] if passed else [])
            self.assertEqual(codes(session.say(TRANSACTION))[-1], "250 2.6.0")
            self.flushLoggedErrors()

    def test_too_long(self) -> None:
        """A header with no end in 256 KiB is refused, and nothing more of it held, whatever its pieces."""
        for size in (MAX_HEADER, 1 << 16, 1000):
            for more, refused in ((b"", False), (b"x", True)):
                octets = b"A: " + b"x" * (MAX_HEADER - 7) + more + b"\r\n\r\n"
                sink = Sink()
                session = memory_session(arranged(sink, HeaderFilter()))
                session.say(HELLO + b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n")
                for start in range(0, len(octets), size):
                    session.say(octets[start : start + size])
                session.say(b"body\r\n.\r\n")
                self.assertEqual(session.last_reply() == reply.HEADER_TOO_LONG, refused)
                self.assertEqual(sink.calls == [], refused)

    def test_refused(self) -> None:
        """A processor's sink that fails is aborted once, in the header's time and in the body's."""

        def fail() -> None:
            raise Reject("no")

        for name, calls in (
            ("begin", ["begin"]),
            ("write", ["begin", "write", "abort"]),
            ("finish", ["begin", "write", "finish"]),
        ):
            for content in (CONTENT, b"Subject: x\r\n"):
                sink = Sink(**{name: fail})
                session = memory_session(arranged(sink, HeaderFilter()))
                said = session.say(HELLO + TRANSACTION.replace(CONTENT, content))
                self.assertEqual((codes(said)[-1], sink.calls), ("550 5.7.1", calls))

    def test_disconnect(self) -> None:
        """When the client goes, whoever is at work is cancelled, and what is begun is aborted."""
        for stage, calls in (("filter", []), ("begin", ["begin"]), ("write", ["begin", "write", "abort"])):
            later, sink = Later(), Sink()
            filter = HeaderFilter(later() if stage == "filter" else None)
            sink._answers |= {stage: later}
            session = memory_session(arranged(sink, filter))
            session.say(HELLO + TRANSACTION.removesuffix(b".\r\n"))
            self.assertEqual((later.cancelled, len(later.given)), (0, 1))
            session.disconnect()
            self.assertEqual((later.cancelled, sink.calls), (1, calls))

    def test_late_sink(self) -> None:
        """A sink that comes after all, when nobody waits for it any more, is aborted."""
        late: Deferred[Any] = Deferred()

        async def begin() -> Any:
            try:
                await Deferred()
            except BaseException:
                return await late

        sink = Sink(begin=begin)
        taking = self.begin(sink, HeaderFilter())
        writing = Deferred.fromCoroutine(taking.write(CONTENT))
        writing.cancel()
        taking.abort()
        late.callback(sink)
        self.failureResultOf(writing)
        self.assertEqual(sink.calls, ["begin", "abort"])

    def test_envelope(self) -> None:
        """The processor is given the edited one; results are told to those whom the client named."""
        told = Results([Reply(250, "b"), Reply(550, "c")])
        processor = RecordingProcessor([told])
        edits = [
            RemoveRecipient("b@b.example"),
            Redirect((ForwardPath("c@c.example"), ForwardPath("d@d.example"))),
            ChangeReversePath(ReversePath("e@e.example")),
        ]
        session = memory_session(arranged(processor, HeaderFilter(edits)))
        self.assertEqual(codes(session.say(HELLO + TRANSACTION))[-1], "550 5.0.0")
        (message,) = processor.messages
        self.assertEqual(
            [each.address for each in message.envelope.forward_paths], ["c@c.example", "d@d.example"]
        )
        self.assertEqual(message.envelope.reverse_path.address, "e@e.example")

    def test_same_as_collected(self) -> None:
        """A processor of whole messages sees the same either way."""
        seen = []
        for kind in (Filter, HeaderFilter):
            processor = RecordingProcessor()
            session = memory_session(
                arranged(processor, kind([AddField("A", "1")]), kind([AddField("B", "2")]))
            )
            session.say(HELLO + TRANSACTION)
            seen.append(processor.messages[0].content.read())
        self.assertEqual(seen[0], seen[1])


class TransactionTests(SynchronousTestCase):
    """Before a processor that takes part in transactions."""

    def open(self, upstream: Upstream, *filters: object) -> Any:
        """A transaction for b."""
        message = make_message()
        opening = arranged(upstream, *filters).open(message.session, message.envelope.reverse_path)
        transaction = self.successResultOf(Deferred.fromCoroutine(opening))
        self.assertTrue(verifyObject(ITransaction, transaction))
        transaction.add_recipient(ForwardPath("b@b.example"))
        return transaction

    def send(self, upstream: Upstream, filter: object) -> Any:
        """What becomes of a message; a failure as its exception."""

        async def sent() -> Any:
            taking = self.open(upstream, filter).begin(make_message().envelope)
            await answered(taking.write(CONTENT))
            return await answered(taking.finish())

        outcome = Deferred.fromCoroutine(sent())
        outcome.addErrback(lambda failure: failure.value)
        return self.successResultOf(outcome)

    def test_through(self) -> None:
        """It is asked as without filters, and begun when they have answered, with what they left."""
        for kind in (Filter, HeaderFilter):
            upstream = Upstream()
            edits = [AddField("A", "1"), AddRecipient(ForwardPath("c@c.example"))]
            self.assertIsNone(self.send(upstream, kind(edits)))
            self.assertEqual(upstream.calls, ["open", "b@b.example", "begin"])
            assert upstream.envelope is not None
            self.assertEqual(len(upstream.envelope.forward_paths), 2)
            self.assertEqual(upstream.sink.content, CONTENT.replace(b"\r\n\r\n", b"\r\nA: 1\r\n\r\n", 1))
            self.assertEqual(upstream.sink.calls[-1], "finish")

    def test_aborted(self) -> None:
        """Where filters let nothing through, it is aborted, once."""
        for decision in (Reply(250, "swallowed"), Reply(550, "no"), Reject("no"), [Redirect(())], 17):
            for kind in (Filter, HeaderFilter):
                upstream = Upstream()
                outcome = self.send(upstream, kind(decision))
                self.assertEqual(upstream.calls, ["open", "b@b.example", "abort"])
                self.assertEqual(outcome, decision if isinstance(decision, Reply | Reject) else outcome)

    def test_abort(self) -> None:
        """So it is when the client goes, at any time; a sink that was begun is aborted in its place."""
        for kind in (Filter, HeaderFilter):
            upstream = Upstream()
            self.open(upstream, kind()).abort()
            self.assertEqual(upstream.calls[2:], ["abort"])
            upstream = Upstream()
            taking = self.open(upstream, kind()).begin(make_message().envelope)
            taking.write(b"Subject: ")
            taking.abort()
            self.assertEqual(upstream.calls[2:], ["abort"])
        upstream = Upstream()
        taking = self.open(upstream, HeaderFilter()).begin(make_message().envelope)
        self.successResultOf(Deferred.fromCoroutine(taking.write(CONTENT)))
        taking.abort()
        self.assertEqual((upstream.calls[2:], upstream.sink.calls[-1]), (["begin"], "abort"))

    def test_fails(self) -> None:
        """Of a processor that can't write, the sink is aborted; of one that can't begin, the transaction."""

        def fail() -> None:
            raise SMTPError(reply.LOCAL_ERROR)

        for kind in (Filter, HeaderFilter):
            for name in ("begin", "write", "finish"):
                upstream = Upstream(Sink(**{name: fail}))
                self.assertIsInstance(self.send(upstream, kind()), SMTPError)
                self.assertEqual(upstream.calls[2:], ["begin", "abort"] if name == "begin" else ["begin"])
                self.assertEqual(upstream.sink.calls.count("abort"), name == "write")

    def test_no_sink(self) -> None:
        """What begins without a sink refuses, and its transaction is aborted."""
        for answer, expected in ((Reply(550, "no"), Reply(550, "no")), (17, reply.LOCAL_ERROR)):
            upstream = Upstream(Sink(begin=always(answer)))
            error = self.send(upstream, HeaderFilter())
            self.assertEqual((error.reply, upstream.calls[2:]), (expected, ["begin", "abort"]))

    def test_refuses_to_open(self) -> None:
        """What is no transaction is for the engine to judge."""
        upstream = Upstream()
        self.patch(upstream, "open", always(Reply(550, "no")))
        message = make_message()
        opening = arranged(upstream, Filter()).open(message.session, message.envelope.reverse_path)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(opening)), Reply(550, "no"))
