"""The client's dialogue, by hand: what goes out and when, what answers are taken for, and what is refused."""

from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue import state
from smtpserv.dialogue.client import END_OF_DATA, GREETING, UNASKED, Answer, ClientDialogue
from smtpserv.dialogue.command import Auth, Bdat, Command, Hello, Mail, Plain, Rcpt, Response
from smtpserv.dialogue.framing import MailDataReader
from smtpserv.dialogue.replies import MalformedReply
from smtpserv.dialogue.state import State
from smtpserv.dialogue.terms import BareNewlines
from smtpserv.dialogue.wording import CANCEL
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.reply import Reply, Results
from tests.fuzz import examples
from tests.fuzz.strategies import CONTENTS, PLACES, WHOLE_CONTENTS, cut
from tests.test_dialogue_replies import NOISE

EHLO: Final = Hello("EHLO", "client.example")
MAIL: Final = Mail(ReversePath("a@a.example"))
RCPT: Final = Rcpt(ForwardPath("b@b.example"))
DATA: Final = Plain("DATA")
RSET: Final = Plain("RSET")
NOOP: Final = Plain("NOOP")
QUIT: Final = Plain("QUIT")
STARTTLS: Final = Plain("STARTTLS")
AUTH: Final = Auth("PLAIN", None)

OK: Final = b"250 2.0.0 Ok\r\n"
GO: Final = b"354 Go\r\n"
NO: Final = b"550 5.0.0 No\r\n"
BYE: Final = b"421 4.3.2 Bye\r\n"

#: What brings a session from its greeting to a state, and what each is answered.
STEPS: Final[dict[State, tuple[tuple[Command, bytes], ...]]] = {
    state.CONNECTED: (),
    state.READY: ((EHLO, OK),),
    state.MAIL: ((EHLO, OK), (MAIL, OK)),
    state.RCPT: ((EHLO, OK), (MAIL, OK), (RCPT, OK)),
    state.DATA: ((EHLO, OK), (MAIL, OK), (RCPT, OK), (DATA, GO)),
    state.AUTH: ((EHLO, OK), (AUTH, b"334 \r\n")),
    state.TLS: ((EHLO, OK), (STARTTLS, b"220 Go\r\n")),
    state.CLOSED: ((QUIT, b"221 Bye\r\n"),),
}


class ClientCase(SynchronousTestCase):
    """A session that was greeted."""

    def setUp(self) -> None:
        self.greet()

    def greet(self, *offers: str, lmtp: bool = False) -> None:
        """Begin a session; with offers, it has said hello as well."""
        self.dialogue = ClientDialogue(lmtp)
        self.hear(b"220 mx.example\r\n")
        if offers:
            self.dialogue.say(Hello("LHLO", "client.example") if lmtp else EHLO)
            lines = ["250-mx.example", *(f"250-{each}" for each in offers[:-1]), f"250 {offers[-1]}", ""]
            self.hear("\r\n".join(lines).encode())
        self.said()

    def bring(self, to: State) -> None:
        """Begin a session, and bring it to a state."""
        self.greet()
        for command, answer in STEPS[to]:
            self.dialogue.say(command)
            self.hear(answer)
        self.said()
        self.assertIs(self.dialogue.state, to)

    def hear(self, octets: bytes) -> list[Answer]:
        """What the server says answers."""
        self.dialogue.receive(octets)
        return list(iter(self.dialogue.next_answer, None))

    def say(self, *commands: Command) -> bytes:
        """Say commands; what of them goes out."""
        for command in commands:
            self.dialogue.say(command)
        return self.said()

    def said(self) -> bytes:
        """What went out since the last call."""
        return self.dialogue.take_output()

    def assert_refused(self, *commands: Command) -> None:
        """None of them can be said now, and nothing goes out."""
        for command in commands:
            with self.assertRaises(ValueError, msg=f"{command} in {self.dialogue.state}"):
                self.dialogue.say(command)
        self.assertEqual(self.said(), b"")


