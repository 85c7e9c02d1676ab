"""``smtpserv.testing``: the tools find what they are there to find."""

import unittest
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

import smtpserv.testing
from smtpserv import reply
from smtpserv.dialogue import state
from smtpserv.dialogue.terms import BareNewlines, Terms
from smtpserv.error import Reject
from smtpserv.interfaces import IMessageProcessor, IMessageSink, IStreamingProcessor
from smtpserv.message import Peer
from smtpserv.processors.discard import DiscardProcessor
from smtpserv.reply import Reply, Results
from smtpserv.server.limits import Limits
from smtpserv.testing import (
    DialoguePair,
    HandThread,
    MessageProcessorContract,
    RecordingProcessor,
    Script,
    StreamingProcessorContract,
    at_every_split,
    make_message,
    memory_session,
    read_script,
)
from tests.server_tools import CONTENT, DONE, GRANTED, HELLO, PREAMBLE, TRANSACTION, codes


class PublicTests(SynchronousTestCase):
    """What a plug-in's author imports."""

    def test_names(self) -> None:
        """All that is promised is there, and says what it is for."""
        for name in smtpserv.testing.__all__:
            found = getattr(smtpserv.testing, name)
            self.assertTrue(isinstance(found, bytes) or found.__doc__, name)

    def test_docstring_example(self) -> None:
        """The example in the docstring is true."""
        session = memory_session(RecordingProcessor())
        session.say(PREAMBLE)
        session.say(b"Subject: hello\r\n\r\nhello\r\n.\r\n")
        self.assertEqual(session.last_reply().code, 250)


class SplitTests(SynchronousTestCase):
    """``at_every_split``."""

    @given(st.binary(max_size=40))
    @settings(max_examples=50, deadline=None, database=None)
    def test_complete(self, octets: bytes) -> None:
        """Whole, octet by octet, and cut in two at each place; each way makes up the whole."""
        ways = list(at_every_split(octets))
        self.assertEqual([b"".join(pieces) for pieces in ways], [octets] * len(ways))
        self.assertIn([octets], ways)
        self.assertIn([octets[i : i + 1] for i in range(len(octets))], ways)
        self.assertEqual({len(pieces[0]) for pieces in ways[2:]}, set(range(1, len(octets))))
        self.assertTrue(all(len(pieces) == 2 and all(pieces) for pieces in ways[2:]))


class RecordingProcessorTests(SynchronousTestCase):
    """``RecordingProcessor``."""

    def test_remembers(self) -> None:
        """It keeps the messages in their order, and accepts them."""
        processor, messages = RecordingProcessor(), [make_message(), make_message(b"x")]
        self.assertEqual([processor.process_message(message) for message in messages], [None, None])
        self.assertEqual(processor.messages, messages)

    def test_outcomes(self) -> None:
        """It answers what it was told to, in turn, raises what is an exception, and then accepts."""
        results = Results([Reply(250, "x")])
        processor = RecordingProcessor(iter([Reply(550, "no"), None, results, Reject("no"), ValueError("x")]))
        answers = [processor.process_message(make_message()) for _ in range(3)]
        self.assertEqual(answers, [Reply(550, "no"), None, results])
        self.assertRaises(Reject, processor.process_message, make_message())
        self.assertRaises(ValueError, processor.process_message, make_message())
        self.assertIsNone(processor.process_message(make_message()))
        self.assertEqual(len(processor.messages), 6)


class HandThreadTests(SynchronousTestCase):
    """``HandThread``."""

    def test_waits(self) -> None:
        """A call waits for its step, and calls are done in their order."""
        thread, done = HandThread(), list[int]()
        answers = [thread(done.append, number) for number in range(2)]
        self.assertEqual(done, [])
        thread.step()
        self.assertEqual(done, [0])
        self.successResultOf(answers[0])
        self.assertNoResult(answers[1])

    def test_outcomes(self) -> None:
        """What the call returns or raises is the outcome."""
        thread = HandThread()
        good, bad = thread(int, "7"), thread(int, "x")
        thread.step()
        thread.step()
        self.assertEqual(self.successResultOf(good), 7)
        self.failureResultOf(bad, ValueError)


