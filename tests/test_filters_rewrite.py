"""``recipient-rewrite``: what a file of aliases says, and how recipients become what it says."""

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpserv import plugins, reply
from smtpserv.domain import Domains
from smtpserv.edit import AddRecipient
from smtpserv.error import StartError
from smtpserv.filters.aliases import MOST_MAILBOXES, MOST_STEPS, parse_aliases
from smtpserv.filters.chain import answered
from smtpserv.filters.rewrite import AliasFile, RecipientRewrite
from smtpserv.interfaces import IRecipientFilter
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.plugins import find_filters, make_filter
from smtpserv.testing import HandThread
from smtpserv.testing.memory import make_message, run_now
from tests.server_tools import Reactor, captured_log

FILE = """\
# The people in charge
Postmaster: root, "abuse desk"@example.com
root:       alice,
  # of whom two are awake
\tBOB@Example.org,

"abuse desk": carol
info@example.com: "dave \\"d\\" d"@example.com

@old.example: @new.example, archive@example.com
@shop.example: sales
sales@new.example: erin@example.com
"""


class ParsingTests(SynchronousTestCase):
    """The file."""

    def expanded(self, text: str, address: str, domains: Domains | None = None) -> list[str]:
        """All that an address stands for."""
        local_part, _, domain = address.rpartition("@")
        return ["@".join(each) for each in parse_aliases(text, domains).expand((local_part, domain))]

    def test_file(self) -> None:
        """Names, addresses and domains; comments, lines that go on, quotes; to the end, and in any case."""
        for address, expected in (
            ("POSTMASTER@here.example", ["alice@here.example", "BOB@Example.org", "carol@example.com"]),
            ('"post\\master"@x.example', ["alice@x.example", "BOB@Example.org", "carol@example.com"]),
            ('"Abuse Desk"@x.example', ["carol@x.example"]),
            ("info@EXAMPLE.com.", ['"dave \\"d\\" d"@example.com']),
            ("info@example.org", ["info@example.org"]),
            ("anyone@old.example", ["anyone@new.example", "archive@example.com"]),
            ("sales@old.example", ["erin@example.com", "archive@example.com"]),
            ('"any one"@OLD.example', ['"any one"@new.example', "archive@example.com"]),
            ("anyone@shop.example", ["sales@shop.example"]),
            ("Nobody@Elsewhere.example", ["Nobody@Elsewhere.example"]),
        ):
            self.assertEqual(self.expanded(FILE, address), expected, address)

    def test_own_domains(self) -> None:
        """Names without a domain hold in some domains, if one says so; the others hold everywhere."""
        own = Domains.parse("example.com")
        self.assertEqual(self.expanded("a: b\nc@d.example: e", "a@example.com", own), ["b@example.com"])
        self.assertEqual(self.expanded("a: b\nc@d.example: e", "a@example.org", own), ["a@example.org"])
        self.assertEqual(self.expanded("a: b\nc@d.example: e", "c@d.example", own), ["e@d.example"])

    def test_loops(self) -> None:
        """A name that leads to itself stays itself; nobody's mail goes round, or nowhere."""
        for text, expected in (
            ("a: a", ["a@x"]),
            ("a: A, b", ["A@x", "b@x"]),
            ("a: b\nb: a", ["a@x"]),
            ("a: b, c\nb: c\nc: d", ["d@x"]),
            ("a: b, c\nb: a, d\nc: b", ["a@x", "d@x"]),
            ("@x: all@x", ["all@x"]),
            ("@x: @y\n@y: @x", ["a@x"]),
        ):
            self.assertEqual(self.expanded(text, "a@x"), expected, text)

    def test_bounds(self) -> None:
        """What leads too far, or to too many, is told from what does not; twice as many ways cost nothing."""
        far = "\n".join(f"a{n}: a{n + 1}" for n in range(MOST_STEPS + 1))
        self.assertEqual(self.expanded(far, "a1@x"), [f"a{MOST_STEPS + 1}@x"])
        self.assertRaises(OverflowError, self.expanded, far, "a0@x")
        many = ", ".join(f"m{n}" for n in range(MOST_MAILBOXES))
        self.assertEqual(len(self.expanded(f"a: {many}", "a@x")), MOST_MAILBOXES)
        self.assertRaises(OverflowError, self.expanded, f"a: {many}, b", "a@x")
        ways = "\n".join(f"a{n}: a{n + 1}, b{n + 1}\nb{n}: a{n + 1}, b{n + 1}" for n in range(MOST_STEPS - 1))
        self.assertEqual(len(self.expanded(ways, "a0@x")), 2)

    def test_broken(self) -> None:
        """What is no alias is refused, with the number of its line; what runs or writes something, too."""
        for line, why in (
            ("a", "not a name, a colon and addresses"),
            (": b", "not a name, a colon and addresses"),
            ('a: "b', "not a name, a colon and addresses"),
            ("a b: c", "not a name, a colon and addresses"),
            ("a:", "a name that stands for nobody"),
            ("a: ,", "a name that stands for nobody"),
            ("A: b\na: c", "a second line for a name"),
            ("a@X.example: b\na@x: c\na@x.EXAMPLE: c", "a second line for a name"),
            ("a: b c", "not an address: b c"),
            ("a: b@", "not an address: b@"),
            ("a: b@c@d", "not an address: b@c@d"),
            ("a: b\0", "not an address: b\0"),
            ("a: <b@c.example>", "not an address: <b@c.example>"),
            ("a: b@[300.1.1.1]", "not an address: b@[300.1.1.1]"),
            ("a..b: c", "not an address: a..b"),
            ("a: @b", "a whole domain that one name stands for"),
            ("a: |/bin/cat", "a command gets no mail here: |/bin/cat"),
            ('a: "|/bin/cat a, b"', 'a command gets no mail here: "|/bin/cat a, b"'),
            ("a: /dev/null", "a file gets no mail here: /dev/null"),
            ("a: :Include:/x", "a file of addresses gets no mail here: :Include:/x"),
        ):
            error = self.assertRaises(ValueError, parse_aliases, f"# x\n\n{line}\n  \n")
            self.assertEqual(str(error), f"line {3 + line.count(chr(10))}: {why}")
        error = self.assertRaises(ValueError, parse_aliases, "\n# x\n  a: b\n")
        self.assertEqual(str(error), "line 3: it goes on with no line before it")

    def test_empty_local_part(self) -> None:
        """The local-part of nothing but quotes is one like any other, and not all of the domain."""
        self.assertEqual(self.expanded('""@x: b', "a@x"), ["a@x"])
        self.assertEqual(self.expanded('""@x: b', '""@x'), ["b@x"])

    def test_domains(self) -> None:
        """A domain is the same in either of its forms, and said in the one that all understand."""
        self.assertEqual(
            self.expanded("a@b\xfccher.example: c@\xfc.example", "a@xn--bcher-kva.example"),
            ["c@xn--tda.example"],
        )

    @settings(max_examples=200, deadline=None, database=None)
    @given(st.text(alphabet='ab"\\@:,#[]|/ \n\t\xe9', max_size=40))
    def test_anything(self, text: str) -> None:
        """Any file is read or refused, and what it is read as leads to addresses."""
        try:
            aliases = parse_aliases(text)
        except ValueError as error:
            self.assertTrue(str(error).startswith("line "))
            return
        for local_part in ("a", "b", '"a b"'):
            for address in aliases.expand((local_part, "a")):
                AddRecipient(ForwardPath("@".join(address)))


