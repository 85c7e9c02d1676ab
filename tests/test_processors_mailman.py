"""The mailman processor between a mail server and Mailman, both in memory."""

import os
import stat
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.dialogue.terms import Terms
from smtpserv.domain import Domains
from smtpserv.error import SMTPError, StartError
from smtpserv.mailman.address import ListAddress
from smtpserv.mailman.lines import MAX_LINE, LineCutter
from smtpserv.mailman.probe import ProbeDirectory
from smtpserv.message import Envelope, ForwardPath, Peer, ReversePath, Session
from smtpserv.network import Networks
from smtpserv.policy.access import RelayAccess
from smtpserv.processors.lists import CuttingSink
from smtpserv.processors.mailman import MailmanProcessor, make_mailman
from smtpserv.processors.proxy import ProxyProcessor
from smtpserv.relay.pool import Pool
from smtpserv.relay.route import Route
from smtpserv.reply import Reply
from smtpserv.server.factory import SMTPServerFactory
from smtpserv.testing import ScriptedUpstream, memory_house
from smtpserv.testing.upstream import STALL
from tests.fuzz import examples
from tests.proxy_tools import Client, ProxyCase
from tests.relay_tools import Door

LMTP, LMTP_PORT = "192.0.2.24", 8024

#: What Mailman's LMTP server offers.
KEYWORDS = ("SIZE 33554432", "8BITMIME", "HELP")

NO_MAILBOX = Reply(550, "Requested action not taken: mailbox unavailable", "")

MAIL = b"MAIL FROM:<a@a.example>\r\n"
CONTENT = b"Subject: hello\r\n\r\nhello\r\n"


class MailmanCase(ProxyCase):
    """Mailman on one side, a mail server on the other."""

    def start(self, faults: Any = None, stranger: bool = False, **arguments: str) -> None:
        """Start all three, the server as ``--processor=mailman:...`` makes it."""
        self.script()
        self.lists = ScriptedUpstream(faults, lmtp=True, keywords=KEYWORDS)
        self.network.listen(LMTP, LMTP_PORT, self.lists)
        named = {"tls": "none", "lmtp": f"{LMTP},{LMTP_PORT}", "domains": "lists.example"} | arguments
        self.network.getThreadPool = lambda: None  # type: ignore[attr-defined]
        self.processor: Any = make_mailman(self.network, "192.0.2.25", "25", **named)
        nobody = Networks.parse("192.0.2.99")
        access = RelayAccess(nobody, Domains(), directory=self.processor)
        self.house = memory_house(self.processor, self.network, self.journal, [access] if stranger else [])
        self.factory = SMTPServerFactory(self.house)

    def rcpt(self, client: Client, *mailboxes: str) -> list[str]:
        """What each recipient is answered."""
        return [client.say(f"RCPT TO:<{each}>\r\n".encode())[0] for each in mailboxes]

    def post(self, client: Client, content: bytes = CONTENT) -> list[str]:
        """DATA and the content."""
        return client.say(b"DATA\r\n") + client.say(content + b".\r\n")


