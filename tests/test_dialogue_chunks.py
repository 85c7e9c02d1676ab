"""BDAT (RFC 3030): content in chunks, and every way in which a client can get it wrong."""

from itertools import groupby
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue.terms import BareNewlines, Terms
from smtpserv.reply import Reply, Results
from smtpserv.server.limits import Limits
from smtpserv.testing import MemorySession, RecordingProcessor, at_every_split, memory_session
from tests.fuzz import examples
from tests.fuzz.strategies import CONTENTS, PLACES, cut
from tests.server_tools import CONTENT, ENVELOPE, HELLO, Later, Sink, always, codes

READY = ["220", "250", "250 2.1.0", "250 2.1.5"]
REFUSED = Reply(554, "No", "5.6.0")
#: Octets that would be commands if they were heard.
TRAP = b"\r\nQUIT\r\nRSET\r\nNOOP\r\n"


def chunk(octets: bytes, last: bool = False) -> bytes:
    """A BDAT command and its octets."""
    return b"BDAT %d%s\r\n%s" % (len(octets), b" LAST" if last else b"", octets)


def sent(processor: object, spoken: bytes, **choices: Any) -> tuple[MemorySession, list[str]]:
    """A session in which all that was said, and what was answered behind the envelope."""
    session = memory_session(processor, **choices)
    heard = session.hear() + session.say(HELLO + ENVELOPE + spoken)
    return session, codes(heard)[len(READY) :]