SENDER, SENDER_OF_UTF8 = ReversePath("a@a.example"), ReversePath("a@a.example", {"SMTPUTF8": None})


class RewriteCase(SynchronousTestCase):
    """Has a file of aliases, and a filter that reads it."""

    def setUp(self) -> None:
        self.clock: Any = Clock()
        self.path: str = self.mktemp()
        self.say("a: b\nlist: c, d@d.example\n\xe9: f\nu: \xfc\n")

    def say(self, text: str | bytes) -> None:
        """Have the file say something."""
        with open(self.path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode("utf-8"))

    def filter(self, in_thread: Any = run_now) -> RecipientRewrite:
        """One that reads it."""
        return RecipientRewrite(AliasFile(self.path), "mx.example", self.clock, in_thread)

    def made_of(self, filter: Any, path: ForwardPath, sender: ReversePath = SENDER) -> Any:
        """The filter's answer."""
        answer = filter.filter_recipient(make_message().session, sender, path)
        return self.successResultOf(Deferred.fromCoroutine(answered(answer)))

    def rewritten(self, filter: Any, address: str, sender: ReversePath = SENDER) -> Any:
        """The addresses that a recipient becomes."""
        made = self.made_of(filter, ForwardPath(address), sender)
        return [each.address for each in made] if isinstance(made, tuple) else made


