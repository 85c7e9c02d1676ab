"""The proxy behind filters: what the client names, what the upstream is told, and what both are left with."""

from typing import Any

from smtpserv.edit import AddField
from smtpserv.filters.arrangement import arrange
from smtpserv.reply import Reply
from smtpserv.server.factory import SMTPServerFactory
from smtpserv.testing import memory_house
from smtpserv.testing.memory import run_now
from smtpserv.testing.upstream import STALL
from tests.filter_tools import Filter, HeaderFilter, RecipientFilter
from tests.proxy_tools import AGAIN, ProxyCase

MAIL = b"MAIL FROM:<a@a.example>\r\n"
CONTENT = b"Subject: x\r\n\r\nbody\r\n"


def rcpt(name: str) -> bytes:
    """RCPT for one of our recipients."""
    return f"RCPT TO:<{name}@b.example>\r\n".encode()


class FilteredProxyTests(ProxyCase):
    """A proxy before a scripted upstream, behind filters."""

    def filtered(self, *filters: object, faults: Any = None) -> Any:
        """A client of it."""
        self.script(faults)
        self.proxy()
        arranged = arrange(self.processor, filters, run_now, 1 << 20)
        self.house = memory_house(arranged, self.network, self.journal)
        self.factory = SMTPServerFactory(self.house)
        return self.client()

    def received(self) -> list[str]:
        """Who the upstream's last message was for."""
        return [each.local_part for each in self.upstream.transactions[-1].forward_paths]

    def test_passed_on(self) -> None:
        """The upstream is asked about those that the filters made, and given the edited message, once."""
        for kind in (HeaderFilter, Filter):
            client = self.filtered(RecipientFilter(b="x y", c="y"), kind([AddField("A", "1")]))
            client.say(MAIL)
            self.assertEqual(client.say(rcpt("b") + rcpt("c"), 2), ["250 2.1.5"] * 2)
            self.assertEqual(client.say(b"DATA\r\n"), ["354"])
            self.assertEqual(client.say(CONTENT + b".\r\n"), ["250 2.0.0"])
            self.assertEqual(self.received(), ["x", "y"])
            self.assertIn(b"Subject: x\r\nA: 1\r\n\r\nbody\r\n", self.upstream.messages[-1].content)
            self.assertEqual(len([each for each in self.upstream.commands if each.startswith(b"MAIL")]), 1)
            self.assert_works(client)
            self.assert_nothing_left()

    def test_half_refused(self) -> None:
        """Of a recipient that was refused for one of those it became, nobody gets the message."""
        client = self.filtered(RecipientFilter(b="x y"), faults={("RCPT", 2): Reply(550, "No", "5.9.1")})
        client.say(MAIL)
        self.assertEqual(client.say(rcpt("b") + rcpt("c"), 2), ["550 5.9.1", "250 2.1.5"])
        client.say(b"DATA\r\n")
        self.assertEqual(client.say(CONTENT + b".\r\n"), ["250 2.0.0"])
        self.assertEqual((self.received(), len(self.upstream.messages)), (["c"], 1))
        self.assert_nothing_left()

    def test_kept_back(self) -> None:
        """Where filters refuse or drop, the upstream gets no message, and its connection serves the next."""
        for decision, answer in (
            (Reply(550, "No", "5.7.1"), "550 5.7.1"),
            (Reply(250, "", "2.7.0"), "250 2.7.0"),
        ):
            for kind in (HeaderFilter, Filter):
                client = self.filtered(kind(decision))
                client.say(MAIL)
                client.say(rcpt("b"))
                client.say(b"DATA\r\n")
                self.assertEqual(client.say(CONTENT + b".\r\n"), [answer])
                self.assertEqual(self.upstream.messages, [])
                self.assert_works(client)
                self.assert_nothing_left()

    def test_client_gone(self) -> None:
        """A client that goes in the header or in the body leaves no message and no connection behind."""
        for octets in (b"Subject:", CONTENT):
            client = self.filtered(RecipientFilter(b="x"), HeaderFilter())
            for line in (MAIL, rcpt("b"), b"DATA\r\n"):
                client.say(line)
            client.send(octets)
            client.vanish()
            self.assertEqual([each for each in self.upstream.transactions if each.is_accepted], [])
            self.assert_works()
            self.assert_nothing_left()

    def test_stranger_gone(self) -> None:
        """A stranger who goes while a connection is made for the first of several leaves none behind."""
        self.filtered(RecipientFilter(b="x y"), faults={"banner": [STALL]})
        client = self.client(host="203.0.113.9")
        client.send(MAIL + rcpt("b"))
        client.vanish()
        self.network.wait(AGAIN)
        self.assertEqual(self.upstream.open_connections, 0)
        self.assert_nothing_left()

    def test_refused_late(self) -> None:
        """What the upstream says to DATA the client hears at the end, for then it is asked."""
        client = self.filtered(HeaderFilter(), faults={"DATA": [Reply(452, "Full", "4.3.1")]})
        for line in (MAIL, rcpt("b")):
            client.say(line)
        self.assertEqual(client.say(b"DATA\r\n"), ["354"])
        self.assertEqual(client.say(CONTENT + b".\r\n"), ["452 4.3.1"])
        self.assert_works(client)
        self.assert_nothing_left()