class OrderTests(ClientCase):
    """What may be said when."""

    def test_greeting(self) -> None:
        """A session waits for its greeting; what is said before waits as well."""
        self.dialogue = ClientDialogue()
        self.assertEqual((self.dialogue.state, self.dialogue.awaited), (state.CONNECTING, GREETING))
        self.assertEqual(self.say(EHLO), b"")
        self.assertEqual(self.hear(b"220 mx.example\r\n"), [(GREETING, Reply(220, "mx.example", ""))])
        self.assertEqual(self.said(), b"EHLO client.example\r\n")
        self.assertIs(self.dialogue.awaited, EHLO)

    def test_greeting_refused(self) -> None:
        """Who is not wanted may take leave, if it was said for good (RFC 5321 section 3.1)."""
        for greeting, expected in ((b"554 No\r\n", state.REFUSED), (b"450 No\r\n", state.CONNECTING)):
            self.dialogue = ClientDialogue()
            self.hear(greeting)
            self.assertIs(self.dialogue.state, expected)
            self.assert_refused(EHLO, MAIL, NOOP)
        self.dialogue = ClientDialogue()
        self.hear(b"554 No\r\n")
        self.assertEqual(self.say(QUIT), b"QUIT\r\n")

    def test_out_of_order(self) -> None:
        """What the table does not let come is not said."""
        for now, commands in {
            state.CONNECTED: (MAIL, RCPT, DATA, AUTH, STARTTLS),
            state.READY: (RCPT, DATA, Response(b"x")),
            state.MAIL: (MAIL, DATA, AUTH, STARTTLS),
            state.RCPT: (MAIL, AUTH, STARTTLS),
        }.items():
            self.bring(now)
            self.assert_refused(*commands)

    def test_nothing_but_the_answer(self) -> None:
        """Where a line is no command, none is said: it would be content, a password or lost."""
        everything = (EHLO, MAIL, RCPT, DATA, RSET, NOOP, QUIT, STARTTLS, AUTH, Plain("VRFY", "x"))
        for now in (state.DATA, state.AUTH, state.TLS, state.CLOSED):
            self.bring(now)
            self.assert_refused(*everything)

    def test_nothing_behind_what_decides(self) -> None:
        """Nothing waits behind a command whose answer tells what the next line is taken for."""
        for now, command in (
            (state.READY, AUTH),
            (state.READY, STARTTLS),
            (state.AUTH, Response(b"x")),
            (state.RCPT, DATA),
            (state.READY, QUIT),
        ):
            self.bring(now)
            self.say(command)
            self.assert_refused(EHLO, MAIL, RCPT, RSET, NOOP, QUIT, Response(b"hush"), CANCEL)

    def test_what_no_client_says(self) -> None:
        """The names of moves are no commands, and a chunk is not said without its octets."""
        self.bring(state.RCPT)
        self.assert_refused(GREETING, UNASKED, END_OF_DATA, Plain(state.LOST), Bdat(1, False), Bdat(1, True))

    def test_unsayable(self) -> None:
        """What can't be said is refused when it is asked for, not when its turn comes."""
        self.bring(state.CONNECTED)
        self.say(EHLO)
        self.assert_refused(Plain("NOOP", "\r\nQUIT"))
        self.assertEqual([each[0] for each in self.hear(OK)], [EHLO])
        self.assertEqual(self.said(), b"")

    def test_foreseen(self) -> None:
        """Order is kept as if all that is under way were accepted."""
        self.greet("PIPELINING")
        self.say(MAIL)
        self.assert_refused(MAIL, DATA)
        self.say(RCPT, RSET)
        self.assert_refused(RCPT)
        self.say(MAIL)

    def test_closed(self) -> None:
        """When the connection is gone, nothing is heard."""
        self.say(EHLO)
        self.dialogue.close()
        self.assertEqual((self.hear(OK), self.dialogue.state), ([], state.CLOSED))


