"""Mailman 2's wrapper: its command line, its exit codes, and what becomes of it."""

import os
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.error import StartError
from smtpserv.mailman.address import ListAddress
from smtpserv.mailman.wrapper import MOST_SAID, Wrapper, delivery_fields, unix_lines
from smtpserv.message import Envelope, ForwardPath, ReversePath
from smtpserv.testing import HandThread
from tests.fuzz import examples

ANT = ListAddress("ant")
MESSAGE = b"Subject: x\r\n\r\nHello\r\n"


class Child:
    """The wrapper's process, as its reactor sees it; it reads all of its input at once."""

    def __init__(self, protocol: Any, command: list[str], environment: dict[str, str], stdin: int) -> None:
        self.protocol = protocol
        self.command = command
        self.environment = environment
        self.stdin = stdin
        self.input = os.pread(stdin, 1 << 16, os.lseek(stdin, 0, os.SEEK_CUR))
        self.signals: list[str] = []
        self.is_let_go = False
        self.has_ended = False

    def loseConnection(self) -> None:
        self.is_let_go = True

    def signalProcess(self, signal: str) -> None:
        if self.has_ended:
            raise ProcessExitedAlready
        self.signals.append(signal)

    def end(self, status: int | None = 0, signal: int | None = None) -> None:
        """Exit."""
        self.has_ended = True
        error = ProcessTerminated(status, signal, None) if status or signal else ProcessDone(0)
        self.protocol.processEnded(Failure(error))


