"""Replies: what can be said at all, how it looks on the wire, and what the catalogue says."""

from dataclasses import FrozenInstanceError
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.reply import Reply, Results

CONSTANTS = {name: value for name, value in vars(reply).items() if isinstance(value, Reply)}
SAID = {
    **CONSTANTS,
    "greeting": reply.greeting("mx.example"),
    "hello": reply.hello("mx.example", ["SIZE 1", "PIPELINING"]),
    "helo": reply.hello("mx.example"),
    "accepted": reply.accepted("1"),
    "unknown": reply.unknown_parameter("X"),
    "closing": reply.closing("mx.example"),
}


class Making(SynchronousTestCase):
    """A reply is checked when it is made, and so can be sent as it stands."""

    def test_octets(self) -> None:
        """Code, status and text, a line each for every line of the text."""
        self.assertEqual(Reply(250, "Ok", "2.1.0").octets, b"250 2.1.0 Ok\r\n")
        self.assertEqual(Reply(354, "Go").octets, b"354 Go\r\n")
        self.assertEqual(Reply(220, "mx.example", "").octets, b"220 mx.example\r\n")
        self.assertEqual(
            Reply(550, "a\nb\nc", "5.7.1").octets, b"550-5.7.1 a\r\n550-5.7.1 b\r\n550 5.7.1 c\r\n"
        )
        self.assertEqual(Reply(250, "a\n", "").octets, b"250-a\r\n250 \r\n")
        self.assertEqual(str(Reply(550, "a\nb")), "550-5.0.0 a\r\n550 5.0.0 b")
        self.assertEqual(repr(Reply(250, "Ok")), "Reply(code=250, text='Ok', status='2.0.0')")

    def test_general_status(self) -> None:
        """A reply without a status gets its class's general one; 3yz has none."""
        statuses = [Reply(code).status for code in (250, 354, 450, 550)]
        self.assertEqual(statuses, ["2.0.0", "", "4.0.0", "5.0.0"])
        self.assertEqual(Reply(250, "Ok").octets, b"250 2.0.0 Ok\r\n")

    def test_classes(self) -> None:
        """The first digit tells what became of the command."""
        self.assertEqual([Reply(code).reply_class for code in (259, 300, 421, 559)], [2, 3, 4, 5])
        self.assertEqual([Reply(code).accepted for code in (259, 300, 421, 559)], [True, False, False, False])

    def test_codes(self) -> None:
        """Codes outside 200 to 559, or whose second digit has no meaning, are none."""
        for code in range(1000):
            if 2 <= code // 100 <= 5 and code // 10 % 10 <= 5:
                self.assertEqual(Reply(code).octets[:3], b"%d" % code)
            else:
                self.assertRaises(ValueError, Reply, code)
        for odd in (-250, 2500, True):
            self.assertRaises(ValueError, Reply, odd)

    def test_status_of_another_class(self) -> None:
        """A status must say what its code says (RFC 2034 section 4)."""
        for code, status in ((250, "5.0.0"), (550, "4.1.1"), (450, "2.0.0"), (354, "3.0.0"), (354, "2.0.0")):
            self.assertRaises(ValueError, Reply, code, "", status)

    def test_malformed_status(self) -> None:
        """A status is three numbers."""
        for status in (
            "5",
            "5.7",
            "5.7.1.2",
            "5.7.x",
            "5..1",
            "5.7.1 ",
            " 5.7.1",
            "5.1000.1",
            "5.7.1\n",
            "5.\u0667.1",
        ):
            self.assertRaises(ValueError, Reply, 550, "", status)
        self.assertEqual(Reply(550, "", "5.999.0").octets, b"550 5.999.0 \r\n")

    def test_text(self) -> None:
        """Nothing gets into a reply that would end its line, or that an old client cannot read."""
        for text in (
            "a\rb",
            "a\r\nb",
            "\0",
            "\x1b[0m",
            "\x7f",
            "ä",
            "\x80",
            "a\x0bb",
            "a\u2028b",
            "ok\nä",
            "\xa0",
        ):
            self.assertRaises(ValueError, Reply, 250, text)
        self.assertEqual(Reply(250, " ~\t!", "").octets, b"250  ~\t!\r\n")

    def test_length(self) -> None:
        """A line has 512 octets at most, its CRLF included; a reply may have many lines."""
        for status, room in (("", 506), ("2.0.0", 500), ("2.123.123", 496)):
            self.assertEqual(len(Reply(250, "x" * room, status).octets), 512)
            self.assertRaises(ValueError, Reply, 250, "x" * (room + 1), status)
            self.assertRaises(ValueError, Reply, 250, "x\n" + "x" * (room + 1) + "\nx", status)
        self.assertEqual(Reply(250, "\n".join(["x" * 506] * 9), "").octets.count(b"\r\n"), 9)

    def test_frozen(self) -> None:
        """Nobody changes a reply that others share; equal ones are equal."""
        any_reply: Any = Reply(250, "Ok")
        with self.assertRaises(FrozenInstanceError):
            any_reply.code = 550
        self.assertEqual(Reply(250, "Ok"), Reply(250, "Ok", "2.0.0"))
        self.assertEqual(len({Reply(250, "Ok"), Reply(250, "Ok", "2.0.0"), Reply(250, "Ok", "2.1.0")}), 2)


