"""``debugging``: smtpd's form to the octet, and one for programs; one message at a time."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase, TestCase

from smtpserv.error import StartError
from smtpserv.message import Envelope, ForwardPath, Message, Peer, ReversePath, Session, TLSFacts
from smtpserv.processors import debugging
from smtpserv.processors.debugging import DebuggingProcessor, show_json, show_text
from smtpserv.server.limits import Limits
from smtpserv.testing import HandThread, MessageProcessorContract, make_message, memory_session
from smtpserv.testing.memory import run_now
from tests.server_tools import CONTENT, DONE, HELLO, PREAMBLE, TRANSACTION, Reactor, codes

REACTOR = cast(Any, Reactor())


def smtpd_text(content: bytes) -> str:
    """What ``smtpd.DebuggingServer(decode_data=True)`` of Python 3.11 prints for a message.

    Its ``found_terminator`` and ``_print_message_content``, line by line: the content comes without its last
    CRLF, since that belongs to the terminator.
    """
    data = "\n".join(content.removesuffix(b"\r\n").decode("utf-8", "replace").split("\r\n"))
    printed = ["---------- MESSAGE FOLLOWS ----------"]
    in_headers = True
    for line in data.splitlines():
        if in_headers and not line:
            printed.append("X-Peer: 192.0.2.1")
            in_headers = False
        printed.append(line)
    printed.append("------------ END MESSAGE ------------")
    return "".join(f"{line}\n" for line in printed)


def shown(content: bytes) -> str:
    """What we print for it."""
    return "".join(show_text(make_message(content)))


class DebuggingContract(MessageProcessorContract, TestCase):
    """What every processor must stand, in the form for people."""

    show: Callable[[Message], Any] = staticmethod(show_text)

    def make_processor(self) -> DebuggingProcessor:
        return DebuggingProcessor(self.show, run_now, io.BytesIO())


class DebuggingJsonContract(DebuggingContract):
    """The same, in the form for programs."""

    show = staticmethod(show_json)


class TextTests(SynchronousTestCase):
    """smtpd's own form."""

    def test_header_and_body(self) -> None:
        """A message as it always looked."""
        self.assertEqual(
            shown(b"Subject: hello\r\nTo: you\r\n\r\none\r\n\r\ntwo\r\n"),
            "---------- MESSAGE FOLLOWS ----------\nSubject: hello\nTo: you\nX-Peer: 192.0.2.1\n\n"
            "one\n\ntwo\n------------ END MESSAGE ------------\n",
        )

    def test_as_smtpd(self) -> None:
        """The same lines as smtpd's, for every message whose lines smtpd understood as lines."""
        contents = {
            "header and body": b"Subject: hello\r\n\r\nhello\r\n",
            "headers only": b"Subject: hello\r\nTo: you\r\n",
            "empty": b"",
            "no header": b"\r\nhello\r\n",
            "blank lines in the body": b"Subject: x\r\n\r\n\r\n\r\nhello\r\n\r\nbye\r\n",
            "8-bit": "Subject: caf\xe9\r\n\r\n\u20ac\r\n".encode(),
            "no UTF-8": b"Subject: caf\xe9\r\n\r\n\xff\xfe\r\n",
            "tabs": b"Subject: x\r\n\tfolded\r\n\r\na\tb\r\n",
            "dots": b"Subject: x\r\n\r\n.\r\n..\r\n",
        }
        for name, content in contents.items():
            self.assertEqual(shown(content), smtpd_text(content), name)

    def test_last_blank_line(self) -> None:
        """smtpd never saw a blank line at the very end: one fewer is printed, and no X-Peer before it."""
        for content in (b"Subject: x\r\n\r\n", b"Subject: x\r\n\r\nhello\r\n\r\n", b"\r\n", b"\r\n\r\n"):
            self.assertEqual(shown(content), smtpd_text(content), content)

    @given(st.lists(st.text("a: \t\xe9\u20ac", max_size=5), max_size=6))
    @example(["", ""])
    @settings(max_examples=100, deadline=None, database=None)
    def test_as_smtpd_for_any_lines(self, lines: list[str]) -> None:
        """The same, for whatever lines that end in a line that is not blank."""
        content = "".join(f"{line}\r\n" for line in [*lines, "end"]).encode()
        self.assertEqual(shown(content), smtpd_text(content))

    def test_controls_are_escaped(self) -> None:
        """Nothing in a message drives the terminal it is shown on."""
        content = (
            b"Subject: \x1b[2J\x07\r\n\r\n\x9b1m \x00\x7f \xe2\x80\xae \xe2\x80\xa8 \xc2\x85 \x0b\x0c\r\n"
        )
        text = shown(content)
        self.assertIn("Subject: \\x1b[2J\\x07\n", text)
        self.assertIn("\\x00\\x7f \\u202e \\u2028 \\x85 \\x0b\\x0c\n", text)
        self.assertTrue(all(line.isprintable() for line in text.split("\n")), text)

    @given(
        st.text("a:\t\r\n\0\x07\x1b[2J\x7f\x85\x9b\u200e\u2028\u2029\u202e\u2066\ufeff\u20ac", max_size=40)
    )
    @settings(max_examples=200, deadline=None, database=None)
    def test_no_control_escapes(self, text: str) -> None:
        """Whatever a line holds, what is printed holds no control character but tabs and line ends."""
        printed = shown(text.encode("utf-8", "replace"))
        for character in printed:
            self.assertFalse(ord(character) < 32 and character not in "\t\n", repr(character))
            self.assertFalse(
                127 <= ord(character) < 160 or character in "\u2028\u2029\u202e\u2066", repr(character)
            )

    def test_no_newline_at_the_end(self) -> None:
        """A line that is cut off is a line."""
        self.assertIn("\ncut\n---", shown(b"Subject: x\r\n\r\ncut"))

    def test_long_lines(self) -> None:
        """A line of many octets adds no blank line, and X-Peer comes at the end of the header only."""
        for length in (65534, 65535, 65536, 65537, 131071, 131072):
            text = shown(b"Subject: " + b"x" * (length - 9) + b"\r\nTo: you\r\n\r\nhello\r\n")
            self.assertIn("\nTo: you\nX-Peer: 192.0.2.1\n\nhello\n", text, length)
            self.assertEqual((text.count("X-Peer"), text.count("\n\n")), (1, 1), length)

    def test_piece_by_piece(self) -> None:
        """A large message is never made one text."""
        pieces = show_text(make_message(b"Subject: x\r\n\r\n" + b"x" * 1000 + b"\r\n" * 1000))
        self.assertLess(max(map(len, pieces)), 70000)