class MemorySessionTests(SynchronousTestCase):
    """``memory_session`` and ``make_message``."""

    def test_choices(self) -> None:
        """The terms, limits and peer are those that were given."""
        processor = RecordingProcessor()
        peer = Peer("2001:db8::1", 1)
        terms, limits = Terms(hostname="other.example", max_size=70000), Limits(idle_timeout=5.0)
        session = memory_session(processor, peer, terms=terms, limits=limits)
        self.assertEqual(session.hear(), reply.greeting("other.example").octets)
        self.assertIn(b"SIZE 70000", session.say(HELLO))
        session.say(TRANSACTION)
        self.assertEqual(processor.messages[0].session.peer, peer)
        self.assertEqual(codes(session.advance(5.0)), ["421 4.4.2"])

    def test_hear_once(self) -> None:
        """What was heard is not heard again, and ``last_reply`` is of what was heard last."""
        session = memory_session(RecordingProcessor())
        self.assertEqual(codes(session.say(HELLO)), GRANTED[:2])
        self.assertEqual(session.last_reply().code, 250)
        self.assertEqual(session.hear(), b"")

    def test_closed(self) -> None:
        """A client that says more on a closed connection hears nothing."""
        session = memory_session(RecordingProcessor())
        session.say(b"QUIT\r\n")
        self.assertTrue(session.is_closed and session.ended)
        self.assertEqual(session.say(HELLO), b"")
        session.disconnect()

    def test_journal(self) -> None:
        """The mail log is at hand."""
        session = memory_session(RecordingProcessor())
        session.say(HELLO + TRANSACTION)
        session.clock.advance(0)
        self.assertIn(" message id=", "".join(session.journal))

    def test_streaming_and_whole(self) -> None:
        """Processors of either kind will do, and anything else will not."""
        for processor in (RecordingProcessor(), DiscardProcessor()):
            self.assertEqual(codes(memory_session(processor).say(HELLO + TRANSACTION))[2:], DONE)
        self.assertRaises(TypeError, memory_session, object())

    def test_make_message(self) -> None:
        """A message is made of what is given, and of likely things for the rest."""
        message = make_message(CONTENT, "", ["c@c.example", "d@d.example"])
        self.assertTrue(message.envelope.reverse_path.is_null)
        self.assertEqual(
            [path.address for path in message.envelope.forward_paths], ["c@c.example", "d@d.example"]
        )
        self.assertEqual((message.content.read(), make_message().session.protocol), (CONTENT, "ESMTP"))


SCRIPT = """\
# A message with dots.
T: max_size = 70000
T: bare_newlines = allow

S: 220 mx.example ...
C: EHLO client.example
S: 250-mx.example
S: 250-PIPELINING
S: 250-SIZE 70000
S: 250-8BITMIME
S: 250-SMTPUTF8
S: 250-ENHANCEDSTATUSCODES
S: 250-LIMITS RCPTMAX=1000
S: 250 CHUNKING
C: MAIL FROM:<a@a.example>
S: 250 2.1.0 ...
C: RCPT TO:<b@b.example>
S: 250 2.1.5 ...
C: DATA
S: 354 ...
C: ..dot \\x00\\\\
C: {a*3}\\r\\n\\c
C: .
S: 250 2.6.0 Ok, ...
E: <a@a.example> -> <b@b.example>
M: .dot \\0\\\\
M: aaa
"""


