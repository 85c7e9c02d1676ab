"""What a milter is told of a message, and what its answers come to."""

import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.edit import (
    AddField,
    AddRecipient,
    ChangeReversePath,
    DeleteField,
    InsertField,
    RemoveRecipient,
    ReplaceField,
    changed,
)
from smtpserv.header import Header
from smtpserv.message import Content, Envelope, ForwardPath, Message, ReversePath, TLSFacts
from smtpserv.milter.change import Context, change_of
from smtpserv.milter.conversation import BUDGET, COST, Conversation
from smtpserv.milter.event import Event, Shown, end_event, envelope_events, header_events
from smtpserv.milter.negotiation import Steps, Terms
from smtpserv.milter.packet import Answer, Command, MilterError, Packet
from smtpserv.reply import Reply
from smtpserv.testing.memory import make_message
from tests.milter_tools import message_of, packets, said

KINDS = [value for name, value in vars(Answer).items() if name.isupper()]


def number(value: int) -> bytes:
    """As it goes over the wire."""
    return struct.pack("!I", value)


class EventTests(SynchronousTestCase):
    """A message as it is told."""

    def told(self, message: Message) -> list[tuple[bytes, bytes]]:
        """Kind and payload of what comes before the header."""
        return [(each.kind, each.payload) for each in envelope_events(message)]

    def macros(self, message: Message) -> dict[str, str]:
        """Those of the whole envelope."""
        return {name: value for each in envelope_events(message) for name, value in each.macros.items()}

    def test_envelope(self) -> None:
        """Who connects, says hello, sends and receives."""
        self.assertEqual(
            self.told(message_of(recipients=["b@b.example", "c@c.example"])),
            [
                (b"C", b"[192.0.2.1]\x004\x09\xdd192.0.2.1\0"),
                (b"H", b"client.example\0"),
                (b"M", b"<a@a.example>\0"),
                (b"R", b"<b@b.example>\0"),
                (b"R", b"<c@c.example>\0"),
                (b"T", b""),
            ],
        )

    def test_families(self) -> None:
        """A client on IPv6, on a Unix socket, and on one without a name."""
        for host, payload in (
            ("2001:db8::1", b"[2001:db8::1]\x006\x09\xdd2001:db8::1\0"),
            ("::ffff:192.0.2.1", b"[192.0.2.1]\x004\x09\xdd192.0.2.1\0"),
            ("/run/x", b"localhost\0L\0\0/run/x\0"),
            ("", b"localhost\0U"),
        ):
            self.assertEqual(self.told(message_of(host=host))[0][1], payload)

    def test_parameters(self) -> None:
        """Those of MAIL and RCPT, and the null reverse-path."""
        plain = message_of()
        envelope = Envelope(
            "i",
            ReversePath("", {"SIZE": "9", "SMTPUTF8": None}),
            (ForwardPath("bé@b.example", {"NOTIFY": "NEVER"}),),
        )
        told = dict(self.told(Message(plain.session, envelope, plain.content)))
        self.assertEqual(told[b"M"], b"<>\0SIZE=9\0SMTPUTF8\0")
        self.assertEqual(told[b"R"], "<bé@b.example>\0NOTIFY=NEVER\0".encode())

    def test_macros(self) -> None:
        """What milters look up; nothing of TLS or a user where there is none."""
        macros = self.macros(message_of())
        self.assertEqual(
            {
                name: macros[name]
                for name in ("j", "i", "{client_addr}", "{client_port}", "{mail_addr}", "{rcpt_addr}")
            },
            {
                "j": "mx.example",
                "i": "test.1",
                "{client_addr}": "192.0.2.1",
                "{client_port}": "2525",
                "{mail_addr}": "a@a.example",
                "{rcpt_addr}": "b@b.example",
            },
        )
        self.assertTrue({"{tls_version}", "{auth_authen}", "{auth_type}"}.isdisjoint(macros))
        macros = self.macros(message_of(identity="user", tls=TLSFacts("TLSv1.3", "AES")))
        self.assertEqual(
            [macros[name] for name in ("{tls_version}", "{cipher}", "{auth_authen}")],
            ["TLSv1.3", "AES", "user"],
        )

    def test_definitions(self) -> None:
        """Macros stand before their event, and name it; one without a value is not told."""
        event = Event(b"H", b"x\0", {"i": "1", "{a}": "b\0c", "{none}": ""})
        self.assertEqual(packets(event.definitions), [Packet(b"D", b"Hi\x001\0{a}\0b c\0")])
        self.assertEqual(Event(b"H").definitions, b"")

    def header(self, content: bytes, leading_space: bool = True) -> list[bytes]:
        """The fields as they are told."""
        shown = Shown(Header.of(Content(content)))
        *fields, end = header_events(make_message(content), shown, leading_space)
        self.assertEqual(end.kind, Command.END_OF_HEADER)
        return [each.payload for each in fields]

    def test_header(self) -> None:
        """Names and values as they came, lines ended by LF; NULs are none."""
        content = b"Subject: one\r\n\ttwo\r\nX-a:  b \r\nx:c\r\nX :\td\r\nY: \0e\r\n\r\nZ: f\r\n"
        self.assertEqual(
            self.header(content),
            [b"Subject\0 one\n\ttwo\0", b"X-a\0  b \0", b"x\0c\0", b"X\0\td\0", b"Y\0  e\0"],
        )
        self.assertEqual(
            self.header(content, leading_space=False),
            [b"Subject\0one\n\ttwo\0", b"X-a\0 b \0", b"x\0c\0", b"X\0\td\0", b"Y\0 e\0"],
        )

    def test_cut_header(self) -> None:
        """A line that is no field ends it: what follows is shown as body, as many a reader shows it."""
        content = b"A: b\r\nno field\r\nC: d\r\n\r\nbody\r\n"
        shown = Shown(Header.of(Content(content)))
        self.assertEqual(self.header(content), [b"A\0 b\0"])
        self.assertEqual((shown.is_cut, shown.size), (True, 6))

    def test_too_long(self) -> None:
        """What is longer than milters take can't be told."""
        self.assertRaises(MilterError, lambda: Event(b"L", b"x" * 65536).packet)


