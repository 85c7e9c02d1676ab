"""A mail transaction passed through: each stage is asked, and what is answered is heard."""

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from smtpserv import reply
from smtpserv.awaiting import as_deferred
from smtpserv.error import SMTPError
from smtpserv.interfaces import IMessageSink, ITransaction
from smtpserv.message import Envelope, ForwardPath, Peer, ReversePath, Session
from smtpserv.relay.client import WORTH_SENDING
from smtpserv.relay.failure import GivenUp, UpstreamFailed
from smtpserv.relay.passage import ChunkFlow, Flow, Manner, Passage, open_passage
from smtpserv.relay.pool import Pool, PoolLimits
from smtpserv.relay.probe import would_take
from smtpserv.relay.route import Route
from smtpserv.reply import Reply, Results
from tests.relay_tools import BYE, GO, GREETING, NO, OK, Connection, Door, RelayCase, begun
from tests.server_tools import captured_log

SESSION: Final = Session("3f2a", Peer("192.0.2.1", 2525), "EHLO", "client.example", hostname="mx.example")
SENDER: Final = ReversePath("a@a.example")
RECIPIENT: Final = ForwardPath("b@b.example")
OTHER: Final = ForwardPath("c@b.example")
HEAD: Final = b"Received: from x\r\n"
CONTENT: Final = b"Subject: x\r\n\r\n.\r\n"
LOST: Final = "451 4.4.2"


def envelope(*recipients: ForwardPath, sender: ReversePath = SENDER) -> Envelope:
    """From us to these."""
    return Envelope("3f2a.1", sender, recipients or (RECIPIENT,))


class PassageCase(RelayCase):
    """A route of one server, which the test plays."""

    def setUp(self) -> None:
        self.route_to("PIPELINING", "CHUNKING", "BINARYMIME")

    def route_to(self, *offers: str, lmtp: bool = False, **manner: Any) -> None:
        """The server offers this, and messages are passed to it in this manner."""
        self.clock = Clock()
        self.door = Door(self.clock, *offers, lmtp=lmtp)
        self.pool = Pool(self.clock, self.door, PoolLimits(connections=1), lambda: 1.0)
        self.manner = Manner(trace=lambda *_: HEAD, **manner)

    def open(self, sender: ReversePath = SENDER, session: Session = SESSION) -> "Deferred[Passage]":
        """MAIL."""
        return begun(open_passage, Route([self.pool]), session, sender, self.manner)

    def opened(self, sender: ReversePath = SENDER) -> Passage:
        """MAIL, accepted on a new connection."""
        waiting = self.open(sender)
        self.server: Connection = self.door.open()
        self.heard = self.server.say(OK)
        passage: Passage = self.successResultOf(waiting)
        return passage

    def ask(self, asked: Any, answer: bytes) -> Any:
        """Something was asked, and is answered; what comes of it."""
        waiting = begun(lambda: asked)
        self.heard = self.server.hear()
        self.server.say(answer)
        return self.successResultOf(waiting)

    def flowing(self, sender: ReversePath = SENDER) -> "Flow | ChunkFlow":
        """Everything up to the content."""
        passage = self.opened(sender)
        self.ask(passage.add_recipient(RECIPIENT), OK)
        sink: Flow | ChunkFlow = self.ask(passage.begin(envelope(sender=sender)), GO)
        return sink

    def refused(self, waiting: Awaitable[Any]) -> Reply:
        """What is heard of a failure."""
        error: Any = self.failureResultOf(as_deferred(waiting), SMTPError).value
        answer: Reply = error.reply
        return answer

    def assert_free(self) -> None:
        """The connection is kept, and may be used again."""
        waiting = begun(self.pool.take)
        self.assertIs(self.successResultOf(waiting), self.server.client)
        self.pool.give_back(self.server.client)

    def assert_cut(self) -> None:
        """The connection was cut, and there is room for another."""
        self.assertTrue(self.server.wire.aborted)
        begun(self.pool.take)
        self.assertEqual(len(self.door.asked), 1)