class ChunkTests(SynchronousTestCase):
    """What is answered to chunks, and what becomes of the sink."""

    def check(self, spoken: bytes, heard: list[str], calls: list[str], **choices: Any) -> None:
        """At every split: the replies, and the calls that the sink saw, several writes in a row as one."""
        sink_answers = choices.pop("answers", {})
        for pieces in at_every_split(spoken):
            sink = Sink(**sink_answers)
            session = memory_session(sink, **choices)
            session.say(HELLO + ENVELOPE)
            self.assertEqual(codes(b"".join(map(session.say, pieces))), heard, pieces)
            session.disconnect()
            seen = [call for call, _ in groupby(sink.calls)]
            self.assertEqual((seen, session.ended), (calls, True), pieces)

    def test_refused_by_begin(self) -> None:
        """A refusal of the first chunk is that of all others, whose octets are read and never heard."""
        spoken = chunk(TRAP) + chunk(TRAP) + chunk(TRAP, last=True) + b"NOOP\r\n"
        self.check(spoken, ["554 5.6.0"] * 3 + ["250 2.0.0"], ["begin"], answers={"begin": always(REFUSED)})

    def test_begun_later(self) -> None:
        """A sink that takes its time to begin gets what came meanwhile, be it nothing at all."""
        for octets in (b"", b"x\r\n"):
            later = Later()
            sink = Sink(begin=later)
            session, _ = sent(sink, chunk(octets, last=True))
            later.fire(sink)
            self.assertEqual(codes(session.hear()), ["250 2.6.0"], octets)

    def test_nothing_for_ever(self) -> None:
        """Chunks of nothing bring no message forward: who sends no others is shown out."""
        session, heard = sent(Sink(), chunk(b"") * 20, terms=Terms(max_commands=10))
        self.assertEqual(heard, ["250 2.0.0"] * 10 + ["421 4.7.0"])
        self.assertTrue(session.ended)
        _, heard = sent(Sink(), chunk(b"x") * 20 + chunk(b"", last=True), terms=Terms(max_commands=10))
        self.assertEqual(heard, ["250 2.0.0"] * 20 + ["250 2.6.0"])

    def test_refused_by_write(self) -> None:
        """A sink that wants no more hears no more, and its refusal is the last answer."""
        spoken = chunk(TRAP) + chunk(TRAP, last=True) + b"NOOP\r\n"
        answers = ["250 2.0.0", "554 5.6.0", "250 2.0.0"]
        calls = ["begin", "write", "abort"]
        self.check(spoken, answers, calls, answers={"write": always(REFUSED)})

    def test_given_up(self) -> None:
        """RSET, EHLO, QUIT and a disconnect between chunks abort the sink once."""
        for spoken, answers in (
            (b"RSET\r\nRSET\r\n", ["250 2.0.0"] * 2),
            (b"EHLO x\r\n", ["250"]),
            (b"QUIT\r\n", ["221 2.0.0"]),
            (b"", []),
            (b"BDAT 5\r\nab", []),
        ):
            self.check(chunk(TRAP) + spoken, ["250 2.0.0", *answers], ["begin", "write", "abort"])

    def test_too_big_in_sum(self) -> None:
        """The chunk that makes it too much is refused and so are all behind it; the sink is aborted once."""
        spoken = chunk(b"x" * 15) + chunk(TRAP) + chunk(b"") + chunk(TRAP, last=True) + b"NOOP\r\n"
        answers = ["250 2.0.0", "552 5.3.4", "552 5.3.4", "552 5.3.4", "250 2.0.0"]
        self.check(spoken, answers, ["begin", "write", "abort"], terms=Terms(max_size=20))

    def test_bare_newline(self) -> None:
        """It is found between chunks too; the message is refused."""
        for first, second in ((b"a\r", b"b\r\n"), (b"a", b"\nb\r\n"), (b"a\r\n\r", b"")):
            sink = Sink()
            _, heard = sent(sink, chunk(first) + chunk(second, last=True) + b"NOOP\r\n")
            self.assertEqual(heard[-2:], ["550 5.6.0", "250 2.0.0"], (first, second))
            self.assertEqual((sink.calls.count("abort"), "finish" in sink.calls), (1, False))

    def test_time_between_transactions(self) -> None:
        """A client that gave up a message by RSET or EHLO is idle, not slow."""
        for verb in (b"RSET\r\n", b"EHLO x\r\n"):
            session, _ = sent(Sink(), chunk(b"x\r\n") + verb)
            session.clock.advance(40)
            session.protocol.sweep(session.clock.seconds())
            self.assertEqual((session.hear(), session.is_closed), (b"", False), verb)

    def test_slow_between_chunks(self) -> None:
        """A client that keeps a message open and sends nothing is cut off, the sink aborted once."""
        sink = Sink()
        session, _ = sent(sink, chunk(b"x\r\n"), limits=Limits(min_data_rate=500))
        self.assertEqual(codes(session.advance(40)), ["421 4.4.2"])
        self.assertEqual((sink.calls.count("abort"), session.ended), (1, True))

    def test_begin_takes_time(self) -> None:
        """Chunks wait for ``begin``, the first's octets included."""
        later, sink = Later(), Sink()
        sink_that_waits = Sink(begin=later)
        session, heard = sent(sink_that_waits, chunk(b"a\r\n") + chunk(TRAP, last=True) + b"NOOP\r\n")
        self.assertEqual(heard, [])
        later.fire(sink)
        self.assertEqual(codes(session.hear()), ["250 2.0.0", "250 2.6.0", "250 2.0.0"])
        self.assertEqual(sink.content, b"a\r\n" + TRAP)

    def test_unknown_size_closes(self) -> None:
        """Nobody knows where the next command begins behind a size that is none: wherever it is said."""
        for size in (b"", b"x", b"-1", b"5 LASTLY", b"%d" % 2**63, b"1" * 30, b"5 LAST x"):
            session = memory_session(Sink(), terms=Terms(tls=True, require_tls=True))
            session.say(HELLO)
            self.assertEqual(codes(session.say(b"BDAT " + size + b"\r\nNOOP\r\n")), ["501 5.5.4"], size)
            self.assertTrue(session.is_closed)
            _, heard = sent(Sink(), b"BDAT " + size + b"\r\nNOOP\r\n")
            self.assertEqual(heard, ["501 5.5.4"], size)