class ChangeTests(SynchronousTestCase):
    """What a milter wants done."""

    def change(self, kind: bytes, *parts: bytes, payload: bytes = b"", leading_space: bool = False) -> Any:
        """The edit."""
        (packet,) = packets(said(kind, *parts, payload=payload))
        envelope = Envelope("i", ReversePath("a@a.example", {"BODY": "8BITMIME", "RET": "FULL"}), ())
        return change_of(packet, Context(envelope, leading_space))

    def test_fields(self) -> None:
        """Added, inserted, replaced and deleted; counted as Sendmail counts."""
        change, index = self.change, number
        self.assertEqual(change(b"h", b"X", b"y"), AddField("X", "y"))
        for told, place in ((0, 0), (1, 0), (2, 1), (99, 98)):
            self.assertEqual(change(b"i", b"X", b"y", payload=index(told)), InsertField("X", "y", place))
        for told, occurrence in ((0, 1), (1, 1), (2, 2)):
            self.assertEqual(
                change(b"m", b"X", b"y", payload=index(told)), ReplaceField("X", "y", occurrence)
            )
            self.assertEqual(change(b"m", b"X", b"", payload=index(told)), DeleteField("X", occurrence))

    def test_values(self) -> None:
        """The space behind the colon is said if that was agreed on; lines fold, whatever ends them."""
        for value, leading_space, octets in (
            (b"y", False, b"X: y\r\n"),
            (b" y", True, b"X: y\r\n"),
            (b" y", False, b"X:  y\r\n"),
            (b"y", True, b"X: y\r\n"),
            (b"a\n b\r\n\tc", False, b"X: a\r\n b\r\n\tc\r\n"),
            (b"a\nEvil: b", False, b"X: a\r\n\tEvil: b\r\n"),
            (b"a\rEvil: b", False, b"X: a\r\n\tEvil: b\r\n"),
            (b"a\n\r\n\nb\n", False, b"X: a\r\n\tb\r\n"),
            (b"\xff", False, b"X: \xff\r\n"),
        ):
            edit = self.change(b"h", b"X", value, leading_space=leading_space)
            self.assertEqual(changed(make_message(b""), [edit]).content.read(), octets, value)

    def test_recipients(self) -> None:
        """With or without brackets and parameters."""
        for address in (b"b@b.example", b"<b@b.example>"):
            self.assertEqual(self.change(b"+", address), AddRecipient(ForwardPath("b@b.example")))
            self.assertEqual(self.change(b"2", address), AddRecipient(ForwardPath("b@b.example")))
            self.assertEqual(
                self.change(b"2", address, b"NOTIFY=NEVER"),
                AddRecipient(ForwardPath("b@b.example", {"NOTIFY": "NEVER"})),
            )
            self.assertEqual(self.change(b"-", address), RemoveRecipient("b@b.example"))

    def test_sender(self) -> None:
        """What tells of the content stays, unless it is said anew."""
        for parts, path in (
            ((b"<>",), ReversePath("", {"BODY": "8BITMIME", "RET": "FULL"})),
            ((b"x@x.example", b"RET=HDRS"), ReversePath("x@x.example", {"BODY": "8BITMIME", "RET": "HDRS"})),
        ):
            edit = self.change(b"e", *parts)
            self.assertEqual(edit, ChangeReversePath(path))
            self.assertEqual(dict(edit.reverse_path.parameters), dict(path.parameters))

    def test_wrong(self) -> None:
        """What can't be done is an error: names, lines, addresses and parameters that are none."""
        for kind, parts, payload in (
            (b"h", (b"", b"y"), b""),
            (b"h", (b"a b", b"y"), b""),
            (b"h", (b"X:", b"y"), b""),
            (b"h", (b"X", b"y" * 999), b""),
            (b"h", (b"X",), b""),
            (b"h", (b"X", b"y", b"z"), b""),
            (b"i", (b"X", b"y"), number(1 << 31)),
            (b"i", (), b"abc"),
            (b"m", (b"X", b"y"), number(0xFFFFFFFF)),
            (b"m", (b"", b""), number(1)),
            (b"+", (b"b",), b""),
            (b"+", (b"",), b""),
            (b"+", (b"b@b.example>\r\nDATA",), b""),
            (b"+", (b"b@b.example> NOTIFY=NEVER <",), b""),
            (b"2", (b"b@b.example", b"NOTIFY=X"), b""),
            (b"2", (b"b@b.example", b"XUNKNOWN=1"), b""),
            (b"2", (b"b@b.example", b"NOTIFY=NEVER", b"x"), b""),
            (b"e", (b"\xff@b.example",), b""),
            (b"e", (b"b@b.example", b"SIZE=x"), b""),
        ):
            self.assertRaises(MilterError, self.change, kind, *parts, payload=payload)

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.sampled_from(KINDS), st.binary(max_size=60))
    def test_anything(self, kind: bytes, payload: bytes) -> None:
        """Anything is a change that can be made, or an error."""
        message = make_message(b"A: b\r\n\r\nbody")
        try:
            edit = change_of(Packet(kind, payload), Context(message.envelope))
        except MilterError:
            return
        octets = changed(message, [edit] if edit else []).content.read()
        self.assertTrue(octets.endswith(b"\r\n\r\nbody"))
        self.assertTrue(all(each.name for each in Header.of(Content(octets)).fields))


