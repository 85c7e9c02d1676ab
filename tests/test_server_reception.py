"""Streaming processors: content while it arrives, backpressure, and sinks that fail at any call."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue.terms import Terms
from smtpserv.error import Defer, Reject
from smtpserv.reply import Reply, Results
from smtpserv.server.limits import Limits
from smtpserv.server.protocol import READ_AHEAD
from smtpserv.testing import MemorySession, memory_session
from tests.server_tools import (
    CONTENT,
    DONE,
    ENVELOPE,
    GRANTED,
    HELLO,
    PREAMBLE,
    TRANSACTION,
    Later,
    Sink,
    always,
    captured_log,
    codes,
)


def _coroutine(answer: object) -> Callable[[], Any]:
    async def call() -> object:
        await succeed(None)
        return always(answer)()

    return call


def each_way(answer: object) -> list[Callable[[], Any]]:
    """The ways of giving an answer."""
    deferred = (lambda: fail(answer)) if isinstance(answer, Exception) else (lambda: succeed(answer))
    return [always(answer), deferred, _coroutine(answer)]


class SinkTests(SynchronousTestCase):
    """A sink's calls, in the order its interface promises."""

    def test_content_as_it_comes(self) -> None:
        """Each piece that arrives is written at once, dots unstuffed, and then the sink is finished."""
        sink = Sink()
        session = memory_session(sink)
        session.say(PREAMBLE + b"one\r\n..two\r\n")
        self.assertEqual((sink.calls, sink.content[:9]), (["begin", "write"], b"one\r\n.two"))
        session.say(b"three\r\n.\r\n")
        self.assertEqual(
            (sink.calls, sink.content), (["begin", "write", "write", "finish"], b"one\r\n.two\r\nthree\r\n")
        )

    def test_empty_message(self) -> None:
        """Of an empty message nothing is written."""
        sink = Sink()
        self.assertEqual(codes(memory_session(sink).say(PREAMBLE + b".\r\n")), [*GRANTED, "250 2.6.0"])
        self.assertEqual(sink.calls, ["begin", "finish"])

    def test_begin_may_take_time(self) -> None:
        """The client is told to go on when the sink is there, and its content waits until then."""
        for way in (Later(), Later()):
            sink = Sink(begin=way)
            session = memory_session(sink)
            self.assertEqual(codes(session.say(PREAMBLE + CONTENT + b".\r\n")), GRANTED[:4])
            way.fire(sink)
            self.assertEqual((codes(session.hear()), sink.content), (["354", "250 2.6.0"], CONTENT))

    def test_begin_may_be_a_coroutine(self) -> None:
        """``async def begin`` is as good."""
        sink = Sink()
        sink._answers["begin"] = _coroutine(sink)
        self.assertEqual(codes(memory_session(sink).say(HELLO + TRANSACTION))[2:], DONE)

    def test_finish_decides(self) -> None:
        """What ``finish`` answers, in any way, is what the client hears."""
        answers = {
            Reply(250, "mine", "2.1.1"): "250 2.1.1",
            Reject("no"): "550 5.7.1",
            Defer("later"): "451 4.7.1",
            Results([Reply(550, "no", "5.1.1")]): "550 5.1.1",
        }
        for answer, expected in answers.items():
            for finish in each_way(answer):
                sink = Sink(finish=finish)
                self.assertEqual(codes(memory_session(sink).say(HELLO + TRANSACTION))[-1], expected)
                self.assertEqual(sink.calls[-1], "finish")

    def test_next_message_has_a_sink_of_its_own(self) -> None:
        """Each message is begun."""
        sink = Sink()
        memory_session(sink).say(HELLO + TRANSACTION * 3)
        self.assertEqual(sink.calls, ["begin", "write", "finish"] * 3)


