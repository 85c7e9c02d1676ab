"""Content on its way to a processor of whole messages: in memory, then in a file that has no name."""

import errno
import gc
import os
import sys
import tempfile
from collections.abc import Awaitable
from typing import Any, NoReturn

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.awaiting import as_deferred
from smtpserv.collecting import BLOCK, CollectingSink, UnnamedFile
from smtpserv.error import Reject
from smtpserv.message import Content
from smtpserv.reply import Reply
from smtpserv.server.limits import Limits
from smtpserv.testing import HandThread, RecordingProcessor, memory_session
from smtpserv.testing.memory import run_now
from tests.server_tools import (
    DONE,
    ENVELOPE,
    GRANTED,
    PREAMBLE,
    TRANSACTION,
    Later,
    Processor,
    codes,
    light_collection,
)

#: Content that does not fit into a memory of a thousand octets.
BIG = b"Subject: big\r\n\r\n" + b"0123456789\r\n" * 1000
SMALL_MEMORY = Limits(memory_limit=1000)


def descriptors() -> int:
    """How many files this process has open."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def no_room(*facts: object, **named: object) -> NoReturn:
    """Stands for a call of the system when the disk is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


class CollectingTests(SynchronousTestCase):
    """What was written is what the processor is given."""

    def setUp(self) -> None:
        light_collection(self)

    def collect(self, chunks: list[bytes], memory_limit: int, in_thread: Any = run_now) -> Content:
        """The content that comes of some chunks."""
        collected: list[Content] = []
        sink = CollectingSink(collected.append, in_thread, memory_limit)
        for chunk in chunks:
            sink.write(chunk)
        outcome = sink.finish()
        if isinstance(outcome, Awaitable):
            self.successResultOf(as_deferred(outcome))
        return collected[0]

    @given(st.lists(st.binary(min_size=1, max_size=200), max_size=20), st.integers(0, 2000))
    @settings(max_examples=100, deadline=None, database=None)
    def test_any_chunks(self, chunks: list[bytes], memory_limit: int) -> None:
        """Whatever the chunks, and wherever memory ends, all octets are there in their order."""
        collected = self.collect(chunks, memory_limit)
        self.assertEqual((collected.read(), collected.size), (b"".join(chunks), sum(map(len, chunks))))

    def test_up_to_the_limit_in_memory(self) -> None:
        """Content of as many octets as may be in memory makes no file; one more does."""
        files = descriptors()
        kept = self.collect([b"x" * 500] * 2, 1000)
        self.assertEqual(descriptors(), files)
        kept = self.collect([b"x" * 500] * 2 + [b"x"], 1000)
        self.assertEqual((descriptors(), kept.size), (files + 1, 1001))

    def test_blocks(self) -> None:
        """Once there is a file, content goes to it block by block and not chunk by chunk."""
        thread = HandThread()
        sink = CollectingSink(lambda content: None, thread, 1000)
        self.assertIsNone(sink.write(b"x" * 1000))
        first = sink.write(b"x")
        assert first is not None
        self.assertNoResult(first)
        thread.step()
        self.successResultOf(first)
        self.assertIsNone(sink.write(b"x" * BLOCK))
        self.assertIsNotNone(sink.write(b"x"))

    def test_memory_is_bounded(self) -> None:
        """However much comes, no more than a block is held."""
        sink = CollectingSink(lambda content: None, run_now, 1000)
        for _ in range(40):
            sink.write(b"x" * 65536)
            self.assertLessEqual(len(sink._held), BLOCK)

    def test_several_readers(self) -> None:
        """Each ``open`` is a position of its own, in memory and in a file."""
        for limit in (1 << 20, 10):
            collected = self.collect([BIG], limit)
            with collected.open() as one, collected.open() as two:
                self.assertEqual(one.read(10), two.read(10))
                one.seek(-5, os.SEEK_END)
                self.assertEqual((one.read(), two.read()), (BIG[-5:], BIG[10:]))
            self.assertEqual(b"".join(collected.chunks(7)), BIG)
            self.assertEqual(collected.read(), BIG)

    def test_reader_outlives_nothing(self) -> None:
        """A closed reader leaves the content readable; what nobody keeps any more closes its file."""
        files = descriptors()
        collected = self.collect([BIG], 10)
        collected.open().close()
        self.assertEqual(collected.read(), BIG)
        del collected
        self.assertEqual(descriptors(), files)

    def test_aborted(self) -> None:
        """Aborting closes the file at once."""
        files = descriptors()
        sink = CollectingSink(lambda content: None, run_now, 10)
        sink.write(BIG)
        self.assertEqual(descriptors(), files + 1)
        sink.abort()
        self.assertEqual(descriptors(), files)

    def test_file_has_no_name(self) -> None:
        """Nothing is found in the folder for temporary files, even while the content lives."""
        folder = self.mktemp()
        os.mkdir(folder)
        self.patch(tempfile, "tempdir", folder)
        collected = self.collect([BIG], 10)
        self.assertEqual((os.listdir(folder), collected.size), ([], len(BIG)))

    def test_write_in_parts(self) -> None:
        """A system that takes only a part of what it is given is given the rest."""
        write = os.write
        self.patch(os, "write", lambda descriptor, octets: write(descriptor, octets[:100]))
        self.assertEqual(self.collect([BIG], 10).read(), BIG)

    def test_no_descriptor_left(self) -> None:
        """A file that can't be made is an error and no more: nothing is printed when it is forgotten."""
        unraisable: list[Any] = []
        self.patch(sys, "unraisablehook", unraisable.append)
        self.patch(tempfile, "TemporaryFile", no_room)
        self.assertRaises(OSError, UnnamedFile)
        gc.collect()
        self.assertEqual([each.exc_value for each in unraisable], [])