class RewriteTests(RewriteCase):
    """A recipient becomes what the file says."""

    def test_rewritten(self) -> None:
        """All that it stands for; one that stands for nobody else is let be."""
        filter = self.filter()
        self.assertTrue(verifyObject(IRecipientFilter, filter))
        self.assertEqual(self.rewritten(filter, "A@x.example"), ["b@x.example"])
        self.assertEqual(self.rewritten(filter, "list@x.example"), ["c@x.example", "d@d.example"])
        self.assertIsNone(self.rewritten(filter, "x@x.example"))

    def test_postmaster(self) -> None:
        """One without a domain is in ours; it stays as it is if it stands for nobody."""
        self.assertIsNone(self.rewritten(self.filter(), "Postmaster"))
        self.say("postmaster@MX.example: a")
        self.assertEqual(self.rewritten(self.filter(), "Postmaster"), ["a@mx.example"])

    def test_original_recipient(self) -> None:
        """Notifications name whom the client named, if it wants any (RFC 3461 section 4.2)."""
        for address, said, expected in (
            ("a@x.example", {}, {}),
            ("a@x.example", {"NOTIFY": "NEVER"}, {"NOTIFY": "NEVER", "ORCPT": "rfc822;a@x.example"}),
            ("a@x.example", {"NOTIFY": "DELAY", "ORCPT": "x;y"}, {"NOTIFY": "DELAY", "ORCPT": "x;y"}),
            ("a@x.example", {"ORCPT": "x;y"}, {"ORCPT": "x;y"}),
            ('"\\a"@x.example', {"NOTIFY": "DELAY"}, {"NOTIFY": "DELAY", "ORCPT": 'rfc822;"\\a"@x.example'}),
            ("\xe9@x.example", {"NOTIFY": "DELAY"}, {"NOTIFY": "DELAY", "ORCPT": "utf-8;\\x{E9}@x.example"}),
        ):
            (made,) = self.made_of(self.filter(), ForwardPath(address, said), SENDER_OF_UTF8)
            self.assertEqual(made.parameters, expected)

    def test_orcpt_of_odd_addresses(self) -> None:
        """What ORCPT has no character for is encoded; what would be too long is left out."""
        for address, kind in (
            ('"a+ =b"@x.example', "rfc822"),
            ('"a+ =b\xe9\\\\"@x.example', "utf-8"),
            (f"{chr(233) * 100}@x.example", None),
        ):
            self.say(f"{address}: b")
            path = ForwardPath(address, {"NOTIFY": "DELAY"})
            (made,) = self.made_of(self.filter(), path, SENDER_OF_UTF8)
            self.assertEqual(made.original_recipient, kind and (kind, address))

    def test_refused(self) -> None:
        """Who would become too many, or whom the next server can't be told, is refused."""
        self.assertEqual(self.rewritten(self.filter(), "u@x.example"), reply.NEEDS_SMTPUTF8)
        self.assertEqual(self.rewritten(self.filter(), "u@x.example", SENDER_OF_UTF8), ["\xfc@x.example"])
        self.say(f"@x.example: @{'a' * 60}.{'b' * 60}.{'c' * 60}.example")
        self.assertEqual(self.rewritten(self.filter(), f"{'d' * 64}@x.example"), reply.BAD_FORWARD_PATH)
        self.say("a: " + ", ".join(f"m{n}" for n in range(MOST_MAILBOXES + 1)))
        log = captured_log(self)
        self.assertEqual(self.rewritten(self.filter(), "a@x.example"), reply.LIST_TOO_LONG)
        self.assertEqual(len(log), 1)