class EnvelopeTests(PassageCase):
    """MAIL and RCPT."""

    def test_mail(self) -> None:
        """MAIL is answered as the server answers it."""
        waiting = self.open()
        self.server = self.door.open()
        self.assertNoResult(waiting)
        self.server.say(b"250 2.1.0 <a@a.example> is fine\r\n")
        passage = self.successResultOf(waiting)
        self.assertTrue(verifyObject(ITransaction, passage))
        self.assertEqual(passage.answer, Reply(250, "<a@a.example> is fine", "2.1.0"))
        passage.abort()
        self.assertEqual(self.server.say(OK), b"RSET\r\n")
        self.assert_free()

    def test_mail_refused(self) -> None:
        """A refusal is passed on, and the connection is free again."""
        for octets, heard in (
            (b"550 5.7.1 Not you\r\n", Reply(550, "Not you", "5.7.1")),
            (b"451 Later\r\n", Reply(451, "Later", "4.0.0")),
        ):
            self.setUp()
            waiting = self.open()
            self.server = self.door.open()
            self.server.say(octets)
            self.assertEqual(self.refused(waiting), heard)
            self.assert_free()

    def test_session_refused(self) -> None:
        """What the server has against our session it would have against each message: the connection goes."""
        for code in (530, 534, 535, 538):
            self.setUp()
            waiting = self.open()
            self.server = self.door.open()
            self.server.hear()
            self.assertEqual(self.server.say(f"{code} 5.7.0 Not like this\r\n".encode()), b"QUIT\r\n")
            self.assertEqual(self.refused(waiting), Reply(451, "Not like this", "4.7.0"))
            self.server.say(b"221 Bye\r\n")
            waiting = self.open()
            self.door.open().say(OK)
            self.successResultOf(waiting)

    def test_parameters(self) -> None:
        """What can't be passed on is refused before it is asked."""
        waiting = self.open(ReversePath("a@a.example", {"SMTPUTF8": None}))
        self.server = self.door.open()
        self.assertEqual(self.refused(waiting), reply.CANNOT_PASS_UTF8)
        self.assertEqual(self.server.hear(), b"")
        self.assert_free()
        self.route_to("SIZE", "DSN")
        waiting = self.open(ReversePath("a@a.example", {"SIZE": "1000", "BODY": "8BITMIME"}))
        self.assertEqual(self.door.open().hear(), b"MAIL FROM:<a@a.example> SIZE=2024\r\n")

    def test_recipients(self) -> None:
        """Each is asked about, and answered as the server answers it."""
        passage = self.opened()
        self.assertEqual(self.ask(passage.add_recipient(RECIPIENT), OK), Reply(250, "Ok", "2.0.0"))
        self.assertEqual(self.heard, b"RCPT TO:<b@b.example>\r\n")
        self.assertEqual(self.ask(passage.add_recipient(OTHER), NO), Reply(550, "No", "5.1.1"))
        waiting = begun(passage.add_recipient, ForwardPath("d@b.example", {"NOTIFY": "SUCCESS"}))
        self.assertEqual(self.refused(waiting).code, 555)

    def test_one_at_a_time(self) -> None:
        """Where only one fits, the next comes in the next transaction; one that was refused took no room."""
        self.route_to(is_final=True)
        passage = self.opened()
        self.assertEqual(self.ask(passage.add_recipient(RECIPIENT), NO).code, 550)
        self.assertTrue(self.ask(passage.add_recipient(RECIPIENT), OK).accepted)
        answer = self.successResultOf(begun(passage.add_recipient, OTHER))
        self.assertEqual((answer, self.server.hear()), (reply.ONE_AT_A_TIME, b""))

    def test_lost(self) -> None:
        """A connection that is lost in between is told at the next stage, whichever that is."""
        passage = self.opened()
        waiting = begun(passage.add_recipient, RECIPIENT)
        self.server.wire.lose()
        self.assert_failed(waiting, UpstreamFailed, LOST)
        self.assert_failed(begun(passage.add_recipient, RECIPIENT), UpstreamFailed, LOST)
        self.assert_failed(begun(passage.begin, envelope()), UpstreamFailed, LOST)
        passage.abort()

    def test_given_back(self) -> None:
        """A transaction that is over asks nothing on a connection that may be another's."""
        passage = self.opened()
        passage.abort()
        passage.abort()
        self.server.say(OK)
        for changed in (envelope(), envelope(OTHER)):
            self.assert_failed(begun(passage.add_recipient, RECIPIENT), UpstreamFailed, LOST)
            self.assert_failed(begun(passage.begin, changed), UpstreamFailed, LOST)
        self.assertEqual(self.server.hear(), b"")

    def test_cancelled(self) -> None:
        """A client that is gone takes the connection with it, at whatever stage."""
        waiting = self.open()
        self.server = self.door.open()
        waiting.cancel()
        self.failureResultOf(waiting, GivenUp, CancelledError)
        self.assert_cut()