class HelloTests(ClientCase):
    """EHLO, HELO, LHLO, and what is offered."""

    def test_offers(self) -> None:
        """Keywords in any case, and what stands behind them as it was said."""
        self.say(EHLO)
        self.hear(
            b"250-mx.example Hello\r\n250-pipelining\r\n250-SIZE  1000 \r\n250-AUTH PLAIN login\r\n250 X\r\n"
        )
        self.assertEqual(
            self.dialogue.offers, {"PIPELINING": "", "SIZE": "1000", "AUTH": "PLAIN login", "X": ""}
        )

    def test_taken_back(self) -> None:
        """What was offered once is offered no more when only HELO is answered."""
        self.say(EHLO)
        self.hear(b"250-mx.example\r\n250 DSN\r\n")
        self.say(EHLO)
        self.hear(b"502 No\r\n250 mx.example\r\n")
        self.assertEqual(self.dialogue.offers, {})

    def test_none(self) -> None:
        """A server of one line offers nothing, whatever stands in it."""
        self.say(EHLO)
        self.hear(b"250 STARTTLS\r\n")
        self.assertEqual(self.dialogue.offers, {})

    def test_no_line_of_two(self) -> None:
        """A bare LF begins no further keyword."""
        self.say(EHLO)
        self.hear(b"250-mx.example\r\n250 DSN\nSTARTTLS\r\n")
        self.assertNotIn("STARTTLS", self.dialogue.offers)

    def test_helo(self) -> None:
        """A server that knows no EHLO is told HELO, at once (RFC 5321 section 3.2); it offers nothing."""
        self.say(EHLO, MAIL)
        self.assertEqual(self.hear(b"502 What?\r\n"), [])
        self.assertEqual(self.said(), b"HELO client.example\r\n")
        self.assertIs(self.dialogue.state, state.CONNECTED)
        answers = self.hear(b"250-mx.example\r\n250 PIPELINING\r\n")
        self.assertEqual([each[0] for each in answers], [Hello("HELO", "client.example")])
        self.assertEqual((self.dialogue.offers, self.dialogue.state), ({}, state.READY))
        self.assertEqual(self.said(), b"MAIL FROM:<a@a.example>\r\n")

    def test_helo_refused(self) -> None:
        """If that is refused too, it is over; and a refusal for now is no reason to try."""
        self.say(EHLO)
        self.assertEqual(self.hear(NO), [])
        (answer,) = self.hear(NO)
        self.assertEqual((answer[1], self.dialogue.state), (Reply(550, "No"), state.CONNECTED))
        self.say(EHLO)
        (answer,) = self.hear(b"450 Later\r\n")
        self.assertEqual((answer[0], self.dialogue.awaited), (EHLO, None))

    def test_lhlo(self) -> None:
        """LMTP has no other hello."""
        self.greet(lmtp=True)
        self.say(Hello("LHLO", "client.example"))
        self.assertEqual(len(self.hear(NO)), 1)
        self.assertEqual(self.said(), b"")

    def test_again(self) -> None:
        """What was offered last counts; a hello that is refused changes nothing."""
        self.greet("DSN")
        self.say(EHLO)
        self.hear(b"450 Later\r\n")
        self.assertEqual(self.dialogue.offers, {"DSN": ""})
        self.say(MAIL, EHLO)
        self.hear(OK + b"250-mx.example\r\n250 SIZE\r\n")
        self.assertEqual((self.dialogue.offers, self.dialogue.state), ({"SIZE": ""}, state.READY))

    def test_xclient(self) -> None:
        """XCLIENT is answered by another greeting, behind which nothing is offered."""
        self.greet("XCLIENT NAME")
        self.say(Plain("XCLIENT", "NAME=x"))
        self.hear(b"220 mx.example\r\n")
        self.assertEqual((self.dialogue.offers, self.dialogue.state), ({}, state.CONNECTED))


