"""The server's dialogue, by hand: what it asks its colleague, and what becomes of each answer."""

from collections.abc import Iterable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.dialogue import state
from smtpserv.dialogue.command import Hello, Mail, Rcpt
from smtpserv.dialogue.event import Content, ContentRefused, Data, EndOfData, Event, Pause
from smtpserv.dialogue.extension import Extension
from smtpserv.dialogue.replies import whole_replies
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.dialogue.terms import BareNewlines, Terms
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.reply import Reply

HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@a.example>\r\n"
RCPT = b"RCPT TO:<b@b.example>\r\n"
GONE = Reply(550, "Gone", "5.7.1")
LATER = Reply(451, "Later", "4.7.1")


class DialogueCase(SynchronousTestCase):
    """A session that was greeted."""

    def setUp(self) -> None:
        self.greet()

    def greet(self, **terms: Any) -> None:
        """Begin a session on these terms."""
        self.dialogue = ServerDialogue(Terms(**{"hostname": "mx.example", **terms}))
        self.dialogue.send()
        self.dialogue.take_output()

    def say(self, octets: bytes, *answers: Reply | None) -> list[Event]:
        """Send octets, and answer what is owed in turn; when the answers are used up, accept."""
        remaining = iter(answers)
        self.dialogue.receive(octets)
        events = []
        while (event := self.dialogue.next_event()) is not None:
            events.append(event)
            if self.dialogue.owed is not None:
                refusal = event.refusal if isinstance(event, EndOfData) else None
                self.dialogue.send(refusal or next(remaining, None))
        return events

    def heard(self) -> list[int]:
        """The codes of the replies since the last call."""
        return [each.code for each in self.replies()]

    def replies(self) -> list[Reply]:
        """The replies since the last call."""
        octets = self.dialogue.take_output()
        replies = whole_replies(octets)
        self.assertEqual(b"".join(each.octets for each in replies), octets)
        return replies


class Greeting(DialogueCase):
    """The first thing said."""

    def test_is_owed_first(self) -> None:
        """Nothing is read before the server has spoken."""
        dialogue = ServerDialogue(Terms(hostname="mx.example"))
        self.assertEqual(dialogue.owed, state.GREETING)
        dialogue.receive(HELLO)
        self.assertIsNone(dialogue.next_event())
        self.assertEqual(dialogue.take_output(), b"")
        dialogue.send()
        self.assertEqual(dialogue.take_output(), b"220 mx.example ESMTP smtpserv\r\n")
        self.assertIs(dialogue.state, state.CONNECTED)
        self.assertEqual(dialogue.next_event(), Hello("EHLO", "client.example"))

    def test_554_leaves_quit(self) -> None:
        """Who is greeted with 554 hears 503 to everything, and 221 to QUIT."""
        self.dialogue = ServerDialogue(Terms())
        self.dialogue.send(Reply(554, "No service", "5.3.2"))
        self.assertEqual(self.heard(), [554])
        self.assertEqual(self.say(HELLO + MAIL + b"NOOP\r\nRSET\r\nHELP\r\nVRFY x\r\nEXPN x\r\nQUIT\r\n"), [])
        self.assertEqual(self.heard(), [503] * 7 + [221])
        self.assertIs(self.dialogue.state, state.CLOSED)

    def test_421_closes(self) -> None:
        """Who is greeted with 421 is read no further."""
        self.dialogue = ServerDialogue(Terms())
        self.dialogue.send(reply.TOO_MANY_CONNECTIONS)
        self.say(HELLO)
        self.assertEqual(self.heard(), [421])
        self.assertIs(self.dialogue.state, state.CLOSED)


class Unasked(DialogueCase):
    """MAIL and RCPT of which nobody wants to know."""

    def test_no_events(self) -> None:
        """They are checked and accepted, and the message knows of them."""
        self.dialogue = ServerDialogue(Terms(), unasked=frozenset({"MAIL", "RCPT"}))
        self.dialogue.send()
        events = self.say(HELLO + MAIL + RCPT + b"RCPT TO:<b>\r\nDATA\r\n.\r\n" + RCPT + MAIL)
        data = Data(ReversePath("a@a.example"), (ForwardPath("b@b.example"),))
        self.assertEqual(events, [Hello("EHLO", "client.example"), data, EndOfData(None)])
        self.assertEqual(self.heard(), [220, 250, 250, 250, 501, 354, 250, 503, 250])