class SessionTests(SynchronousTestCase):
    """Large messages through a session."""

    def setUp(self) -> None:
        light_collection(self)

    def test_every_way_to_answer_for_a_large_message(self) -> None:
        """The processor of a message in a file may answer in every way that others may."""

        async def coroutine() -> Reply:
            return Reply(250, "coroutine")

        async def raising() -> Reply:
            raise Reject("raised")

        for outcome, expected in (
            (Reply(250, "at once"), b"250 2.0.0 at once\r\n"),
            (succeed(Reply(250, "Deferred")), b"250 2.0.0 Deferred\r\n"),
            (coroutine(), b"250 2.0.0 coroutine\r\n"),
            (raising(), b"550 5.7.1 raised\r\n"),
            (Reject("raised at once"), b"550 5.7.1 raised at once\r\n"),
        ):
            session = memory_session(RecordingProcessor([outcome]), limits=Limits(memory_limit=10))
            self.assertTrue(
                session.say(PREAMBLE + b"content\r\n" * 10 + b".\r\n").endswith(expected), expected
            )

    def test_large_message(self) -> None:
        """The processor gets every octet of a message that went to a file, and nothing is open afterwards."""
        files = descriptors()
        processor = RecordingProcessor()
        session = memory_session(processor, limits=SMALL_MEMORY)
        for start in range(0, len(BIG), 700):
            session.say((PREAMBLE if not start else b"") + BIG[start : start + 700])
        self.assertEqual(codes(session.say(b".\r\n")), ["250 2.6.0"])
        self.assertEqual(processor.messages[0].content.read(), BIG)
        processor.messages.clear()
        self.assertEqual(descriptors(), files)

    def test_thread_is_waited_for(self) -> None:
        """While a block is written nothing more is taken, and the reply comes when all is written."""
        thread, processor = HandThread(), RecordingProcessor()
        session = memory_session(processor, limits=SMALL_MEMORY, in_thread=thread)
        session.say(PREAMBLE + BIG)
        session.say(b"the end\r\n.\r\n")
        self.assertEqual((len(thread.waiting), processor.messages), (1, []))
        thread.step()
        self.assertEqual((len(thread.waiting), session.hear()), (1, b""))
        thread.step()
        self.assertEqual((thread.waiting, codes(session.hear())), ([], ["250 2.6.0"]))
        self.assertEqual(processor.messages[0].content.read(), BIG + b"the end\r\n")

    def test_disk_full(self) -> None:
        """A disk that is full is 452 4.3.1 at the end of the data, and the session goes on."""
        self.patch(os, "write", no_room)
        processor = RecordingProcessor()
        session = memory_session(processor, limits=SMALL_MEMORY)
        self.assertEqual(codes(session.say(PREAMBLE + BIG)), GRANTED)
        self.assertEqual(codes(session.say(b"more\r\n.\r\n")), ["452 4.3.1"])
        self.assertEqual(codes(session.say(TRANSACTION)), DONE)
        self.assertEqual(len(processor.messages), 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_disk_full_at_the_last_block(self) -> None:
        """So it is when the last block does not fit."""
        calls = iter([None, fail(OSError(errno.ENOSPC, "No space left on device"))])

        def in_thread(call: Any, *facts: Any) -> "Deferred[Any]":
            return next(calls) or run_now(call, *facts)

        processor = RecordingProcessor()
        session = memory_session(processor, limits=SMALL_MEMORY, in_thread=in_thread)
        self.assertEqual(
            codes(session.say(PREAMBLE + BIG + b".\r\n" + ENVELOPE))[5:], ["452 4.3.1", *DONE[:2]]
        )
        self.assertEqual(processor.messages, [])
        self.flushLoggedErrors(OSError)

    def test_disconnect_while_a_block_is_written(self) -> None:
        """The client goes while the thread is at work: the session ends, the file when the thread is done."""
        files = descriptors()
        thread, processor = HandThread(), RecordingProcessor()
        session = memory_session(processor, limits=SMALL_MEMORY, in_thread=thread)
        session.say(PREAMBLE + BIG)
        session.disconnect()
        self.assertTrue(session.ended)
        thread.step()
        self.assertEqual((descriptors(), processor.messages), (files, []))

    def test_disconnect_while_a_later_block_is_written(self) -> None:
        """The same with a file that is open already: the block ends up nowhere, and nothing is left."""
        files = descriptors()
        thread, processor = HandThread(), RecordingProcessor()
        session = memory_session(processor, limits=SMALL_MEMORY, in_thread=thread)
        session.say(PREAMBLE + BIG)
        thread.step()
        session.say(b"x" * (BLOCK + 1))
        self.assertEqual(len(thread.waiting), 1)
        session.disconnect()
        self.assertTrue(session.ended)
        thread.step()
        self.assertEqual(descriptors(), files)

    def test_disconnect_while_the_last_block_is_written(self) -> None:
        """After the end of data the client's going changes nothing: the message is written and processed."""
        thread, processor = HandThread(), RecordingProcessor()
        session = memory_session(processor, limits=SMALL_MEMORY, in_thread=thread)
        session.say(PREAMBLE + BIG)
        thread.step()
        session.say(b".\r\n")
        session.disconnect()
        self.assertFalse(session.ended)
        thread.step()
        self.assertTrue(session.ended)
        self.assertEqual(processor.messages[0].content.read(), BIG)

    def test_thread_that_fails_too_late(self) -> None:
        """A write that fails when nobody waits for it any more harms nobody."""
        self.patch(os, "write", no_room)
        thread = HandThread()
        session = memory_session(RecordingProcessor(), limits=SMALL_MEMORY, in_thread=thread)
        session.say(PREAMBLE + BIG)
        session.disconnect()
        thread.step()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_processor_that_failed_holds_no_file(self) -> None:
        """When the processor raised, the file is closed as well."""
        files = descriptors()
        later = Later()
        session = memory_session(Processor(later), limits=SMALL_MEMORY)
        session.say(PREAMBLE + BIG + b".\r\n")
        later.given[-1].errback(ValueError("x"))
        self.assertEqual(codes(session.hear())[-1], "451 4.3.0")
        self.flushLoggedErrors(ValueError)
        later.given.clear()
        self.assertEqual(descriptors(), files)
