"""Policies: who is asked at each stage, in which order, and what a client hears of it."""

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpserv.error import Defer, Reject
from smtpserv.interfaces import IMessageProcessor, IRecipientPolicy
from smtpserv.reply import Reply
from smtpserv.server.panel import Panel, seat
from smtpserv.testing import MemorySession, RecordingProcessor, memory_session
from tests.server_tools import (
    CONTENT,
    DONE,
    ENVELOPE,
    HELLO,
    TRANSACTION,
    Answer,
    Later,
    Policy,
    always,
    captured_log,
    codes,
)


def guarded(*policies: object) -> MemorySession:
    """A session with policies, its greeting not heard yet."""
    return memory_session(RecordingProcessor(), policies=policies)


def _later(answer: object) -> Answer:
    async def call(*facts: object) -> Any:
        await succeed(None)
        return always(answer)()

    return call


class SeatTests(SynchronousTestCase):
    """The panel is found once."""

    def test_nobody(self) -> None:
        """A stage nobody cares about asks nobody."""
        self.assertEqual(seat([]), Panel(None, None, None, None))
        self.assertEqual(seat([RecordingProcessor(), object()]), Panel(None, None, None, None))

    def test_one_stage(self) -> None:
        """A policy is asked only at the stages whose interface it provides."""

        @implementer(IRecipientPolicy)
        class OnlyRecipients:
            def check_recipient(self, *facts: object) -> None:
                """Anybody."""

        panel = seat([OnlyRecipients()])
        self.assertEqual((panel.connect, panel.hello, panel.sender), (None, None, None))
        self.assertIsNotNone(panel.recipient)

    def test_adaptation(self) -> None:
        """A policy may be an adapter: ``__conform__`` is honoured."""
        policy = Policy()

        class Adapted:
            def __conform__(self, interface: Any) -> object:
                return policy if interface is IRecipientPolicy else None

        panel = seat([Adapted()])
        assert panel.recipient is not None
        panel.recipient(1, 2, 3)
        self.assertEqual(policy.asked, [("recipient", 1, 2, 3)])

    def test_processor_is_its_own_policy(self) -> None:
        """A processor with a policy's interface is asked like any other policy."""

        @implementer(IMessageProcessor, IRecipientPolicy)
        class Choosy(RecordingProcessor):
            def check_recipient(
                self, session: object, reverse_path: object, forward_path: Any
            ) -> Reply | None:
                return None if forward_path.domain == "b.example" else Reply(550, "no", "5.1.2")

        session = memory_session(Choosy())
        heard = session.say(HELLO + ENVELOPE + b"RCPT TO:<c@c.example>\r\n")
        self.assertEqual(codes(heard)[3:], ["250 2.1.5", "550 5.1.2"])


class CountTests(SynchronousTestCase):
    """Who refused is known from the counts."""

    def test_refusals(self) -> None:
        """A policy's refusals are counted by its class, however it refuses, and nobody else's."""

        class Strict(Policy):
            pass

        no, later = Reply(550, "no", "5.7.1"), Reply(450, "later", "4.7.1")
        for answer, digit in (
            (always(no), 5),
            (_later(no), 5),
            (always(Reject()), 5),
            (_later(Reject()), 5),
            (always(later), 4),
            (_later(Defer()), 4),
            (always(Reply(250, "yes", "2.1.0")), None),
            (always(None), None),
            (_later(None), None),
        ):
            session = guarded(Policy(), Strict(sender=answer), Policy())
            session.say(HELLO + b"MAIL FROM:<>\r\n")
            counted = dict(session.house.counts.policies)
            self.assertEqual(counted, {("Strict", digit): 1} if digit else {})