class Pausing(DialogueCase):
    """One command at a time: the next waits until the last is answered."""

    def test_pipelined_commands_wait(self) -> None:
        """However long an answer takes, replies come in order, and nothing is lost."""
        self.dialogue.receive(HELLO + MAIL + b"NOOP\r\n" + RCPT)
        self.assertEqual(self.dialogue.buffered, len(HELLO + MAIL + b"NOOP\r\n" + RCPT))
        self.assertEqual(self.dialogue.next_event(), Hello("EHLO", "client.example"))
        self.assertEqual(self.dialogue.owed, "EHLO")
        self.assertIsNone(self.dialogue.next_event())
        self.assertEqual(self.dialogue.buffered, len(MAIL + b"NOOP\r\n" + RCPT))
        self.dialogue.receive(b"QUIT\r\n")
        self.dialogue.send()
        self.assertIsNone(self.dialogue.owed)
        self.assertEqual(self.heard(), [250])
        self.assertEqual(self.dialogue.next_event(), Mail(ReversePath("a@a.example")))
        self.assertIsNone(self.dialogue.next_event())
        self.assertEqual(self.dialogue.owed, "MAIL")
        self.dialogue.send()
        self.assertEqual(self.dialogue.next_event(), Rcpt(ForwardPath("b@b.example")))
        self.assertEqual(self.dialogue.owed, "RCPT")
        self.assertEqual(self.heard(), [250, 250])
        self.dialogue.send()
        self.assertIsNone(self.dialogue.next_event())
        self.assertEqual(self.heard(), [250, 221])
        self.assertEqual(self.dialogue.buffered, 0)

    def test_mail_data_waits_for_354(self) -> None:
        """Mail data sent too early is kept until DATA is answered, and is then read as such."""
        self.say(HELLO + MAIL + RCPT)
        self.dialogue.receive(b"DATA\r\nQUIT\r\n.\r\n")
        self.assertEqual(
            self.dialogue.next_event(), Data(ReversePath("a@a.example"), (ForwardPath("b@b.example"),))
        )
        self.assertEqual(self.dialogue.owed, "DATA")
        self.assertIsNone(self.dialogue.next_event())
        self.dialogue.send()
        self.assertEqual(self.dialogue.next_event(), Content(b"QUIT\r\n"))
        self.assertEqual(self.dialogue.next_event(), EndOfData(None))
        self.assertEqual(self.dialogue.owed, state.END_OF_DATA)
        self.assertIsNone(self.dialogue.next_event())

    def test_nothing_owed_nothing_sent(self) -> None:
        """A reply that nobody waits for is a mistake of ours, and is not sent."""
        self.assertRaises(ValueError, self.dialogue.send, GONE)
        self.assertRaises((ValueError, KeyError), self.dialogue.send)
        self.assertEqual(self.dialogue.take_output(), b"")

    def test_421_at_any_time(self) -> None:
        """421 may be said when nothing is owed, when something is, and in the middle of mail data."""
        for before in (b"", HELLO, HELLO + MAIL, HELLO + MAIL + RCPT, HELLO + MAIL + RCPT + b"DATA\r\nabc"):
            self.greet()
            self.say(before)
            self.heard()
            self.dialogue.send(reply.SHUTTING_DOWN)
            self.assertEqual(self.heard(), [421])
            self.assertEqual(self.say(b"\r\n.\r\nRSET\r\n"), [])
            self.assertEqual(self.heard(), [])
            self.assertIs(self.dialogue.state, state.CLOSED)

    def test_421_as_an_answer(self) -> None:
        """421 in answer to a command closes, and nothing pipelined behind it is run."""
        for answers in range(5):
            self.greet()
            self.say(
                HELLO + MAIL + RCPT + b"DATA\r\nx\r\n.\r\nNOOP\r\n", *[None] * answers, reply.SHUTTING_DOWN
            )
            self.assertEqual(self.heard(), [250, 250, 250, 354][:answers] + [421])
            self.assertIs(self.dialogue.state, state.CLOSED)

    def test_close(self) -> None:
        """When the connection is gone, what is buffered is not run."""
        self.dialogue.receive(HELLO)
        self.dialogue.close()
        self.assertIsNone(self.dialogue.next_event())
        self.assertIs(self.dialogue.state, state.CLOSED)

    def test_closed_keeps_nothing(self) -> None:
        """What comes after the end costs no memory."""
        self.say(b"QUIT\r\n")
        for _ in range(100):
            self.say(b"x" * 1000)
        self.assertLessEqual(self.dialogue.buffered, 5000)


