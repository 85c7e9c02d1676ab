"""Sessions in memory: what processors may answer, the order of replies, and what a disconnect undoes."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpserv.dialogue.terms import Terms
from smtpserv.error import Defer, Reject
from smtpserv.interfaces import IMessageObserver, IMessageProcessor
from smtpserv.reply import Reply, Results
from smtpserv.server.limits import Limits
from smtpserv.testing import MemorySession, RecordingProcessor, memory_session
from tests.server_tools import (
    CONTENT,
    DONE,
    ENVELOPE,
    GRANTED,
    HELLO,
    PREAMBLE,
    TRANSACTION,
    Answer,
    Later,
    Policy,
    Processor,
    Sink,
    always,
    captured_log,
    codes,
    depth,
)


def _deferred(answer: object) -> Answer:
    return lambda *facts: fail(answer) if isinstance(answer, Exception) else succeed(answer)


def _coroutine(answer: object) -> Answer:
    async def call(*facts: object) -> object:
        return always(answer)()

    return call


def _generator_of_await(answer: object) -> Answer:
    async def call(*facts: object) -> object:
        await succeed(None)
        return always(answer)()

    return call


#: The ways in which an answer that is known can be given.
WAYS: dict[str, Callable[[object], Answer]] = {
    "at once": always,
    "by a Deferred": _deferred,
    "by async def": _coroutine,
    "by async def with await": _generator_of_await,
}


def end_of_data_each_way(answer: object, recipients: int = 1) -> dict[str, list[str]]:
    """What a client hears after the final dot, whichever way the processor gives its answer."""
    heard = {}
    for way, give in WAYS.items():
        session = memory_session(Processor(give(answer)))
        heard[way] = codes(_send(session, recipients))
    later = Later()
    session = memory_session(Processor(later))
    assert _send(session, recipients) == b""
    later.fire(answer if not isinstance(answer, Exception) else fail(answer))
    heard["later"] = codes(session.hear())
    return heard


def _send(session: MemorySession, recipients: int = 1) -> bytes:
    """Send a message up to its end; what was said behind the end."""
    rcpt = b"RCPT TO:<b@b.example>\r\n" * recipients
    session.say(HELLO + b"MAIL FROM:<a@a.example>\r\n" + rcpt + b"DATA\r\n" + CONTENT)
    return session.say(b".\r\n")


def each_way(*expected: str) -> dict[str, list[str]]:
    """The same, whichever way."""
    return {way: list(expected) for way in [*WAYS, "later"]}


class OutcomeTests(SynchronousTestCase):
    """What a processor may answer, at once, by a Deferred, or by ``async def``."""

    def test_none_accepts(self) -> None:
        """A processor that returns nothing has accepted."""
        self.assertEqual(end_of_data_each_way(None), each_way("250 2.6.0"))

    def test_our_acceptance_holds_the_id(self) -> None:
        """The 250 names the id under which the processor and the log know the message."""
        processor = RecordingProcessor()
        session = memory_session(processor)
        _send(session)
        self.assertEqual(session.last_reply(), Reply(250, f"Ok, {processor.messages[0].id}", "2.6.0"))

    def test_reply_is_sent(self) -> None:
        """A Reply goes to the client as it stands."""
        session = memory_session(Processor(always(Reply(250, "thanks\nfor that", "2.6.1"))))
        self.assertEqual(_send(session), b"250-2.6.1 thanks\r\n250 2.6.1 for that\r\n")

    def test_failures_may_be_returned_or_raised(self) -> None:
        """A Reply of 4yz or 5yz, Reject and Defer refuse."""
        refusals = {
            Reply(552, "no", "5.3.4"): "552 5.3.4",
            Reply(450, "no", "4.2.1"): "450 4.2.1",
            Reject("no"): "550 5.7.1",
            Reject("no", 554, "5.6.0"): "554 5.6.0",
            Defer("not now"): "451 4.7.1",
            Defer("full", 452, "4.2.2"): "452 4.2.2",
        }
        for refusal, expected in refusals.items():
            self.assertEqual(end_of_data_each_way(refusal), each_way(expected), refusal)

    def test_421_closes(self) -> None:
        """After a 421 of the processor the connection is closed, and what was pipelined is not run."""
        for answer in (Reply(421, "bye", "4.3.0"), Defer("bye", 421)):
            session = memory_session(Processor(always(answer)))
            heard = session.say(PREAMBLE + CONTENT + b".\r\nNOOP\r\n")
            self.assertEqual([code[:3] for code in codes(heard)][-2:], ["354", "421"])
            self.assertTrue(session.is_closed and session.ended)

    def test_results_of_all_alike(self) -> None:
        """Results with a reply for each recipient become the one reply that SMTP has room for."""
        results = Results([Reply(250, "one", "2.1.5"), Reply(250, "two", "2.1.5")])
        self.assertEqual(end_of_data_each_way(results, 2), each_way("250 2.1.5"))

    def test_results_lose_nobodys_mail(self) -> None:
        """When recipients fare differently, the client is told what makes it keep the message."""
        for replies, expected in (
            ((250, 550), "550 5.0.0"),
            ((550, 450, 250), "450 4.0.0"),
            ((250, 421), "421 4.0.0"),
        ):
            results = Results([Reply(code, "x") for code in replies])
            self.assertEqual(end_of_data_each_way(results, len(replies)), each_way(expected))

    def test_what_no_interface_allows(self) -> None:
        """Anything else is the processor's mistake: 451, and the log says what it returned."""
        log = captured_log(self)
        for answer in (
            True,
            250,
            "250 Ok",
            b"",
            (),
            [Reply(250, "x")],
            Reply,
            Results([Reply(250, "x")] * 3),
        ):
            for recipients in (1, 2):
                self.assertEqual(end_of_data_each_way(answer, recipients), each_way("451 4.3.0"), answer)
            self.assertIn(answer, [event.get("answer") for event in log])

    def test_3yz_is_not_a_processors(self) -> None:
        """A 354 at the end of data would leave the client waiting: it becomes 451."""
        log = captured_log(self)
        self.assertEqual(end_of_data_each_way(Reply(354, "more")), each_way("451 4.3.0"))
        self.assertEqual(end_of_data_each_way(Results([Reply(354, "more")])), each_way("451 4.3.0"))
        self.assertEqual(len(log), 10)

    def test_exceptions_are_451(self) -> None:
        """Whatever a processor raises, the client may try again, and the log holds the traceback."""
        for error in (ValueError("x"), KeyError(), RuntimeError("550 no"), OSError(2, "No such file")):
            self.assertEqual(end_of_data_each_way(error), each_way("451 4.3.0"))
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 5)

    def test_shared_answer(self) -> None:
        """A Deferred that is the answer to several messages, as none should be, is so to each of them."""
        for outcome, heard in (
            (None, "250 2.6.0"),
            (Reply(550, "No", "5.7.1"), "550 5.7.1"),
            (ValueError(), "451 4.3.0"),
            (Defer("Later"), "451 4.7.1"),
        ):
            shared: Deferred[Any] = Deferred()
            sessions = [memory_session(Processor(lambda _, shared=shared: shared)) for _ in range(3)]
            for session in sessions:
                self.assertEqual(_send(session), b"")
            if isinstance(outcome, Exception):
                shared.errback(outcome)
            else:
                shared.callback(outcome)
            self.assertEqual([codes(session.hear()) for session in sessions], [[heard]] * 3)
            self.flushLoggedErrors(ValueError)

    def test_exit_is_451(self) -> None:
        """A processor that would end the program does not: its client may try again."""

        def leave(message: object) -> object:
            sys.exit(3)

        self.assertEqual(codes(_send(memory_session(Processor(leave)))), ["451 4.3.0"])
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_exit_elsewhere(self) -> None:
        """Nor does it where nobody asks for an answer: in its canceller, when aborted, as an observer."""

        def leave(*_: object) -> Any:
            sys.exit(3)

        @implementer(IMessageProcessor, IMessageObserver)
        class Observer(Processor):
            message_ended = staticmethod(leave)

        hanging = memory_session(Processor(lambda _: Deferred(leave)))
        self.assertEqual(_send(hanging), b"")
        self.assertEqual(codes(hanging.advance(301))[0], "451 4.4.5")
        aborted = memory_session(Sink(abort=leave))
        aborted.say(PREAMBLE + b"x")
        aborted.disconnect()
        self.assertTrue(aborted.ended)
        observed = memory_session(Observer(always(None)))
        self.assertEqual(
            codes(observed.say(HELLO + TRANSACTION + b"NOOP\r\n"))[-2:], ["250 2.6.0", "250 2.0.0"]
        )
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 3)

    def test_out_of_room_is_452(self) -> None:
        """A full disk, table of files or memory is said to be that."""
        for error in (OSError(28, "No space"), OSError(24, "Too many open files"), MemoryError()):
            self.assertEqual(end_of_data_each_way(error), each_way("452 4.3.1"))
            self.flushLoggedErrors(type(error))

    def test_exception_text_stays_here(self) -> None:
        """No client reads the text of an exception."""
        for way, give in WAYS.items():
            session = memory_session(Processor(give(ValueError("/etc/secret: password"))))
            self.assertEqual(_send(session), b"451 4.3.0 Local error in processing\r\n", way)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), len(WAYS))

    def test_session_goes_on_after_each(self) -> None:
        """Whatever became of a message, the next one is received."""
        outcomes = [None, Reject("no"), Defer("no"), ValueError("x"), Reply(550, "no")]
        processor = RecordingProcessor(outcomes)
        session = memory_session(processor)
        heard = session.say(HELLO + TRANSACTION * 6)
        self.flushLoggedErrors(ValueError)
        ends = ["250 2.6.0", "550 5.7.1", "451 4.7.1", "451 4.3.0", "550 5.0.0", "250 2.6.0"]
        self.assertEqual(codes(heard)[2:], [code for end in ends for code in [*DONE[:3], end]])
        self.assertEqual([message.content.read() for message in processor.messages], [CONTENT] * 6)


