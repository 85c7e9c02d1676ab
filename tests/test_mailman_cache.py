"""Answers that are kept, and the directory that asks by LMTP."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpserv import reply
from smtpserv.mailman.cache import DEADLINE, Answers, Lives
from smtpserv.mailman.directory import DirectoryAway, IListDirectory
from smtpserv.mailman.probe import ProbeDirectory


class Asked:
    """Somebody who answers when told to."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.open: list[Deferred[Any]] = []

    def __call__(self, question: str) -> "Deferred[Any]":
        self.questions.append(question)
        self.open.append(Deferred())
        return self.open[-1]

    def answer(self, answer: object) -> None:
        """Answer the oldest question."""
        self.open.pop(0).callback(answer)


class Case(SynchronousTestCase):
    """Has a clock, somebody to ask, and an eye on the log."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked = Asked()
        self.answers = Answers("The oracle", self.asked, self.clock, Lives(300, 30, 5), most=3)
        self.events = self.enterContext(capturedLogs())

    def logged(self) -> list[str]:
        """What the log says."""
        return [str(formatEvent(event)) for event in self.events]

    def learn(self, question: str, answer: object) -> None:
        """Have a question answered."""
        found = self.answers.find(question)
        self.asked.answer(answer)
        self.assertEqual(self.successResultOf(found), answer)

    def away(self, answer: "Deferred[Any]") -> DirectoryAway:
        """The error of a question that nobody could answer."""
        failure = self.failureResultOf(answer, DirectoryAway)
        assert isinstance(failure.value, DirectoryAway)
        return failure.value


class AnswersTests(Case):
    """The cache."""

    def test_kept(self) -> None:
        """A yes is kept for 300 s, a no for 30 s."""
        for answer, life in ((True, 300), (False, 30)):
            self.setUp()
            self.learn("ant", answer)
            self.clock.advance(life - 1)
            self.assertIs(self.successResultOf(self.answers.find("ant")), answer)
            self.assertEqual(len(self.asked.questions), 1)
            self.clock.advance(1)
            self.learn("ant", not answer)
            self.assertEqual(len(self.asked.questions), 2)

    def test_single_flight(self) -> None:
        """However many want to know, one question is asked, and all have its answer."""
        found = [self.answers.find("ant") for _ in range(5)]
        self.assertEqual(self.asked.questions, ["ant"])
        self.asked.answer(True)
        self.assertEqual([self.successResultOf(each) for each in found], [True] * 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_given_up(self) -> None:
        """Who gives a question up does not end it for the others."""
        first, second = self.answers.find("ant"), self.answers.find("ant")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.asked.answer(True)
        self.assertIs(self.successResultOf(second), True)

    def test_bounded(self) -> None:
        """Of too many answers the one that was asked for the longest ago is dropped."""
        for name in "abc":
            self.learn(name, True)
        self.successResultOf(self.answers.find("a"))
        self.learn("d", True)
        self.successResultOf(self.answers.find("a"))
        self.assertEqual(self.asked.questions, list("abcd"))
        self.learn("b", True)

    def test_never_known(self) -> None:
        """While nobody answers, what was never known is 451, and is asked again at once."""
        for error in (ConnectionRefusedError(), DirectoryAway("HTTP status 500"), ValueError("x")):
            found = [self.answers.find("ant"), self.answers.find("ant")]
            self.asked.answer(Failure(error))
            for each in found:
                self.assertEqual(self.away(each).reply, reply.DIRECTORY_AWAY)
        self.assertEqual(len(self.asked.questions), 3)

    def test_stale(self) -> None:
        """An old answer stands while there is no new one, which is asked for every 5 s."""
        for answer, age in ((True, 3000), (False, 60)):
            self.setUp()
            self.learn("ant", answer)
            for _ in range(3):
                self.clock.advance(age)
                found = self.answers.find("ant")
                self.asked.answer(Failure(ConnectionRefusedError()))
                self.assertIs(self.successResultOf(found), answer)
                self.clock.advance(4.9)
                self.assertIs(self.successResultOf(self.answers.find("ant")), answer)
                self.assertEqual(self.asked.open, [])
            self.clock.advance(5)
            self.learn("ant", not answer)

    def test_old_no(self) -> None:
        """A no is not believed for long when nobody can say it again: the list may have been made since."""
        self.learn("ant", False)
        self.clock.advance(301)
        found = self.answers.find("ant")
        self.asked.answer(Failure(ConnectionRefusedError()))
        self.assertEqual(self.away(found).reply, reply.DIRECTORY_AWAY)

    def test_deadline(self) -> None:
        """A question that nobody answers has an end."""
        found = self.answers.find("ant")
        self.clock.advance(DEADLINE - 0.1)
        self.assertNoResult(found)
        self.clock.advance(0.1)
        self.assertEqual(self.away(found).reason, "no answer in 10 s")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deadline_of_others(self) -> None:
        """It is the reason, whatever who is asked says of being given up."""

        async def ask(question: str) -> bool:
            try:
                return bool(await self.asked(question))
            except CancelledError:
                raise ConnectionRefusedError from None

        found = Answers("The oracle", ask, self.clock).find("ant")
        self.clock.advance(DEADLINE)
        self.assertEqual(self.away(found).reason, "no answer in 10 s")

    def test_raises(self) -> None:
        """Who can't even be asked is away."""

        def ask(question: str) -> "Deferred[bool]":
            raise RuntimeError("no\x1b[1m descriptors\nleft")

        error = self.away(Answers("The oracle", ask, self.clock).find("ant"))
        self.assertEqual(error.reason, "RuntimeError: no\\x1b[1m descriptors left")

    def test_log(self) -> None:
        """The log tells when it goes and when it is back, once each."""
        for name in "ab":
            found = self.answers.find(name)
            self.asked.answer(Failure(DirectoryAway("gone")))
            self.away(found)
        self.learn("a", True)
        self.learn("b", True)
        self.assertEqual(self.logged(), ["The oracle can't be asked: gone", "The oracle answers again"])


class ProbeTests(Case):
    """The directory that asks Mailman's LMTP server."""

    def test_asks_once(self) -> None:
        """Bounces of a thousand members are one question; what is no list's is none."""
        probe = ProbeDirectory(self.asked, self.clock)
        self.assertTrue(verifyObject(IListDirectory, probe))
        found = [
            Deferred.fromCoroutine(probe.knows(f"Ant-bounces+{number}=b.example@A.example"))
            for number in range(1000)
        ]
        self.assertEqual(self.asked.questions, ["ant-bounces@a.example"])
        self.asked.answer(True)
        self.assertEqual([self.successResultOf(each) for each in found], [True] * 1000)
        self.assertIs(self.successResultOf(Deferred.fromCoroutine(probe.knows("postmaster"))), False)

    def test_away(self) -> None:
        """Mailman away is not "no list"."""
        found = Deferred.fromCoroutine(ProbeDirectory(self.asked, self.clock).knows("ant@a.example"))
        self.asked.answer(Failure(ConnectionRefusedError()))
        self.away(found)