class KeptTests(PassageCase):
    """Connections that were kept from another transaction, maybe too long."""

    def kept(self) -> "Deferred[Passage]":
        """MAIL on a connection that was kept."""
        self.opened().abort()
        self.server.say(OK)
        waiting = self.open()
        self.assertEqual(self.server.hear(), b"MAIL FROM:<a@a.example>\r\n")
        return waiting

    def test_fine(self) -> None:
        """Nearly always they still work."""
        waiting = self.kept()
        self.server.say(OK)
        self.assertTrue(self.successResultOf(waiting)._lent.is_reused)

    def test_too_long(self) -> None:
        """If one ends before its answer, or instead of it, another is made, and the client hears nothing."""
        for octets in (b"", BYE, b"what?\r\n"):
            self.setUp()
            waiting = self.kept()
            self.server.say(octets) if octets else self.server.wire.lose()
            self.assertNoResult(waiting)
            self.server = self.door.open()
            self.server.say(OK)
            self.assertFalse(self.successResultOf(waiting)._lent.is_reused)

    def test_once(self) -> None:
        """A new one that ends like that is a failure."""
        waiting = self.kept()
        self.server.wire.lose()
        self.door.open().wire.lose()
        self.assert_failed(waiting, UpstreamFailed, LOST)

    def test_none(self) -> None:
        """So is none."""
        waiting = self.kept()
        self.server.wire.lose()
        self.door.fail(UpstreamFailed(reply.UPSTREAM_DOWN))
        self.assert_failed(waiting, UpstreamFailed, "451 4.4.1")

    def test_refused(self) -> None:
        """A refusal is an answer."""
        waiting = self.kept()
        self.server.say(NO)
        self.assertEqual(self.refused(waiting).code, 550)
        self.assertEqual(self.door.asked, [])

    def test_cancelled(self) -> None:
        """Who gives up wants no other, whatever was being asked."""
        waiting = self.kept()
        waiting.cancel()
        self.failureResultOf(waiting, GivenUp, CancelledError)
        self.assertEqual(self.door.asked, [])
        self.route_to("XFORWARD ADDR", "PIPELINING", forward_client=True)
        waiting = self.open()
        self.server = self.door.open()
        self.server.say(OK)
        self.server.say(OK)
        self.successResultOf(waiting).abort()
        self.server.say(OK)
        waiting = self.open()
        self.assertEqual(self.server.hear(), b"XFORWARD ADDR=192.0.2.1\r\n")
        waiting.cancel()
        self.failureResultOf(waiting, GivenUp, CancelledError)
        self.assertEqual(self.door.asked, [])


