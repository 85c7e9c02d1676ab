"""The filter ``milter``: whole conversations, with milters that keep to the protocol and others."""

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.edit import AddField, AddRecipient, changed
from smtpserv.error import SMTPError, StartError
from smtpserv.header import MAX_HEADER
from smtpserv.interfaces import IMessageFilter
from smtpserv.message import ForwardPath, Message
from smtpserv.milter.endpoint import read_endpoint
from smtpserv.milter.filter import Milter
from smtpserv.milter.inquiry import BLOCK, GROWTH, MEMORY
from smtpserv.milter.packet import MAX_RECEIVED, MAX_SENT, Packet
from smtpserv.plugins import find_filters, make_filter
from smtpserv.testing.memory import HandThread
from tests import milter_tools
from tests.milter_tools import CONTENT, MilterEndpoint, ScriptedMilter, message_of, negotiated, said
from tests.server_tools import Reactor, captured_log
from tests.test_header import filed

TEMPFAIL = reply.FILTER_UNAVAILABLE


class MilterCase(SynchronousTestCase):
    """Asks milters about messages."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = captured_log(self)

    def ask(self, milter: Any, message: Message | None = None, **choices: Any) -> "Deferred[Any]":
        """What comes of it."""
        self.endpoint = MilterEndpoint(milter)
        filter = milter_tools.make_filter(self.endpoint, self.clock, **choices)
        return filter.filter_message(message or message_of())

    def decision(self, milter: Any, message: Message | None = None, **choices: Any) -> Any:
        """What comes of it, now. Nothing of it stays."""
        asked = self.ask(milter, message, **choices)
        self.assert_over()
        return self.successResultOf(asked)

    def assert_over(self) -> None:
        """The connection is closed, and nothing is still to be called."""
        self.assertEqual([wire.connected for wire in self.endpoint.wires], [False] * len(self.endpoint.wires))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def behind(self, milter: ScriptedMilter, message: Message) -> bytes:
        """The content as it is then."""
        return changed(message, self.decision(milter, message) or ()).content.read()


class MessageTests(MilterCase):
    """A milter that keeps to the protocol."""

    def test_whole(self) -> None:
        """It is told all, lets the message be, and is told that we go."""
        milter = ScriptedMilter()
        self.assertIsNone(self.decision(milter))
        self.assertEqual(milter.kinds, "OCHMRTLLNBEQ")
        self.assertEqual(milter.payloads(b"B"), [b"body\r\n"])
        self.assertEqual(milter.payloads(b"L"), [b"From\0a@a.example\0", b"Subject\0one\n two\0"])

    def test_unanswered(self) -> None:
        """One that answers nothing but the end is told all at once."""
        milter = ScriptedMilter(steps=0x1DF080, answers={b"E": [said(b"h", b"A", b" 1") + said(b"c")]})
        self.assertEqual(self.decision(milter), [AddField("A", "1")])
        self.assertEqual(milter.kinds, "OCHMRTLLNBEQ")
        self.assertEqual(milter.payloads(b"L")[0], b"From\0 a@a.example\0")

    def test_edits(self) -> None:
        """What it wants is done: the rest stays octet for octet."""
        answer = (
            said(b"i", b"X-First", b"1", payload=bytes(4))
            + said(b"m", b"Subject", b"", payload=b"\0\0\0\1")
            + said(b"h", b"X-Last", b"2")
            + said(b"+", b"<c@c.example>")
            + said(b"e", b"<x@x.example>")
            + said(b"a")
        )
        message = message_of()
        edits = self.decision(ScriptedMilter({b"E": [answer]}), message)
        self.assertIn(AddRecipient(ForwardPath("c@c.example")), edits)
        behind = changed(message, edits)
        self.assertEqual(
            behind.content.read(), b"X-First: 1\r\nFrom: a@a.example\r\nX-Last: 2\r\n\r\nbody\r\n"
        )
        self.assertEqual(behind.envelope.reverse_path.address, "x@x.example")

    def test_refused(self) -> None:
        """Its reply is ours; a milter that said it in the middle is told that the message is none."""
        milter = ScriptedMilter({b"M": [said(b"y", b"553 5.1.8 Who is that?")]})
        self.assertEqual(str(self.decision(milter)), "553 5.1.8 Who is that?")
        self.assertEqual(milter.kinds, "OCHMAQ")

    def test_broken_header(self) -> None:
        """What many a reader sees as body, the milter sees as body; one that it replaces is gone."""
        message = message_of(b"A: b\r\n" + b"x" * MAX_SENT + b"\r\n\r\nbody\r\n")
        self.assertIsNone(self.decision(ScriptedMilter(), message))
        message = message_of(b"A: b\r\nno field\r\nC: d\r\n\r\nbody\r\n")
        milter = ScriptedMilter()
        self.assertIsNone(self.decision(milter, message))
        self.assertEqual(milter.payloads(b"B"), [b"no field\r\nC: d\r\n\r\nbody\r\n"])
        answer = said(b"b", payload=b"new\r\n") + said(b"c")
        octets = self.behind(ScriptedMilter({b"E": [answer]}), message)
        self.assertNotIn(b"no field", octets)
        self.assertTrue(octets.endswith(b"\r\n\r\nnew\r\n"))

    def test_long_header(self) -> None:
        """What a milter could not be shown is refused, and nobody asked."""
        for content in (b"A: b\r\n" * (MAX_HEADER // 6 + 1), b"A: " + b"b" * MAX_SENT + b"\r\n\r\n"):
            error = self.failureResultOf(self.ask(ScriptedMilter(), message_of(content)), SMTPError).value
            self.assertEqual(str(error)[:9], "554 5.6.0")
            self.assertEqual(self.endpoint.wires, [])


class BodyTests(MilterCase):
    """Bodies, large ones too."""

    def test_pieces(self) -> None:
        """A body comes in pieces of 64 KiB, each when the one before it was answered."""
        body = bytes(range(256)) * 600
        milter = ScriptedMilter()
        self.assertIsNone(self.decision(milter, message_of(CONTENT[:-6] + body)))
        self.assertEqual(
            [len(each) for each in milter.payloads(b"B")], [MAX_SENT, MAX_SENT, 600 * 256 - 2 * MAX_SENT]
        )
        self.assertEqual(b"".join(milter.payloads(b"B")), body)

    def test_none(self) -> None:
        """Without a body, or without anything, none is told."""
        for content in (b"A: b\r\n\r\n", b"A: b\r\n", b"A: b", b""):
            milter = ScriptedMilter()
            self.assertIsNone(self.decision(milter, message_of(content)))
            self.assertEqual(milter.payloads(b"B"), [])

    def large(self) -> Message:
        """A message that lies in a file."""
        message = message_of()
        return Message(message.session, message.envelope, filed(self, b"A: b\r\n\r\n" + b"x" * 3 * BLOCK))

    def test_large(self) -> None:
        """What lies in a file is read in a thread, a block at a time, and no further once it is skipped."""
        thread, milter = HandThread(), ScriptedMilter()
        asked = self.ask(milter, self.large(), in_thread=thread)
        while not asked.called:
            self.assertEqual(len(thread.waiting), 1)
            thread.step()
        self.assertIsNone(self.successResultOf(asked))
        self.assertEqual(sum(map(len, milter.payloads(b"B"))), 3 * BLOCK)
        milter = ScriptedMilter({b"B": [said(b"s")]})
        asked = self.ask(milter, self.large(), in_thread=thread)
        thread.step()
        self.assertIsNone(self.successResultOf(asked))
        self.assertEqual(len(milter.payloads(b"B")), 1)

    def test_congestion(self) -> None:
        """A milter that reads slowly is sent no more than it takes, and not for ever."""
        thread, milter = HandThread(), ScriptedMilter(steps=0x80000)
        asked = self.ask(milter, self.large(), in_thread=thread)
        (wire,) = self.endpoint.wires
        wire.producer.pauseProducing()
        thread.step()
        self.assertEqual(len(milter.payloads(b"B")), 1)
        wire.producer.resumeProducing()
        self.assertEqual(len(milter.payloads(b"B")), BLOCK // MAX_SENT)
        wire.producer.pauseProducing()
        thread.step()
        self.assertNoResult(asked)
        self.clock.advance(31)
        self.assertEqual(self.successResultOf(asked), TEMPFAIL)
        self.assert_over()

    def test_new_body(self) -> None:
        """It takes the place of the old one, small or large; none at all is one too."""
        for pieces in ([b"new\r\n", b"body\r\n"], [b"x" * MAX_SENT] * (MEMORY // MAX_SENT + 2), [b""]):
            answer = b"".join([said(b"b", payload=each) for each in pieces]) + said(b"c")
            octets = self.behind(ScriptedMilter({b"E": [answer]}), message_of())
            self.assertEqual(octets, CONTENT[:-6] + b"".join(pieces))

    def test_new_body_unwanted(self) -> None:
        """If the message is refused in the end there is none."""
        answer = said(b"b", payload=b"x") + said(b"r")
        self.assertEqual(self.decision(ScriptedMilter({b"E": [answer]})), reply.REFUSED_BY_FILTER)

    def test_endless_body(self) -> None:
        """One that grows and grows breaks the protocol."""
        piece = said(b"b", payload=bytes(1 << 17))
        self.assertEqual(self.decision(ScriptedMilter({b"E": [piece * (GROWTH // (1 << 17) + 2)]})), TEMPFAIL)

    def test_pause(self) -> None:
        """While nobody has a use for it, a milter that says much is not read."""
        thread = HandThread()
        asked = self.ask(ScriptedMilter(), self.large(), in_thread=thread)
        (wire,) = self.endpoint.wires
        wire.protocol.dataReceived(said(b"p") * 1000)
        self.assertEqual(wire.paused, 0)
        wire.protocol.dataReceived(said(b"p") * (MAX_RECEIVED // 5))
        self.assertEqual(wire.paused, 1)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)


class FaultTests(MilterCase):
    """A milter that is away, slow, or breaks the protocol."""

    def assert_failed(self, milter: Any, **choices: Any) -> None:
        """For now, or it is let be where that was wanted; one line is logged, and the connection closed."""
        self.assertEqual(self.decision(milter(), **choices), TEMPFAIL)
        self.assertIsNone(self.decision(milter(), accepts=True, **choices))
        self.assertEqual([event["log_level"].name for event in self.log], ["warn"] * 2)

    def test_refused(self) -> None:
        """Nobody is there; what the system says of it does not reach a terminal either."""
        self.assert_failed(lambda: ConnectionRefusedError(string="\x1b"))
        self.assertNotIn("\x1b", self.log[0]["reason"])

    def test_no_milter(self) -> None:
        """Something else is there."""
        self.assert_failed(lambda: ScriptedMilter({b"O": [b"220 mx.example ESMTP\r\n"]}))

    def test_other_version(self) -> None:
        """One that we have nothing to say to."""
        self.assert_failed(lambda: ScriptedMilter({b"O": [negotiated(version=7)]}))

    def test_nonsense(self) -> None:
        """What is no answer, at any stage; what it says does not reach a terminal."""
        for kind in (b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E"):
            self.log.clear()
            self.assert_failed(lambda kind=kind: ScriptedMilter({kind: [said(b"\x1b")]}))
            self.assertNotIn("\x1b", self.log[0]["reason"])

    def test_slow(self) -> None:
        """Each answer has its time; signs of life make it longer."""
        asked = self.ask(ScriptedMilter({b"E": [b""]}))
        (wire,) = self.endpoint.wires
        for _ in range(3):
            self.clock.advance(29)
            wire.protocol.dataReceived(said(b"p"))
        self.clock.advance(29)
        self.assertNoResult(asked)
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(asked), TEMPFAIL)
        self.assertTrue(wire.aborted)
        self.assert_over()

    def test_no_connection(self) -> None:
        """A connection that does not come about is given up."""
        asked = self.ask(None)
        self.clock.advance(31)
        self.assertEqual(self.successResultOf(asked), TEMPFAIL)
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_lost(self) -> None:
        """The connection is lost while an answer is awaited, or what is left of one."""
        for octets in (b"", said(b"h", b"A", b"1"), b"\0\0"):
            asked = self.ask(ScriptedMilter({b"E": [octets]}))
            self.endpoint.wires[0].lose()
            self.assertEqual(self.successResultOf(asked), TEMPFAIL)
            self.assert_over()

    def test_cancelled(self) -> None:
        """Whoever has no time any more cancels, and the connection is closed at once."""
        asked = self.ask(ScriptedMilter({b"E": [b""]}))
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertTrue(self.endpoint.wires[0].aborted)
        self.assert_over()
        asked = self.ask(None)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual((self.endpoint.cancelled, self.clock.getDelayedCalls(), self.log), (1, [], []))

    def test_lingering(self) -> None:
        """A connection that won't close is cut off."""
        asked = self.ask(ScriptedMilter({b"E": [b""]}))
        (wire,) = self.endpoint.wires
        wire._closes = False
        wire.protocol.dataReceived(bytes(Packet(b"c")))
        self.assertIsNone(self.successResultOf(asked))
        self.assertFalse(wire.aborted)
        self.clock.advance(31)
        self.assertTrue(wire.aborted)
        self.assert_over()


