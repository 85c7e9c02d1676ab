"""The proxy before clients that mean harm: no command of theirs gets through, and no stranger relays."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from smtpserv.dialogue.command import PARSERS, Mail, Rcpt, parse_command
from smtpserv.dialogue.terms import Terms
from smtpserv.tap import Options, make_policies
from smtpserv.testing.upstream import KEYWORDS
from tests.fuzz import examples
from tests.fuzz.strategies import WIDE_LOCAL_PARTS
from tests.proxy_tools import FIRST, ProxyCase
from tests.test_policy_access import ACCESS, OURS, TRICKS

#: What once ended a line, a path, a string or a check, or was cut down to that: U+560A is a line feed in its
#: last octet. Behind each comes a command that nobody may hear.
_ENDS: Final = (
    *(
        "\r",
        "\n",
        "\r\r",
        "\n\r",
        "\0",
        "\0\r",
        "\v",
        "\f",
        "\x1b",
        "\x85",
        "\u2028",
        "\u560a",
        "\u560d",
        "\uff1e",
    ),
    *(
        ">\r",
        ">\n",
        '"\r',
        "\\\r",
        " \n",
        "%0d%0a",
        "+0D+0A",
        "=0D=0A",
        "\\r\\n",
        "> ",
        ">",
        '"',
        "\x7f",
        "\t",
    ),
)
_HOSTILE: Final = st.builds(
    lambda before, end, after: (before + end).encode() + after,
    st.sampled_from(["", "a", "a@b.example", '"a', "a@b.example> SIZE=1", "a@b.example> ENVID="]),
    st.sampled_from(_ENDS),
    st.sampled_from(
        [
            b"VRFY evil",
            b"RCPT TO:<evil@evil.example>",
            b"DATA\r",
            b"\xff",
            b"\xc3",
            b"",
            b"x@b.example",
            b'"@b.example',
        ]
    ),
)
_ANY: Final = st.binary(max_size=20).map(lambda octets: octets.replace(b"\r\n", b""))
_PATHS: Final = st.one_of(_HOSTILE, _ANY, WIDE_LOCAL_PARTS.map(lambda local: f"{local}@b.example".encode()))
_TAILS: Final = st.one_of(
    st.sampled_from([b"", b" SMTPUTF8", b" BODY=8BITMIME", b" RET=HDRS ENVID=a+0D+0AVRFY", b" SIZE=1"]),
    _HOSTILE.map(lambda octets: b" " + octets),
    _ANY.map(lambda octets: b" ENVID=" + octets),
)


class InjectionTests(ProxyCase):
    """What stands in addresses and parameters stays there."""

    def setUp(self) -> None:
        """An upstream that offers everything, and is told who the client is."""
        super().setUp()
        self.script(keywords=(*KEYWORDS, "XFORWARD NAME ADDR HELO IDENT"))
        terms = Terms(hostname="mx.example", honours=frozenset({"DSN"}), max_errors=10**6, max_commands=10**6)
        self.proxy(terms=terms, forward_client="yes", uses="1000000")
        self.asking = self.client()
        self.assert_works(self.asking)

    @given(st.lists(st.tuples(st.sampled_from([b"MAIL FROM", b"RCPT TO"]), _PATHS, _TAILS), max_size=6))
    @examples(150)
    def test_commands(self, said: list[tuple[bytes, bytes, bytes]]) -> None:
        """The upstream hears MAIL and RCPT of what was said there, each in a line, and nothing else."""
        self.upstream.commands.clear()
        lines = [b"%s:<%s>%s" % parts for parts in ((b"MAIL FROM", b"a@a.example", b" SMTPUTF8"), *said)]
        lines = [line for line in lines if b"\r\n" not in line]
        self.asking.send(b"".join(line + b"\r\n" for line in lines) + b"RSET\r\n")
        self.assertFalse(self.asking.is_gone)
        paths = {path for line in lines if (path := _path(line))}
        for heard in self.upstream.commands:
            self.assertTrue(heard.decode("utf-8").isprintable(), heard)
            verb = heard.split(b" ")[0]
            self.assertIn(verb, (b"XFORWARD", b"MAIL", b"RCPT", b"RSET"))
            if verb in (b"MAIL", b"RCPT"):
                self.assertIn(_path(heard), paths)
        self.assertEqual(self.upstream.open_connections, 1)

    @given(st.one_of(_HOSTILE, _ANY))
    @examples(50)
    def test_hello(self, name: bytes) -> None:
        """What a client calls itself comes to the upstream as one attribute, or not at all."""
        self.upstream.commands.clear()
        client = self.client(greeted=False)
        client.send(b"EHLO " + name.replace(b"\r\n", b"") + b"\r\n")
        client.send(b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n")
        verbs = {line.split(b" ")[0] for line in self.upstream.commands}
        self.assertLessEqual(verbs, {b"XFORWARD", b"MAIL", b"RCPT", b"DATA", b"RSET"})
        for message in self.upstream.messages:
            header = message.content.partition(b"\r\n\r\n")[0].split(b"\r\n")
            self.assertEqual(
                [line for line in header if not line.startswith((b"Received:", b"\t", b"Subject:"))], []
            )
        self.upstream.transactions.clear()
        client.vanish()

    def test_content(self) -> None:
        """What looks like the end of the data, and is none, ends it at neither side."""
        for end in (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n"):
            self.upstream.transactions.clear()
            self.asking.send(b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n")
            self.asking.send(b"Subject: x\r\n\r\na" + end + b"MAIL FROM:<evil@evil.example>\r\n.\r\n")
            senders = [str(each.reverse_path) for each in self.upstream.transactions]
            self.assertEqual(senders, ["<a@a.example>"], end)
            self.assertFalse(
                any(b"\n" in each.content.replace(b"\r\n", b"") for each in self.upstream.messages)
            )


def _path(line: bytes) -> str | None:
    """The path that a line names, if it is in good form."""
    try:
        command = parse_command(line, PARSERS)
    except Exception:
        return None
    if isinstance(command, Mail):
        return command.reverse_path.address
    return command.forward_path.address if isinstance(command, Rcpt) else None


class StrangerTests(ProxyCase):
    """A client that may not relay, and what relay testers send."""

    def test_refused(self) -> None:
        """Not one address of the testers gets upstream, whatever the sender; ours do."""
        self.script()
        self.proxy(policies=[ACCESS], terms=Terms(hostname="mx.example", max_errors=10**6))
        for sender in ("<>", "<boss@ours.example>", "<x@[127.0.0.1]>"):
            client = self.client(host="203.0.113.9")
            self.assertEqual(client.say(f"MAIL FROM:{sender} SMTPUTF8\r\n".encode()), ["250 2.1.0"])
            for path in TRICKS:
                (answer,) = client.say(f"RCPT TO:<{path}>\r\n".encode())
                self.assertIn(answer[:3], ("501", "550"), path)
            self.assertEqual([line for line in self.upstream.commands if line.startswith(b"RCPT")], [])
            self.assertEqual(client.say(b"DATA\r\n"), ["554 5.5.1"])
            client.vanish()
        client = self.client(host="203.0.113.9")
        client.say(b"MAIL FROM:<> SMTPUTF8\r\n")
        for path in OURS:
            self.assertEqual(client.say(f"RCPT TO:<{path}>\r\n".encode()), ["250 2.1.5"], path)

    def test_without_options(self) -> None:
        """Who runs the proxy and says nothing more relays for loopback and for nobody else."""
        self.script()
        options = Options()
        options.parseOptions([f"--processor=proxy:{FIRST}:25:tls=none"])
        self.proxy()
        self.proxy(policies=make_policies(options, self.network, self.processor))
        for host, answer in {
            "203.0.113.9": "550 5.7.1",
            "10.0.0.1": "550 5.7.1",
            "127.0.0.1": "250 2.1.5",
        }.items():
            client = self.client(host=host)
            client.send(b"MAIL FROM:<a@a.example>\r\n")
            self.assertEqual(client.say(b"RCPT TO:<b@b.example>\r\n"), [answer], host)