class JsonTests(SynchronousTestCase):
    """One object a line."""

    def test_whole(self) -> None:
        """Everything that is known of a message."""
        session = Session(
            "abc",
            Peer("192.0.2.1", 2525),
            "EHLO",
            "client.example",
            TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
            "me",
        )
        reverse_path = ReversePath("a@a.example", {"SIZE": "100", "BODY": "8BITMIME", "SMTPUTF8": None})
        envelope = Envelope("abc.1", reverse_path, (ForwardPath("b@b.example"), ForwardPath("postmaster")))
        content = make_message(b"Subject: one\r\n two\r\nX: caf\xc3\xa9\r\nX: \xff\r\n\r\nbody\r\n").content
        (line,) = show_json(Message(session, envelope, content))
        self.assertEqual(
            json.loads(line),
            {
                "id": "abc.1",
                "session": {
                    "id": "abc",
                    "peer": {"host": "192.0.2.1", "port": 2525},
                    "hello": "client.example",
                    "protocol": "ESMTPSA",
                    "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"},
                    "identity": "me",
                },
                "envelope": {
                    "reverse_path": {
                        "address": "a@a.example",
                        "parameters": {"SIZE": "100", "BODY": "8BITMIME", "SMTPUTF8": None},
                    },
                    "forward_paths": [
                        {"address": "b@b.example", "parameters": {}},
                        {"address": "postmaster", "parameters": {}},
                    ],
                    "size": 100,
                    "body": "8BITMIME",
                    "smtputf8": True,
                },
                "headers": [["Subject", "one two"], ["X", "caf\xe9"], ["X", "\ufffd"]],
                "size": content.size,
            },
        )

    @given(st.binary())
    @settings(max_examples=100, deadline=None, database=None)
    def test_one_line(self, content: bytes) -> None:
        """Whatever the content, it is one line of printable ASCII."""
        text = "".join(show_json(make_message(content)))
        self.assertEqual(text[-1], "\n")
        self.assertTrue(text[:-1].isascii() and text[:-1].isprintable())
        self.assertEqual(json.loads(text)["size"], len(content))

    def test_plain_session(self) -> None:
        """What is not known is null."""
        session = json.loads("".join(show_json(make_message())))["session"]
        self.assertEqual((session["tls"], session["identity"], session["protocol"]), (None, None, "ESMTP"))