class IntroductionTests(PassageCase):
    """Telling the server who our client is, before MAIL."""

    def test_xforward(self) -> None:
        """Said first; whatever the server thinks of it, the mail goes on."""
        for answer in (OK, NO):
            self.route_to("XFORWARD ADDR", forward_client=True)
            waiting = self.open()
            self.server = self.door.open()
            self.assertEqual(self.server.hear(), b"XFORWARD ADDR=192.0.2.1\r\n")
            self.assertEqual(self.server.say(answer), b"MAIL FROM:<a@a.example>\r\n")
            self.server.say(OK)
            self.successResultOf(waiting)

    def test_not_wanted(self) -> None:
        """Nothing is said where the operator, or the server, does not want it."""
        for offer, forward in (("XFORWARD ADDR", False), ("DSN", True), ("XCLIENT", True)):
            self.route_to(offer, forward_client=forward)
            self.open()
            self.assertEqual(self.door.open().hear(), b"MAIL FROM:<a@a.example>\r\n")

    def test_xclient(self) -> None:
        """Hello is said again behind it, and what is offered then counts."""
        self.route_to("XCLIENT ADDR", "DSN", forward_client=True)
        waiting = self.open(ReversePath("a@a.example", {"RET": "HDRS", "SIZE": "1"}))
        self.server = self.door.open()
        self.assertEqual(self.server.hear(), b"XCLIENT ADDR=192.0.2.1\r\n")
        self.assertEqual(self.server.say(GREETING), b"EHLO client.example\r\n")
        heard = self.server.say(b"250-mx.example\r\n250 SIZE\r\n")
        self.assertEqual(heard, b"MAIL FROM:<a@a.example> SIZE=1025\r\n")
        self.server.say(OK)
        self.successResultOf(waiting)

    def test_xclient_hello(self) -> None:
        """That hello is the client's, by whatever name is known of it; by ours where none could be said."""
        host = Session("1", Peer("192.0.2.1"), "EHLO", "host.example")
        for session, name in (
            (host, "host.example"),
            (replace(host, forwarded={"HELO": "origin.example"}), "origin.example"),
            (replace(host, forwarded={"HELO": "a b", "ADDR": None}), "client.example"),
            (replace(host, forwarded={"HELO": None}), "client.example"),
            (Session("1", Peer("192.0.2.1")), "client.example"),
        ):
            self.route_to("XCLIENT ADDR HELO", forward_client=True)
            self.open(session=session)
            self.server = self.door.open()
            self.server.hear()
            self.assertEqual(self.server.say(GREETING), f"EHLO {name}\r\n".encode(), session)

    def test_xclient_refused(self) -> None:
        """If it is not believed, the mail is ours."""
        self.route_to("XCLIENT ADDR", forward_client=True)
        self.open()
        self.server = self.door.open()
        self.server.hear()
        self.assertEqual(self.server.say(NO), b"MAIL FROM:<a@a.example>\r\n")

    def test_unwelcome(self) -> None:
        """A client whom the server does not greet hears so, and the connection is of no use any more."""
        self.route_to("XCLIENT ADDR", forward_client=True)
        waiting = self.open()
        self.server = self.door.open()
        self.server.say(GREETING)
        self.server.say(b"450 4.7.1 Not now\r\n")
        self.assertEqual(self.refused(waiting), Reply(450, "Not now", "4.7.1"))
        self.assert_cut()