class WayTests(MailmanCase):
    """Which way mail goes."""

    def test_list(self) -> None:
        """Mail for a list goes to Mailman, and nowhere else, the address as it was sent."""
        self.start()
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "Ant-confirm+aBc9@lists.example"), ["250 2.1.5"])
        self.assertEqual(self.post(client), ["354", "250 2.0.0"])
        (message,) = self.lists.messages
        self.assertEqual([path.address for path in message.forward_paths], ["Ant-confirm+aBc9@lists.example"])
        self.assertTrue(message.content.endswith(CONTENT))
        self.assertEqual(self.upstream.messages, [])
        self.assert_nothing_left()

    def test_elsewhere(self) -> None:
        """All other mail goes on, and Mailman is not even asked about it."""
        self.start()
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "b@b.example"), ["250 2.1.5"])
        self.assertEqual(self.post(client), ["354", "250 2.0.0"])
        self.assertEqual(len(self.upstream.messages), 1)
        self.assertEqual([line for line in self.lists.commands if line.startswith(b"RCPT")], [])
        self.assert_nothing_left()

    def test_no_list(self) -> None:
        """In a domain of lists who is none is nobody."""
        self.start({"RCPT": NO_MAILBOX})
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "nobody@lists.example", "b@b.example"), ["550 5.1.1", "250 2.1.5"])

    def test_any_domain(self) -> None:
        """Without domains Mailman is asked about every address; who is no list's goes on."""
        self.start({"RCPT": NO_MAILBOX}, domains="")
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "ant@lists.example"), ["250 2.1.5"])
        self.post(client)
        self.assertEqual(len(self.upstream.messages), 1)

    def test_postmaster(self) -> None:
        """The postmaster without a domain is no list's: Mailman can't bear to be asked."""
        self.start(domains="")
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "postmaster"), ["250 2.1.5"])
        self.post(client)
        self.assertEqual(len(self.upstream.messages), 1)
        self.assertEqual([line for line in self.lists.commands if line.startswith(b"RCPT")], [])

    def test_postmaster_of_a_domain(self) -> None:
        """The postmaster of a domain of lists is somebody (RFC 5321 section 4.5.1)."""
        self.start({"RCPT": NO_MAILBOX})
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "Postmaster@lists.example"), ["250 2.1.5"])
        self.post(client)
        self.assertEqual(len(self.upstream.messages), 1)

    def test_one_way(self) -> None:
        """A recipient that goes another way is taken in the client's next transaction."""
        self.start()
        client = self.client()
        client.say(MAIL)
        answers = self.rcpt(client, "b@b.example", "ant@lists.example", "c@b.example")
        self.assertEqual(answers, ["250 2.1.5", "452 4.5.3", "250 2.1.5"])
        self.assertEqual(self.post(client), ["354", "250 2.0.0"])
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "ant@lists.example", "b@b.example"), ["250 2.1.5", "452 4.5.3"])
        self.assertEqual(self.post(client), ["354", "250 2.0.0"])
        self.assertEqual([len(each.forward_paths) for each in self.upstream.messages], [2])
        self.assertEqual(len(self.lists.messages), 1)
        self.assert_nothing_left()

    def test_one_list(self) -> None:
        """Of several lists each has a transaction of its own: Mailman answers once where it should twice."""
        self.start()
        client = self.client()
        client.say(MAIL)
        self.assertEqual(
            self.rcpt(client, "ant@lists.example", "bee@lists.example"), ["250 2.1.5", "452 4.5.3"]
        )

    def test_one_list_by_lmtp(self) -> None:
        """That is so for clients as well that take an answer for each recipient."""
        self.start()
        terms = Terms(hostname="mx.example", lmtp=True)
        house = memory_house(self.processor, self.network, self.journal, terms=terms)
        self.factory = SMTPServerFactory(house)
        client = self.client(greeted=False)
        client.say(b"LHLO client.example\r\n")
        client.say(MAIL)
        answers = self.rcpt(client, "ant@lists.example", "bee@lists.example")
        self.assertEqual(answers, ["250 2.1.5", "452 4.5.3"])

    def test_filtered(self) -> None:
        """Recipients that a filter brings in the end go the way of the others, or the message waits."""
        self.start()
        ours, friend, other = (
            ForwardPath(each) for each in ("ant@lists.example", "b@b.example", "c@b.example")
        )
        for first, brought, code in ((ours, other, 452), (friend, ours, 452), (friend, other, 0)):
            sorting = self.processor.open(Session("1", Peer("127.0.0.1", 2525)), ReversePath("a@a.example"))
            asked = Deferred.fromCoroutine(sorting.add_recipient(first))
            self.network.settle()
            self.successResultOf(asked)
            envelope = Envelope("1.1", ReversePath("a@a.example"), (first, brought))
            begun: Deferred[Any] = Deferred.fromCoroutine(sorting.begin(envelope))
            begun.addErrback(lambda failure: getattr(failure.value, "reply", failure))
            self.network.settle()
            self.assertEqual(getattr(self.successResultOf(begun), "code", 0), code)
            sorting.abort()

    def test_refused_first(self) -> None:
        """A recipient that was refused decides nothing."""
        self.start()
        self.upstream.faults["RCPT"] = Reply(550, "No", "5.1.1")
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "b@b.example", "ant@lists.example"), ["550 5.1.1", "250 2.1.5"])
        self.assertEqual(self.post(client), ["354", "250 2.0.0"])
        self.assertEqual(len(self.lists.messages), 1)
        self.assert_nothing_left()

    def test_reset(self) -> None:
        """RSET gives up what was begun, whichever way."""
        self.start()
        client = self.client()
        for mailbox in ("ant@lists.example", "b@b.example"):
            client.say(MAIL)
            self.rcpt(client, mailbox)
            client.say(b"RSET\r\n")
        self.assertEqual([each for each in self.lists.transactions if each.is_complete], [])
        client.say(MAIL)
        self.rcpt(client, "ant@lists.example")
        self.assertEqual(self.post(client), ["354", "250 2.0.0"])
        self.assert_nothing_left()


