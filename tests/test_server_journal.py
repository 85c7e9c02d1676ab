"""The mail log: a line for each message, and nothing that a peer sends can be more than a part of one."""

import json
import re
import shlex

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.error import Reject
from smtpserv.reply import Reply
from smtpserv.server.journal import GATHER, Journal, Value, render_json, render_text
from smtpserv.testing import RecordingProcessor, memory_session
from tests.server_tools import ENVELOPE, HELLO, TRANSACTION, Policy, always

NOW = 1795363200.0
#: What moves a cursor, ends a line somewhere, or turns text around.
NASTY = "\r\n\t\0\x1b[2J\x7f\x85\x9b\u2028\u2029\u202e\u2066\ufeff\"\\' ="


TEXT = st.text("a=1" + NASTY + "\u20ac\U0001f600", max_size=30)


def fields(line: str) -> dict[str, str]:
    """What a line says, as whoever reads logs takes it apart."""
    found: dict[str, str] = {}
    for key, value in re.findall(r'(?:^| )([a-z]+)=("(?:[^"\\]|\\.)*"|[^ "\n]*)', line):
        found[key] = json.loads(value) if value.startswith('"') else value
    return found


def is_one_line(written: str) -> bool:
    """Whether it is a line of printable ASCII."""
    return written.endswith("\n") and written[:-1].isascii() and written[:-1].isprintable()


class TextTests(SynchronousTestCase):
    """Lines for people."""

    def test_form(self) -> None:
        """A stamp, the event, and its fields in their order; words that need no quotes have none."""
        facts: dict[str, Value] = {
            "id": "abc.1",
            "size": 1024,
            "code": 250,
            "seconds": 0.12345,
            "hello": None,
        }
        self.assertEqual(
            render_text(NOW, [("message", facts), ("end", {"id": "abc"})]),
            "2026-11-22T16:00:00Z message id=abc.1 size=1024 code=250 seconds=0.123 hello=None\n"
            "2026-11-22T16:00:00Z end id=abc\n",
        )

    def test_quotes(self) -> None:
        """An empty word, and one with a blank, a quote, a backslash or an equals sign, is quoted."""
        for value, expected in (
            ("", '""'),
            ("a b", '"a b"'),
            ('a"b', r'"a\"b"'),
            ("a\\b", r'"a\\b"'),
            ("a=b", '"a=b"'),
        ):
            self.assertTrue(render_text(NOW, [("x", {"key": value})]).endswith(f" x key={expected}\n"))
            line = render_text(NOW, [("x", {"key": value, "code": 250})])
            self.assertTrue(line.endswith(f" x key={expected} code=250\n"))

    @given(TEXT, TEXT)
    @example(NASTY, "x")
    @settings(max_examples=200, deadline=None, database=None)
    def test_nothing_escapes(self, one: str, two: str) -> None:
        """Whatever a value holds, the line is one of printable ASCII, and reads back as what was written."""
        line = render_text(NOW, [("x", {"one": one, "two": two})])
        self.assertTrue(is_one_line(line), line)
        self.assertEqual(fields(line.partition(" x ")[2]), {"one": one, "two": two})

    def test_no_forgery(self) -> None:
        """A value can't look like another field."""
        line = render_text(NOW, [("x", {"sender": 'a" code=250', "code": 550})])
        self.assertEqual(fields(line)["code"], "550")
        self.assertEqual(len(shlex.split(line)), 4)


class JsonTests(SynchronousTestCase):
    """Lines for programs."""

    def test_form(self) -> None:
        """An object with the time, the event, and its fields with their types."""
        facts: dict[str, Value] = {"id": "abc.1", "size": 1024, "seconds": 0.5, "hello": None}
        one, two = map(json.loads, render_json(NOW + 0.12345, [("message", facts), ("end", {})]).splitlines())
        self.assertEqual(one, {"time": NOW + 0.123, "event": "message", **facts})
        self.assertEqual(two, {"time": NOW + 0.123, "event": "end"})

    @given(TEXT)
    @example(NASTY)
    @settings(max_examples=200, deadline=None, database=None)
    def test_nothing_escapes(self, value: str) -> None:
        """Whatever a value holds, the line is one of printable ASCII, and reads back as what was written."""
        line = render_json(NOW, [("x", {"key": value})])
        self.assertTrue(is_one_line(line), line)
        self.assertEqual(json.loads(line)["key"], value)