class MakeTests(SynchronousTestCase):
    """What the command line says."""

    def test_endpoints(self) -> None:
        """Twisted's spelling, Postfix's and the milters' own."""
        for where, more, description in (
            (("tcp", "127.0.0.1", "8891"), {}, "tcp:127.0.0.1:8891"),
            (("tcp",), {"host": "h", "port": "1"}, "tcp:host=h:port=1"),
            (("tcp", "::1", "8891"), {}, r"tcp:\:\:1:8891"),
            (("tcp:127.0.0.1:8891",), {}, "tcp:127.0.0.1:8891"),
            (("inet", "8891@h.example"), {}, "tcp:h.example:8891"),
            (("inet", "h.example", "8891"), {}, "tcp:h.example:8891"),
            (("inet6", "8891@[::1]"), {}, r"tcp:\:\:1:8891"),
            (("inet:8891@h.example",), {}, "tcp:h.example:8891"),
            (("unix", "/run/milter"), {}, "unix:/run/milter"),
            (("local", "/run/milter"), {}, "unix:/run/milter"),
        ):
            self.assertEqual(read_endpoint(where, more), description)

    def test_arguments(self) -> None:
        """What is wrong ends the start, in one line."""
        reactor = cast(Any, Reactor())

        def make(description: str) -> IMessageFilter:
            return cast(IMessageFilter, make_filter(description, reactor, find_filters(), "mx.example"))

        for description in (
            "milter:unix:/run/milter:default=accept:timeout=5",
            r"milter:tcp:127.0.0.1:8891",
            "milter:inet:8891@localhost",
        ):
            self.assertIsInstance(make(description), Milter)
        for description, reason in {
            "milter": "where is the milter",
            "milter:nowhere:x": "'nowhere:x' is no endpoint",
            "milter:tcp:x": "'tcp:x' is no endpoint",
            "milter:unix:/x:default=reject": "default: 'reject' is not tempfail or accept",
            "milter:unix:/x:timeout=0": "timeout: '0' is not a number of seconds",
            "milter:unix:/x:timeout=x": "timeout: 'x' is not",
        }.items():
            self.assertRegex(str(self.assertRaises(StartError, make, description)), reason)