class PipeliningTests(ClientCase):
    """Commands go out as fast as the server lets them (RFC 2920)."""

    def test_one_by_one(self) -> None:
        """A server that does not offer it hears a command when it has answered the one before."""
        self.greet("SIZE")
        self.assertEqual(self.say(MAIL, RCPT, DATA), b"MAIL FROM:<a@a.example>\r\n")
        for expected in (b"RCPT TO:<b@b.example>\r\n", b"DATA\r\n"):
            self.assertEqual(len(self.hear(OK)), 1)
            self.assertEqual(self.said(), expected)

    def test_all_at_once(self) -> None:
        """One that does hears them all, up to what must be the last of a group."""
        self.greet("PIPELINING")
        out = self.say(MAIL, RCPT, RCPT, DATA)
        self.assertEqual(out, b"MAIL FROM:<a@a.example>\r\n" + b"RCPT TO:<b@b.example>\r\n" * 2 + b"DATA\r\n")
        answers = self.hear(OK + NO + OK + GO)
        self.assertEqual([each[0] for each in answers], [MAIL, RCPT, RCPT, DATA])
        self.assertIs(self.dialogue.state, state.DATA)

    def test_last_of_a_group(self) -> None:
        """What must be the last of a group holds back the next, until it is answered."""
        self.greet("PIPELINING")
        self.assertEqual(self.say(MAIL, EHLO, MAIL), b"MAIL FROM:<a@a.example>\r\nEHLO client.example\r\n")
        self.hear(OK)
        self.assertEqual(self.said(), b"")
        self.hear(b"250-mx.example\r\n250 PIPELINING\r\n")
        self.assertEqual(self.said(), b"MAIL FROM:<a@a.example>\r\n")

    def test_behind_the_end_of_data(self) -> None:
        """The next transaction may follow the end of a message."""
        self.greet("PIPELINING")
        self.say(MAIL, RCPT, DATA)
        self.hear(OK + OK + GO)
        self.dialogue.end()
        self.assertEqual(self.say(MAIL, RCPT), b".\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n")
        self.hear(OK * 3)
        self.assertIs(self.dialogue.state, state.RCPT)

    def test_not_behind_the_end_of_data(self) -> None:
        """Without PIPELINING it waits."""
        self.bring(state.DATA)
        self.dialogue.end()
        self.assertEqual(self.say(MAIL), b".\r\n")
        self.hear(OK)
        self.assertEqual(self.said(), b"MAIL FROM:<a@a.example>\r\n")

    def test_held_back_at_the_end(self) -> None:
        """What is held back when the session ends is never said."""
        self.greet("SIZE")
        self.say(MAIL, RCPT)
        self.assertEqual(len(self.hear(BYE)), 1)
        self.assertEqual((self.said(), self.dialogue.state), (b"", state.CLOSED))

    def test_unexpected_354(self) -> None:
        """A server that wants content for nobody is out of step."""
        self.greet("PIPELINING")
        self.say(MAIL, RCPT, DATA)
        self.assertRaises(MalformedReply, self.hear, OK + NO + GO)