class MessageTests(SynchronousTestCase):
    """What a processor is given."""

    def test_session_and_envelope(self) -> None:
        """The processor sees who spoke, how, from whom and for whom."""
        processor = RecordingProcessor()
        session = memory_session(processor)
        session.say(
            HELLO + b"MAIL FROM:<a@a.example> SIZE=100 BODY=8BITMIME\r\n"
            b"RCPT TO:<b@b.example>\r\nRCPT TO:<postmaster>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n.\r\n"
        )
        (message,) = processor.messages
        facts = (message.session.peer.host, message.session.peer.port, message.session.hello_name)
        self.assertEqual((*facts, message.session.protocol), ("192.0.2.1", 2525, "client.example", "ESMTP"))
        self.assertEqual(str(message.envelope.reverse_path), "<a@a.example>")
        self.assertEqual((message.envelope.size, message.envelope.body), (100, "8BITMIME"))
        recipients = [path.address for path in message.envelope.forward_paths]
        self.assertEqual(recipients, ["b@b.example", "postmaster", "b@b.example"])

    def test_ids_differ(self) -> None:
        """Each message has an id of its own, which begins with its session's."""
        processor = RecordingProcessor()
        memory_session(processor).say(HELLO + TRANSACTION * 2)
        memory_session(processor).say(HELLO + TRANSACTION)
        self.assertEqual(len({message.id for message in processor.messages}), 3)
        self.assertTrue(all(each.id.startswith(each.session.id) for each in processor.messages))