class Refusals(DialogueCase):
    """What the colleague refuses changes nothing, but for mail data, whose end ends the transaction."""

    def test_hello_refused(self) -> None:
        """A refused EHLO leaves things as they were."""
        self.say(HELLO, GONE)
        self.assertIs(self.dialogue.state, state.CONNECTED)
        self.say(HELLO + MAIL)
        self.say(HELLO, GONE)
        self.assertIs(self.dialogue.state, state.MAIL)

    def test_refused_ehlo_after_helo(self) -> None:
        """A refused EHLO gives no extensions, and a refused HELO takes none."""
        self.say(b"HELO x\r\n" + HELLO, None, GONE)
        self.say(b"MAIL FROM:<a@a.example> SIZE=1\r\n")
        self.assertEqual(self.heard(), [250, 550, 555])
        self.say(HELLO + b"HELO x\r\n", None, GONE)
        self.say(b"MAIL FROM:<a@a.example> SIZE=1\r\n")
        self.assertEqual(self.heard(), [250, 550, 250])

    def test_mail_refused(self) -> None:
        """A refused sender opens no transaction; the next may be welcome, without a trace of the first."""
        self.say(HELLO + b"MAIL FROM:<evil@a.example> SMTPUTF8\r\n", None, LATER)
        self.assertIs(self.dialogue.state, state.READY)
        events = self.say(RCPT + MAIL + "RCPT TO:<ä@b.example>\r\n".encode() + RCPT + b"DATA\r\n")
        self.assertEqual(self.heard(), [250, 451, 503, 250, 553, 250, 354])
        self.assertEqual(events[-1], Data(ReversePath("a@a.example"), (ForwardPath("b@b.example"),)))

    def test_every_recipient_refused(self) -> None:
        """When all were refused DATA gets 554 5.5.1: a client that pipelined knows no mail data is wanted."""
        for refusal in (GONE, LATER):
            self.greet()
            self.say(HELLO + MAIL + RCPT + RCPT + b"DATA\r\n", None, None, refusal, refusal)
            self.assertEqual(self.replies()[-1], reply.NO_VALID_RECIPIENTS)
            self.assertIs(self.dialogue.state, state.MAIL)

    def test_refused_recipients_are_forgotten(self) -> None:
        """After RSET, EHLO or a message, DATA without recipients is 503 again."""
        for end in (b"RSET\r\n", HELLO, RCPT + b"DATA\r\n.\r\n"):
            self.greet()
            self.say(HELLO + MAIL + RCPT, None, None, GONE)
            self.say(end)
            self.say(MAIL + b"DATA\r\n")
            self.assertEqual(self.heard()[-2:], [250, 503])

    def test_one_recipient_refused(self) -> None:
        """The refused recipient is not in the envelope, the others are, in their order."""
        rcpts = b"".join(b"RCPT TO:<%d@b.example>\r\n" % number for number in range(4))
        events = self.say(HELLO + MAIL + rcpts + b"DATA\r\n", None, None, None, GONE, LATER, None)
        self.assertEqual(
            events[-1],
            Data(ReversePath("a@a.example"), (ForwardPath("0@b.example"), ForwardPath("3@b.example"))),
        )

    def test_data_refused(self) -> None:
        """DATA refused leaves the transaction open: the client may say DATA again, or RSET."""
        self.say(HELLO + MAIL + RCPT + b"DATA\r\n", None, None, None, LATER)
        self.assertIs(self.dialogue.state, state.RCPT)
        events = self.say(b"DATA\r\nx\r\n.\r\n")
        self.assertEqual(events[0], Data(ReversePath("a@a.example"), (ForwardPath("b@b.example"),)))
        self.assertEqual(self.heard(), [250, 250, 250, 451, 354, 250])

    def test_message_refused(self) -> None:
        """Whatever the verdict on a message, the transaction is over."""
        for verdict in (None, LATER, GONE):
            self.greet()
            self.say(HELLO + MAIL + RCPT + b"DATA\r\nx\r\n.\r\n", None, None, None, None, verdict)
            self.assertIs(self.dialogue.state, state.READY)
            events = self.say(MAIL + b"RCPT TO:<c@b.example>\r\nDATA\r\n")
            self.assertEqual(events[-1], Data(ReversePath("a@a.example"), (ForwardPath("c@b.example"),)))

    def test_custom_acceptance(self) -> None:
        """A colleague may accept in its own words; 251 is an acceptance like 250."""
        self.say(HELLO + MAIL + RCPT, None, None, Reply(251, "Will forward", "2.1.5"))
        self.assertIs(self.dialogue.state, state.RCPT)
        self.assertEqual(self.heard(), [250, 250, 251])

    def test_354_in_own_words(self) -> None:
        """A 354 of the colleague's own starts mail data as ours does."""
        self.say(HELLO + MAIL + RCPT + b"DATA\r\n", None, None, None, Reply(354, "Go", ""))
        self.assertIs(self.dialogue.state, state.DATA)