class DataTests(ClientCase):
    """Mail data: dots stuffed, octets unchanged, and an end."""

    def content(self, *pieces: bytes) -> bytes:
        """What goes out for them."""
        self.bring(state.DATA)
        for piece in pieces:
            self.dialogue.write(piece)
        self.dialogue.end()
        return self.said()

    def test_dots(self) -> None:
        """A dot that begins a line is doubled, wherever the pieces are cut (RFC 5321 section 4.5.2)."""
        octets = b".a\r\n..b\r\nc.\r\n.\r\n\r\n.d\r\n"
        expected = b"..a\r\n...b\r\nc.\r\n..\r\n\r\n..d\r\n.\r\n"
        for place in range(len(octets) + 1):
            self.assertEqual(self.content(octets[:place], octets[place:]), expected)
        self.assertEqual(self.content(*(octets[place : place + 1] for place in range(len(octets)))), expected)

    def test_end(self) -> None:
        """Content that does not end a line has its line ended."""
        for content, expected in {
            b"": b".\r\n",
            b"a\r\n": b"a\r\n.\r\n",
            b"a": b"a\r\n.\r\n",
            b"a\r": b"a\r\r\n.\r\n",
            b"a\n": b"a\n\r\n.\r\n",
            b"\r\n": b"\r\n.\r\n",
        }.items():
            self.assertEqual(self.content(content), expected)
            self.assertEqual(self.content(content, b""), expected)

    def test_bare_newlines_are_no_lines(self) -> None:
        """A dot behind a bare CR or LF begins no line."""
        self.assertEqual(self.content(b"a\n.\nb\r.\r"), b"a\n.\nb\r.\r\r\n.\r\n")

    def test_second_message(self) -> None:
        """What a message ended with does not count for the next."""
        self.bring(state.DATA)
        self.dialogue.write(b"x")
        self.dialogue.end()
        self.hear(OK)
        for command, answer in ((MAIL, OK), (RCPT, OK), (DATA, GO)):
            self.say(command)
            self.hear(answer)
        self.dialogue.write(b".")
        self.assertEqual(self.said(), b"..")

    def test_out_of_order(self) -> None:
        """Content is for after 354 and before the end: nothing follows the dot that could be a command."""
        for now in (state.RCPT, state.READY, state.CLOSED):
            self.bring(now)
            self.assertRaises(ValueError, self.dialogue.write, b"x")
            self.assertRaises(ValueError, self.dialogue.end)
        self.bring(state.DATA)
        self.dialogue.end()
        self.said()
        self.assertRaises(ValueError, self.dialogue.write, b"QUIT\r\n")
        self.assertRaises(ValueError, self.dialogue.end)
        self.assertEqual(self.said(), b"")

    def test_verdicts(self) -> None:
        """Whatever is said at the end, the transaction is over."""
        for octets, code in ((OK, 250), (b"451 4.3.0 Later\r\n", 451), (NO, 550)):
            self.bring(state.DATA)
            self.dialogue.end()
            self.assertIs(self.dialogue.awaited, END_OF_DATA)
            (answer,) = self.hear(octets)
            assert isinstance(answer[1], Reply)
            self.assertEqual((answer[0], answer[1].code), (END_OF_DATA, code))
            self.assertIs(self.dialogue.state, state.READY)

    def test_early_verdict(self) -> None:
        """What is said before the end answers nothing, and ends the session."""
        for octets in (NO, BYE, b"452 Full\r\n"):
            self.bring(state.DATA)
            self.dialogue.write(b"x")
            (answer,) = self.hear(octets)
            self.assertEqual((answer[0], self.dialogue.state), (UNASKED, state.CLOSED))
            self.assertRaises(ValueError, self.dialogue.write, b"x")
            self.assertRaises(ValueError, self.dialogue.end)

    def test_early_yes(self) -> None:
        """A server can't have taken what it has not seen."""
        self.bring(state.DATA)
        self.assertRaises(MalformedReply, self.hear, OK)

    @examples(150)
    @given(CONTENTS | WHOLE_CONTENTS, PLACES, PLACES)
    def test_both_directions(self, content: bytes, places: list[float], others: list[float]) -> None:
        """Any content in any pieces is read as it was written, however it is split; a CRLF ends it."""
        reader = MailDataReader(BareNewlines.ALLOW)
        out, read, rest = self.content(*cut(content, places)), b"", b""
        for piece in cut(out, others):
            self.assertFalse(reader.ended)
            more, rest = reader.read(piece)
            read += more
        complete = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
        self.assertEqual((reader.ended, read, rest), (True, complete, b""))


class ChunkTests(ClientCase):
    """BDAT (RFC 3030)."""

    def envelope(self, *offers: str) -> None:
        """A transaction with a recipient."""
        self.greet(*offers)
        for command in (MAIL, RCPT):
            self.say(command)
            self.hear(OK)
        self.said()

    def test_chunks(self) -> None:
        """Octets as they are, behind their number; each is answered."""
        self.envelope("CHUNKING")
        self.dialogue.write_chunk(b".\r\n\0", last=False)
        self.dialogue.write_chunk(b"", last=True)
        self.assertEqual(self.said(), b"BDAT 4\r\n.\r\n\0BDAT 0 LAST\r\n")
        answers = self.hear(OK + OK)
        self.assertEqual([each[0] for each in answers], [Bdat(4, False), Bdat(0, True)])
        self.assertIs(self.dialogue.state, state.READY)

    def test_only_chunks_follow(self) -> None:
        """Behind a chunk come chunks, or RSET."""
        self.envelope("CHUNKING")
        self.dialogue.write_chunk(b"x", last=False)
        self.said()
        self.assert_refused(RCPT, DATA, MAIL)
        self.hear(OK)
        self.assertIs(self.dialogue.state, state.BDAT)
        self.say(RSET)
        self.hear(OK)
        self.assertIs(self.dialogue.state, state.READY)

    def test_out_of_order(self) -> None:
        """None without CHUNKING, without recipients, behind the last, or behind what is held back."""
        self.envelope("SIZE")
        self.assertRaises(ValueError, self.dialogue.write_chunk, b"x", True)
        self.greet("CHUNKING")
        self.assertRaises(ValueError, self.dialogue.write_chunk, b"x", True)
        self.envelope("CHUNKING")
        self.dialogue.write_chunk(b"x", last=True)
        self.assertRaises(ValueError, self.dialogue.write_chunk, b"x", True)
        self.envelope("CHUNKING")
        self.say(RCPT, RCPT)
        self.assertRaises(ValueError, self.dialogue.write_chunk, b"x", True)

    def test_refused(self) -> None:
        """A chunk that is refused is answered, and so are those that went behind it."""
        self.envelope("CHUNKING")
        for last in (False, False, True):
            self.dialogue.write_chunk(b"x", last)
        self.assertEqual(len(self.hear(OK + NO + NO)), 3)
        self.assertIs(self.dialogue.state, state.READY)