class OrderTests(SynchronousTestCase):
    """A client may pipeline; replies come in the order of commands, however long each takes."""

    def test_nothing_overtakes(self) -> None:
        """While an answer is awaited, nothing behind it is looked at or answered."""
        later = Later()
        policy = Policy(recipient=later)
        session = memory_session(RecordingProcessor(), policies=[policy])
        heard = session.say(HELLO + ENVELOPE + b"RCPT TO:<c@c.example>\r\nNOOP\r\nnonsense\r\nQUIT\r\n")
        self.assertEqual(codes(heard), GRANTED[:3])
        self.assertEqual(len(later.given), 1)
        later.fire(Reply(550, "no", "5.1.1"))
        self.assertEqual(codes(session.hear()), ["550 5.1.1"])
        self.assertEqual(len(later.given), 2)
        later.fire()
        self.assertEqual(codes(session.hear()), ["250 2.1.5", "250 2.0.0", "500 5.5.2", "221 2.0.0"])
        self.assertTrue(session.ended)

    def test_out_of_band(self) -> None:
        """Answers that a clock brings in the middle of what the client says keep the order."""
        delays = iter([3.0, 0.0, 1.0, 2.0])

        def ask(*facts: object) -> "Deferred[None]":
            answer: Deferred[None] = Deferred()
            session.clock.callLater(next(delays), answer.callback, None)
            return answer

        session = memory_session(Processor(ask), policies=[Policy(sender=ask, recipient=ask)])
        heard = session.say(HELLO + ENVELOPE + b"RCPT TO:<c@c.example>\r\nDATA\r\n" + CONTENT[:5])
        for octets in (CONTENT[5:], b".\r", b"\nQUIT", b"\r\n"):
            heard += session.say(octets)
            heard += session.advance(1.0)
        heard += b"".join(session.advance(1.0) for _ in range(5))
        expected = [*GRANTED[:4], "250 2.1.5", "354", "250 2.6.0", "221 2.0.0"]
        self.assertEqual(codes(heard), expected)

    def test_one_message_at_a_time(self) -> None:
        """The second of two pipelined messages waits for the first one's answer."""
        later = Later()
        session = memory_session(Processor(later))
        session.say(HELLO + TRANSACTION * 2)
        self.assertEqual(len(later.given), 1)
        later.fire(Reply(550, "first"))
        self.assertEqual(codes(session.hear()), ["550 5.0.0", *DONE[:3]])
        later.fire(Reply(552, "second"))
        self.assertEqual(codes(session.hear()), ["552 5.0.0"])

    def test_thousands_do_not_recurse(self) -> None:
        """A thousand pipelined recipients, answered at once by Deferreds, are a loop and no recursion."""
        for name, give in WAYS.items():
            depths: list[int] = []

            def ask(*facts: object, give: Any = give, depths: list[int] = depths) -> Any:
                depths.append(depth())
                return give(None)()

            session = memory_session(
                RecordingProcessor(), policies=[Policy(recipient=ask), Policy(recipient=ask)]
            )
            heard = session.say(HELLO + b"MAIL FROM:<>\r\n" + b"RCPT TO:<b@b.example>\r\n" * 1000)
            self.assertEqual(codes(heard)[3:], ["250 2.1.5"] * 1000, name)
            self.assertLess(max(depths) - min(depths), 10, name)

    def test_later_answers_do_not_recurse(self) -> None:
        """Nor do a thousand that come later."""
        later = Later()
        session = memory_session(RecordingProcessor(), policies=[Policy(recipient=later)])
        session.say(HELLO + b"MAIL FROM:<>\r\n" + b"RCPT TO:<b@b.example>\r\n" * 1000)
        for _ in range(1000):
            later.fire()
        self.assertEqual(codes(session.hear()), ["250 2.1.5"] * 1000)