class BeginTests(PassageCase):
    """DATA, and envelopes that filters changed."""

    def test_data(self) -> None:
        """DATA is asked, and then the content may come."""
        sink = self.flowing()
        self.assertEqual(self.heard, b"DATA\r\n")
        self.assertIsInstance(sink, Flow)
        self.assertTrue(verifyObject(IMessageSink, sink))

    def test_data_refused(self) -> None:
        """A refusal is passed on; the transaction is still to be given up."""
        passage = self.opened()
        self.ask(passage.add_recipient(RECIPIENT), OK)
        waiting = begun(passage.begin, envelope())
        self.server.say(b"451 4.3.0 Later\r\n")
        self.assertEqual(self.refused(waiting), Reply(451, "Later", "4.3.0"))
        self.server.hear()
        passage.abort()
        self.assertEqual(self.server.say(OK), b"RSET\r\n")
        self.assert_free()

    def test_data_cancelled(self) -> None:
        """Who gives up while DATA is asked cuts the connection."""
        passage = self.opened()
        self.ask(passage.add_recipient(RECIPIENT), OK)
        waiting = begun(passage.begin, envelope())
        waiting.cancel()
        self.failureResultOf(waiting, GivenUp, CancelledError)
        passage.abort()
        self.assert_cut()

    def test_changed(self) -> None:
        """Another envelope is asked about anew."""
        for changed, said in (
            (envelope(OTHER), (b"MAIL FROM:<a@a.example>\r\n", b"RCPT TO:<c@b.example>\r\n")),
            (
                envelope(sender=ReversePath("d@a.example")),
                (b"MAIL FROM:<d@a.example>\r\n", b"RCPT TO:<b@b.example>\r\n"),
            ),
            (
                envelope(RECIPIENT, OTHER),
                (b"MAIL FROM:<a@a.example>\r\n", b"RCPT TO:<b@b.example>\r\n", b"RCPT TO:<c@b.example>\r\n"),
            ),
        ):
            self.setUp()
            passage = self.opened()
            self.ask(passage.add_recipient(RECIPIENT), OK)
            waiting = begun(passage.begin, changed)
            self.assertEqual(self.server.hear(), b"RSET\r\n")
            self.assertEqual(tuple(self.server.say(OK) for _ in said), said)
            self.assertEqual(self.server.say(OK), b"DATA\r\n")
            self.server.say(GO)
            self.assertIsInstance(self.successResultOf(waiting), Flow)

    def test_changed_before_anybody_was_accepted(self) -> None:
        """Also where the server has accepted nobody yet."""
        passage = self.opened()
        waiting = begun(passage.begin, envelope())
        self.assertEqual(self.server.hear(), b"RSET\r\n")
        for _ in range(3):
            self.server.say(OK)
        self.server.say(GO)
        self.assertIsInstance(self.successResultOf(waiting), Flow)

    def test_changed_and_not_reset(self) -> None:
        """A server that does not forget the first envelope is told no second one."""
        for answer, heard in ((NO, "451 4.5.0"), (BYE, "451 4.3.2")):
            self.setUp()
            passage = self.opened()
            waiting = begun(passage.begin, envelope())
            self.server.hear()
            self.assertEqual(self.server.say(answer), b"")
            self.assert_failed(waiting, SMTPError, heard)
            passage.abort()
            self.assertTrue(self.server.is_gone)

    def test_changed_and_refused(self) -> None:
        """If any of it is refused, all is: by the answer that loses nobody's mail."""
        passage = self.opened()
        self.ask(passage.add_recipient(RECIPIENT), OK)
        waiting = begun(passage.begin, envelope(RECIPIENT, OTHER))
        for octets in (OK, OK, NO, b"452 4.2.2 Full\r\n"):
            self.server.say(octets)
        self.assertEqual(self.refused(waiting), Reply(452, "Full", "4.2.2"))
        self.server.say(OK)
        passage.abort()
        self.assert_free()

    def test_binary(self) -> None:
        """Binary content goes in chunks, without DATA."""
        passage = self.opened(ReversePath("a@a.example", {"BODY": "BINARYMIME"}))
        self.ask(passage.add_recipient(RECIPIENT), OK)
        sender = ReversePath("a@a.example", {"BODY": "BINARYMIME"})
        sink = self.successResultOf(begun(passage.begin, envelope(sender=sender)))
        self.assertIsInstance(sink, ChunkFlow)
        self.assertTrue(verifyObject(IMessageSink, sink))
        self.assertEqual(self.server.hear(), b"")


