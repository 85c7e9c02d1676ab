"""Commands as a client says them: read back by the server's parsers, whoever made them."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue import state
from smtpserv.dialogue.command import (
    Auth,
    Bdat,
    Command,
    Foreign,
    Hello,
    Mail,
    Override,
    Plain,
    Rcpt,
    Response,
    foreign,
    parse_command,
    parse_response,
)
from smtpserv.dialogue.terms import Terms
from smtpserv.dialogue.wording import CANCEL, render
from smtpserv.error import SMTPError
from smtpserv.message import ForwardPath, Parameters, ReversePath
from tests.fuzz import examples
from tests.fuzz.strategies import LITERALS, MAILBOXES, WIDE_MAILBOXES, domains

#: The parser of every verb, of LMTP's too, and of one from outside.
PARSERS: Final = {
    **Terms(lmtp=True).parsers,
    **Terms().parsers,
    b"FOO": foreign("FOO"),
}


def parsed(line: bytes) -> Command:
    """The command that a server takes it for; it is one line.

    :raises SMTPError: for one that the server refuses.
    """
    assert line.endswith(b"\r\n") and line.count(b"\r") == line.count(b"\n") == 1 and b"\0" not in line, line
    return parse_command(line[:-2], PARSERS)


def same(one: Command, other: Command) -> bool:
    """Whether they say the same."""
    return spelled(one) == spelled(other)


def spelled(command: Command) -> Command:
    """The same, keywords in capitals: their case is no matter to a server. Nor are spaces around words."""
    match command:
        case Mail(path):
            return Mail(ReversePath(path.address, capital(path.parameters)))
        case Rcpt(path):
            return Rcpt(ForwardPath(path.address, capital(path.parameters)))
        case Auth(mechanism, initial):
            return Auth(mechanism.upper(), initial)
        case Override(verb, attributes):
            return Override(verb.upper(), capital(attributes))
        case Plain(verb, argument) | Foreign(verb, argument):
            return type(command)(verb.upper(), argument.strip(" "))
        case _:
            return command


def capital(parameters: Parameters) -> Parameters:
    """The same parameters or attributes, their keywords in capitals."""
    return {keyword.upper(): value for keyword, value in parameters.items()}


class Lines(SynchronousTestCase):
    """Each command in its words."""

    def test_words(self) -> None:
        """A line for each kind of command."""
        for command, line in (
            (Hello("EHLO", "client.example"), "EHLO client.example"),
            (Hello("LHLO", "[IPv6:2001:db8::1]"), "LHLO [IPv6:2001:db8::1]"),
            (Mail(ReversePath("")), "MAIL FROM:<>"),
            (
                Mail(ReversePath("a@a.example", {"SIZE": "1", "SMTPUTF8": None})),
                "MAIL FROM:<a@a.example> SIZE=1 SMTPUTF8",
            ),
            (Rcpt(ForwardPath("Postmaster")), "RCPT TO:<Postmaster>"),
            (Rcpt(ForwardPath('"a > b"@b.example')), 'RCPT TO:<"a > b"@b.example>'),
            (
                Rcpt(ForwardPath("ä@b.example", {"ORCPT": "rfc822;a+2Bb"})),
                "RCPT TO:<ä@b.example> ORCPT=rfc822;a+2Bb",
            ),
            (Bdat(0, True), "BDAT 0 LAST"),
            (Bdat(77, False), "BDAT 77"),
            (Auth("SCRAM-SHA-256", None), "AUTH SCRAM-SHA-256"),
            (Auth("XOAUTH2", b""), "AUTH XOAUTH2 ="),
            (Auth("PLAIN", b"\0u\0p"), "AUTH PLAIN AHUAcA=="),
            (
                Override("XCLIENT", {"NAME": None, "LOGIN": "a b=ä"}),
                "XCLIENT NAME=[UNAVAILABLE] LOGIN=a+20b+3D+C3+A4",
            ),
            (Plain("DATA"), "DATA"),
            (Plain("NOOP", "x y"), "NOOP x y"),
            (Foreign("FOO", "ä"), "FOO ä"),
        ):
            self.assertEqual(render(command), f"{line}\r\n".encode())
            self.assertTrue(same(parsed(render(command)), command), line)

    def test_responses(self) -> None:
        """What answers a challenge has no verb: base64, or the asterisk that gives it up."""
        self.assertEqual(render(Response(b"\xff\0")), b"/wA=\r\n")
        self.assertEqual(render(Response(b"")), b"\r\n")
        self.assertEqual(parse_response(render(Response(b"\xff\0"))[:-2]), Response(b"\xff\0"))
        self.assertEqual(render(CANCEL), b"*\r\n")
        self.assertRaises(SMTPError, parse_response, b"*")

    def test_long_response(self) -> None:
        """However long it is, it is one line."""
        self.assertEqual(render(Response(b"x" * 9000)).count(b"\n"), 1)

    @examples(60)
    @given(MAILBOXES | WIDE_MAILBOXES)
    def test_mailboxes(self, address: str) -> None:
        """Every address of the grammar is said, and read back as it was."""
        for command in (Mail(ReversePath(address)), Rcpt(ForwardPath(address))):
            self.assertEqual(parsed(render(command)), command)

    @examples(30)
    @given(domains() | LITERALS)
    def test_hello_names(self, name: str) -> None:
        """So is every name of a client."""
        for verb in ("EHLO", "HELO", "LHLO"):
            self.assertEqual(parsed(render(Hello(verb, name))), Hello(verb, name))


#: What makes two of one: ends of lines, spaces, brackets, equals signs.
SHARP: Final = st.lists(
    st.sampled_from(["\r\n", "\r", "\n", "\0", " ", ">", "<", ":", "=", "@", '"', "\\", ",", "\t", "\x85"])
    | st.sampled_from(["a", "b.example", "a@b.example", "> SIZE=1", "\r\nRCPT TO:<x@y>", "X=1", "[", "]"])
    | st.sampled_from(["\u2028", "\u200f", "\u00a0", "\ud800", "ä", "SIZE", "1", "LAST", "*", "postmaster"])
    | st.text(max_size=3),
    max_size=6,
).map("".join)

PARAMETERS: Final = st.dictionaries(
    st.sampled_from(["SIZE", "X", "BODY"]) | SHARP, st.none() | st.just("1") | SHARP, max_size=3
)

#: Commands whose parts may be anything.
COMMANDS: Final[st.SearchStrategy[Command]] = st.one_of(
    st.builds(Hello, st.sampled_from(["EHLO", "HELO", "LHLO"]) | SHARP, SHARP),
    st.builds(lambda address, more: Mail(ReversePath(address, more)), SHARP | MAILBOXES, PARAMETERS),
    st.builds(lambda address, more: Rcpt(ForwardPath(address, more)), SHARP | MAILBOXES, PARAMETERS),
    st.builds(Auth, st.just("PLAIN") | SHARP, st.none() | st.binary(max_size=9)),
    st.builds(
        Override,
        st.sampled_from(["XCLIENT", "XFORWARD"]) | SHARP,
        st.dictionaries(st.sampled_from(["NAME", "HELO", "PORT"]) | SHARP, st.none() | SHARP, max_size=3),
    ),
    st.builds(Plain, st.sampled_from(["NOOP", "VRFY", "DATA"]) | SHARP, SHARP),
    st.builds(Foreign, st.just("FOO") | SHARP, SHARP),
)


class Injection(SynchronousTestCase):
    """Whatever is in its parts, a command is that command or is not said."""

    @examples(150)
    @given(COMMANDS)
    def test_never_another(self, command: Command) -> None:
        """A server takes it for the very same, or refuses it: no second command, no other parameter."""
        try:
            line = render(command)
        except ValueError:
            return
        try:
            taken = parsed(line)
        except SMTPError:
            return
        self.assertTrue(same(taken, command), f"{command} was said as {line!r}, and taken for {taken}")

    def test_addresses(self) -> None:
        """What would end an address early is refused, as is what the grammar has not."""
        for address in (
            "a@b.example> SIZE=1",
            "> SIZE=1",
            "a@b.example>\r\nRCPT TO:<c@d.example",
            "a@b.example\0",
            "a b@c.example",
            "<a@b.example",
            "@x.example:a@b.example",
            "a@b.example\u2028",
            '"a\r\n"@b.example',
            "a",
            "a@",
            "ä\ud800@b.example",
        ):
            self.assertRaises(ValueError, render, Mail(ReversePath(address)))
            self.assertRaises(ValueError, render, Rcpt(ForwardPath(address)))
        self.assertRaises(ValueError, render, Rcpt(ForwardPath("")))
        self.assertRaises(ValueError, render, Mail(ReversePath("postmaster")))

    def test_parameters(self) -> None:
        """What would make two parameters of one is refused, and so is one without a name or value."""
        for keyword, value in (
            ("SIZE", "1 BODY=8BITMIME"),
            ("SIZE", "1\r\nDATA"),
            ("SIZE", ""),
            ("SIZE", "a=b"),
            ("SIZE=1", None),
            ("SIZE 1", None),
            ("", "1"),
            ("", None),
            ("X", "\x7f"),
            ("X", "\u00a0"),
            ("\u00c4", "1"),
        ):
            self.assertRaises(ValueError, render, Mail(ReversePath("", {keyword: value})))
            self.assertRaises(
                ValueError, render, Rcpt(ForwardPath("b@b.example", {"X": "1", keyword: value}))
            )

    def test_names(self) -> None:
        """A client is called by a name, and what it is called is no second word."""
        for name in ("", "a b", "a\r\nMAIL FROM:<>", "ä.example", "[192.0.2.1", "[x]", "\ud800", "a" * 256):
            self.assertRaises(ValueError, render, Hello("EHLO", name))

    def test_verbs(self) -> None:
        """Neither is a verb, a mechanism, or the name of an attribute."""
        for word in ("", "A B", "A\r\nB", "A=B", "Ä", state.END_OF_DATA, state.GREETING, "²"):
            for command in (
                Plain(word),
                Foreign(word, "x"),
                Hello(word, "client.example"),
                Auth(word, None),
                Override(word, {"NAME": "x"}),
                Override("XCLIENT", {word: "x"}),
            ):
                self.assertRaises(ValueError, render, command)

    def test_arguments(self) -> None:
        """Words that are not printable are refused."""
        for argument in ("a\r\nQUIT", "a\nb", "\0", "\x1b", "\u2028", "\ud800"):
            self.assertRaises(ValueError, render, Plain("NOOP", argument))
            self.assertRaises(ValueError, render, Foreign("FOO", argument))

    def test_secrets(self) -> None:
        """A command that is refused is named, and what it holds is not told."""
        error = self.assertRaises(ValueError, render, Auth("PLAIN\n", b"hush"))
        self.assertNotIn("aHVzaA", str(error))
        self.assertNotIn("hush", str(error))