class ReloadTests(RewriteCase):
    """The file is read again when it changes."""

    def test_changed(self) -> None:
        """At most once a second it is looked at, and only when a recipient is named."""
        filter = self.filter()
        self.say("a: changed\n")
        self.assertEqual(self.rewritten(filter, "a@x.example"), ["b@x.example"])
        self.clock.advance(1)
        self.assertEqual(self.rewritten(filter, "a@x.example"), ["changed@x.example"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_in_thread(self) -> None:
        """It is looked at in a thread; whoever comes meanwhile does not wait for it."""
        thread = HandThread()
        filter = self.filter(thread)
        self.say("a: changed\n")
        self.clock.advance(1)
        first: Any = filter.filter_recipient(make_message().session, SENDER, ForwardPath("a@x.example"))
        first = Deferred.fromCoroutine(first)
        self.assertNoResult(first)
        self.assertEqual(self.rewritten(filter, "a@x.example"), ["b@x.example"])
        thread.step()
        self.assertEqual(self.successResultOf(first)[0].address, "changed@x.example")
        self.assertEqual(thread.waiting, [])

    def test_broken(self) -> None:
        """One that is broken is logged, once, and what was in use stays in use until it is good again."""
        filter, log = self.filter(), captured_log(self)
        for number, breaks in enumerate(
            (lambda: self.say("a: |x"), lambda: self.say(b"a: \xff"), lambda: os.remove(self.path)), 1
        ):
            breaks()
            for _ in range(3):
                self.clock.advance(1)
                self.assertEqual(self.rewritten(filter, "a@x.example"), ["b@x.example"])
            self.assertEqual(len(log), number)
            self.assertIn(self.path, str(log[-1]["error"]))
        self.say("a: good\n")
        self.clock.advance(1)
        self.assertEqual(self.rewritten(filter, "a@x.example"), ["good@x.example"])
        self.assertEqual(len(log), 3)


class MakingTests(RewriteCase):
    """``--filter=recipient-rewrite:FILE``."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(plugins, "entry_points", lambda group: ())

    def made(self, arguments: str) -> Any:
        """The filter of a description."""
        reactor: Any = Reactor()
        return make_filter(f"recipient-rewrite{arguments}", reactor, find_filters(), "mx.example")

    def test_made(self) -> None:
        """With a file, and maybe the domains in which names alone hold."""
        filter = self.made(f":{self.path}")
        self.assertTrue(verifyObject(IRecipientFilter, filter))
        self.assertEqual(self.rewritten(filter, "a@x.example"), ["b@x.example"])
        filter = self.made(f":{self.path}:domains=mx.example")
        self.assertIsNone(self.rewritten(filter, "a@x.example"))

    def test_refused(self) -> None:
        """A start that can't be ends with a line that says why."""
        for text, arguments, why in (
            ("", "", "recipient-rewrite: missing a required argument: 'file'"),
            ("", ":/no/such/file", "cannot read /no/such/file: No such file or directory"),
            ("a: b\na: c", f":{self.path}", f"{self.path}, line 2: a second line for a name"),
            ("a: /b", f":{self.path}", f"{self.path}, line 1: a file gets no mail here: /b"),
            (b"\xff", f":{self.path}", f"{self.path} is not UTF-8"),
            ("", f":{self.path}:domains=a b", "domains: 'a b' is not a list of domain names (a b)"),
        ):
            self.say(text)
            error = self.assertRaises(StartError, self.made, arguments)
            self.assertEqual(str(error), f"--filter=recipient-rewrite: {why}")