class AwayTests(MailmanCase):
    """Mailman is away."""

    def test_lists_wait(self) -> None:
        """Mail for lists is deferred, never passed on; the rest goes on."""
        self.start()
        self.network.listen(LMTP, LMTP_PORT, None)
        client = self.client()
        client.say(MAIL)
        answers = self.rcpt(client, "ant@lists.example", "b@b.example")
        self.assertEqual([each[:3] for each in answers], ["451", "250"])
        self.assertEqual(self.post(client), ["354", "250 2.0.0"])
        self.assertEqual(len(self.upstream.messages), 1)

    def test_known(self) -> None:
        """What was known of a list is not forgotten: its mail waits, and goes when Mailman is back."""
        self.start()
        client = self.client()
        client.say(MAIL)
        self.rcpt(client, "ant@lists.example")
        self.assertEqual(self.post(client), ["354", "250 2.0.0"])
        self.lists.interrupt(STALL)
        self.network.listen(LMTP, LMTP_PORT, None)
        for each in self.lists.connections:
            each.transport.abortConnection()
        self.network.wait(1000)
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "ant@lists.example")[0][:3], "451")
        self.network.listen(LMTP, LMTP_PORT, ScriptedUpstream(lmtp=True, keywords=KEYWORDS))
        self.network.wait(70)
        self.assertEqual(self.rcpt(client, "ant@lists.example"), ["250 2.1.5"])


class OurselvesTests(SynchronousTestCase):
    """What was taken for a server behind us, or for Mailman, is this server."""

    def test_refused(self) -> None:
        """Whichever it was, it does not speak with itself."""
        clock = Clock()
        doors = [Door(clock), Door(clock, lmtp=True)]
        elsewhere, lists = (ProxyProcessor(clock, Route([Pool(clock, each)])) for each in doors)
        directory = ProbeDirectory(lambda _: succeed(True), clock)
        processor = MailmanProcessor(directory, lists, elsewhere, Domains())
        for each in doors:
            peer = Peer("192.0.2.25", doors.index(each))
            for call in (processor.connect, processor.hello):
                self.assertIsNone(call(Session("1", peer)))
            each.peer = peer
            for call in (processor.connect, processor.hello):
                self.assertIs(call(Session("1", peer)), reply.MAIL_LOOP)


class StrangerTests(MailmanCase):
    """Who may not relay."""

    def test_lists(self) -> None:
        """Anybody may write to a list, and to nobody else."""
        self.start(stranger=True)
        client = self.client()
        client.say(MAIL)
        answers = self.rcpt(client, "b@b.example", "ant%b.example@lists.example", "ant@lists.example")
        self.assertEqual(answers, ["550 5.7.1", "550 5.7.1", "250 2.1.5"])
        self.assertEqual(self.post(client), ["354", "250 2.0.0"])

    def test_no_list(self) -> None:
        """Who is no list is told apart from who may not be written to only where the domain is ours."""
        self.start({"RCPT": NO_MAILBOX}, stranger=True)
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "nobody@lists.example", "b@b.example"), ["550 5.1.1", "550 5.7.1"])

    def test_away(self) -> None:
        """While nobody can tell whether it is a list, it is not said that it may not be written to."""
        self.start(stranger=True, domains="")
        self.network.listen(LMTP, LMTP_PORT, None)
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "ant@lists.example")[0][:3], "451")