class MailData(DialogueCase):
    """What the colleague hears of the content."""

    def open_data(self, **terms: Any) -> None:
        """A session that may send mail data."""
        self.greet(**terms)
        self.say(HELLO + MAIL + RCPT + b"DATA\r\n")
        self.heard()

    def events(self, pieces: Iterable[bytes]) -> list[Event]:
        """What happens while the pieces come."""
        return [event for piece in pieces for event in self.say(piece)]

    def test_content_then_end(self) -> None:
        """Content comes as it arrives, then the end; an empty message has no content."""
        self.open_data()
        self.assertEqual(self.say(b"abc\r\ndef"), [Content(b"abc\r\ndef")])
        self.assertEqual(self.say(b"\r\n.\r\n"), [Content(b"\r\n"), EndOfData(None)])
        self.open_data()
        self.assertEqual(self.say(b".\r\n"), [EndOfData(None)])

    def test_too_big(self) -> None:
        """Once a message is over the limit its content is passed on no more; its end is still found."""
        self.open_data(max_size=5)
        events = self.events([b"abc\r\n", b"d", b"efg", b"\r\n.\r\n"])
        self.assertEqual(events, [Content(b"abc"), ContentRefused(), EndOfData(reply.MESSAGE_TOO_BIG)])

    def test_bare_newline(self) -> None:
        """A bare newline is told as soon as it is met, and again at the end with its reply."""
        self.open_data()
        self.assertEqual(self.say(b"ok\r\nbad\nx"), [ContentRefused()])
        self.assertEqual(self.say(b"more"), [])
        self.assertEqual(self.say(b"\r\n.\r\n"), [EndOfData(reply.BARE_NEWLINE)])

    def test_refusal_is_for_one_message(self) -> None:
        """A bad message is no shadow on the next."""
        self.open_data(max_size=5)
        self.say(b"too big\n\r\n.\r\n")
        self.assertEqual(self.heard(), [550])
        events = self.say(MAIL + RCPT + b"DATA\r\nok\r\n.\r\n")
        self.assertEqual(events[-2:], [Content(b"ok\r\n"), EndOfData(None)])

    def test_size_counts_unstuffed_octets(self) -> None:
        """The limit is on what the message measures (RFC 1870), not on the dots added for transport."""
        self.open_data(max_size=3)
        self.assertEqual(self.say(b"..\r\n.\r\n"), [Content(b".\r\n"), EndOfData(None)])

    def test_normalized_size(self) -> None:
        """What normalizing adds counts as well: the limit is on what is passed on."""
        for size, refusal in ((4, None), (3, reply.MESSAGE_TOO_BIG)):
            self.open_data(max_size=size, bare_newlines=BareNewlines.NORMALIZE)
            self.assertEqual(self.say(b"\n\r\n.\r\n")[-1], EndOfData(refusal))

    def test_much_content(self) -> None:
        """Megabytes in big pieces come out whole, and nothing of them stays."""
        self.open_data()
        line = b"." + b"0123456789abcdef" * 4 + b"\r\n"
        content = line * 30_000
        wire = b"." + content.replace(b"\r\n.", b"\r\n..")
        came = b""
        for start in range(0, len(wire), 65_537):
            for event in self.say(wire[start : start + 65_537]):
                assert isinstance(event, Content)
                came += event.octets
            self.assertEqual(self.dialogue.buffered, 0)
        self.assertEqual(self.say(b".\r\n")[-1], EndOfData(None))
        self.assertEqual(len(came) + 2, len(content))


