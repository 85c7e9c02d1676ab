"""Commands and addresses: what RFC 5321's grammar makes is understood, and comes out as it was sent."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.dialogue import grammar
from smtpserv.dialogue.command import (
    PARSERS,
    Command,
    Hello,
    Mail,
    Plain,
    Rcpt,
    parse_command,
    parse_parameters,
)
from smtpserv.error import SMTPError
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.reply import Reply
from tests.fuzz import examples
from tests.fuzz.strategies import LITERALS, MAILBOXES, ROUTES, WIDE_MAILBOXES, domains


def parse(text: str) -> Command:
    """Parse a command line."""
    return parse_command(text.encode("utf-8"), PARSERS)


class GrammarCase(SynchronousTestCase):
    """With an assertion of its own."""

    def assertRefused(self, line: bytes, expected: Reply) -> None:
        """The line is answered with the reply."""
        with self.assertRaises(SMTPError, msg=repr(line)) as caught:
            parse_command(line, PARSERS)
        self.assertEqual(caught.exception.reply, expected, line)


def fits(mailbox: str) -> bool:
    """Whether a mailbox keeps the limits on length."""
    return len(mailbox.encode("utf-8")) + 2 <= 256


class Addresses(GrammarCase):
    """Mailboxes of every form."""

    @examples(60)
    @given(MAILBOXES.filter(fits), ROUTES, st.sampled_from(["MAIL FROM:", "mail from: ", "Mail From:"]))
    def test_reverse_path(self, mailbox: str, route: str, command: str) -> None:
        """Every sender that the grammar allows is accepted, and comes out as sent, no source route."""
        self.assertEqual(parse(f"{command}<{route}{mailbox}>"), Mail(ReversePath(mailbox)))

    @examples(200)
    @given(
        MAILBOXES | WIDE_MAILBOXES | st.text("aZ09_-.@>< \r\n\0\u017f\u212a", max_size=12),
        st.sampled_from(["", "a" * 240]),
    )
    def test_usual(self, text: str, more: str) -> None:
        """What passes for a usual mailbox is one, in whatever place, and short enough for any path."""
        address = more + text
        if grammar.USUAL_MAILBOX.fullmatch(address):
            self.assertEqual(parse(f"MAIL FROM:<{address}>"), Mail(ReversePath(address)))
            self.assertEqual(parse(f"RCPT TO:<{address}>"), Rcpt(ForwardPath(address)))

    def test_is_usual(self) -> None:
        """Most mailboxes are; none with a trick in it is."""
        for address in ("a@b", "first.last@mail-1.example.com", "A_B-1@X9.example", "a" * 200 + "@b.example"):
            self.assertTrue(grammar.USUAL_MAILBOX.fullmatch(address), address)
        for address in (
            "",
            "a",
            "@b",
            "a@",
            ".a@b",
            "a..b@c",
            "a.@b",
            "a@-b",
            "a@b-",
            "a@b.",
            "a@[192.0.2.1]",
        ):
            self.assertFalse(grammar.USUAL_MAILBOX.fullmatch(address), address)
        for address in (
            "a%b@c",
            "a!b@c",
            "a@b@c",
            '"a"@b',
            "a@b> SIZE=1",
            "a@b\r\n",
            "\u017f@b",
            "a" * 250 + "@b",
        ):
            self.assertFalse(grammar.USUAL_MAILBOX.fullmatch(address), address)

    @examples(60)
    @given(WIDE_MAILBOXES.filter(fits), ROUTES)
    def test_forward_path(self, mailbox: str, route: str) -> None:
        """Every recipient, in any script, is accepted, and comes out as sent."""
        self.assertEqual(parse(f"RCPT TO:<{route}{mailbox}>"), Rcpt(ForwardPath(mailbox)))

    @examples(40)
    @given(WIDE_MAILBOXES.filter(fits))
    def test_printed_path_is_read_again(self, mailbox: str) -> None:
        """What a path prints as can be sent to the next server, which reads the same."""
        path = ForwardPath(mailbox)
        self.assertEqual(parse(f"RCPT TO:{path}"), Rcpt(path))
        self.assertEqual(f"{path.local_part}@{path.domain}", mailbox)
        self.assertTrue(path.domain.startswith("[") == path.domain.endswith("]"))
        self.assertNotIn("@", path.domain)

    @examples(60)
    @given(st.text(' <>@"\\.,:;()[]ab1\0\ud7ffé', max_size=12))
    def test_what_passes_is_a_mailbox(self, text: str) -> None:
        """What is accepted has local part and domain, and no bracket, space or control outside quotes."""
        try:
            command = parse(f"RCPT TO:<{text}>")
        except SMTPError as error:
            self.assertEqual(error.reply, reply.BAD_FORWARD_PATH)
            return
        assert isinstance(command, Rcpt)
        path = command.forward_path
        self.assertTrue(path.local_part and path.domain)
        self.assertTrue(text.endswith(path.address))
        if not path.local_part.startswith('"'):
            self.assertFalse(set(path.address) & set(' <>"\\,;()\0'))

    def test_null_and_postmaster(self) -> None:
        """``<>`` is a sender and no recipient, ``<postmaster>`` a recipient and no sender."""
        self.assertEqual(parse("MAIL FROM:<>"), Mail(ReversePath("")))
        self.assertEqual(parse("RCPT TO:<PostMaster>"), Rcpt(ForwardPath("PostMaster")))
        self.assertRefused(b"RCPT TO:<>", reply.BAD_FORWARD_PATH)
        self.assertRefused(b"MAIL FROM:<postmaster>", reply.BAD_REVERSE_PATH)

    def test_length(self) -> None:
        """A path has 256 octets at most, counted in UTF-8, its source route not counted; a domain 255."""
        for local, good in ((244, True), (245, False)):
            for letter, width in (("a", 1), ("ä", 2), ("甲", 3)):
                whole, extra = divmod(local, width)
                line = f"MAIL FROM:<@r.example:{letter * whole}{'a' * extra}@b.example>"
                if good:
                    self.assertIsInstance(parse(line), Mail)
                else:
                    self.assertRefused(line.encode("utf-8"), reply.BAD_REVERSE_PATH)

    def test_hostile_lines_cost_little(self) -> None:
        """No line of the longest length makes the grammar think for ever: this test ends."""
        patterns = ["a.", "a", "@a.a,", "@a", '"', "\\\\", '"a', "a-", "[", "[a:", "a@", "<", " ", ".", "é"]
        for pattern in patterns:
            for lead in (
                "MAIL FROM:<",
                "RCPT TO:<@a",
                'MAIL FROM:<"',
                "MAIL FROM:<a@[",
                "EHLO ",
                "MAIL FROM:<> ",
            ):
                for end in ("", "!", ">", ":a@b>"):
                    with contextlib.suppress(SMTPError):
                        parse(lead + pattern * (4096 // len(pattern)) + end)


class Literals(SynchronousTestCase):
    """Address literals."""

    @examples(40)
    @given(LITERALS)
    def test_good(self, literal: str) -> None:
        """Every IPv4 and IPv6 address is one."""
        self.assertTrue(grammar.is_address_literal(literal))
        self.assertTrue(grammar.is_hello_name(literal.encode("ascii")))

    def test_others(self) -> None:
        """A literal of another kind has a tag, a colon and something behind it."""
        for literal in ("[x-tag:y]", "[a1:!]", "[IPv6x:y]"):
            self.assertTrue(grammar.is_address_literal(literal), literal)
        for literal in (
            "[]",
            "[x]",
            "[x-:y]",
            "[:y]",
            "[x:]",
            "[1.2.3]",
            "[IPv6:]",
            "[IPv6:1]",
            "[ipv6:::%1]",
        ):
            self.assertFalse(grammar.is_address_literal(literal), literal)


class Names(SynchronousTestCase):
    """What EHLO is told."""

    @examples(40)
    @given(domains())
    def test_every_domain(self, name: str) -> None:
        """Every domain of the grammar is a name."""
        self.assertTrue(grammar.is_hello_name(name.encode("ascii")))
        self.assertEqual(parse(f"ehlo {name} "), Hello("EHLO", name))

    @examples(60)
    @given(st.binary(max_size=12))
    def test_no_surprises(self, name: bytes) -> None:
        """A name is printable ASCII without space or brackets, so it may stand in a header and in a log."""
        if grammar.is_hello_name(name):
            self.assertRegex(name.decode("ascii"), r"\A[!-~]+\Z")
            self.assertNotIn(b"<", name)

    def test_length(self) -> None:
        """255 octets at most."""
        self.assertTrue(grammar.is_hello_name(b"a" * 255))
        self.assertFalse(grammar.is_hello_name(b"a" * 256))
        self.assertFalse(grammar.is_hello_name(b""))

    def test_lenient(self) -> None:
        """Hosts with an underscore or a bare address for a name exist."""
        for name in (b"my_pc", b"_", b"a_", b"192.0.2.1", b"a--b", b"A"):
            self.assertTrue(grammar.is_hello_name(name), name)
        for name in (
            b"-a",
            b"a-",
            b".a",
            b"a.",
            b"a b",
            b"a\n",
            b"\xc3\xa4",
            b"[1.2.3.4",
            b"1.2.3.4]",
            b"a:1",
        ):
            self.assertFalse(grammar.is_hello_name(name), name)


class Parameters(SynchronousTestCase):
    """What follows a path."""

    def test_values(self) -> None:
        """Keywords come in capitals, values as sent, None where there is none."""
        self.assertEqual(dict(parse_parameters(b" ")), {})
        self.assertEqual(dict(parse_parameters(b"")), {})
        self.assertEqual(dict(parse_parameters(b"  ")), {})
        self.assertEqual(
            dict(parse_parameters("a  B-1=x 9=<~>! c=ä".encode())),
            {"A": None, "B-1": "x", "9": "<~>!", "C": "ä"},
        )

    def test_malformed(self) -> None:
        """Anything else is 501, and so is saying a thing twice."""
        for tail in (
            b"-a",
            b"a=",
            b"=",
            b"=x",
            b"a=b=c",
            b"a_b",
            b"a\0",
            b"a=\0",
            b"a=\x7f",
            b"a\tb",
            b"a=\xff",
            b"a=\xc2\x85",
            b"a=x\xe2\x80\xa8y",
            b"a=\xe2\x80\xae",
        ):
            with self.assertRaises(SMTPError, msg=repr(tail)) as caught:
                parse_parameters(tail)
            self.assertEqual(caught.exception.reply, reply.BAD_PARAMETER)
        for tail in (b"a a", b"a=1 A=1", b"a A=2", b"b a=1 c a=1"):
            self.assertRaises(SMTPError, parse_parameters, tail)

    def test_unprintable(self) -> None:
        """So is a value that holds what a line, a log or a terminal might take for a command of its own."""
        for character in "\u0085\u009b\u00ad\u2028\u202e\u2066\ufeff":
            self.assertRaises(SMTPError, parse_parameters, f"orcpt=utf-8;a{character}b".encode())

    @examples(60)
    @given(
        st.dictionaries(
            st.builds(str.__add__, st.sampled_from("AZ09"), st.text("AZ09-", max_size=9)),
            st.none() | st.text("!<>~azAZ09;+-", min_size=1, max_size=9),
            max_size=4,
        )
    )
    def test_round_trip(self, parameters: dict[str, str | None]) -> None:
        """Any parameters of the grammar are read as they were written."""
        words = [keyword.lower() + (f"={value}" if value else "") for keyword, value in parameters.items()]
        self.assertEqual(dict(parse_parameters(" ".join(words).encode("ascii"))), parameters)


class Verbs(GrammarCase):
    """Every verb."""

    def test_plain(self) -> None:
        """Verbs in any case, spaces at the end ignored, words kept."""
        expected = {
            b"DATA": Plain("DATA"),
            b"data ": Plain("DATA"),
            b"RSET  ": Plain("RSET"),
            b"qUIT": Plain("QUIT"),
            b"NOOP": Plain("NOOP"),
            b"NOOP a b ": Plain("NOOP", "a b"),
            b"help mail": Plain("HELP", "mail"),
            b"VRFY  x": Plain("VRFY", "x"),
            b"EXPN \xc3\xa4": Plain("EXPN", "ä"),
        }
        for line, command in expected.items():
            self.assertEqual(parse_command(line, PARSERS), command)
        self.assertEqual(parse("HELO  XX.example  "), Hello("HELO", "XX.example"))
        self.assertEqual([parse("MAIL FROM:<>").verb, parse("RCPT TO:<a@b>").verb], ["MAIL", "RCPT"])

    def test_refused(self) -> None:
        """Arguments that a verb does not take, or lacks, or that could not be printed."""
        for line in (b"DATA x", b"RSET x", b"QUIT x", b"VRFY", b"VRFY ", b"EXPN", b"NOOP \x1b", b"HELP \xff"):
            self.assertRefused(line, reply.BAD_ARGUMENT)
        for line in (b"", b" ", b"X", b"DATAX", b"DAT", b"DATA\t", b" DATA", b"MAIL\tFROM:<>", b"\xff"):
            self.assertRefused(line, reply.UNKNOWN_COMMAND)
        for line in (b"EHLO", b"EHLO ", b"HELO  ", b"EHLO a b"):
            self.assertRefused(line, reply.BAD_HELLO_NAME)


class Adversarial(GrammarCase):
    """Lines made to send a pattern back and forth."""

    def test_long_tails(self) -> None:
        """A path is told from its parameters at the first space, so that no tail is tried in many ways."""
        for tail in (b" " * 4000 + b"\n", b" " * 4000 + b"\nx", b" A" * 2000, b" A=" + b"x" * 4000 + b"\xff"):
            self.assertRefused(b"MAIL FROM:<>" + tail, reply.BAD_PARAMETER)
            self.assertRefused(b"RCPT TO:<a@b.example>" + tail, reply.BAD_PARAMETER)