class LMTPTests(ClientCase):
    """As many replies as there are recipients (RFC 2033 section 4.2)."""

    def envelope(self, *answers: bytes) -> None:
        """A transaction whose recipients are answered so."""
        self.greet("PIPELINING", "CHUNKING", lmtp=True)
        self.say(MAIL)
        self.hear(OK)
        for answer in answers:
            self.say(RCPT)
            self.hear(answer)
        self.said()

    def content(self) -> None:
        """A message."""
        self.say(DATA)
        self.hear(GO)
        self.dialogue.write(b"x\r\n")
        self.dialogue.end()

    def test_results(self) -> None:
        """One for each that was accepted, in their order, when the last of them is there."""
        self.envelope(OK, NO, OK, OK)
        self.content()
        self.assertEqual(self.hear(OK + NO), [])
        self.assertIs(self.dialogue.awaited, END_OF_DATA)
        (answer,) = self.hear(b"452 Full\r\n")
        self.assertEqual(answer[1], Results([Reply(250, "Ok"), Reply(550, "No"), Reply(452, "Full", "")]))
        self.assertIs(self.dialogue.state, state.READY)

    def test_one(self) -> None:
        """Results they are even of one."""
        self.envelope(OK)
        self.content()
        (answer,) = self.hear(NO)
        self.assertEqual(answer[1], Results([Reply(550, "No")]))

    def test_next_transaction(self) -> None:
        """Recipients are counted anew, after a message as after RSET; and no reply is taken for another's."""
        for end in ("message", "reset", "hello"):
            self.envelope(OK, OK)
            if end == "message":
                self.content()
                self.hear(OK + OK)
            else:
                self.say(RSET if end == "reset" else Hello("LHLO", "client.example"))
                self.hear(OK)
            self.say(MAIL)
            self.hear(OK)
            self.say(RCPT)
            self.hear(OK)
            self.content()
            self.assertEqual(len(self.hear(OK)), 1, end)

    def test_data_refused(self) -> None:
        """DATA itself has one answer, and who was accepted still is."""
        self.envelope(OK, OK)
        self.say(DATA)
        (answer,) = self.hear(b"451 Later\r\n")
        self.assertIsInstance(answer[1], Reply)
        self.content()
        self.assertEqual(self.hear(OK), [])
        self.assertEqual(len(self.hear(OK)), 1)

    def test_chunks(self) -> None:
        """Of chunks only the last has one for each."""
        self.envelope(OK, OK)
        self.dialogue.write_chunk(b"x", last=False)
        self.dialogue.write_chunk(b"x", last=True)
        first, last = self.hear(OK + OK + NO)
        self.assertEqual(first[1], Reply(250, "Ok"))
        self.assertEqual(last[1], Results([Reply(250, "Ok"), Reply(550, "No")]))

    def test_421_in_the_middle(self) -> None:
        """A 421 is one recipient's, and what comes behind it the next one's; then it is over."""
        self.envelope(OK, OK, OK)
        self.content()
        (answer,) = self.hear(OK + BYE + OK)
        bye, done = Reply(421, "Bye", "4.3.2"), Reply(250, "Ok")
        self.assertEqual(answer[1], Results([done, bye, done]))
        self.assertIs(self.dialogue.state, state.CLOSED)

    def test_421_and_no_more(self) -> None:
        """If nothing comes behind it, the others have what stands for an answer when the connection ends."""
        bye, later = Reply(421, "Bye", "4.3.2"), Reply(451, "Later")
        self.envelope(OK, OK, OK)
        self.content()
        for said, leaving in ((OK, False), (BYE, True)):
            self.assertEqual(self.hear(said), [])
            self.assertIs(self.dialogue.is_leaving, leaving)
        self.assertEqual(self.dialogue.conclude(later), Results([Reply(250, "Ok"), bye, later]))

    def test_conclude(self) -> None:
        """When the connection ends in the middle, what came stands; and there is nothing if nothing did."""
        later = Reply(451, "Later")
        self.envelope(OK, OK, OK)
        self.content()
        self.assertIsNone(self.dialogue.conclude(later))
        self.hear(NO)
        self.assertEqual(self.dialogue.conclude(later), Results([Reply(550, "No"), later, later]))
        self.assertIsNone(self.dialogue.conclude(later))

    def test_one_too_many(self) -> None:
        """More replies than recipients answer nothing."""
        self.envelope(OK)
        self.content()
        self.assertRaises(MalformedReply, self.hear, OK + OK)

    def test_pipelined(self) -> None:
        """What is behind the end of data is answered behind all of its replies."""
        self.envelope(OK, OK)
        self.content()
        self.say(MAIL)
        answers = self.hear(OK + OK + NO)
        self.assertEqual([each[0] for each in answers], [END_OF_DATA, MAIL])
        self.assertEqual(answers[1][1], Reply(550, "No"))