class FlowTests(PassageCase):
    """The content, by DATA."""

    def test_message(self) -> None:
        """Our fields on top, the content as it is, and the server's verdict."""
        sink = self.flowing()
        for piece in (CONTENT[:5], CONTENT[5:]):
            self.assertIsNone(sink.write(piece))
        verdict = self.ask(sink.finish(), b"250 2.6.0 Queued\r\n")
        self.assertEqual(self.heard, HEAD + b"Subject: x\r\n\r\n..\r\n.\r\n")
        self.assertEqual(verdict, Reply(250, "Queued", "2.6.0"))
        self.assert_free()

    def test_empty(self) -> None:
        """A message of nothing has our fields."""
        sink = self.flowing()
        self.ask(sink.finish(), OK)
        self.assertEqual(self.heard, HEAD + b".\r\n")

    def test_verdicts(self) -> None:
        """Whatever it is, it is passed on."""
        for octets, heard in (
            (b"550 Spam\r\n", Reply(550, "Spam", "5.0.0")),
            (b"451 4.3.0 Later\r\n", Reply(451, "Later", "4.3.0")),
            (BYE, Reply(451, "Bye", "4.3.2")),
        ):
            self.setUp()
            sink = self.flowing()
            sink.write(CONTENT)
            self.assertEqual(self.ask(sink.finish(), octets), heard)

    def test_lmtp(self) -> None:
        """Under LMTP each recipient has its own."""
        self.route_to("PIPELINING", lmtp=True)
        passage = self.opened()
        for recipient in (RECIPIENT, OTHER):
            self.ask(passage.add_recipient(recipient), OK)
        sink = self.ask(passage.begin(envelope(RECIPIENT, OTHER)), GO)
        sink.write(CONTENT)
        verdict = self.ask(sink.finish(), OK + BYE)
        self.assertEqual(verdict, Results([Reply(250, "Ok"), Reply(451, "Bye", "4.3.2")]))

    def test_backpressure(self) -> None:
        """While the server takes no more, neither do we."""
        sink = self.flowing()
        self.server.client.pauseProducing()
        room = sink.write(b"x" * WORTH_SENDING)
        assert room is not None
        self.assertNoResult(as_deferred(room))
        self.server.client.resumeProducing()
        self.successResultOf(as_deferred(room))

    def test_abort(self) -> None:
        """What is not complete is cut off, so that nobody delivers it."""
        sink = self.flowing()
        sink.write(CONTENT)
        sink.abort()
        self.assertNotIn(b".\r\n.\r\n", self.server.hear())
        self.assert_cut()

    def test_early_verdict(self) -> None:
        """What the server says before the end is the verdict."""
        for finish in (False, True):
            self.setUp()
            sink = self.flowing()
            sink.write(CONTENT)
            self.server.say(b"552 5.3.4 Too big\r\n")
            if finish:
                self.assertEqual(self.refused(begun(sink.finish)), Reply(552, "Too big", "5.3.4"))
            else:
                error = self.assertRaises(SMTPError, sink.write, b"x")
                self.assertEqual(error.reply, Reply(552, "Too big", "5.3.4"))
                sink.abort()

    def test_in_doubt(self) -> None:
        """When no verdict comes, the client tries again, and the log says that the message may come twice."""
        events = captured_log(self)
        for end in ("lost", "cancelled"):
            self.setUp()
            sink = self.flowing()
            sink.write(CONTENT)
            waiting = begun(sink.finish)
            self.server.wire.lose() if end == "lost" else waiting.cancel()
            self.failureResultOf(waiting, UpstreamFailed, CancelledError)
            self.assertEqual((events[-1]["id"], events[-1]["log_level"].name), ("3f2a.1", "error"), end)
            self.assertIn("in doubt", events[-1]["log_format"])
        self.assertEqual(len(events), 2)

    def test_not_in_doubt(self) -> None:
        """When the end was never sent, there is no doubt."""
        events = captured_log(self)
        sink = self.flowing()
        self.server.wire.lose()
        self.assert_failed(begun(sink.finish), UpstreamFailed, LOST)
        self.assertEqual(events, [])

    def test_loop(self) -> None:
        """A message that goes in circles is refused, as soon as its header tells, and nobody delivers it."""
        hops = b"Received: by x\r\n" * 101
        sink = self.flowing()
        error = self.assertRaises(SMTPError, sink.write, hops + b"\r\n")
        self.assertEqual(error.reply, reply.MAIL_LOOP)
        sink.abort()
        self.assert_cut()

    def test_loop_without_a_body(self) -> None:
        """At its end, where it is nothing but a header."""
        sink = self.flowing()
        sink.write(b"Received: by x\r\n" * 101)
        self.server.hear()
        self.assertEqual(self.refused(begun(sink.finish)), reply.MAIL_LOOP)
        self.assertEqual(self.server.hear(), b"")
        self.assert_cut()