class ScriptTests(SynchronousTestCase):
    """``read_script`` and what it checks."""

    def test_read(self) -> None:
        """Each kind of line goes where it belongs, escapes and all."""
        script = read_script(
            "# c\n\nT: max_size = 5\nT: bare_newlines = allow\n"
            "C: a{b*3}\\x41\\0\\c\nC: x\nS: 250 ...\nS: 5.0\n"
        )
        self.assertEqual(script.spoken, b"abbbA\0x\r\n")
        self.assertEqual(script.replies, "250\\ [^\r\n]*\r\n5\\.0\r\n")
        self.assertEqual(script.terms, {"max_size": 5, "bare_newlines": BareNewlines.ALLOW})
        envelopes = read_script("E: <> -> <b@b.example>\nM: one\nM:\nE: <> -> <c@c.example>\n")
        self.assertEqual((len(envelopes.envelopes), envelopes.messages), (2, [b"one\r\n\r\n", b""]))

    def test_escaped_backslash_at_the_end(self) -> None:
        """A line that ends in an escaped backslash and a c has its CRLF."""
        self.assertEqual(read_script("C: a\\\\c\n").spoken, b"a\\c\r\n")

    def test_passes(self) -> None:
        """A true script passes, however it is split."""
        script = read_script(SCRIPT)
        for pieces in at_every_split(script.spoken):
            script.check(pieces)

    def test_fails(self) -> None:
        """A script that is wrong in any line fails, and says what was heard."""
        changes = {
            "S: 354 ...": "S: 355 ...",
            "S: 250-8BITMIME\n": "",
            "M: .dot": "M: ..dot",
            "M: aaa\n": "",
            "<b@b.example>\nM": "<c@c.example>\nM",
            "C: .\n": "",
            "max_size = 70000": "max_size = 70001",
        }
        for old, new in changes.items():
            self.assertIn(old, SCRIPT)
            script = read_script(SCRIPT.replace(old, new))
            error = self.assertRaises(AssertionError, script.check, [script.spoken])
            self.assertIn("split", str(error))

    def test_nothing_more_may_be_said(self) -> None:
        """A reply that is not in the script is a failure."""
        script = Script(b"NOOP\r\n", "220 [^\r\n]*\r\n")
        self.assertRaises(AssertionError, script.check, [script.spoken])

    def test_wrong_lines(self) -> None:
        """A line of no kind is refused, and its number told."""
        for line in ("X: what", "c: small", "EHLO x", "C"):
            error = self.assertRaises(ValueError, read_script, f"C: QUIT\n{line}\n")
            self.assertIn("line 2", str(error))

    def test_wrong_contents_of_lines(self) -> None:
        """So is a line that can't be what it says: an unknown escape or term, content without an envelope."""
        for line in ("C: \\q", "M: content of nothing", "T: max_size = many", "T: bare_newlines = perhaps"):
            error = self.assertRaises(ValueError, read_script, f"C: QUIT\n{line}\n")
            self.assertIn("line 2", str(error), line)


class DialoguePairTests(SynchronousTestCase):
    """``DialoguePair``: two sides, one table."""

    def test_whole_session(self) -> None:
        """A session in which both are in the same state after each exchange."""
        pair = DialoguePair()
        for line in (b"EHLO client.example", b"MAIL FROM:<>", b"RCPT TO:<b@b.example>", b"DATA"):
            self.assertIn(pair.command(line).reply_class, (2, 3))
        self.assertIs(pair.client_state, state.DATA)
        self.assertEqual(pair.mail_data(b"x\r\n.\r\n").code, 250)
        self.assertEqual(pair.command(b"quit").code, 221)
        self.assertIs(pair.client_state, state.CLOSED)

    def test_answers(self) -> None:
        """The answer given is the one sent, and moves both."""
        pair = DialoguePair()
        pair.command(b"EHLO client.example")
        self.assertEqual(pair.command(b"MAIL FROM:<>", Reply(450, "later")).code, 450)
        self.assertIs(pair.client_state, state.READY)

    def test_disagreement(self) -> None:
        """When the server's table says another state than the replies do, the pair fails."""
        pair = DialoguePair()
        pair.server.state = state.RCPT
        error = self.assertRaises(AssertionError, pair.command, b"NOOP")
        self.assertIn("CONNECTED", str(error))

    def test_too_many_replies(self) -> None:
        """When one exchange has more than one reply, or none, the pair fails."""
        self.assertRaises(AssertionError, DialoguePair().command, b"NOOP\r\nNOOP")
        pair = DialoguePair()
        for line in (b"EHLO client.example", b"MAIL FROM:<>", b"RCPT TO:<b@b.example>", b"DATA"):
            pair.command(line)
        self.assertRaises(AssertionError, pair.mail_data, b"no end\r\n")