class TLSTests(ClientCase):
    """STARTTLS (RFC 3207)."""

    def test_forgets(self) -> None:
        """Nothing that was learned in clear counts under TLS, and hello is said again."""
        self.greet("STARTTLS", "DSN")
        self.say(STARTTLS)
        self.hear(b"220 Go\r\n")
        self.assertEqual((self.dialogue.state, self.dialogue.offers), (state.TLS, {}))
        self.assertEqual(self.hear(b"250 evil\r\n"), [])
        self.dialogue.secured()
        self.assertIs(self.dialogue.state, state.CONNECTED)
        self.assert_refused(MAIL)
        self.assertEqual(self.say(EHLO), b"EHLO client.example\r\n")
        self.assertEqual(len(self.hear(OK)), 1)

    def test_injection(self) -> None:
        """What a server, or somebody between, says behind its answer would be heard as if it came by TLS."""
        for behind in (OK, b"2", b"\r\n", b"\x16\x03\x01"):
            self.bring(state.READY)
            self.say(STARTTLS)
            self.assertRaises(MalformedReply, self.hear, b"220 Go\r\n" + behind)

    def test_refused(self) -> None:
        """A session goes on in clear if its user wants that."""
        self.greet("STARTTLS", "DSN")
        self.say(STARTTLS)
        self.hear(b"454 4.7.0 No\r\n")
        self.assertEqual((self.dialogue.state, "DSN" in self.dialogue.offers), (state.READY, True))

    def test_not_shaking(self) -> None:
        """Hands that were not to be shaken change nothing."""
        self.bring(state.READY)
        self.dialogue.secured()
        self.assertIs(self.dialogue.state, state.READY)


class AuthTests(ClientCase):
    """AUTH (RFC 4954)."""

    def test_exchange(self) -> None:
        """Challenges and responses, to the end."""
        self.bring(state.AUTH)
        self.assertEqual(self.say(Response(b"\0u\0p")), b"AHUAcA==\r\n")
        (answer,) = self.hear(b"334 dj1x\r\n")
        self.assertEqual((answer[1], self.dialogue.state), (Reply(334, "dj1x"), state.AUTH))
        self.assertEqual(self.say(Response(b"")), b"\r\n")
        (answer,) = self.hear(b"235 2.7.0 Yes\r\n")
        self.assertIs(self.dialogue.state, state.READY)
        self.say(MAIL)

    def test_at_once(self) -> None:
        """An initial response may be all there is to it."""
        self.bring(state.READY)
        self.assertEqual(self.say(Auth("PLAIN", b"x")), b"AUTH PLAIN eA==\r\n")
        self.hear(b"235 Yes\r\n")
        self.assertIs(self.dialogue.state, state.READY)

    def test_refused(self) -> None:
        """Wrong credentials end the exchange, and not the session."""
        for now, command in ((state.READY, AUTH), (state.AUTH, Response(b"x"))):
            self.bring(now)
            self.say(command)
            self.hear(b"535 5.7.8 No\r\n")
            self.assertIs(self.dialogue.state, state.READY)
            self.say(AUTH)

    def test_cancel(self) -> None:
        """An asterisk gives it up."""
        self.bring(state.AUTH)
        self.assertEqual(self.say(CANCEL), b"*\r\n")
        self.hear(b"501 5.7.0 Cancelled\r\n")
        self.assertIs(self.dialogue.state, state.READY)

    def test_no_cancel_outside(self) -> None:
        """Outside of an exchange there is nothing to give up."""
        self.bring(state.READY)
        self.assert_refused(CANCEL)