class ContentTests(MailmanCase):
    """What Mailman is given."""

    def test_long_lines(self) -> None:
        """Lines that it would refuse are cut."""
        self.start()
        client = self.client()
        client.say(MAIL)
        self.rcpt(client, "ant@lists.example")
        self.post(client, b"Subject: x\r\n\r\n" + b"a" * 2500 + b"\r\n")
        (message,) = self.lists.messages
        lines = message.content.split(b"\r\n")
        self.assertEqual(max(map(len, lines)), MAX_LINE)
        self.assertEqual(b"".join(line.removeprefix(b" ") for line in lines[-4:]), b"a" * 2500)

    def test_refused(self) -> None:
        """What it says to the message is what the client hears."""
        self.start({"end of data": Reply(501, "Message has defects", "")})
        client = self.client()
        client.say(MAIL)
        self.rcpt(client, "ant@lists.example")
        self.assertEqual(self.post(client), ["354", "501 5.0.0"])


class EndTests(SynchronousTestCase):
    """What was held back at the end of a message."""

    def setUp(self) -> None:
        self.written = b""
        self.ended = ""

    def write(self, octets: bytes) -> None:
        """Stands for the sink: it wants no CR."""
        if octets == b"\r":
            raise SMTPError(reply.MAIL_LOOP)
        self.written += octets

    def finish(self) -> None:
        """It has the whole."""
        self.ended += "finished"

    def abort(self) -> None:
        """It gives its connection back."""
        self.ended += "aborted"

    def test_refused(self) -> None:
        """When the last of it is refused the message is given up: nobody else knows that it has not ended."""
        sink: Any = self
        for content, ended in ((b"x\r\n", "finished"), (b"x\r", "aborted")):
            self.setUp()
            cutting = CuttingSink(sink)
            cutting.write(content)
            finished = Deferred.fromCoroutine(cutting.finish())
            finished.addErrback(lambda failure: failure.trap(SMTPError))
            self.successResultOf(finished)
            self.assertEqual(self.ended, ended)


PIECES = st.sampled_from(
    [b"a" * 700, b"b", b"\r\n", b"\r", b"\n", b" " * 298, b"c" * 998, b"\xc3", b"\xa9", b"\xa9" * 500]
)


class LineCutterTests(SynchronousTestCase):
    """Cutting lines."""

    @examples(100)
    @given(st.lists(PIECES, max_size=12))
    def test_any_pieces(self, pieces: list[bytes]) -> None:
        """No line is too long, nothing else is changed, and the pieces do not matter."""
        cutter, whole = LineCutter(), LineCutter()
        octets = b"".join(pieces)
        cut = b"".join(map(cutter.cut, pieces)) + cutter.rest()
        self.assertEqual(cut, whole.cut(octets) + whole.rest())
        self.assertLessEqual(max(map(len, cut.split(b"\r\n"))), MAX_LINE)
        if max(map(len, octets.split(b"\r\n"))) <= MAX_LINE:
            self.assertEqual(cut, octets)

    @examples(100)
    @given(st.lists(st.text("aé€😀", max_size=9), max_size=12), st.integers(1, 1500))
    def test_characters(self, texts: list[str], size: int) -> None:
        """No character of UTF-8 is cut, and nothing is lost."""
        octets = "".join(text * 99 for text in texts).encode()
        cutter = LineCutter()
        pieces = [octets[start : start + size] for start in range(0, len(octets), size)]
        lines = (b"".join(map(cutter.cut, pieces)) + cutter.rest()).decode().split("\r\n ")
        self.assertEqual("".join(lines).encode(), octets)