class TurnTests(SynchronousTestCase):
    """Several policies of a stage are asked in turn."""

    def test_a_no_ends_it(self) -> None:
        """The first that refuses decides, and those behind it are not asked."""
        for give in (always, _later):
            first, second, third = Policy(), Policy(sender=give(Reply(550, "no", "5.7.1"))), Policy()
            session = guarded(first, second, third)
            self.assertIn(b"550 5.7.1 no\r\n", session.say(HELLO + b"MAIL FROM:<>\r\n"))
            stages = [[stage for stage, *_ in policy.asked] for policy in (first, second, third)]
            self.assertEqual([seen.count("sender") for seen in stages], [1, 1, 0])

    def test_a_yes_speaks_for_nobody_else(self) -> None:
        """One that agrees has its words sent, but only when nobody after it refuses."""
        for give in (always, _later):
            yes, no = give(Reply(250, "mine", "2.1.0")), give(Reply(550, "no", "5.7.1"))
            for others, expected in (((None, yes), b"250 2.1.0 mine\r\n"), ((no,), b"550 5.7.1 no\r\n")):
                policies = [
                    Policy(sender=yes),
                    *(Policy(sender=other) if other else Policy() for other in others),
                ]
                self.assertIn(expected, guarded(*policies).say(HELLO + b"MAIL FROM:<>\r\n"))

    def test_nobody_minds(self) -> None:
        """When all answer None, the client is accepted."""
        for give in (always, _later):
            policies = [
                Policy(**{stage: give(None) for stage in ("connect", "hello", "sender", "recipient")})
            ] * 3
            self.assertEqual(codes(guarded(*policies).say(HELLO + TRANSACTION))[2:], DONE)

    def test_what_is_raised_counts(self) -> None:
        """One that raises decides as well."""
        for give in (always, _later):
            session = guarded(Policy(), Policy(recipient=give(Reject("no", 553, "5.1.3"))), Policy())
            self.assertEqual(codes(session.say(HELLO + ENVELOPE))[3:], ["553 5.1.3"])

    def test_one_waits_for_another(self) -> None:
        """The second is not asked before the first has answered."""
        later, second = Later(), Policy()
        session = guarded(Policy(sender=later), second)
        session.say(HELLO + b"MAIL FROM:<>\r\n")
        self.assertNotIn("sender", [stage for stage, *_ in second.asked])
        later.fire()
        self.assertIn("sender", [stage for stage, *_ in second.asked])
        self.assertEqual(codes(session.hear()), ["250 2.1.0"])

    def test_asyncio_futures(self) -> None:
        """A policy may answer by an asyncio future, alone or in company."""

        class Loop:
            """As much of a loop as a future needs."""

            def __init__(self) -> None:
                self.due: list[Callable[[], object]] = []

            def get_debug(self) -> bool:
                return False

            def call_soon(self, call: Callable[..., object], *facts: object, context: object = None) -> None:
                self.due.append(lambda: call(*facts))

        for count in (1, 2):
            loop, asked = Loop(), list["asyncio.Future[Reply | None]"]()

            def ask(
                *facts: object, loop: Any = loop, asked: list["asyncio.Future[Reply | None]"] = asked
            ) -> "asyncio.Future[Reply | None]":
                asked.append(asyncio.Future(loop=loop))
                return asked[-1]

            session = guarded(*[Policy(sender=ask)] * count)
            session.hear()
            self.assertEqual(codes(session.say(HELLO + b"MAIL FROM:<>\r\n")), ["250"])
            for number in range(count):
                asked[number].set_result(None)
                while loop.due:
                    loop.due.pop(0)()
            self.assertEqual(codes(session.hear()), ["250 2.1.0"], count)

    def test_disconnect_cancels_the_one_asked(self) -> None:
        """When the client goes, the policy that is asked just now is cancelled."""
        later = Later()
        session = guarded(Policy(), Policy(sender=later), Policy())
        session.say(HELLO + b"MAIL FROM:<>\r\n")
        session.disconnect()
        self.assertEqual((later.cancelled, session.ended), (1, True))