class AnswerTests(ClientCase):
    """What a server says is an answer to what it was told, or the end of the session."""

    def test_wrong_class(self) -> None:
        """A reply of a class that answers no such command is malformed."""
        cases: tuple[tuple[State, Any, bytes], ...] = (
            (state.CONNECTED, EHLO, GO),
            (state.READY, MAIL, b"334 x\r\n"),
            (state.MAIL, RCPT, GO),
            (state.RCPT, DATA, OK),
            (state.READY, STARTTLS, b"334 x\r\n"),
            (state.READY, QUIT, GO),
        )
        for now, command, octets in cases:
            self.bring(now)
            self.say(command)
            self.assertRaises(MalformedReply, self.hear, octets)
        self.bring(state.DATA)
        self.dialogue.end()
        self.assertRaises(MalformedReply, self.hear, GO)
        self.dialogue = ClientDialogue()
        self.assertRaises(MalformedReply, self.hear, GO)

    def test_unasked(self) -> None:
        """A refusal that nobody asked for ends the session (RFC 5321 section 3.8); a yes makes no sense."""
        for octets in (BYE, NO, b"450 Later\r\n"):
            self.bring(state.READY)
            (answer,) = self.hear(octets + OK)
            self.assertEqual((answer[0], self.dialogue.state), (UNASKED, state.CLOSED))
        for octets in (OK, GO, b"220 mx.example\r\n"):
            self.bring(state.READY)
            self.assertRaises(MalformedReply, self.hear, octets)

    def test_421(self) -> None:
        """A 421 answers whatever waits, and ends the session."""
        self.greet("PIPELINING")
        self.say(MAIL, RCPT)
        (answer,) = self.hear(BYE + OK)
        self.assertEqual((answer[0], self.dialogue.state), (MAIL, state.CLOSED))
        self.bring(state.CONNECTED)
        self.say(EHLO)
        self.assertEqual([each[0] for each in self.hear(BYE)], [EHLO])

    def test_awaited(self) -> None:
        """It is known what is answered next."""
        self.greet("PIPELINING")
        self.assertIsNone(self.dialogue.awaited)
        self.say(MAIL, RCPT)
        self.assertIs(self.dialogue.awaited, MAIL)
        self.hear(OK)
        self.assertIs(self.dialogue.awaited, RCPT)

    @examples(100)
    @given(
        st.sampled_from([*STEPS]),
        st.lists(st.sampled_from([EHLO, MAIL, RCPT, DATA, RSET, NOOP, STARTTLS, AUTH]), max_size=5),
        st.booleans(),
        NOISE,
        PLACES,
    )
    def test_noise(
        self, now: State, commands: list[Command], lmtp: bool, noise: bytes, places: list[float]
    ) -> None:
        """Whatever a server says, whenever, however split: answers in their order, or MalformedReply."""
        outcomes = []
        for pieces in ([noise], cut(noise, places)):
            self.bring(now)
            self.dialogue._lmtp = lmtp
            for command in commands:
                try:
                    self.dialogue.say(command)
                except ValueError:
                    continue
            answers, malformed = list[Answer](), False
            for piece in pieces:
                try:
                    answers += self.hear(piece)
                except MalformedReply:
                    malformed = True
                    break
            outcomes.append((answers if not malformed else None, malformed))
        # STARTTLS forbids what comes with its answer, and only that depends on how it is split.
        if not any(each[0] is STARTTLS for answers, _ in outcomes for each in answers or ()):
            self.assertEqual(outcomes[0], outcomes[1])
