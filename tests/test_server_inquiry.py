"""Asking a colleague: every form an answer may take, and what becomes of a question that was given up."""

import asyncio
import contextlib
import errno
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.error import Defer, Reject
from smtpserv.reply import Reply
from smtpserv.server.inquiry import Inquiry, reply_to
from tests.server_tools import Later, always


class InquiryTests(SynchronousTestCase):
    """One question at a time."""

    def setUp(self) -> None:
        self.answers: list[Any] = []
        self.unwanted: list[Any] = []
        self.resumed = 0
        self.inquiry = Inquiry(self._resume, self.unwanted.append)

    def _resume(self) -> None:
        self.resumed += 1

    def test_answer_at_once(self) -> None:
        """What is there at once is given on at once, and nobody is told to resume."""
        self.inquiry.ask(self.answers.append, lambda *facts: facts, 1, 2)
        self.inquiry.ask(self.answers.append, lambda: succeed(3))
        self.assertEqual((self.answers, self.resumed), ([(1, 2), 3], 0))
        self.assertFalse(self.inquiry.is_open)

    def test_answer_later(self) -> None:
        """What comes later is given on, and then the session resumes."""
        later = Later()
        self.inquiry.ask(self.answers.append, later)
        self.assertEqual((self.answers, self.inquiry.is_open), ([], True))
        later.fire("yes")
        self.assertEqual((self.answers, self.resumed), (["yes"], 1))
        self.assertFalse(self.inquiry.is_open)

    def test_raised_is_a_reply(self) -> None:
        """What is raised has become a Reply."""
        reject = Reject("no")
        self.inquiry.ask(self.answers.append, always(reject))
        later = Later()
        self.inquiry.ask(self.answers.append, later)
        later.given[0].errback(reject)
        self.assertEqual(self.answers, [reject.reply, reject.reply])

    def test_given_up(self) -> None:
        """A question that was given up is cancelled, and what it answers then does not count."""
        later = Later()
        self.inquiry.ask(self.answers.append, later)
        self.inquiry.give_up()
        later.fire("late")
        self.assertEqual((self.answers, self.resumed, later.cancelled), ([], 0, 1))

    def test_unwanted(self) -> None:
        """An answer that comes all the same is handed over, so that it can be released."""

        async def stubborn() -> str:
            with contextlib.suppress(CancelledError):
                await Later()()
            return "a sink"

        self.inquiry.ask(self.answers.append, stubborn)
        self.inquiry.give_up(reply.LOCAL_ERROR)
        self.assertEqual((self.answers, self.unwanted, self.resumed), ([reply.LOCAL_ERROR], ["a sink"], 1))

    def test_given_up_for_an_answer(self) -> None:
        """An answer in its place is given on once, and the session resumes once."""
        later = Later()
        self.inquiry.ask(self.answers.append, later)
        self.inquiry.give_up(reply.LOCAL_ERROR)
        self.assertEqual((self.answers, self.resumed), ([reply.LOCAL_ERROR], 1))

    def test_canceller_that_answers(self) -> None:
        """A canceller that calls back does not answer the question."""
        self.inquiry.ask(
            self.answers.append, lambda: Deferred(lambda deferred: deferred.callback("last words"))
        )
        self.inquiry.give_up(reply.LOCAL_ERROR)
        self.assertEqual(self.answers, [reply.LOCAL_ERROR])

    def test_nothing_to_give_up(self) -> None:
        """Giving up when nothing was asked does nothing."""
        self.inquiry.give_up(reply.LOCAL_ERROR)
        self.assertFalse(self.inquiry.expire(1e9, 0.0))
        self.assertEqual((self.answers, self.resumed), ([], 0))

    def test_expires_at_its_deadline(self) -> None:
        """A question is given up when it was seen open for as long as it may be; each has its own time."""
        for begin in (100.0, 109.0):
            later = Later()
            self.inquiry.ask(self.answers.append, later)
            for passed in (0.0, 9.9):
                self.assertFalse(self.inquiry.expire(begin + passed, 10.0))
            if begin == 100.0:
                later.fire("in time")
        self.assertTrue(self.inquiry.expire(119.0, 10.0))
        self.assertEqual(self.answers, ["in time", reply.PROCESSING_TOO_LONG])

    def test_next_question_from_the_answer(self) -> None:
        """An answer may lead to the next question."""
        first, second = Later(), Later()
        self.inquiry.ask(lambda answer: self.inquiry.ask(self.answers.append, second), first)
        first.fire()
        self.assertTrue(self.inquiry.is_open)
        second.fire("second")
        self.assertEqual((self.answers, self.inquiry.is_open), (["second"], False))


class ReplyToTests(SynchronousTestCase):
    """What a peer hears of an exception."""

    def test_ours(self) -> None:
        """What was raised for the peer says what it is, and is not logged."""
        for error in (Reject("no", 554, "5.6.0"), Defer("later", 421)):
            self.assertEqual(reply_to(Failure(error)), error.reply)

    def test_cancelled(self) -> None:
        """A cancellation is a local error, and nothing to log."""
        self.assertEqual(reply_to(Failure(CancelledError())), reply.LOCAL_ERROR)

    def test_exhausted(self) -> None:
        """Full is 452, whatever is full."""
        for number in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EFBIG):
            self.assertEqual(reply_to(Failure(OSError(number, "full"))), reply.INSUFFICIENT_STORAGE)
        self.assertEqual(reply_to(Failure(MemoryError())), reply.INSUFFICIENT_STORAGE)
        self.assertEqual(len(self.flushLoggedErrors(OSError, MemoryError)), 7)

    def test_any_other(self) -> None:
        """Anything else is a local error, and is logged."""
        for error in (OSError(errno.EACCES, "no"), ValueError("x"), asyncio.CancelledError(), Exception()):
            self.assertEqual(reply_to(Failure(error)), reply.LOCAL_ERROR)
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)

    def test_subclasses_say_what_they_are(self) -> None:
        """A processor may raise errors of its own that are Rejects."""

        class NoSuchList(Reject):
            pass

        self.assertEqual(reply_to(Failure(NoSuchList("gone"))), Reply(550, "gone", "5.7.1"))