class StageTests(SynchronousTestCase):
    """What a refusal means at each stage."""

    def test_connect_for_good(self) -> None:
        """A 5yz in place of the greeting is 554, and only QUIT is of use then (RFC 5321 section 3.1)."""
        for refusal in (Reject("go away"), Reply(550, "go away", "5.7.1"), Reply(500, "go away", "5.7.1")):
            session = guarded(Policy(connect=always(refusal)))
            self.assertEqual(session.hear(), b"554 5.7.1 go away\r\n")
            self.assertFalse(session.is_closed)
            heard = session.say(b"EHLO c.example\r\nNOOP\r\nMAIL FROM:<>\r\nQUIT\r\n")
            self.assertEqual(codes(heard), ["503 5.5.1", "503 5.5.1", "503 5.5.1", "221 2.0.0"])
            self.assertTrue(session.ended)

    def test_connect_for_now(self) -> None:
        """A 4yz in its place is 421, and closes (RFC 5321 section 4.3.2)."""
        for refusal in (Defer("busy"), Reply(450, "busy", "4.7.1"), Defer("busy", 421)):
            session = guarded(Policy(connect=always(refusal)))
            self.assertEqual(session.hear(), b"421 4.7.1 busy\r\n")
            self.assertTrue(session.ended)

    def test_connect_policy_that_fails(self) -> None:
        """One that breaks sends the client away for now, and says nothing of why."""
        session = guarded(Policy(connect=always(ValueError("secret"))))
        self.assertEqual(session.hear(), b"421 4.3.0 Local error in processing\r\n")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_connect_takes_time(self) -> None:
        """Nothing is said, and nothing that was sent is heard, before the policy has answered."""
        later = Later()
        session = guarded(Policy(connect=later))
        self.assertEqual(session.say(HELLO), b"")
        later.fire()
        self.assertEqual(codes(session.hear()), ["220", "250"])

    def test_a_yes_at_connect_and_hello_is_ours(self) -> None:
        """The greeting and the answer to EHLO are written by the server, whoever says yes."""
        yes = always(Reply(250, "come in"))
        expected = guarded().say(HELLO)
        self.assertEqual(guarded(Policy(connect=yes, hello=yes)).say(HELLO), expected)

    def test_hello_refused(self) -> None:
        """A refused EHLO is answered with the policy's reply, and the session is as before."""
        session = guarded(Policy(hello=always(Reject("bad name", 550, "5.7.1"))))
        self.assertEqual(codes(session.say(HELLO + b"MAIL FROM:<>\r\n"))[1:], ["550 5.7.1", "503 5.5.1"])

    def test_refused_hello_keeps_the_old_facts(self) -> None:
        """After a refused second EHLO the session is still who it said it was."""
        policy = Policy(
            hello=lambda session: Reject("no").reply if session.hello_name == "evil.example" else None
        )
        processor = RecordingProcessor()
        session = memory_session(processor, policies=[policy])
        heard = session.say(
            HELLO + b"EHLO evil.example\r\n" + TRANSACTION + b"HELO other.example\r\n" + TRANSACTION
        )
        self.assertEqual(codes(heard), ["220", "250", "550 5.7.1", *DONE, "250", *DONE])
        facts = [(each.session.hello_name, each.session.protocol) for each in processor.messages]
        self.assertEqual(facts, [("client.example", "ESMTP"), ("other.example", "SMTP")])

    def test_refused_hello_keeps_the_transaction(self) -> None:
        """It does not end the transaction under way."""
        policy = Policy(
            hello=lambda session: Reject("no").reply if session.hello_name == "evil.example" else None
        )
        session = guarded(policy)
        heard = session.say(HELLO + ENVELOPE + b"EHLO evil.example\r\nDATA\r\n" + CONTENT + b".\r\n")
        self.assertEqual(codes(heard)[4:], ["550 5.7.1", "354", "250 2.6.0"])

    def test_sender(self) -> None:
        """The policy sees the reverse-path with its parameters; a refusal opens no transaction."""
        policy = Policy(sender=always(Defer("slowly", 450, "4.7.1")))
        session = guarded(policy)
        heard = session.say(HELLO + b"MAIL FROM:<a@a.example> SIZE=5\r\nRCPT TO:<b@b.example>\r\n")
        self.assertEqual(codes(heard)[2:], ["450 4.7.1", "503 5.5.1"])
        _, facts, path = policy.asked[-1]
        self.assertEqual((facts.hello_name, path.address, path.size), ("client.example", "a@a.example", 5))

    def test_recipient(self) -> None:
        """Each forward-path is asked about with its reverse-path; those refused are not in the envelope."""
        policy = Policy(
            recipient=lambda _, sender, path: (
                Reply(550, "no", "5.1.1") if path.domain == "c.example" else None
            )
        )
        processor = RecordingProcessor()
        session = memory_session(processor, policies=[policy])
        heard = session.say(HELLO + ENVELOPE + b"RCPT TO:<c@c.example>\r\nDATA\r\n.\r\n")
        self.assertEqual(codes(heard)[3:], ["250 2.1.5", "550 5.1.1", "354", "250 2.6.0"])
        self.assertEqual(
            [str(path) for path in processor.messages[0].envelope.forward_paths], ["<b@b.example>"]
        )
        asked = [
            (str(sender), str(path))
            for stage, _, *paths in policy.asked
            if stage == "recipient"
            for sender, path in [paths]
        ]
        self.assertEqual(asked, [("<a@a.example>", "<b@b.example>"), ("<a@a.example>", "<c@c.example>")])

    def test_all_recipients_refused(self) -> None:
        """When none is left, DATA is 554 (RFC 5321 section 3.3)."""
        session = guarded(Policy(recipient=always(Reject("no"))))
        self.assertEqual(codes(session.say(HELLO + ENVELOPE + b"DATA\r\n"))[-1], "554 5.5.1")

    def test_not_asked_about_nonsense(self) -> None:
        """Commands in bad form or out of order never reach a policy."""
        policy = Policy()
        session = guarded(policy)
        session.say(
            b"MAIL FROM:<a@a.example>\r\nEHLO !\r\n" + HELLO + b"RCPT TO:<b@b.example>\r\nMAIL FROM:a\r\n"
        )
        self.assertEqual([stage for stage, *_ in policy.asked], ["connect", "hello"])

    def test_421_closes_at_every_stage(self) -> None:
        """A policy may end the session at any stage."""
        for stage in ("connect", "hello", "sender", "recipient"):
            session = guarded(Policy(**{stage: always(Reply(421, "enough", "4.7.0"))}))
            heard = session.hear() + session.say(HELLO + ENVELOPE + b"NOOP\r\n")
            self.assertEqual((codes(heard)[-1], session.ended), ("421 4.7.0", True), stage)

    def test_what_no_policy_may_answer(self) -> None:
        """Anything else is the policy's mistake: nobody gets through by it."""
        for answer in (True, False, "no", 550, Reply(354, "go on")):
            log = captured_log(self)
            for stage in ("hello", "sender", "recipient"):
                session = guarded(Policy(**{stage: always(answer)}))
                self.assertIn("451 4.3.0", codes(session.say(HELLO + ENVELOPE)), (stage, answer))
            self.assertEqual(codes(guarded(Policy(connect=always(answer))).hear()), ["421 4.3.0"])
            self.assertEqual([event.get("answer") for event in log], [answer] * 4)

    def test_policy_that_fails(self) -> None:
        """One that breaks defers what it was asked about, and the session goes on."""
        for stage in ("hello", "sender", "recipient"):
            session = guarded(Policy(**{stage: always(ValueError("secret"))}))
            heard = session.say(HELLO + ENVELOPE + b"NOOP\r\n")
            self.assertIn(b"451 4.3.0 Local error in processing\r\n", heard)
            self.assertTrue(heard.endswith(b"250 2.0.0 Ok\r\n"))
            self.flushLoggedErrors(ValueError)