class ConversationCase(SynchronousTestCase):
    """Holds conversations."""

    def converse(
        self, answers: dict[bytes, list[bytes]] | None = None, steps: int = 0, recipients: int = 1
    ) -> tuple[Conversation, str]:
        """Tell a message; what was told, and all it came to. After its answers a milter goes on."""
        message = message_of(recipients=[f"r{i}@b.example" for i in range(recipients)])
        terms = Terms(steps=Steps(steps))
        conversation = Conversation(terms, Context(message.envelope), message.id)
        left, told = {kind: list(each) for kind, each in (answers or {}).items()}, b""
        shown = Shown(Header.of(message.content))
        events = [
            *envelope_events(message),
            *header_events(message, shown, False),
            Event(b"B", b"x"),
            Event(b"B", b"y"),
            end_event(message),
        ]
        for event in events:
            told += b"".join(each.kind for each in packets(conversation.tell(event)) if each.kind != b"D")
            while conversation.awaits:
                octets = left[event.kind].pop(0) if left.get(event.kind) else said(b"c")
                for packet in packets(octets):
                    conversation.hear(packet)
        return conversation, told.decode()

    def decision(self, answers: dict[bytes, list[bytes]] | None = None, **choices: Any) -> Any:
        """What becomes of the message."""
        return self.converse(answers, **choices)[0].decision