class RefusalTests(SynchronousTestCase):
    """Sinks that refuse, and sinks that fail."""

    def test_begin_refuses(self) -> None:
        """A refusal of ``begin`` is the reply to DATA: the content is never sent."""
        for answer, expected in ((Reject("no", 554), "554 5.7.1"), (Defer("no", 450), "450 4.7.1")):
            for begin in each_way(answer):
                sink = Sink(begin=begin)
                session = memory_session(sink)
                heard = session.say(PREAMBLE + b"NOOP\r\n")
                self.assertEqual(codes(heard)[4:], [expected, "250 2.0.0"])
                self.assertEqual(sink.calls, ["begin"])

    def test_begin_fails(self) -> None:
        """One that breaks is 451, and the text of the exception stays in the log."""
        for begin in each_way(ValueError("secret")):
            heard = memory_session(Sink(begin=begin)).say(PREAMBLE)
            self.assertTrue(heard.endswith(b"451 4.3.0 Local error in processing\r\n"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)

    def test_begin_gives_no_sink(self) -> None:
        """What is no sink is the processor's mistake: 451 instead of 354, and the log says what it was."""
        log = captured_log(self)
        for answer in (None, True, object(), "sink", Reply(354, "go on")):
            for begin in each_way(answer):
                self.assertEqual(codes(memory_session(Sink(begin=begin)).say(PREAMBLE))[4:], ["451 4.3.0"])
        self.assertEqual(len([event for event in log if "answer" in event]), 15)

    def test_begin_accepts_nothing_by_a_reply(self) -> None:
        """A 2yz to DATA is no answer that SMTP has: a positive Reply instead of a sink is 451."""
        captured_log(self)
        heard = memory_session(Sink(begin=always(Reply(250, "fine")))).say(PREAMBLE)
        self.assertEqual(codes(heard)[4:], ["451 4.3.0"])

    def test_write_refuses(self) -> None:
        """A refusal while content arrives is said after its end; the rest is swallowed, the sink aborted."""
        for answer, expected in (
            (Reject("virus", 554, "5.7.0"), "554 5.7.0"),
            (Defer("full", 452, "4.2.2"), "452 4.2.2"),
        ):
            for write in each_way(answer):
                sink = Sink(write=write)
                session = memory_session(sink)
                self.assertEqual(codes(session.say(PREAMBLE + CONTENT)), GRANTED)
                self.assertEqual(session.say(CONTENT * 10), b"")
                self.assertEqual(codes(session.say(b".\r\n")), [expected])
                self.assertEqual(sink.calls, ["begin", "write", "abort"])

    def test_write_fails(self) -> None:
        """So is a failure."""
        for write in each_way(ValueError("secret")):
            sink = Sink(write=write)
            heard = memory_session(sink).say(PREAMBLE + CONTENT + b".\r\n")
            self.assertTrue(heard.endswith(b"451 4.3.0 Local error in processing\r\n"))
            self.assertEqual(sink.calls, ["begin", "write", "abort"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)

    def test_write_finds_the_disk_full(self) -> None:
        """No room is 452 4.3.1."""
        for write in each_way(OSError(28, "No space left on device")):
            self.assertEqual(
                codes(memory_session(Sink(write=write)).say(HELLO + TRANSACTION))[-1], "452 4.3.1"
            )
        self.flushLoggedErrors(OSError)

    def test_aborted_is_never_accepted(self) -> None:
        """A ``write`` that answers a positive Reply is wrong: no 250 comes of an aborted message."""
        captured_log(self)
        for write in each_way(Reply(250, "got it")):
            sink = Sink(write=write)
            code = codes(memory_session(sink).say(HELLO + TRANSACTION))[-1]
            self.assertIn((code[0], sink.calls[-1]), [("4", "abort"), ("2", "finish")])

    def test_write_may_close(self) -> None:
        """A 421 raised by ``write`` closes the connection at the end of the data."""
        session = memory_session(Sink(write=always(Defer("bye", 421))))
        self.assertEqual(codes(session.say(HELLO + TRANSACTION))[-1], "421 4.7.1")
        self.assertTrue(session.ended)

    def test_next_transaction_works(self) -> None:
        """After a message that was refused at any call, the next one is received whole."""
        for name in ("begin", "write", "finish"):
            sink = Sink()
            outcomes = iter([Reject("no")])
            accept = sink if name == "begin" else None
            sink._answers[name] = lambda outcomes=outcomes, accept=accept: always(next(outcomes, accept))()
            session = memory_session(sink)
            session.say(PREAMBLE)
            session.say(b"" if name == "begin" else CONTENT + b".\r\n")
            sink.content = b""
            heard = session.say(b"RSET\r\n" + TRANSACTION)
            self.assertEqual(
                (codes(heard)[1:], sink.content, sink.calls[-1]), (DONE, CONTENT, "finish"), name
            )

    def test_abort_that_raises(self) -> None:
        """An ``abort`` that raises is logged, and the session goes on as if it had not."""
        sink = Sink(write=always(Reject("no")), abort=always(ValueError("in abort")))
        session = memory_session(sink)
        heard = session.say(HELLO + TRANSACTION * 2)
        self.assertEqual([code for code in codes(heard) if code[0] == "5"], ["550 5.7.1"] * 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_dialogue_refuses_first(self) -> None:
        """Content with a bare newline is refused as that; the sink is aborted once, whatever it says."""
        for answers in ({}, {"write": always(Reject("no"))}):
            sink = Sink(**answers)
            heard = memory_session(sink).say(PREAMBLE + b"fine\r\n")
            self.assertEqual(codes(heard), GRANTED)
            session = memory_session(sink)
            session.say(PREAMBLE + b"fine\r\n")
            sink.calls.clear()
            self.assertEqual(codes(session.say(b"bare\nnewline\r\n.\r\n")), ["550 5.6.0"])
            self.assertLessEqual(sink.calls.count("abort"), 1)
            self.assertNotIn("finish", sink.calls)


class BackpressureTests(SynchronousTestCase):
    """A sink that is slow slows its client down, and nothing is held for it."""

    def setUp(self) -> None:
        self.later = Later()
        self.sink = Sink(write=self.later)
        self.session = memory_session(self.sink, limits=Limits(processing_deadline=300.0))
        self.session.say(PREAMBLE + b"first\r\n")

    def test_one_write_at_a_time(self) -> None:
        """Nothing more is written, and nothing answered, before ``write`` is done."""
        self.session.say(b"second\r\n.\r\nNOOP\r\n")
        self.assertEqual(self.sink.calls, ["begin", "write"])
        self.later.fire()
        self.assertEqual((self.sink.calls.count("write"), self.session.hear()), (2, b""))
        self.later.fire()
        self.assertEqual(codes(self.session.hear()), ["250 2.6.0", "250 2.0.0"])
        self.assertEqual(self.sink.content, b"first\r\nsecond\r\n")

    def test_reading_stops(self) -> None:
        """When the client has sent ahead what it may, it is read no further, until ``write`` is done."""
        transport = self.session.transport
        self.session.say(b"x" * READ_AHEAD)
        self.assertEqual(transport.producerState, "producing")
        self.session.say(b"\r\n" + b"x" * 10)
        self.assertEqual(transport.producerState, "paused")
        self.later.fire()
        self.assertEqual(transport.producerState, "producing")

    def test_write_that_hangs(self) -> None:
        """At the processing deadline it is cancelled, the sink aborted, and the client told at the end."""
        self.assertEqual(self.session.advance(300.0), b"")
        self.assertEqual((self.later.cancelled, self.sink.calls), (1, ["begin", "write", "abort"]))
        self.assertEqual(
            codes(self.session.say(b"more\r\n.\r\n" + ENVELOPE)), ["451 4.4.5", "250 2.1.0", "250 2.1.5"]
        )

    def test_disconnect(self) -> None:
        """When the client goes, the write is cancelled and the sink aborted, once, and in that order."""
        self.session.disconnect()
        self.assertEqual((self.later.cancelled, self.sink.calls), (1, ["begin", "write", "abort"]))
        self.assertTrue(self.session.ended)

    def test_disconnect_behind_the_end(self) -> None:
        """A message whose end came, but is not read yet for a slow write, was not complete."""
        self.session.say(b".\r\n")
        self.session.disconnect()
        self.assertEqual((self.later.cancelled, self.sink.calls), (1, ["begin", "write", "abort"]))
        self.assertTrue(self.session.ended)


class AbortTests(SynchronousTestCase):
    """``abort`` is called when a message will not be, exactly once, and never behind ``finish``."""

    def begun(self, **answers: Any) -> tuple[MemorySession, Sink]:
        """A session in the middle of a message."""
        sink = Sink(**answers)
        session = memory_session(sink)
        session.say(PREAMBLE + CONTENT)
        return session, sink

    def test_disconnect_in_the_middle(self) -> None:
        """A client that vanishes in the middle of a message."""
        session, sink = self.begun()
        session.disconnect()
        self.assertEqual((sink.calls, session.ended), (["begin", "write", "abort"], True))

    def test_disconnect_before_any_content(self) -> None:
        """A client that vanishes when it may send."""
        sink = Sink()
        session = memory_session(sink)
        session.say(PREAMBLE)
        session.disconnect()
        self.assertEqual((sink.calls, session.ended), (["begin", "abort"], True))

    def test_disconnect_while_beginning(self) -> None:
        """A client that vanishes while the sink is made: the making is cancelled."""
        later = Later()
        sink = Sink(begin=later)
        session = memory_session(sink)
        session.say(PREAMBLE)
        session.disconnect()
        self.assertEqual((sink.calls, later.cancelled, session.ended), (["begin"], 1, True))

    def test_disconnect_after_a_refusal(self) -> None:
        """A sink that refused was aborted then, and is not aborted again."""
        session, sink = self.begun(write=always(Reject("no")))
        session.disconnect()
        self.assertEqual(sink.calls, ["begin", "write", "abort"])

    def test_disconnect_while_finishing(self) -> None:
        """After the end of data nothing is cancelled or aborted."""
        later = Later()
        session, sink = self.begun(finish=later)
        session.say(b".\r\n")
        session.disconnect()
        self.assertEqual((sink.calls[-1], later.cancelled, session.ended), ("finish", 0, False))
        later.fire()
        self.assertEqual((sink.calls[-1], session.ended), ("finish", True))

    def test_deadline_while_finishing(self) -> None:
        """The processing deadline cancels ``finish``; that is not an abort as well."""
        later = Later()
        session, sink = self.begun(finish=later)
        session.say(b".\r\n")
        self.assertEqual(codes(session.advance(300.0)), ["451 4.4.5"])
        self.assertEqual((sink.calls[-1], later.cancelled), ("finish", 1))

    def test_disconnect_between_messages(self) -> None:
        """A message that is finished is not aborted by what comes later."""
        session, sink = self.begun()
        session.say(b".\r\n" + ENVELOPE)
        session.disconnect()
        self.assertEqual((sink.calls[-1], "abort" in sink.calls), ("finish", False))

    def test_too_slow(self) -> None:
        """A client that is cut off for its slowness."""
        session, sink = self.begun()
        session.advance(3600.0)
        self.assertEqual((sink.calls, session.ended), (["begin", "write", "abort"], True))

    def test_too_big(self) -> None:
        """Content over the limit aborts the sink as soon as it is over."""
        sink = Sink()
        session = memory_session(sink, terms=Terms(hostname="mx.example", max_size=100))
        session.say(PREAMBLE + b"x" * 50)
        session.say(b"x" * 60 + b"\r\n")
        self.assertEqual(sink.calls, ["begin", "write", "abort"])
        self.assertEqual(codes(session.say(b".\r\n" + ENVELOPE)), ["552 5.3.4", "250 2.1.0", "250 2.1.5"])
        session.disconnect()
        self.assertEqual(sink.calls.count("abort"), 1)

    def test_abort_that_raises_at_the_disconnect(self) -> None:
        """An ``abort`` that raises when the client is gone keeps no session alive."""
        session, _ = self.begun(abort=always(ValueError("in abort")))
        session.disconnect()
        self.assertTrue(session.ended)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_sink_that_comes_too_late(self) -> None:
        """A sink that ``begin`` gives when nobody wants it any more is aborted, so that it can let go."""

        async def stubborn() -> Any:
            try:
                await Deferred()
            except Exception:
                return sink

        sink = Sink(begin=stubborn)
        session = memory_session(sink)
        session.say(PREAMBLE)
        session.disconnect()
        self.assertEqual(sink.calls, ["begin", "abort"])