class Reactor(Clock):
    """Starts such processes."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[Child] = []
        self.error: Exception | None = None

    def spawnProcess(
        self,
        protocol: Any,
        executable: str,
        args: list[str],
        env: dict[str, str],
        path: str,
        childFDs: dict[int, Any],
    ) -> Child:
        if self.error is not None:
            raise self.error
        assert args[0] == executable and path == "/"
        stdin = childFDs.pop(0)
        assert childFDs == {1: "r", 2: "r"}
        child = Child(protocol, args[1:], env, stdin)
        self.children.append(child)
        protocol.makeConnection(child)
        return child


class WrapperTests(SynchronousTestCase):
    """One delivery after the other, and several at once."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        open(self.path, "w").close()
        os.chmod(self.path, 0o755)
        self.reactor = Reactor()
        self.in_thread: Any = maybeDeferred
        self.wrapper = Wrapper(
            self.reactor, self.path, lambda *call: self.in_thread(*call), parallel=2, deadline=60
        )
        self.events = self.enterContext(capturedLogs())

    @property
    def said(self) -> list[str]:
        """What the log says."""
        return [str(formatEvent(event)) for event in self.events]

    def deliver(self, address: ListAddress = ANT, *pieces: bytes) -> "Deferred[Any]":
        """Begin a delivery."""
        return Deferred.fromCoroutine(self.wrapper.deliver(address, pieces or (MESSAGE,)))

    def outcome(self, status: int | None = 0, said: bytes = b"", signal: int | None = None) -> Any:
        """What comes of a delivery that ends so."""
        delivery = self.deliver()
        child = self.reactor.children.pop()
        child.protocol.childDataReceived(2, said)
        child.end(status, signal)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return self.successResultOf(delivery)

    def test_command(self) -> None:
        """post or the extension, and the list; nothing of ours is in its environment."""
        for address, command in {
            ANT: ["post", "ant"],
            ListAddress("ant-farm", "unsubscribe"): ["unsubscribe", "ant-farm"],
            ListAddress("c++", "admin"): ["admin", "c++"],
        }.items():
            self.deliver(address)
            child = self.reactor.children[-1]
            self.assertEqual((child.command, list(child.environment)), (command, ["PATH"]))
            child.end()

    def test_names(self) -> None:
        """What could pass for an option or a path is no list's name, and is never run."""
        for address in (
            ListAddress("-x"),
            ListAddress(""),
            ListAddress("a/b"),
            ListAddress(".."),
            ListAddress("a b"),
            ListAddress("ant@a.example"),
            ListAddress("ant", "-c"),
            ListAddress("ant", "post"),
            ListAddress("ant", "admin\n"),
            ListAddress("A"),
            ListAddress("ant\n"),
        ):
            if address.subaddress != "post":
                self.failureResultOf(self.deliver(address), ValueError)
        self.assertEqual(self.reactor.children, [])

    def test_input(self) -> None:
        """A child has the whole message when it begins, whatever becomes of us; we keep nothing of it."""
        thread = self.in_thread = HandThread()
        delivery = self.deliver(ANT, b"a\r", b"\nb\r\n", b"c")
        self.assertEqual(self.reactor.children, [])
        thread.step()
        (child,) = self.reactor.children
        self.assertEqual(child.input, b"a\nb\nc")
        self.assertRaises(OSError, os.fstat, child.stdin)
        self.assertNoResult(delivery)
        child.end()
        self.assertIsNone(self.successResultOf(delivery))

    def test_exit_codes(self) -> None:
        """0 is taken; 75, 71 and a signal are 451, and so is what was set up wrongly; any other is 554."""
        self.assertIsNone(self.outcome(0))
        for status in (71, 75):
            self.assertEqual(self.outcome(status), reply.LISTS_DEFERRED)
        self.assertEqual(self.outcome(None, signal=9), reply.LISTS_DEFERRED)
        for status in (3, 4, 5, 6):
            self.assertEqual(self.outcome(status), reply.LISTS_MISCONFIGURED)
        for status in (1, 64, 67, 70, 77, 126, 127, 255):
            self.assertEqual(self.outcome(status), reply.LISTS_REFUSED)
        self.assertEqual(
            [each.code for each in (reply.LISTS_DEFERRED, reply.LISTS_REFUSED)],
            [451, 554],
        )

    def test_group_mismatch(self) -> None:
        """The classical trap is ours to mend: 451 4.3.5, and the log explains it."""
        said = b'Group mismatch error.  Mailman expected the mail\nwrapper script to be executed as "list"'
        for status, heard in ((2, said), (1, said), (2, b""), (8, b"Failure to find group name")):
            self.assertEqual(self.outcome(status, heard), reply.LISTS_MISCONFIGURED)
            self.assertIn("--with-mail-gid", self.said[-1])
        self.assertEqual(str(reply.LISTS_MISCONFIGURED)[:9], "451 4.3.5")
        self.assertIn('to be executed as "list"', self.said[0])

    def test_said(self) -> None:
        """What it says goes to the log, escaped and cut, and not to the client."""
        answer = self.outcome(1, b"\x1b[31mTraceback\r\n/secret\xff" + b"x" * 10000)
        self.assertNotIn("secret", str(answer))
        self.assertIn("\\x1b[31mTraceback /secret\ufffdxxx", self.said[0])
        self.assertLess(len(self.said[0]), MOST_SAID + 200)
        self.assertNotIn("\x1b", self.said[0])
        self.assertIsNone(self.outcome(0, b"hello"))
        self.assertEqual(len(self.said), 1)

    def test_deadline(self) -> None:
        """One that takes too long is killed."""
        delivery = self.deliver()
        (child,) = self.reactor.children
        self.reactor.advance(59.9)
        self.assertNoResult(delivery)
        self.reactor.advance(0.1)
        self.assertEqual(self.successResultOf(delivery), reply.PROCESSING_TOO_LONG)
        self.assertEqual((child.signals, child.is_let_go), (["KILL"], True))
        child.end(None, signal=9)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """A delivery that is given up is killed; one that waits never begins."""
        deliveries = [self.deliver() for _ in range(3)]
        deliveries[2].cancel()
        self.failureResultOf(deliveries[2], CancelledError)
        deliveries[0].cancel()
        self.failureResultOf(deliveries[0], CancelledError)
        self.assertEqual(self.reactor.children[0].signals, ["KILL"])
        self.reactor.children[0].end(None, signal=9)
        self.assertEqual(len(self.reactor.children), 2)

    def test_cancelled_while_written(self) -> None:
        """One that is given up before its file is written never begins either, and its turn is free."""
        thread = self.in_thread = HandThread()
        for _ in range(3):
            delivery = self.deliver()
            delivery.cancel()
            self.failureResultOf(delivery, CancelledError)
            thread.step()
        self.assertEqual(self.reactor.children, [])

    def test_exited_already(self) -> None:
        """One that has ended while another holds its output is let go."""
        delivery = self.deliver()
        (child,) = self.reactor.children
        child.has_ended = True
        self.reactor.advance(60)
        self.assertEqual(self.successResultOf(delivery), reply.PROCESSING_TOO_LONG)
        self.assertTrue(child.is_let_go)
        child.end(0)

    def test_parallel(self) -> None:
        """So many run at once; the next begins when nothing is left of one, be it killed or ended."""
        deliveries = [self.deliver() for _ in range(4)]
        self.assertEqual(len(self.reactor.children), 2)
        self.reactor.children[0].end(75)
        self.assertEqual(len(self.reactor.children), 3)
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.children), 3)
        for child in self.reactor.children[1:3]:
            child.end(None, signal=9)
        self.assertEqual(len(self.reactor.children), 4)
        self.reactor.children[3].end()
        answers = [reply.LISTS_DEFERRED, reply.PROCESSING_TOO_LONG, reply.PROCESSING_TOO_LONG, None]
        self.assertEqual([self.successResultOf(each) for each in deliveries], answers)

    def test_content_fails(self) -> None:
        """When it can't be read, or written, no child is given a part of it, and the turn is free."""

        def pieces() -> Iterator[bytes]:
            yield b"a"
            raise OSError("disk")

        for _ in range(3):
            delivery = Deferred.fromCoroutine(self.wrapper.deliver(ANT, pieces()))
            self.failureResultOf(delivery, OSError)
        self.assertEqual(self.reactor.children, [])
        self.assertIsNone(self.outcome(0))

    def test_no_process(self) -> None:
        """Where none can be started, the turn is free again."""
        self.reactor.error = OSError("fork")
        for _ in range(3):
            self.failureResultOf(self.deliver(), OSError)
        self.reactor.error = None
        self.assertIsNone(self.outcome(0))

    def test_wrong_path(self) -> None:
        """The start wants a program."""
        os.chmod(self.path, 0o644)
        for path in (self.path, self.mktemp(), "/", ""):
            self.assertRaises(StartError, Wrapper, self.reactor, path, maybeDeferred)


class LinesTests(SynchronousTestCase):
    """What the child reads."""

    @given(st.lists(st.text("\r\nab", max_size=6).map(str.encode)))
    @examples(300)
    def test_unix_lines(self, pieces: list[bytes]) -> None:
        """Each CRLF becomes LF wherever it is cut, and nothing else changes."""
        found = list(unix_lines(pieces))
        self.assertEqual(b"".join(found), b"".join(pieces).replace(b"\r\n", b"\n"))
        self.assertNotIn(b"", found)

    def test_delivery_fields(self) -> None:
        """The envelope is told above the message, for the wrapper is not told it."""
        envelope = Envelope("1", ReversePath(""), (ForwardPath("ant-bounces+u=h@a.example"),))
        self.assertEqual(
            delivery_fields(envelope, "ant-bounces+u=h@a.example"),
            b"Return-Path: <>\r\nDelivered-To: ant-bounces+u=h@a.example\r\n",
        )