class Output(io.BytesIO):
    """Counts how often it is flushed, and fails if it is told to."""

    flushed = 0
    error: OSError | None = None

    def flush(self) -> None:
        self.flushed += 1
        if self.error is not None:
            raise self.error


class TurnTests(SynchronousTestCase):
    """One message at a time, in their order, off the reactor's thread."""

    def setUp(self) -> None:
        self.thread, self.output = HandThread(), Output()
        self.processor = DebuggingProcessor(
            lambda message: iter([f"{message.id}\n"]), self.thread, self.output
        )

    def message(self, number: int) -> Message:
        """A message of that number."""
        made = make_message()
        envelope = Envelope(str(number), made.envelope.reverse_path, made.envelope.forward_paths)
        return Message(made.session, envelope, made.content)

    def test_in_order(self) -> None:
        """Messages that come together are printed one after the other, each accepted when it is printed."""
        answers = [self.processor.process_message(self.message(number)) for number in range(3)]
        for number, answer in enumerate(answers):
            self.assertEqual(len(self.thread.waiting), 1)
            self.assertNoResult(answer)
            self.thread.step()
            self.assertIsNone(self.successResultOf(answer))
            self.assertEqual(
                (self.output.getvalue().count(b"\n"), self.output.flushed), (number + 1, number + 1)
            )
        self.assertEqual(self.output.getvalue(), b"0\n1\n2\n")

    def test_failure_lets_the_next_go(self) -> None:
        """A message that can't be printed is not accepted, and the next one is tried."""
        self.output.error = BrokenPipeError(32, "Broken pipe")
        first = self.processor.process_message(self.message(0))
        second = self.processor.process_message(self.message(1))
        self.thread.step()
        self.failureResultOf(first, BrokenPipeError)
        self.output.error = None
        self.thread.step()
        self.successResultOf(second)

    def test_cancelled_while_it_waits(self) -> None:
        """One that is given up before its turn is not printed."""
        answers = [self.processor.process_message(self.message(number)) for number in range(3)]
        answers[1].cancel()
        self.failureResultOf(answers[1])
        self.thread.step()
        self.thread.step()
        self.successResultOf(answers[2])
        self.assertEqual(self.output.getvalue(), b"0\n2\n")

    def test_cancelled_while_it_is_printed(self) -> None:
        """One that is given up while a pager holds it up keeps its turn: nothing gets into its middle."""
        first = self.processor.process_message(self.message(0))
        first.addErrback(lambda failure: None)
        first.cancel()
        self.processor.process_message(self.message(1))
        self.assertEqual(len(self.thread.waiting), 1)
        self.thread.step()
        self.assertEqual((len(self.thread.waiting), self.output.getvalue()), (1, b"0\n"))

    def test_session(self) -> None:
        """Through a session: the client is told when its message is printed."""
        session = memory_session(
            DebuggingProcessor(show_text, self.thread, self.output), limits=Limits(), in_thread=run_now
        )
        self.assertEqual(codes(session.say(PREAMBLE + CONTENT + b".\r\n"))[-1], "354")
        self.thread.step()
        self.assertEqual(codes(session.hear()), ["250 2.6.0"])
        self.assertEqual(self.output.getvalue().decode(), smtpd_text(CONTENT))

    def test_broken_stdout(self) -> None:
        """When stdout is gone, messages are deferred, and not lost."""
        self.output.error = BrokenPipeError(32, "Broken pipe")
        session = memory_session(DebuggingProcessor(show_text, run_now, self.output))
        self.assertEqual(codes(session.say(HELLO + TRANSACTION))[2:], [*DONE[:3], "451 4.3.0"])
        self.assertEqual(len(self.flushLoggedErrors(BrokenPipeError)), 1)


class MakeTests(SynchronousTestCase):
    """From its argument."""

    def test_formats(self) -> None:
        """There are two, and text is what one gets."""
        made: list[Any] = [debugging.make_debugging(REACTOR, *each) for each in ((), ("text",), ("json",))]
        self.assertEqual([each._show for each in made], [show_text, show_text, show_json])

    def test_wrong_format(self) -> None:
        """Any other is refused in a line that names it."""
        error = self.assertRaises(StartError, debugging.make_debugging, REACTOR, "xml")
        self.assertEqual(str(error), "format='xml' is neither text nor json")

    def test_no_stdout(self) -> None:
        """Without a stdout it has nowhere to print, and says so."""
        self.patch(sys, "__stdout__", None)
        self.patch(sys, "stdout", None)
        error = self.assertRaises(StartError, debugging.make_debugging, REACTOR)
        self.assertEqual(str(error), "stdout is closed")