class ConversationTests(ConversationCase):
    """What answers come to."""

    def test_nothing(self) -> None:
        """A milter that goes on to the end lets the message be, and is told all of it in order."""
        conversation, told = self.converse(recipients=2)
        self.assertEqual((told, conversation.decision, conversation.is_over), ("CHMRRTLLNBBE", None, True))
        self.assertEqual(packets(conversation.parting), [Packet(b"Q")])

    def test_steps(self) -> None:
        """It is not told what it does not want; what it does not answer is not waited for."""
        self.assertEqual(self.converse(steps=0x2F7)[1], "RE")
        self.assertEqual(self.converse(steps=0x1FF080, answers={b"L": [said(b"r")]})[1], "CHMRTLLNBBE")

    def test_skip(self) -> None:
        """It wants no more of the kind, and of the other kinds still."""
        self.assertEqual(self.converse({b"B": [said(b"s")]})[1], "CHMRTLLNBE")
        self.assertEqual(self.converse({b"L": [said(b"s")]})[1], "CHMRTLNBBE")
        self.assertRaises(MilterError, self.converse, {b"M": [said(b"s")]})

    def test_accept(self) -> None:
        """It wants to hear no more, and lets the message be; said in the middle, it is told that we go."""
        for kind, told in ((b"C", "C"), (b"M", "CHM"), (b"R", "CHMR"), (b"L", "CHMRTL"), (b"B", "CHMRTLLNB")):
            conversation, heard = self.converse({kind: [said(b"a")]})
            self.assertEqual((heard, conversation.decision), (told, None))
            self.assertEqual(packets(conversation.parting), [Packet(b"A"), Packet(b"Q")])

    def test_refusals(self) -> None:
        """Each way to refuse has its reply, at every stage."""
        for kind in (b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E"):
            for answer, code in (
                (said(b"r"), "550 5.7.1"),
                (said(b"t"), "451 4.7.1"),
                (said(b"4"), "421 4.7.0"),
                (said(b"f"), "421 4.7.0"),
                (said(b"y", b"552 5.3.4 Too much"), "552 5.3.4"),
            ):
                decision = self.decision({kind: [answer]})
                self.assertEqual(str(decision)[:9], code, kind)

    def test_discard(self) -> None:
        """Accepted, and dropped; not for a whole connection."""
        for kind in (b"M", b"R", b"L", b"E"):
            self.assertEqual(self.decision({kind: [said(b"d")]}), reply.accepted("test.1"))
        for kind in (b"C", b"H"):
            self.assertRaises(MilterError, self.converse, {kind: [said(b"d")]})

    def test_recipients(self) -> None:
        """One that is refused refuses the message, for now if any is refused for now; all are asked."""
        for answers, code, told in (
            ([said(b"c"), said(b"r")], "550", "CHMRR"),
            ([said(b"r"), said(b"t")], "451", "CHMRR"),
            ([said(b"t"), said(b"r")], "451", "CHMRR"),
            ([said(b"r"), said(b"a")], "550", "CHMRR"),
            ([said(b"4")], "421", "CHMR"),
        ):
            conversation, heard = self.converse({b"R": answers}, recipients=2)
            self.assertEqual((str(conversation.decision)[:3], heard), (code, told))

    def test_edits(self) -> None:
        """They are gathered in their order, until the verdict; which may be to refuse all the same."""
        edits = said(b"h", b"A", b"1") + said(b"p") + said(b"-", b"<r0@b.example>") + said(b"h", b"B", b"2")
        wanted = [AddField("A", "1"), RemoveRecipient("r0@b.example"), AddField("B", "2")]
        for verdict in (b"c", b"a"):
            self.assertEqual(self.decision({b"E": [edits + said(verdict)]}), wanted)
        self.assertEqual(self.decision({b"E": [edits + said(b"r")]}), reply.REFUSED_BY_FILTER)
        self.assertRaises(MilterError, self.converse, {b"N": [edits]})

    def test_body(self) -> None:
        """A new body comes in pieces, handed on as they come."""
        message = message_of()
        conversation = Conversation(Terms(), Context(message.envelope), message.id)
        conversation.tell(end_event(message))
        heard = [
            conversation.hear(packet)
            for packet in packets(said(b"b", payload=b"x") + said(b"p") + said(b"b"))
        ]
        self.assertEqual(heard, [b"x", None, b""])

    def test_quarantine(self) -> None:
        """There is nowhere to keep it: it is refused, whatever the verdict is."""
        for verdict in (b"c", b"a"):
            self.assertEqual(self.decision({b"E": [said(b"q", b"virus") + said(verdict)]}), reply.QUARANTINED)

    def test_too_much(self) -> None:
        """Edits and signs of life are bounded, in number and in octets."""
        for each in (said(b"p"), said(b"h", b"A", b"1"), said(b"q", b"x")):
            self.converse({b"E": [each * 500]})
            self.assertRaises(MilterError, self.converse, {b"E": [each * (BUDGET // COST + 1)]})
        long = said(b"h", b"A", b"\r\n ".join([b"x" * 990] * 60))
        self.assertRaises(MilterError, self.converse, {b"E": [long * 20]})

    def test_no_answer(self) -> None:
        """What answers nothing is an error."""
        for answer in (said(b"?"), said(b"O"), said(b"l"), said(b"s"), said(b"y"), said(b"h"), b"\0\0\0\1\0"):
            self.assertRaises(MilterError, self.converse, {b"E": [answer]})

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.lists(st.builds(said, st.sampled_from(KINDS), payload=st.binary(max_size=20)), max_size=6))
    def test_anything(self, answers: list[bytes]) -> None:
        """Whatever is answered, it is a decision, or an error."""
        try:
            decision = self.decision(dict.fromkeys((b"C", b"R", b"L", b"E"), answers))
        except MilterError:
            return
        self.assertTrue(decision is None or isinstance(decision, (Reply, list)))


class ReplyTests(ConversationCase):
    """Replies that a milter words itself."""

    def reply(self, *texts: bytes) -> Any:
        """What the client hears."""
        return self.decision({b"E": [said(b"y", *texts)]})

    def test_worded(self) -> None:
        """Code, status and text; percent signs come doubled; what can't be said is escaped."""
        for text, answer in {
            b"550 5.7.1 No": Reply(550, "No", "5.7.1"),
            b"550 No": Reply(550, "No"),
            b"550": Reply(550, ""),
            b"450 4.2.0": Reply(450, "", "4.2.0"),
            b"550 4.2.0 No": Reply(550, "No", "5.0.0"),
            b"421 4.7.0 Bye": Reply(421, "Bye", "4.7.0"),
            b"550 5.7.1 100%% %spam": Reply(550, "100% spam", "5.7.1"),
            b"550-5.7.1 One\r\n550 5.7.1 Two": Reply(550, "One\nTwo", "5.7.1"),
            "550 5.7.1 é\x1b\ufeff".encode(): Reply(550, "\\xe9\\x1b\\ufeff", "5.7.1"),
        }.items():
            self.assertEqual(self.reply(text), answer, text)

    def test_long(self) -> None:
        """One that is too long is cut."""
        self.assertEqual(len(self.reply(b"550 5.7.1 " + b"x" * 9999).octets.splitlines()), 1)

    def test_none(self) -> None:
        """What is no reply, or none that refuses, is an error."""
        for texts in (
            (b"250 Ok",),
            (b"354 Go",),
            (b"x",),
            (b"",),
            (b"590 x",),
            (b"550-a\r\n551 b",),
            (b"550 a\r\nb",),
            (b"550 a", b"b"),
            (),
        ):
            self.assertRaises(MilterError, self.reply, *texts)