def outcome_of(contract: type, made: object) -> tuple[int, int]:
    """How many tests of a contract there are for a processor, and how many it fails."""

    class Case(contract, TestCase):  # type: ignore[misc]
        """A case that is run here and not by the runner."""

        def make_processor(self) -> object:
            return made

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    return result.testsRun, len(result.failures) + len(result.errors)


class Answering:
    """Has the method, and answers as it is told to."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def process_message(self, message: object) -> Any:
        return self._answer


@implementer(IMessageProcessor)
class Declared(Answering):
    """Says that it is a processor."""


@implementer(IStreamingProcessor, IMessageSink)
class DeclaredStreaming:
    """A streaming processor that is its own sink, and answers as it is told to."""

    def __init__(self, answer: Any = None, sink: object = None) -> None:
        self._answer = answer
        self._sink = sink

    def begin(self, session: object, envelope: object) -> Any:
        return self._sink or self

    def write(self, octets: bytes) -> None:
        """Drop it."""

    def finish(self) -> Any:
        return self._answer

    def abort(self) -> None:
        """Nothing to release."""


class ContractTests(SynchronousTestCase):
    """The contracts catch those who break them."""

    def test_kept(self) -> None:
        """Who keeps it passes, whichever answer it gives."""
        for answer in (None, Reply(250, "x"), Reply(550, "x"), Reply(450, "x")):
            ran, failed = outcome_of(MessageProcessorContract, Declared(answer))
            self.assertEqual((ran > 2, failed), (True, 0), answer)
        ran, failed = outcome_of(StreamingProcessorContract, DeclaredStreaming())
        self.assertEqual((ran > 2, failed), (True, 0))

    def test_broken(self) -> None:
        """Who answers what the interface does not allow fails."""
        for answer in ("yes", True, Reply(354, "x"), Results([Reply(250, "x")] * 7)):
            self.assertGreater(outcome_of(MessageProcessorContract, Declared(answer))[1], 0, answer)
        for answer in ("yes", True):
            self.assertGreater(
                outcome_of(StreamingProcessorContract, DeclaredStreaming(answer))[1], 0, answer
            )

    def test_streaming_answers_are_checked_as_well(self) -> None:
        """A 3yz, or results of a wrong number, are no answer of ``finish`` either."""
        for answer in (Reply(354, "x"), Results([Reply(250, "x")] * 7)):
            self.assertGreater(
                outcome_of(StreamingProcessorContract, DeclaredStreaming(answer))[1], 0, answer
            )

    def test_undeclared(self) -> None:
        """Who does not say what it is fails."""
        self.assertEqual(outcome_of(MessageProcessorContract, Answering(None))[1], 1)

    def test_no_sink(self) -> None:
        """A streaming one whose sink is none fails."""
        self.assertGreater(outcome_of(StreamingProcessorContract, DeclaredStreaming(sink=object()))[1], 0)

    def test_async(self) -> None:
        """``async def`` and Deferreds are awaited."""

        @implementer(IMessageProcessor)
        class Async:
            async def process_message(self, message: object) -> None:
                fired: Deferred[None] = Deferred()
                fired.callback(None)
                await fired

        self.assertEqual(outcome_of(MessageProcessorContract, Async())[1], 0)