class WrapperTests(MailmanCase):
    """Mailman 2."""

    def start_wrapper(self) -> None:
        """A wrapper, and a list that is called ant-hill."""
        here = Path(self.mktemp())
        (here / "lists" / "ant-hill").mkdir(parents=True)
        (here / "lists" / "ant-hill" / "config.pck").touch()
        (here / "mail").mkdir()
        wrapper = here / "mail" / "mailman"
        wrapper.touch()
        os.chmod(wrapper, stat.S_IRWXU)
        self.start(lmtp="", wrapper=str(wrapper))

    def start(self, faults: Any = None, stranger: bool = False, **arguments: str) -> None:
        """As the others, but without what is Mailman 3's."""
        self.script()
        self.network.getThreadPool = lambda: None  # type: ignore[attr-defined]
        named = {"tls": "none", "domains": "lists.example", "wrapper": arguments["wrapper"]}
        self.processor = make_mailman(self.network, "192.0.2.25", "25", **named)
        self.patch(self.processor._lists, "wrapper", self)
        self.patch(self.processor._lists, "in_thread", maybeDeferred)
        self.delivered: list[tuple[ListAddress, bytes]] = []
        self.house = memory_house(self.processor, self.network, self.journal)
        self.factory = SMTPServerFactory(self.house)

    def deliver(self, address: ListAddress, octets: Any) -> "Deferred[Reply | None]":
        """Stands for the wrapper."""
        self.delivered.append((address, b"".join(octets)))
        return succeed(None)

    def test_given(self) -> None:
        """A message goes to the wrapper, with the fields that local delivery has."""
        self.start_wrapper()
        client = self.client()
        client.say(MAIL)
        answers = self.rcpt(client, "ant-hill-owner@lists.example", "ant-hill@lists.example")
        self.assertEqual(answers, ["250 2.1.5", "452 4.5.3"])
        self.assertEqual(self.post(client), ["354", "250 2.6.0"])
        ((address, octets),) = self.delivered
        self.assertEqual(address, ListAddress("ant-hill", "owner"))
        self.assertTrue(octets.startswith(b"Return-Path: <a@a.example>\r\nDelivered-To: ant-hill-owner@"))
        self.assertTrue(octets.endswith(CONTENT))

    def test_loop(self) -> None:
        """A message that goes in circles by way of its lists is refused, as the proxy refuses it."""
        self.start_wrapper()
        for count, rest, answer in (
            (10, CONTENT, "250 2.6.0"),
            (11, CONTENT, "554 5.4.6"),
            (10, b"", "250 2.6.0"),
            (11, b"", "554 5.4.6"),
        ):
            client = self.client()
            client.say(MAIL)
            self.rcpt(client, "ant-hill@lists.example")
            received = "Received: from a by mx.example with SMTP; Sun, 22 Nov 2026 16:00:00 +0000\r\n"
            self.assertEqual(self.post(client, received.encode() * count + rest)[-1], answer)
        self.assertEqual(len(self.delivered), 2)

    def test_no_list(self) -> None:
        """Who is no list is nobody in a domain of lists, and somebody elsewhere."""
        self.start_wrapper()
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "ant@lists.example", "ant@b.example"), ["550 5.1.1", "250 2.1.5"])

    def test_not_both(self) -> None:
        """What is Mailman 3's can't be said with it."""
        with self.assertRaisesRegex(StartError, "wrapper: Mailman 2 has no api="):
            make_mailman(self.network, "192.0.2.25", wrapper="/nowhere", api="http://localhost:8001")


class ArgumentTests(MailmanCase):
    """What can't be meant ends the start, and names the argument."""

    def assert_wrong(self, message: str, **named: str) -> None:
        """It says so."""
        error = self.assertRaises(StartError, self.start, **named)
        self.assertEqual(str(error), message)

    def test_lmtp(self) -> None:
        """Where Mailman's LMTP server is has two parts; yes and no are the proxy's."""
        for written in ("yes", "", "192.0.2.24", "192.0.2.24:8024", ",8024", "a,", "a,0", "a,x", "a,65536"):
            self.assert_wrong(f"lmtp: {written!r} is not HOST,PORT", lmtp=written)

    def test_alone(self) -> None:
        """What belongs to another argument is not passed over without it."""
        self.assert_wrong("lists: wrapper= is missing", lists="/")
        self.assert_wrong("api-user: api= is missing", api_user="a")
        self.assert_wrong("api-password-file: api= is missing", api_password_file="/a")

    def test_one_directory(self) -> None:
        """One of them knows the lists."""
        self.assert_wrong("map: api= tells which lists there are", api="http://localhost:8001", map="/a")