class LMTPTests(SynchronousTestCase):
    """Under LMTP a message has an answer for each recipient, however it was sent."""

    def lmtp(self, processor: object, spoken: bytes) -> list[str]:
        """What is answered after three recipients, the first of them twice."""
        session = memory_session(processor, terms=Terms(lmtp=True, max_size=100))
        rcpts = b"RCPT TO:<b@b.example>\r\nRCPT TO:<c@b.example>\r\nRCPT TO:<b@b.example>\r\n"
        session.say(b"LHLO x\r\nMAIL FROM:<a@a.example>\r\n" + rcpts)
        return codes(session.say(spoken + b"NOOP\r\n"))

    def test_each(self) -> None:
        """Mixed results are said in the order of the recipients."""
        mixed = Results([Reply(250), Reply(452, "Later", "4.2.2"), Reply(550, "No", "5.1.1")])
        expected = ["250 2.0.0", "452 4.2.2", "550 5.1.1", "250 2.0.0"]
        self.assertEqual(self.lmtp(RecordingProcessor([mixed]), chunk(CONTENT, last=True)), expected)
        data = b"DATA\r\n" + CONTENT + b".\r\n"
        self.assertEqual(self.lmtp(RecordingProcessor([mixed]), data), ["354", *expected])

    def test_whole_message(self) -> None:
        """One outcome for all is said to each."""
        refusing = RecordingProcessor([REFUSED])
        expected = ["554 5.6.0"] * 3 + ["250 2.0.0"]
        self.assertEqual(self.lmtp(refusing, chunk(CONTENT, last=True)), expected)
        big = ["552 5.3.4"] * 3 + ["250 2.0.0"]
        self.assertEqual(self.lmtp(Sink(), chunk(b"x" * 101, last=True)), big)
        self.assertEqual(self.lmtp(Sink(), b"DATA\r\n" + b"x" * 101 + b"\r\n.\r\n"), ["354", *big])

    def test_one_for_a_chunk_and_for_data(self) -> None:
        """What does not end the message is answered once."""
        heard = self.lmtp(Sink(begin=always(REFUSED)), chunk(CONTENT) + chunk(b"", last=True))
        self.assertEqual(heard, ["554 5.6.0"] * 4 + ["250 2.0.0"])
        self.assertEqual(self.lmtp(Sink(begin=always(REFUSED)), b"DATA\r\n"), ["554 5.6.0", "250 2.0.0"])

    def test_last_words_close(self) -> None:
        """A 421 among the results closes, when each recipient has its answer."""
        mixed = Results([Reply(450), Reply(421), Reply(250)])
        session = memory_session(RecordingProcessor([mixed]), terms=Terms(lmtp=True))
        rcpts = b"RCPT TO:<b@b.example>\r\n" * 3
        session.say(b"LHLO x\r\nMAIL FROM:<a@a.example>\r\n" + rcpts + chunk(CONTENT, last=True))
        self.assertEqual(codes(session.heard)[-3:], ["450 4.0.0", "421 4.0.0", "250 2.0.0"])
        self.assertTrue(session.is_closed)


class SameContent(SynchronousTestCase):
    """Chunks and mail data carry the same."""

    @examples(60)
    @given(CONTENTS, PLACES, PLACES, st.sampled_from(BareNewlines))
    def test_any_chunking(
        self, content: bytes, chunks: list[float], splits: list[float], bare_newlines: BareNewlines
    ) -> None:
        """Content in any chunks, split anywhere, is what DATA makes of it where DATA can carry it."""
        content = content.replace(b"\r\n.\r\n", b"") + b"\r\n"
        terms = Terms(bare_newlines=bare_newlines)
        parts = cut(content, chunks)
        spoken = b"".join(map(chunk, parts[:-1])) + chunk(parts[-1], last=True)
        stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
        outcomes = []
        for pieces in (cut(spoken, splits), [b"DATA\r\n" + stuffed + b".\r\n"]):
            processor = RecordingProcessor()
            session = memory_session(processor, terms=terms)
            session.say(HELLO + ENVELOPE)
            last = codes(b"".join(map(session.say, pieces)))[-1]
            outcomes.append((last, [each.content.read() for each in processor.messages]))
        self.assertEqual(*outcomes)
