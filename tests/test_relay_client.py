"""One connection to another mail server: every question ends, whatever the server does or does not."""

from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from zope.interface import directlyProvides

import smtpserv.tls
from smtpserv import reply
from smtpserv.awaiting import as_deferred
from smtpserv.dialogue import state
from smtpserv.dialogue.command import Command, Plain
from smtpserv.error import SMTPError
from smtpserv.message import Peer
from smtpserv.relay.client import WORTH_SENDING
from smtpserv.relay.failure import GivenUp, UpstreamFailed
from smtpserv.relay.patience import GOODBYE, Patience
from smtpserv.reply import Reply, Results
from tests.relay_tools import BYE, DATA, EHLO, GO, GREETING, MAIL, NO, NOOP, OK, RCPT, Connection, RelayCase

LOST, SLOW, CONFUSED, INSECURE = "451 4.4.2", "451 4.4.2", "451 4.5.0", "451 4.7.5"


class QuestionTests(RelayCase):
    """Commands, and their answers."""

    def test_answers(self) -> None:
        """Each question has its answer, in turn."""
        connection = Connection().connect()
        greeting = connection.client.greeted()
        hello = connection.client.say_hello(EHLO)
        self.assertEqual(connection.hear(), b"")
        self.assertEqual(connection.say(GREETING), b"EHLO client.example\r\n")
        self.assertEqual(self.successResultOf(as_deferred(greeting)), Reply(220, "mx.example", ""))
        connection.say(b"250-mx.example\r\n250 PIPELINING\r\n")
        self.assertTrue(self.successResultOf(as_deferred(hello)).accepted)
        questions = [connection.client.ask(each) for each in (MAIL, RCPT)]
        self.assertEqual(connection.hear(), b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n")
        connection.say(OK + NO)
        self.assertEqual([self.successResultOf(as_deferred(each)).code for each in questions], [250, 550])

    def test_hello_again(self) -> None:
        """Hello can be said again."""
        connection = Connection().ready()
        connection.client.say_hello(EHLO)
        self.assertEqual(connection.hear(), b"EHLO client.example\r\n")

    def test_out_of_order(self) -> None:
        """What can't be said is no question."""
        connection = Connection().ready()
        self.assertRaises(ValueError, connection.client.ask, RCPT)
        self.assertEqual(connection.hear(), b"")
        connection.exchange((MAIL, OK))
        self.assertTrue(connection.client.is_usable)

    def test_lost(self) -> None:
        """A connection that is lost fails who waits, and who asks later; it is told once that it is gone."""
        connection = Connection().ready("PIPELINING")
        questions = [connection.client.ask(each) for each in (MAIL, RCPT)]
        self.assertNoResult(connection.client.when_gone)
        connection.wire.lose()
        for each in questions:
            self.assert_failed(each, UpstreamFailed, LOST)
        self.assertIsNone(self.successResultOf(connection.client.when_gone))
        self.assertFalse(connection.client.is_usable)
        self.assertRaises(UpstreamFailed, connection.client.ask, NOOP)
        for call in (connection.client.reset, connection.client.quit, connection.client.abort):
            call()

    def test_lost_without_a_reason(self) -> None:
        """Whoever tells us so need not say why."""
        connection = Connection().ready()
        question = connection.client.ask(NOOP)
        connection.client.connectionLost()
        error = self.assert_failed(question, UpstreamFailed, LOST)
        self.assertEqual(error.why, reply.UPSTREAM_LOST.text)

    def test_cancelled(self) -> None:
        """Who gives up a question cuts the connection: nobody would know what the next answer belongs to."""
        connection = Connection().ready("PIPELINING")
        questions = [connection.client.ask(each) for each in (MAIL, RCPT)]
        questions[1].cancel()
        self.assertTrue(connection.wire.aborted)
        for each in questions:
            self.assert_failed(each, GivenUp)
        self.successResultOf(connection.client.when_gone)

    def test_cancelled_after_the_answer(self) -> None:
        """An answer that is there can't be given up."""
        connection = Connection().ready()
        question = connection.client.ask(NOOP)
        connection.say(OK)
        question.cancel()
        self.assertTrue(connection.client.is_usable)
        self.successResultOf(as_deferred(question))

    def test_421(self) -> None:
        """A 421 is the answer of who waits first; the others are lost, and so is the connection."""
        connection = Connection().ready("PIPELINING")
        first, second = connection.client.ask(MAIL), connection.client.ask(RCPT)
        connection.say(BYE)
        self.assertEqual(self.successResultOf(as_deferred(first)).code, 421)
        self.assert_failed(second, UpstreamFailed, LOST)
        self.assertTrue(connection.is_gone)

    def test_unasked(self) -> None:
        """A server that takes its leave between transactions is let go, and nobody fails for it."""
        connection = Connection().ready()
        connection.say(BYE)
        self.assertTrue(connection.is_gone)
        error = self.assertRaises(UpstreamFailed, connection.client.ask, MAIL)
        self.assertEqual(error.reply, Reply(451, "Bye", "4.3.2"))

    def test_confused(self) -> None:
        """What makes no sense cuts the connection, and is told for the log alone."""
        for octets in (b"what?\r\n", GO, b"250 " + b"x" * 5000, OK + OK):
            connection = Connection().ready("PIPELINING")
            questions = [connection.client.ask(MAIL)] if octets != OK + OK else []
            connection.say(octets)
            for each in questions:
                error = self.assert_failed(each, UpstreamFailed, CONFUSED)
                self.assertNotIn(error.why, str(error.reply))
            self.assertEqual((connection.wire.aborted, connection.client.is_usable), (True, False))

    def test_answer_before_confusion(self) -> None:
        """What was said before it counts."""
        connection = Connection().ready("PIPELINING")
        first, second = connection.client.ask(MAIL), connection.client.ask(RCPT)
        connection.say(OK + b"what?\r\n")
        self.assertTrue(self.successResultOf(as_deferred(first)).accepted)
        self.assert_failed(second, UpstreamFailed, CONFUSED)

    def test_asked_by_an_answer(self) -> None:
        """Who is answered may ask, or cut the connection, at once."""
        connection = Connection().ready("PIPELINING")
        later: list[Any] = []
        connection.client.ask(MAIL, lambda _: later.append(connection.client.ask(RCPT)))
        connection.hear()
        self.assertEqual(connection.say(OK), b"RCPT TO:<b@b.example>\r\n")
        later[0].hear(lambda _: connection.client.abort())
        other = connection.client.ask(DATA)
        connection.say(OK + GO)
        self.assert_failed(other, GivenUp)
        self.assertTrue(connection.is_gone)


class PatienceTests(RelayCase):
    """Nothing lasts for ever (RFC 5321 section 4.5.3.2)."""

    patience = Patience(connect=1.0, greeting=2.0, command=3.0, start=4.0, block=5.0, end=6.0)

    def assert_patient(self, connection: Connection, seconds: float) -> None:
        """The connection is cut when so much time has passed, and no sooner."""
        connection.client.sweep(connection.clock.seconds())
        connection.clock.advance(seconds - 0.5)
        connection.client.sweep(connection.clock.seconds())
        self.assertFalse(connection.is_gone)
        connection.clock.advance(0.5)
        connection.client.sweep(connection.clock.seconds())
        self.assertTrue(connection.wire.aborted)

    def made(self, *offers: str) -> Connection:
        """A connection that was used a while ago."""
        connection = Connection(patience=self.patience).ready(*offers)
        connection.clock.advance(1000.0)
        return connection

    def test_greeting(self) -> None:
        """The greeting is waited for from when the connection is made."""
        connection = Connection(patience=self.patience)
        connection.client.sweep(connection.clock.seconds())
        connection.clock.advance(100.0)
        greeting = connection.connect().client.greeted()
        self.assert_patient(connection, 2.0)
        self.assert_failed(greeting, UpstreamFailed, SLOW)

    def test_commands(self) -> None:
        """An answer is waited for from when it was asked for, by its verb."""
        cases: tuple[tuple[tuple[tuple[Command, bytes], ...], Command, float], ...] = (
            ((), MAIL, 3.0),
            ((), Plain("STARTTLS"), 3.0),
            (((MAIL, OK),), RCPT, 3.0),
            (((MAIL, OK), (RCPT, OK)), DATA, 4.0),
        )
        for before, command, seconds in cases:
            connection = self.made().exchange(*before)
            question = connection.client.ask(command)
            self.assert_patient(connection, seconds)
            self.assert_failed(question, UpstreamFailed, SLOW)

    def test_each_answer(self) -> None:
        """Of several that are asked at once, each has its time."""
        connection = self.made("PIPELINING")
        first, second = connection.client.ask(MAIL), connection.client.ask(RCPT)
        connection.clock.advance(2.5)
        connection.say(OK)
        self.assert_patient(connection, 3.0)
        self.successResultOf(as_deferred(first))
        self.assert_failed(second, UpstreamFailed, SLOW)

    def test_half_a_reply(self) -> None:
        """What is no whole answer buys no time."""
        connection = self.made()
        question = connection.client.ask(MAIL)
        connection.client.sweep(connection.clock.seconds())
        connection.clock.advance(2.0)
        connection.say(b"250-a\r\n250")
        self.assert_patient(connection, 1.0)
        self.assert_failed(question, UpstreamFailed, SLOW)

    def test_end_of_data(self) -> None:
        """A message has its own time, whichever way it came."""
        connection = self.made().data()
        connection.clock.advance(1000.0)
        question = connection.client.end()
        self.assert_patient(connection, 6.0)
        self.assert_failed(question, UpstreamFailed, SLOW)
        for last, seconds in ((False, 5.0), (True, 6.0)):
            connection = self.made("CHUNKING").exchange((MAIL, OK), (RCPT, OK))
            connection.clock.advance(1000.0)
            question = connection.client.write_chunk(b"x", last)
            self.assert_patient(connection, seconds)
            self.assert_failed(question, UpstreamFailed, SLOW)

    def test_leaving(self) -> None:
        """Of one that says 421 to a recipient, and neither closes nor goes on, little is waited for."""
        connection = Connection(patience=Patience(), lmtp=True).ready()
        connection.exchange((MAIL, OK), (RCPT, OK), (RCPT, OK), (RCPT, OK), (RCPT, OK), (DATA, GO))
        verdict = connection.client.end()
        connection.client.sweep(connection.clock.seconds())
        connection.clock.advance(100.0)
        connection.say(OK + BYE)
        connection.client.sweep(connection.clock.seconds())
        connection.clock.advance(GOODBYE / 2)
        connection.say(NO)
        self.assert_patient(connection, GOODBYE / 2)
        done, bye, no = Reply(250, "Ok"), Reply(421, "Bye", "4.3.2"), Reply(550, "No", "5.1.1")
        self.assertEqual(
            self.successResultOf(as_deferred(verdict)), Results([done, bye, no, reply.UPSTREAM_SLOW])
        )

    def test_congested(self) -> None:
        """A server that takes no more content is waited for from when it stopped."""
        connection = self.made().data()
        connection.clock.advance(1000.0)
        connection.client.pauseProducing()
        room = connection.client.write(b"x")
        assert room is not None
        self.assert_patient(connection, 5.0)
        self.assert_failed(room, UpstreamFailed, SLOW)

    def test_no_longer_congested(self) -> None:
        """When it takes content again, the verdict is waited for from then on."""
        connection = self.made().data()
        connection.client.pauseProducing()
        connection.client.write(b"x")
        verdict = connection.client.end()
        connection.clock.advance(4.5)
        connection.client.resumeProducing()
        self.assert_patient(connection, 6.0)
        self.assert_failed(verdict, UpstreamFailed, SLOW)

    def test_handshake(self) -> None:
        """Hands are not shaken for ever."""
        connection = self.made()
        connection.wire.startTLS = lambda _: None  # type: ignore[attr-defined]
        connection.exchange((Plain("STARTTLS"), b"220 Go\r\n"))
        connection.clock.advance(1000.0)
        shaking = connection.client.secure(object())
        self.assert_patient(connection, 5.0)
        self.assert_failed(shaking, UpstreamFailed, SLOW)

    def test_nothing_asked(self) -> None:
        """Where nothing is waited for, time does not matter: between transactions, and between our writes."""
        for connection in (self.made(), self.made().data()):
            connection.client.sweep(connection.clock.seconds() + 1e6)
            self.assertTrue(connection.client.is_usable)

    def test_closing(self) -> None:
        """Who does not let us close is cut off; nobody waits for it, and nothing stays."""
        for ending in ("quit", "421"):
            connection = Connection(patience=self.patience, closes=False).ready()
            connection.clock.advance(1000.0)
            if ending == "quit":
                connection.client.quit()
                connection.say(b"221 Bye\r\n")
            else:
                connection.say(BYE)
            self.assertEqual((connection.wire.disconnecting, connection.is_gone), (True, False))
            self.assert_patient(connection, 5.0)
            self.successResultOf(connection.client.when_gone)

    def test_producer_is_gone_when_closing(self) -> None:
        """A transport closes when its producer is done: it is told so."""
        connection = Connection(closes=False).ready()
        self.assertIs(connection.wire.producer, connection.client)
        connection.client.quit()
        connection.say(b"221 Bye\r\n")
        self.assertIsNone(connection.wire.producer)


class ContentTests(RelayCase):
    """Mail data, and what a server says about it."""

    def test_small(self) -> None:
        """A small message goes out in one piece with its end."""
        connection = Connection().ready().data()
        self.assertIsNone(connection.client.write(b"a\r\n"))
        self.assertIsNone(connection.client.write(b".b\r\n"))
        self.assertEqual(connection.hear(), b"")
        verdict = connection.client.end()
        self.assertEqual(connection.hear(), b"a\r\n..b\r\n.\r\n")
        connection.say(OK)
        self.assertEqual(self.successResultOf(as_deferred(verdict)), Reply(250, "Ok"))

    def test_large(self) -> None:
        """What is worth it goes at once."""
        connection = Connection().ready().data()
        for _ in range(2):
            connection.client.write(b"x" * (WORTH_SENDING - 1))
            self.assertEqual(connection.hear(), b"")
            connection.client.write(b"y")
            self.assertEqual(len(connection.hear()), WORTH_SENDING)

    def test_backpressure(self) -> None:
        """While the server takes no more, neither do we."""
        connection = Connection().ready().data()
        self.assertEqual((connection.wire.producer, connection.wire.streaming), (connection.client, True))
        connection.client.pauseProducing()
        room = connection.client.write(b"x")
        assert room is not None
        self.assertNoResult(room)
        connection.client.resumeProducing()
        self.assertIsNone(self.successResultOf(room))
        self.assertIsNone(connection.client.write(b"x"))
        connection.client.resumeProducing()
        connection.client.stopProducing()
        self.assertTrue(connection.client.is_usable)

    def test_written_while_congested(self) -> None:
        """All that was written meanwhile waits for the same room, and none of it for ever."""
        for end in (lambda each: each.client.resumeProducing(), lambda each: each.wire.lose()):
            connection = Connection().ready().data()
            connection.client.pauseProducing()
            rooms = [connection.client.write(b"x") for _ in range(2)]
            end(connection)
            for room in rooms:
                assert room is not None and room.called
                room.addErrback(lambda failure: failure.trap(UpstreamFailed) and None)

    def test_room_given_up(self) -> None:
        """Who waits no more for room cuts the connection: half a message must not be delivered."""
        connection = Connection().ready().data()
        connection.client.pauseProducing()
        room = connection.client.write(b"x")
        assert room is not None
        room.cancel()
        self.assert_failed(room, GivenUp)
        self.assertTrue(connection.wire.aborted)

    def test_end_while_congested(self) -> None:
        """Who sent the end waits for the verdict, and no more for room: nobody's failure is left over."""
        connection = Connection().ready().data()
        connection.client.pauseProducing()
        self.assertIsNotNone(connection.client.write(b"x"))
        verdict = connection.client.end()
        connection.wire.lose()
        self.assert_failed(verdict, UpstreamFailed, LOST)

    def test_lost_meanwhile(self) -> None:
        """A connection that is lost fails who waits for room, and who writes, or ends, or sends a chunk."""
        connection = Connection().ready("CHUNKING").data()
        connection.client.pauseProducing()
        room = connection.client.write(b"x")
        assert room is not None
        connection.wire.lose()
        self.assert_failed(room, UpstreamFailed, LOST)
        for call in (
            lambda: connection.client.write(b"x"),
            connection.client.end,
            lambda: connection.client.write_chunk(b"x"),
        ):
            error = self.assertRaises(UpstreamFailed, call)
            self.assertEqual(f"{error.reply.code} {error.reply.status}", LOST)

    def test_early_verdict(self) -> None:
        """What the server says before the end is the verdict, whatever follows; a 421 is 451 here."""
        for octets, verdict in (
            (b"552 5.3.4 Too big\r\n", Reply(552, "Too big", "5.3.4")),
            (b"452 4.3.1 Full\r\n550 Not this\r\n", Reply(452, "Full", "4.3.1")),
            (BYE, Reply(451, "Bye", "4.3.2")),
            (b"554 No status\r\n", Reply(554, "No status", "5.0.0")),
        ):
            connection = Connection().ready().data()
            connection.client.write(b"x")
            connection.say(octets)
            self.assertTrue(connection.is_gone)
            for call in (lambda each=connection: each.client.write(b"x"), connection.client.end):
                self.assertEqual(self.assertRaises(SMTPError, call).reply, verdict)

    def test_early_verdict_while_congested(self) -> None:
        """Who waits for room hears it as well."""
        connection = Connection().ready().data()
        connection.client.pauseProducing()
        room = connection.client.write(b"x")
        assert room is not None
        connection.say(b"552 5.3.4 Too big\r\n")
        self.assert_failed(room, UpstreamFailed, "552 5.3.4")

    def test_early_yes(self) -> None:
        """A server that accepts what it has not seen is confused."""
        connection = Connection().ready().data()
        connection.say(OK)
        error = self.assertRaises(UpstreamFailed, connection.client.end)
        self.assertEqual(f"{error.reply.code} {error.reply.status}", CONFUSED)

    def test_chunks(self) -> None:
        """Chunks go out at once, and each has its answer."""
        connection = Connection().ready("CHUNKING").exchange((MAIL, OK), (RCPT, OK))
        first = connection.client.write_chunk(b".\0")
        self.assertEqual(connection.hear(), b"BDAT 2\r\n.\0")
        connection.say(OK)
        last = connection.client.write_chunk(b"", last=True)
        self.assertEqual(connection.hear(), b"BDAT 0 LAST\r\n")
        connection.say(NO)
        self.assertEqual(self.successResultOf(as_deferred(first)), Reply(250, "Ok"))
        self.assertEqual(self.successResultOf(as_deferred(last)), Reply(550, "No", "5.1.1"))

    def test_lmtp(self) -> None:
        """Under LMTP the verdict has a reply for each."""
        connection = Connection(lmtp=True).ready().exchange((MAIL, OK), (RCPT, OK), (RCPT, OK), (DATA, GO))
        verdict = connection.client.end()
        connection.say(OK + NO)
        self.assertEqual(
            self.successResultOf(as_deferred(verdict)), Results([Reply(250, "Ok"), Reply(550, "No", "5.1.1")])
        )

    def test_lmtp_lost(self) -> None:
        """What was said to some recipients stands, however the connection ends; the others try again."""
        lost, confused = reply.UPSTREAM_LOST, reply.UPSTREAM_CONFUSED
        for end, rest in (
            (lambda each: each.wire.lose(), lost),
            (lambda each: each.say(b"what?\r\n"), confused),
        ):
            connection = (
                Connection(lmtp=True).ready().exchange((MAIL, OK), (RCPT, OK), (RCPT, OK), (RCPT, OK))
            )
            connection.exchange((DATA, GO))
            verdict = connection.client.end()
            connection.say(NO)
            end(connection)
            self.assertEqual(
                self.successResultOf(as_deferred(verdict)), Results([Reply(550, "No", "5.1.1"), rest, rest])
            )

    def test_lmtp_lost_before_any(self) -> None:
        """When nothing was said to anybody, it failed."""
        connection = Connection(lmtp=True).ready().data()
        verdict = connection.client.end()
        connection.wire.lose()
        self.assert_failed(verdict, UpstreamFailed, LOST)


class EndTests(RelayCase):
    """How a transaction is given up, and a connection."""

    def test_reset(self) -> None:
        """An open transaction is reset; who asks next is answered behind it."""
        for exchanges in (((MAIL, OK),), ((MAIL, OK), (RCPT, OK))):
            connection = Connection().ready("PIPELINING").exchange(*exchanges)
            connection.client.reset()
            question = connection.client.ask(MAIL)
            self.assertEqual(connection.hear(), b"RSET\r\nMAIL FROM:<a@a.example>\r\n")
            connection.say(OK + NO)
            self.assertEqual(self.successResultOf(as_deferred(question)).code, 550)

    def test_reset_of_what_waits(self) -> None:
        """So is one that is about to be opened."""
        connection = Connection().ready("PIPELINING")
        question = connection.client.ask(MAIL)
        connection.client.reset()
        self.assertEqual(connection.hear(), b"MAIL FROM:<a@a.example>\r\nRSET\r\n")
        connection.say(OK + OK)
        self.successResultOf(as_deferred(question))
        self.assertIs(connection.client.dialogue.state, state.READY)

    def test_nothing_to_reset(self) -> None:
        """Between transactions there is nothing to say."""
        connection = Connection().ready()
        connection.client.reset()
        self.assertEqual((connection.hear(), connection.client.is_usable), (b"", True))

    def test_no_way_back(self) -> None:
        """Where content is under way, or no transaction can begin, the connection is cut."""
        cases = {
            "data": lambda: Connection().ready().data(),
            "chunk": lambda: Connection().ready("CHUNKING").exchange((MAIL, OK), (RCPT, OK)),
            "hello refused": lambda: Connection()
            .ready("XCLIENT NAME")
            .exchange((Plain("XCLIENT", "NAME=x"), GREETING), (EHLO, b"450 Later\r\n")),
        }
        for name, make in cases.items():
            connection = make()
            if name == "chunk":
                connection.client.write_chunk(b"x")
                connection.say(OK)
            connection.client.reset()
            self.assertEqual((connection.wire.aborted, connection.client.is_usable), (True, False), name)

    def test_reset_while_data_is_asked_for(self) -> None:
        """Nobody knows whether the server takes RSET for content: the connection is cut."""
        connection = Connection().ready().exchange((MAIL, OK), (RCPT, OK))
        question = connection.client.ask(DATA)
        connection.client.reset()
        self.assertTrue(connection.wire.aborted)
        self.assert_failed(question, GivenUp)

    def test_reset_refused(self) -> None:
        """A server that can't forget is confused: what comes next might be of the transaction before."""
        connection = Connection().ready("PIPELINING").exchange((MAIL, OK))
        connection.client.reset()
        question = connection.client.ask(MAIL)
        connection.say(NO)
        self.assert_failed(question, UpstreamFailed, CONFUSED)
        self.assertTrue(connection.wire.aborted)

    def test_lost_while_resetting(self) -> None:
        """A connection that is lost meanwhile was not needed: nothing is logged."""
        connection = Connection().ready().exchange((MAIL, OK))
        connection.client.reset()
        connection.wire.lose()
        self.assertFalse(connection.client.is_usable)

    def test_quit(self) -> None:
        """Goodbye is said, and the connection closed when it is answered, or lost."""
        for answer in (b"221 Bye\r\n", NO, BYE, b""):
            connection = Connection().ready()
            connection.client.quit()
            self.assertEqual((connection.hear(), connection.is_gone), (b"QUIT\r\n", False))
            connection.say(answer) if answer else connection.wire.lose()
            self.assertEqual((connection.is_gone, connection.wire.aborted), (True, False))
            self.successResultOf(connection.client.when_gone)

    def test_no_goodbye(self) -> None:
        """Where it would be taken for something else, the connection is cut."""
        auth = Plain("AUTH", "PLAIN")
        for connection in (
            Connection().ready().data(),
            Connection().ready().exchange((auth, b"334 \r\n")),
        ):
            connection.client.quit()
            self.assertEqual((connection.hear(), connection.wire.aborted), (b"", True))

    def test_abort(self) -> None:
        """It is cut at once, and once; the first reason is the one."""
        connection = Connection().ready()
        question = connection.client.ask(MAIL)
        connection.client.abort(UpstreamFailed(reply.UPSTREAM_SLOW))
        connection.client.abort()
        self.assert_failed(question, UpstreamFailed, "451 4.4.2")
        self.assertRaises(UpstreamFailed, connection.client.ask, NOOP)

    def test_never_connected(self) -> None:
        """One that was never made can be given up."""
        connection = Connection()
        greeting = connection.client.greeted()
        connection.client.abort()
        self.assert_failed(greeting, GivenUp)


class SecureTests(RelayCase):
    """TLS, as far as it is known here: when hands are shaken, and when not."""

    def shaking(self) -> tuple[Connection, Any]:
        """A connection on which hands are being shaken, and who waits for it."""
        connection = Connection().ready("STARTTLS").exchange((Plain("STARTTLS"), b"220 Go\r\n"))
        self.started: list[Any] = []
        connection.wire.startTLS = self.started.append  # type: ignore[attr-defined]
        connection.wire.getHandle = lambda: "handle"  # type: ignore[attr-defined]
        self.patch(smtpserv.tls, "tls_facts", lambda handle: {"version": handle, "cipher": "x"})
        return connection, connection.client.secure("creator")

    def test_secured(self) -> None:
        """When hands are shaken, it is known how, and hello is said again."""
        connection, shaking = self.shaking()
        self.assertEqual(self.started, ["creator"])
        self.assertNoResult(shaking)
        self.assertFalse(connection.client.is_usable)
        connection.client.handshakeCompleted()
        self.successResultOf(shaking)
        assert connection.client.tls is not None
        self.assertEqual((connection.client.tls.version, connection.client.is_usable), ("handle", True))
        connection.client.say_hello(EHLO)
        self.assertEqual(connection.hear(), b"EHLO client.example\r\n")

    def test_lost(self) -> None:
        """A connection that is lost meanwhile is not to be trusted."""
        connection, shaking = self.shaking()
        connection.wire.lose()
        self.assert_failed(shaking, UpstreamFailed, INSECURE)

    def test_given_up(self) -> None:
        """Who waits no more cuts it."""
        connection, shaking = self.shaking()
        shaking.cancel()
        self.assert_failed(shaking, GivenUp)
        self.assertTrue(connection.wire.aborted)

    def test_from_the_begin(self) -> None:
        """Under TLS from the begin, what is lost before hands are shaken is not to be trusted either."""
        for completed, code in ((False, INSECURE), (True, LOST)):
            connection = Connection()
            directlyProvides(connection.wire, ISSLTransport)
            greeting = connection.connect().client.greeted()
            if completed:
                connection.wire.getHandle = lambda: "handle"  # type: ignore[attr-defined]
                self.patch(smtpserv.tls, "tls_facts", lambda handle: {"version": handle, "cipher": "x"})
                connection.client.handshakeCompleted()
                self.assertTrue(connection.client.is_usable)
            connection.wire.lose()
            self.assert_failed(greeting, UpstreamFailed, code)

    def test_said_behind_starttls(self) -> None:
        """What comes in clear behind the answer to STARTTLS was not said by who shakes hands."""
        connection = Connection().ready("STARTTLS")
        question = connection.client.ask(Plain("STARTTLS"))
        connection.say(b"220 Go\r\n" + OK)
        self.assert_failed(question, UpstreamFailed, CONFUSED)


class TransportTests(RelayCase):
    """What is asked of the connection."""

    def test_tcp(self) -> None:
        """It sends at once what it is given, and our end of it is known."""
        connection = Connection()
        directlyProvides(connection.wire, ITCPTransport)
        self.patch(connection.wire, "getHost", lambda: IPv4Address("TCP", "192.0.2.1", 12345))
        connection.connect()
        self.assertTrue(connection.wire.no_delay)
        self.assertEqual(connection.client.local, Peer("192.0.2.1", 12345))

    def test_unix(self) -> None:
        """A Unix socket has neither, though its transport looks as one of TCP."""
        connection = Connection()
        directlyProvides(connection.wire, ITCPTransport)
        self.patch(connection.wire, "getHost", lambda: UNIXAddress("/run/lmtp"))
        connection.connect()
        self.assertFalse(connection.wire.no_delay)
        self.assertIsNone(connection.client.local)
        self.assertIsNone(Connection().connect().client.local)