class SeveralResults(SynchronousTestCase):
    """One reply for each recipient, or one for all."""

    def test_combined(self) -> None:
        """SMTP has room for one answer: the one after which no recipient's mail is lost."""
        good, later, never = Reply(250), Reply(450), Reply(550)
        for several, one in (
            ([good], good),
            ([good, good], good),
            ([good, never], never),
            ([never, later], later),
            ([good, never, later, never, good], later),
        ):
            self.assertIs(Results(several).combined(), one)
            self.assertIs(Results(several[::-1]).combined(), one)

    def test_none(self) -> None:
        """No reply at all is no result."""
        self.assertRaises(ValueError, Results, [])

    def test_kept(self) -> None:
        """They keep their order, and cannot be changed afterwards."""
        several = [Reply(250), Reply(550)]
        results = Results(several)
        several.clear()
        self.assertEqual(results.replies, (Reply(250), Reply(550)))
        self.assertEqual(results, Results((Reply(250), Reply(550))))


class Catalogue(SynchronousTestCase):
    """Everything this server says by itself."""

    def test_status(self) -> None:
        """Each has a status of its class, but greeting, 354 and the answers to EHLO and HELO have none."""
        bare = {"greeting", "hello", "helo", "START_MAIL_INPUT"}
        for name, each in SAID.items():
            if name in bare:
                self.assertEqual(each.status, "", name)
            else:
                self.assertEqual((each.status or "?")[0], str(each.code)[0], name)

    def test_text(self) -> None:
        """Each has something to read, in one line, and no two situations sound the same."""
        for name, each in CONSTANTS.items():
            self.assertRegex(each.text, r"\A[A-Z][ -~]+\Z", name)
        said = [each.octets for each in CONSTANTS.values()]
        self.assertEqual(len(said), len(set(said)))

    def test_codes(self) -> None:
        """Code and status of each situation, as RFC 5321 and the registry of RFC 5248 have them."""
        expected = {
            "OK": "250 2.0.0",
            "SENDER_OK": "250 2.1.0",
            "RECIPIENT_OK": "250 2.1.5",
            "HELP": "214 2.0.0",
            "CANNOT_VERIFY": "252 2.1.5",
            "START_MAIL_INPUT": "354 ",
            "SHUTTING_DOWN": "421 4.3.2",
            "IDLE_TOO_LONG": "421 4.4.2",
            "INSUFFICIENT_STORAGE": "452 4.3.1",
            "TOO_MANY_RECIPIENTS": "452 4.5.3",
            "LOCAL_ERROR": "451 4.3.0",
            "PROCESSING_TOO_LONG": "451 4.4.5",
            "LINE_TOO_LONG": "500 5.5.2",
            "UNKNOWN_COMMAND": "500 5.5.2",
            "NOT_IMPLEMENTED": "502 5.5.1",
            "OUT_OF_ORDER": "503 5.5.1",
            "NO_VALID_RECIPIENTS": "554 5.5.1",
            "BAD_ARGUMENT": "501 5.5.4",
            "BAD_HELLO_NAME": "501 5.5.4",
            "BAD_PARAMETER": "501 5.5.4",
            "BAD_REVERSE_PATH": "501 5.1.7",
            "BAD_FORWARD_PATH": "501 5.1.3",
            "NEEDS_SMTPUTF8": "553 5.6.7",
            "MESSAGE_TOO_BIG": "552 5.3.4",
            "BARE_NEWLINE": "550 5.6.0",
            "greeting": "220 ",
            "hello": "250 ",
            "accepted": "250 2.6.0",
            "unknown": "555 5.5.4",
            "closing": "221 2.0.0",
        }
        self.assertEqual({name: f"{SAID[name].code} {SAID[name].status}" for name in expected}, expected)

    def test_our_faults_are_transient(self) -> None:
        """What is not the client's fault is never 5yz: the client keeps its mail and tries again."""
        ours = "INSUFFICIENT_STORAGE LOCAL_ERROR PROCESSING_TOO_LONG TOO_MANY_RECIPIENTS TOO_MANY_CONNECTIONS"
        for name in (*ours.split(" "), "SHUTTING_DOWN", "IDLE_TOO_LONG", "SESSION_TOO_LONG", "DATA_TOO_SLOW"):
            self.assertEqual(SAID[name].reply_class, 4, name)

    def test_what_closes_is_421(self) -> None:
        """Whatever ends the session against the client's will says so by 421 (RFC 5321 section 3.8)."""
        for name in ("TOO_MANY_CONNECTIONS", "SHUTTING_DOWN", "IDLE_TOO_LONG", "SESSION_TOO_LONG"):
            self.assertEqual(SAID[name].code, 421, name)
        for name in ("DATA_TOO_SLOW", "TOO_MANY_ERRORS", "TOO_MANY_COMMANDS"):
            self.assertEqual(SAID[name].code, 421, name)

    def test_name_comes_first(self) -> None:
        """Greeting, EHLO and QUIT name the server before anything else (RFC 5321 section 4.2)."""
        for each in ("greeting", "hello", "helo", "closing"):
            self.assertTrue(SAID[each].text.startswith("mx.example"), each)
        self.assertIn("ESMTP", SAID["greeting"].text)
        self.assertEqual(SAID["hello"].octets, b"250-mx.example\r\n250-SIZE 1\r\n250 PIPELINING\r\n")

    def test_details(self) -> None:
        """A message's id and a parameter's name are told."""
        self.assertIn("abc.1", reply.accepted("abc.1").text)
        self.assertIn("NOTIFY", reply.unknown_parameter("NOTIFY").text)

    def test_unwelcome(self) -> None:
        """A refusal in place of the greeting is 554 for good and 421 for now, in its own words and status."""
        self.assertEqual(reply.unwelcome(Reply(550, "No", "5.7.1")), Reply(554, "No", "5.7.1"))
        self.assertEqual(reply.unwelcome(Reply(450, "Later", "4.7.1")), Reply(421, "Later", "4.7.1"))
        self.assertEqual(reply.unwelcome(reply.SHUTTING_DOWN), reply.SHUTTING_DOWN)