class JournalTests(SynchronousTestCase):
    """When lines are written."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[str] = []
        self.journal = Journal(self.clock, self.written.append, lambda now, entries: f"{list(entries)}\n")

    def test_together(self) -> None:
        """All lines of a moment are written together, at its end."""
        self.journal.record("one", a=1)
        self.journal.record("two")
        self.assertEqual((self.written, len(self.clock.getDelayedCalls())), ([], 1))
        self.clock.advance(GATHER)
        self.assertEqual(self.written, ["[('one', {'a': 1}), ('two', {})]\n"])
        self.journal.record("three")
        self.clock.advance(GATHER)
        self.assertEqual(self.written[1:], ["[('three', {})]\n"])

    def test_nothing_to_write(self) -> None:
        """When nothing happened, nothing is written, and nothing waits."""
        self.journal.flush()
        self.assertEqual((self.written, self.clock.getDelayedCalls()), ([], []))

    def test_flush_at_the_end(self) -> None:
        """Flushing writes at once, and once."""
        self.journal.record("one")
        self.journal.flush()
        self.clock.advance(GATHER)
        self.assertEqual(self.written, ["[('one', {})]\n"])

    def test_log_that_fails(self) -> None:
        """A log that can't be written loses its lines and no more: the next ones are tried again."""

        def full(text: str) -> None:
            raise OSError(28, "No space left on device")

        journal = Journal(self.clock, full)
        journal.record("one")
        self.assertRaises(OSError, self.clock.advance, GATHER)
        journal.record("two")
        self.assertRaises(OSError, self.clock.advance, GATHER)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SessionTests(SynchronousTestCase):
    """What is on record of a session."""

    def lines(self, octets: bytes) -> list[str]:
        """The mail log of a session that said this and went."""
        session = memory_session(RecordingProcessor([None, Reject("no")]))
        session.say(octets)
        session.disconnect()
        return "".join(session.journal).splitlines()

    def test_message(self) -> None:
        """Each message has a line, accepted or refused, with its session's id in its own."""
        first, second, end = map(fields, self.lines(HELLO + TRANSACTION * 2))
        self.assertEqual((first["code"], first["status"], first["size"]), ("250", "2.6.0", "20"))
        self.assertEqual(
            (first["sender"], first["recipient"], first["recipients"]), ("a@a.example", "b@b.example", "1")
        )
        self.assertEqual((second["code"], second["status"]), ("550", "5.7.1"))
        self.assertEqual((end["messages"], end["peer"], end["hello"]), ("2", "192.0.2.1", "client.example"))
        self.assertEqual({first["id"].rpartition(".")[0], second["id"].rpartition(".")[0]}, {end["id"]})

    def test_quoted_local_part(self) -> None:
        """An address that tries to be two fields is one."""
        nasty = TRANSACTION.replace(b"a@a.example", b'"x code=250 \\" y"@a.example')
        self.assertEqual(fields(self.lines(HELLO + nasty)[0])["sender"], '"x code=250 \\" y"@a.example')

    def test_cut_off(self) -> None:
        """Why a session was ended by us is on record."""
        session = memory_session(RecordingProcessor())
        session.advance(300.0)
        (line,) = "".join(session.journal).splitlines()
        self.assertIn(" session id=", line)
        self.assertIn('code=421 why="Idle for too long"', line)

    def test_refused(self) -> None:
        """Each refusal of a policy is on record, and what ended a session that only made mistakes."""
        session = memory_session(
            RecordingProcessor(), policies=[Policy(recipient=always(Reply(550, "no", "5.1.1")))]
        )
        session.say(HELLO + ENVELOPE + b"WHAT\r\n" * 30)
        refused, end = "".join(session.journal).splitlines()
        self.assertIn("verb=RCPT code=550 status=5.1.1", refused)
        self.assertIn('code=421 why="Too many errors"', end)