class Offer(DialogueCase):
    """What a server offers, and what it bears."""

    def test_recipients(self) -> None:
        """A thousand recipients are taken, the next is told 452, and the thousand get their mail."""
        rcpts = b"".join(b"RCPT TO:<%d@b.example>\r\n" % number for number in range(1001))
        events = self.say(HELLO + MAIL + rcpts + b"DATA\r\n")
        self.assertEqual(self.heard(), [250, 250] + [250] * 1000 + [452, 354])
        assert isinstance(events[-1], Data)
        self.assertEqual([path.address for path in events[-1].forward_paths][-1], "999@b.example")
        self.assertEqual(len(events[-1].forward_paths), 1000)

    def test_refused_recipients_count(self) -> None:
        """RCPTMAX counts refused recipients as well (RFC 9422), so names cannot be tried without end."""
        self.greet(max_recipients=2)
        self.say(HELLO + MAIL + RCPT * 3, None, None, GONE, GONE)
        self.assertEqual(self.heard(), [250, 250, 550, 550, 452])

    def test_line_limit(self) -> None:
        """The longest line is 4096 octets and what SIZE and SMTPUTF8 add, CRLF included."""
        self.assertEqual(Terms().line_limit, 4096 + 26 + 10)
        self.say(b"NOOP " + b"x" * (4132 - 7) + b"\r\n")
        self.say(b"NOOP " + b"x" * (4133 - 7) + b"\r\n")
        self.assertEqual(self.replies(), [reply.OK, reply.LINE_TOO_LONG])

    def test_long_line_costs_no_memory(self) -> None:
        """Of a line of megabytes nothing is kept, and it gets one 500 when it ends."""
        for piece in (b"x" * 65536, b"\r" * 65536, b"\n" * 65536, b"x\r" * 30000):
            for _ in range(20):
                self.say(piece)
                self.assertLess(self.dialogue.buffered, 4133)
            self.say(b"\r\nNOOP\r\n")
            self.assertEqual(self.replies(), [reply.LINE_TOO_LONG, reply.OK])

    def test_long_line_among_others(self) -> None:
        """A long line that is buffered whole, with commands around it, is refused alone."""
        self.say(b"NOOP\r\n" + b"x" * 5000 + b"\r\nRSET\r\n")
        self.assertEqual(self.replies(), [reply.OK, reply.LINE_TOO_LONG, reply.OK])

    def test_errors(self) -> None:
        """Twenty mistakes are borne; refusals by policy are no mistakes."""
        self.say(HELLO + (MAIL + b"RSET\r\n") * 30, None, *[GONE] * 30)
        self.say(b"FOO\r\n" * 20)
        self.assertIsNot(self.dialogue.state, state.CLOSED)
        self.heard()
        self.say(b"FOO\r\n" + HELLO)
        self.assertEqual(self.replies(), [reply.UNKNOWN_COMMAND, reply.TOO_MANY_ERRORS])
        self.assertIs(self.dialogue.state, state.CLOSED)

    def test_every_mistake_counts(self) -> None:
        """Unknown, malformed, misplaced and unsupported commands are mistakes alike."""
        mistakes = {
            b"FOO\r\n": 500,
            b"x" * 5000 + b"\r\n": 500,
            b"EHLO !\r\n": 501,
            b"EXPN x\r\n": 502,
            b"DATA\r\n": 503,
            b"MAIL FROM:<a@a.example> X=1\r\n": 555,
        }
        for line, code in mistakes.items():
            self.greet(max_errors=0)
            self.say(HELLO + line)
            self.assertEqual(self.heard(), [250, code, 421], line)

    def test_504_is_a_mistake(self) -> None:
        """A colleague's 504 counts as the dialogue's own mistakes do."""
        self.greet(max_errors=0)
        self.say(HELLO, Reply(504, "No such parameter", "5.5.4"))
        self.assertEqual(self.heard(), [504, 421])

    def test_pipelined_behind_a_refusal(self) -> None:
        """What is out of order since the command before it was refused is no mistake; what comes later is."""
        pipelined = MAIL + RCPT + b"DATA\r\n"
        for refusal in (GONE, Reply(451, "Later")):
            self.greet(max_errors=0)
            self.say(HELLO + pipelined * 10 + b"NOOP\r\nDATA\r\n", None, *[refusal] * 10)
            expected = [250, *[refusal.code, 503, 503] * 10, 250, 503, 421]
            self.assertEqual(self.heard(), expected)
        self.greet(max_errors=0)
        self.say(HELLO + b"MAIL FROM:<> SIZE=99999999999\r\n" + RCPT)
        self.assertEqual(self.heard(), [250, 552, 503])

    def test_accepted_behind_a_refusal(self) -> None:
        """Behind what was accepted since then it is a mistake again."""
        self.greet(max_errors=0)
        self.say(HELLO + MAIL + RCPT * 2 + MAIL, None, None, GONE)
        self.assertEqual(self.heard(), [250, 250, 550, 250, 503, 421])

    def test_lmtp_recipients_all_refused(self) -> None:
        """Under LMTP that is so as well where every recipient was refused."""
        self.greet(max_errors=0, lmtp=True)
        self.say(b"LHLO x\r\n" + (MAIL + RCPT * 2 + b"DATA\r\nRSET\r\n") * 10, None, *[None, GONE, GONE] * 10)
        self.assertEqual(self.heard(), [250, *[250, 550, 550, 503, 250] * 10])

    def test_out_of_order_for_ever(self) -> None:
        """Nobody goes on like that for ever."""
        self.greet(max_errors=0, max_commands=50)
        self.say(HELLO + MAIL + RCPT * 100, None, GONE)
        self.assertEqual(self.heard(), [250, 550, *[503] * 49, 421])

    def test_many_errors_in_one_last_word(self) -> None:
        """QUIT is answered with 221 alone, however the count stands."""
        self.greet(max_commands=1)
        self.say(HELLO + b"QUIT\r\n")
        self.assertEqual(self.heard(), [250, 221])

    def test_421_is_the_last_word(self) -> None:
        """A 421 of the colleague's own is not followed by another."""
        self.greet(max_commands=0)
        self.say(HELLO, reply.SHUTTING_DOWN)
        self.assertEqual(self.heard(), [421])

    def test_refused_messages_count_as_commands(self) -> None:
        """Messages that are all refused do not keep a session open for ever; one accepted does."""
        transaction = MAIL + RCPT + b"DATA\r\n.\r\n"
        for verdict, last in ((GONE, 421), (None, 250)):
            self.greet(max_commands=5)
            self.say(HELLO + transaction * 10, None, *[None, None, None, verdict] * 10)
            self.assertEqual(self.heard()[-1], last)

    def test_refused_recipients_are_bounded_by_the_transaction(self) -> None:
        """A list with many stale names is not cut off; those beyond the limit hear 452 and come again."""
        self.greet(max_commands=20, max_recipients=100)
        self.say(HELLO + MAIL + RCPT * 2500 + b"NOOP\r\n", None, None, *[GONE] * 100)
        heard = self.heard()
        self.assertEqual((heard.count(550), heard.count(452), heard[-1]), (100, 2400, 250))

    def test_others_may_have_their_turn(self) -> None:
        """Of lines that it answers by itself it answers some, and then says that there may be more."""
        self.greet(max_recipients=100)
        events = self.say(HELLO + MAIL + RCPT * 1100 + b"NOOP\r\n" * 10)
        self.assertEqual(events[102:], [Pause()] * 5)
        self.assertEqual(self.heard(), [250] * 102 + [452] * 1000 + [250] * 10)
        self.assertIsNone(self.dialogue.owed)

    def test_accepted_recipients_do_not_count(self) -> None:
        """A mailing to many is one message."""
        self.greet(max_commands=20)
        self.say(HELLO + MAIL + RCPT * 100)
        self.assertEqual(self.heard(), [250] * 102)

    def test_extensions_are_rows(self) -> None:
        """What a row of an extension adds is announced, permitted and allowed for; nothing else is."""
        row = Extension(
            "X-TEST",
            lambda terms, standing: str(terms.max_errors),
            mail={"XMAIL": lambda value: value == "1"},
            rcpt={"XRCPT": lambda value: value is None},
            allowance=100,
        )
        terms = Terms(hostname="mx.example", max_errors=9, extensions=(row,))
        self.assertEqual(terms.line_limit, 4196)
        self.greet(max_errors=9, extensions=(row,))
        self.say(HELLO)
        self.assertEqual(self.dialogue.take_output(), b"250-mx.example\r\n250 X-TEST 9\r\n")
        self.say(b"MAIL FROM:<a@a.example> XMAIL=2\r\nMAIL FROM:<a@a.example> SIZE=1\r\n")
        events = self.say(b"MAIL FROM:<a@a.example> XMAIL=1\r\nRCPT TO:<b@b.example> XMAIL=1\r\n")
        self.say(b"RCPT TO:<b@b.example> XRCPT=1\r\n")
        events += self.say(b"RCPT TO:<b@b.example> xrcpt\r\n")
        self.assertEqual(self.heard(), [501, 555, 250, 555, 501, 250])
        self.assertEqual(
            events,
            [
                Mail(ReversePath("a@a.example", {"XMAIL": "1"})),
                Rcpt(ForwardPath("b@b.example", {"XRCPT": None})),
            ],
        )

    def test_wide_values(self) -> None:
        """A parameter's value is ASCII, unless the client asked for SMTPUTF8."""
        row = Extension("X-TEST", mail={"X": lambda value: True}, rcpt={"X": lambda value: True})
        self.greet(extensions=(*Terms().extensions, row))
        mail, rcpt = (each[:-2] + " X=\u00e9".encode() + b"\r\n" for each in (MAIL, RCPT))
        self.say(HELLO + mail + MAIL + rcpt + b"RSET\r\n" + mail[:-2] + b" SMTPUTF8\r\n" + rcpt)
        self.assertEqual(self.heard(), [250, 501, 250, 501, 250, 250, 250])

    def test_endless_keyword(self) -> None:
        """A parameter's name is told back, but for what is beyond forty octets of it."""
        self.say(HELLO + b"MAIL FROM:<a@a.example> " + b"x" * 4000 + b"\r\n")
        self.assertEqual(self.replies()[-1], reply.unknown_parameter("X" * 40))

    def test_no_extensions(self) -> None:
        """A server without extensions answers EHLO with its name alone."""
        self.greet(extensions=())
        self.say(HELLO)
        self.assertEqual(self.dialogue.take_output(), b"250 mx.example\r\n")
        self.assertEqual(Terms(extensions=()).line_limit, 4096)

    def test_defaults(self) -> None:
        """What a server bears that nobody configured."""
        terms = Terms()
        self.assertEqual(
            (terms.max_size, terms.max_recipients, terms.max_errors, terms.max_commands),
            (32 << 20, 1000, 20, 1000),
        )
        self.assertIs(terms.bare_newlines, BareNewlines.REFUSE)
        self.assertEqual(terms.hostname, "localhost")

    def test_parameters_reach_the_colleague(self) -> None:
        """What the client asked for on MAIL is in the envelope: keyword in capitals, value as sent."""
        events = self.say(HELLO + b"MAIL FROM:<a@a.example> body=8bitMIME SmtpUtf8 SIZE=007\r\n")
        assert isinstance(events[-1], Mail)
        path = events[-1].reverse_path
        self.assertEqual(dict(path.parameters), {"BODY": "8bitMIME", "SMTPUTF8": None, "SIZE": "007"})
        self.assertEqual((path.body, path.smtputf8, path.size), ("8BITMIME", True, 7))

    def test_parameters_are_frozen(self) -> None:
        """No processor can change what another one reads: the parameters of a path are not writable."""
        events = self.say(HELLO + b"MAIL FROM:<a@a.example> SIZE=1\r\n")
        assert isinstance(events[-1], Mail)
        parameters: Any = events[-1].reverse_path.parameters
        with self.assertRaises(TypeError):
            parameters["SIZE"] = "2"