class ProcessingDeadlineTests(SynchronousTestCase):
    """A processor that hangs costs one message, and not the session."""

    def setUp(self) -> None:
        self.later = Later()
        limits = Limits(processing_deadline=300.0)
        self.session = memory_session(Processor(self.later), limits=limits)
        self.session.say(PREAMBLE + CONTENT + b".\r\n")

    def test_client_is_told(self) -> None:
        """At the deadline, and not before, the client hears 451 4.4.5 and the Deferred is cancelled."""
        self.assertEqual((self.session.advance(299.0), self.later.cancelled), (b"", 0))
        self.assertEqual(codes(self.session.advance(1.0)), ["451 4.4.5"])
        self.assertEqual(self.later.cancelled, 1)

    def test_session_goes_on(self) -> None:
        """The next message is received in the same session."""
        self.session.advance(300.0)
        self.session.say(TRANSACTION)
        self.later.fire()
        self.assertEqual(codes(self.session.hear()), ["250 2.6.0"])

    def test_late_result_is_ignored(self) -> None:
        """What a processor answers after its deadline is nobody's: no second reply, no harm."""
        self.session.advance(300.0)
        self.session.say(ENVELOPE)
        self.later.given[0].callback(Reply(421, "late"))
        self.assertEqual(codes(self.session.say(b"NOOP\r\n")), ["250 2.0.0"])

    def test_late_failure_is_ignored(self) -> None:
        """So is what it raises."""
        self.session.advance(300.0)
        self.later.given[0].errback(ValueError("late"))
        self.assertEqual(codes(self.session.say(b"NOOP\r\n")), ["250 2.0.0"])

    def test_coroutine_that_cleans_up(self) -> None:
        """``async def`` sees the cancellation, and what it answers then is ignored."""
        seen: list[str] = []

        async def process(message: object) -> Reply:
            try:
                await Later()()
            finally:
                seen.append("cleaned up")
                return Reply(250, "all the same")  # noqa: B012

        session = memory_session(Processor(process))
        session.say(PREAMBLE + CONTENT + b".\r\n")
        self.assertEqual((codes(session.advance(300.0)), seen), (["451 4.4.5"], ["cleaned up"]))
        self.assertEqual(codes(session.say(b"NOOP\r\n")), ["250 2.0.0"])

    def test_canceller_that_raises(self) -> None:
        """A canceller that raises is the processor's mistake: logged, and the client is told all the same."""

        def broken(_: object) -> None:
            raise ValueError("in the canceller")

        session = memory_session(Processor(lambda message: Deferred(broken)))
        session.say(PREAMBLE + CONTENT + b".\r\n")
        self.assertEqual(codes(session.advance(300.0)), ["451 4.4.5"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_policies_have_it_too(self) -> None:
        """A policy that hangs defers what it was asked about, and the next is asked afresh."""
        later = Later()
        session = memory_session(RecordingProcessor(), policies=[Policy(sender=later)])
        session.say(HELLO + b"MAIL FROM:<a@a.example>\r\n")
        self.assertEqual(codes(session.advance(300.0)), ["451 4.4.5"])
        session.say(b"MAIL FROM:<a@a.example>\r\n")
        later.fire()
        self.assertEqual(codes(session.hear()), ["250 2.1.0"])

    def test_connect_policy_has_it_too(self) -> None:
        """Where the greeting is still owed, the client is told 421."""
        session = memory_session(RecordingProcessor(), policies=[Policy(connect=Later())])
        self.assertEqual(codes(session.advance(300.0)), ["421 4.4.5"])
        self.assertTrue(session.ended)


def before_end_of_data() -> Iterator[tuple[str, MemorySession, Later]]:
    """Sessions, each in another state in which somebody is waited for and no message is complete."""
    states = {
        "connect": b"",
        "hello": HELLO,
        "sender": HELLO + ENVELOPE,
        "recipient": HELLO + ENVELOPE,
    }
    for stage, octets in states.items():
        later = Later()
        session = memory_session(RecordingProcessor(), policies=[Policy(**{stage: later})])
        session.say(octets)
        yield stage, session, later


class DisconnectTests(SynchronousTestCase):
    """A client may vanish at any time."""

    def test_policies_are_cancelled(self) -> None:
        """A policy need not decide about a client that is gone."""
        for stage, session, later in before_end_of_data():
            self.assertEqual((len(later.given), later.cancelled), (1, 0), stage)
            session.disconnect()
            self.assertEqual((later.cancelled, session.ended), (1, True), stage)

    def test_late_answers_do_no_harm(self) -> None:
        """One that ignores the cancellation and answers is not heard."""
        for stage, session, later in before_end_of_data():
            session.hear()
            session.disconnect()
            later.fire(Reply(421, "late"))
            self.assertEqual(session.hear(), b"", stage)

    def test_at_rest(self) -> None:
        """Between commands there is nothing to undo, and the session ends at once."""
        for octets in (
            b"",
            HELLO,
            HELLO + ENVELOPE,
            PREAMBLE,
            PREAMBLE + CONTENT,
            PREAMBLE + CONTENT + b".\r",
        ):
            processor = RecordingProcessor()
            session = memory_session(processor)
            session.say(octets)
            session.disconnect()
            self.assertEqual((session.ended, processor.messages), (True, []), octets)

    def test_complete_message_is_processed(self) -> None:
        """After the final dot the processor is not cancelled, and the session ends when it is done."""
        for answer in (None, Reply(550, "no"), Reply(421, "bye"), fail(Reject("no"))):
            later = Later()
            session = memory_session(Processor(later))
            session.say(PREAMBLE + CONTENT + b".\r\n")
            session.disconnect()
            self.assertEqual((later.cancelled, session.ended), (0, False))
            later.fire(answer)
            self.assertEqual((later.cancelled, session.ended), (0, True))

    def test_what_was_pipelined_is_not_run(self) -> None:
        """A message behind the one that was complete is not begun for a client that is gone."""
        later = Later()
        session = memory_session(Processor(later))
        session.say(HELLO + TRANSACTION * 2)
        session.disconnect()
        later.fire()
        self.assertEqual((len(later.given), session.ended), (1, True))

    def test_deadline_still_counts(self) -> None:
        """A processor that hangs on a complete message is cancelled by its deadline, with no client there."""
        later = Later()
        session = memory_session(Processor(later))
        session.say(PREAMBLE + CONTENT + b".\r\n")
        session.disconnect()
        session.advance(299.0)
        self.assertEqual((later.cancelled, session.ended), (0, False))
        session.advance(1.0)
        self.assertEqual((later.cancelled, session.ended), (1, True))

    def test_verdict_is_on_record(self) -> None:
        """What became of a message whose client is gone is in the mail log."""
        later = Later()
        session = memory_session(Processor(later))
        session.say(PREAMBLE + CONTENT + b".\r\n")
        session.disconnect()
        later.fire(Reply(552, "no", "5.3.4"))
        session.clock.advance(0)
        self.assertIn("code=552 status=5.3.4", "".join(session.journal))

    def test_canceller_that_raises(self) -> None:
        """A canceller that raises keeps no session alive."""

        def broken(_: object) -> None:
            raise ValueError("in the canceller")

        policy = Policy(sender=lambda *facts: Deferred(broken))
        session = memory_session(RecordingProcessor(), policies=[policy])
        session.say(HELLO + ENVELOPE)
        session.disconnect()
        self.assertTrue(session.ended)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_disconnect_while_answering(self) -> None:
        """A processor that answers in the same moment as the client goes is answered to nobody."""
        later = Later()
        session = memory_session(Processor(later))
        session.say(PREAMBLE + CONTENT + b".\r\n")

        def vanish(answer: object) -> object:
            session.disconnect()
            return answer

        later.given[0].addBoth(vanish)
        later.fire()
        self.assertTrue(session.ended)


class MemoryTests(SynchronousTestCase):
    """What a session holds on to."""

    def test_answers_are_forgotten(self) -> None:
        """An answer that took its time, a sink and what is in it perhaps, is not kept when it was used."""
        later = Later()
        session = memory_session(Processor(later))
        session.say(PREAMBLE + CONTENT + b".\r\n")
        session.advance(2.0)
        later.fire()
        session.advance(1.0)
        self.assertIsNone(session.protocol._conversation.inquiry._watch._awaited)


class GoodbyeTests(SynchronousTestCase):
    """QUIT ends a session, and nothing behind it is heard."""

    def test_quit(self) -> None:
        """QUIT is answered and the connection closed, and everything released."""
        session = memory_session(RecordingProcessor())
        self.assertEqual(
            codes(session.say(PREAMBLE + CONTENT + b".\r\nQUIT\r\nNOOP\r\n")),
            [*GRANTED, "250 2.6.0", "221 2.0.0"],
        )
        self.assertTrue(session.ended)
        session.clock.advance(0)
        self.assertTrue(session.journal)
        self.assertEqual(session.clock.getDelayedCalls(), [])


class FairnessTests(SynchronousTestCase):
    """A client that pipelines without end lets others have their turn."""

    def test_turns(self) -> None:
        """After some hundred events the rest waits for the next turn of the reactor, and nothing is lost."""
        processor = RecordingProcessor()
        session = memory_session(processor)
        session.say(HELLO)
        session.protocol.dataReceived(TRANSACTION * 300)
        first = len(processor.messages)
        self.assertTrue(0 < first < 100, first)
        session.clock.advance(0)
        self.assertEqual(len(processor.messages), 300)
        self.assertEqual(codes(session.hear()), DONE * 300)

    def test_refusals_in_turns(self) -> None:
        """So does one whose lines are refused without anybody being asked, whatever it says between them."""
        session = memory_session(RecordingProcessor(), terms=Terms(max_recipients=1))
        session.say(HELLO + ENVELOPE)
        rcpt = b"RCPT TO:<b@b.example>\r\n"
        for flood in (rcpt * 3000, (rcpt * 150 + b"RSET\r\n" + ENVELOPE) * 20):
            lines = flood.count(b"\n")
            session.protocol.dataReceived(flood)
            self.assertTrue(0 < session.hear().count(b"\n") < 1000)
            heard = session.heard.count(b"\n")
            session.clock.advance(0)
            self.assertEqual(session.hear().count(b"\n"), lines - heard)

    def test_disconnect_between_turns(self) -> None:
        """A client that vanishes between two turns is gone."""
        session = memory_session(RecordingProcessor())
        session.protocol.dataReceived(HELLO + TRANSACTION * 300)
        session.disconnect()
        self.assertTrue(session.ended)
        session.clock.advance(0)
        self.assertTrue(session.journal)
        self.assertEqual(session.clock.getDelayedCalls(), [])