class ChunkFlowTests(PassageCase):
    """The content, by BDAT."""

    def chunking(self) -> ChunkFlow:
        """A transaction of binary content."""
        sender = ReversePath("a@a.example", {"BODY": "BINARYMIME"})
        passage = self.opened(sender)
        self.ask(passage.add_recipient(RECIPIENT), OK)
        sink: ChunkFlow = self.successResultOf(begun(passage.begin, envelope(sender=sender)))
        return sink

    def test_message(self) -> None:
        """Each chunk waits for its answer; the last, which ends it, is empty."""
        sink = self.chunking()
        room = sink.write(b".\n\0")
        self.assertEqual(self.server.hear(), b"BDAT %d\r\n%b.\n\0" % (len(HEAD) + 3, HEAD))
        self.assertNoResult(as_deferred(room))
        self.server.say(OK)
        self.assertIsNone(self.successResultOf(as_deferred(room)))
        verdict = self.ask(sink.finish(), b"250 2.6.0 Queued\r\n")
        self.assertEqual((self.heard, verdict), (b"BDAT 0 LAST\r\n", Reply(250, "Queued", "2.6.0")))
        self.assert_free()

    def test_empty(self) -> None:
        """A message of nothing has our fields."""
        self.ask(self.chunking().finish(), OK)
        self.assertEqual(self.heard, b"BDAT %d LAST\r\n%b" % (len(HEAD), HEAD))

    def test_refused(self) -> None:
        """A chunk that is refused refuses the message."""
        sink = self.chunking()
        room = sink.write(b"x")
        self.server.say(b"552 5.3.4 Too big\r\n")
        self.assertEqual(self.refused(room), Reply(552, "Too big", "5.3.4"))
        sink.abort()
        self.assert_cut()

    def test_in_doubt(self) -> None:
        """Without a verdict the message may come twice."""
        events = captured_log(self)
        waiting = begun(self.chunking().finish)
        self.server.wire.lose()
        self.assert_failed(waiting, UpstreamFailed, LOST)
        self.assertEqual(len(events), 1)


class ProbeTests(PassageCase):
    """``would_take``: asking about a mailbox without sending anything."""

    def test_answers(self) -> None:
        """Yes, no, or no answer; the connection is free again."""
        for octets, expected in (
            (OK + OK, True),
            (OK + NO, False),
            (OK + b"450 4.2.1 Later\r\n", Reply(450, "Later", "4.2.1")),
            (NO, Reply(550, "No", "5.1.1")),
        ):
            self.setUp()
            waiting = begun(would_take, Route([self.pool]), "b@b.example")
            self.server = self.door.open()
            for line in octets.splitlines(keepends=True):
                self.server.say(line)
            if isinstance(expected, Reply):
                self.assertEqual(self.refused(waiting), expected)
            else:
                self.assertIs(self.successResultOf(waiting), expected)
            self.server.say(OK) if len(octets.splitlines()) > 1 else None
            self.assert_free()
