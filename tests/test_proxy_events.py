"""The proxy when clients and upstreams come and go: nothing half is delivered, nothing is left behind."""

from typing import Any

from smtpserv.dialogue.terms import Terms
from smtpserv.reply import Reply
from smtpserv.testing.upstream import CLOSE, GARBAGE, HALF, RESET, STALL, Fault
from tests.memory_network import CONGESTED
from tests.proxy_tools import AGAIN, FIRST, SECOND, ProxyCase

MAIL = b"MAIL FROM:<a@a.example>\r\n"
RCPT = b"RCPT TO:<b@b.example>\r\n"
CONTENT = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 20000


class ClientTests(ProxyCase):
    """Clients that do not go on."""

    def setUp(self) -> None:
        """An upstream that works."""
        super().setUp()
        self.script()
        self.proxy()

    def test_vanishes(self) -> None:
        """A client that is gone before the end of its data leaves no message and no open transaction."""
        for octets in (
            b"",
            MAIL,
            MAIL + RCPT,
            MAIL + RCPT + b"DATA\r\n",
            MAIL + RCPT + b"DATA\r\n" + CONTENT,
        ):
            client = self.client()
            client.send(octets)
            client.vanish()
            self.assertEqual(self.upstream.messages, [], octets[:60])
            self.assertFalse(any(each.is_complete for each in self.upstream.transactions))
            self.assert_works()
            self.upstream.transactions.clear()
        self.assert_nothing_left()

    def test_vanishes_while_the_upstream_thinks(self) -> None:
        """One that goes while the upstream takes its time releases what it holds there."""
        for step in ("banner", "MAIL", "RCPT", "DATA"):
            self.script({step: [STALL]})
            self.proxy()
            client = self.client()
            client.send(MAIL + RCPT + b"DATA\r\n")
            client.vanish()
            self.assertEqual(self.upstream.open_connections, 0, step)
            self.network.wait(AGAIN)
            self.assert_works()
            self.assert_nothing_left()

    def test_starts_over(self) -> None:
        """RSET and another hello end the upstream's transaction as well, and the next one is whole."""
        for octets in (b"RSET\r\n", b"EHLO client.example\r\n"):
            client = self.client()
            client.send(MAIL + RCPT + octets)
            self.assert_works(client)
            self.assertEqual(
                [str(each) for each in self.upstream.messages[-1].forward_paths], ["<b@b.example>"]
            )
        self.assert_nothing_left()

    def test_half_of_a_large_message(self) -> None:
        """What has gone upstream of a message that ends early is never complete there."""
        client = self.client()
        client.send(MAIL + RCPT + b"DATA\r\n" + CONTENT)
        self.assertGreater(len(self.upstream.transactions[0].content), 100_000)
        client.vanish()
        self.assertEqual(self.upstream.open_connections, 0)
        self.assertFalse(self.upstream.transactions[0].is_complete)

    def test_pipelines(self) -> None:
        """What a client sends at once is answered in order, each by the upstream's verdict."""
        self.upstream.faults["RCPT", 2] = Reply(550, "No", "5.9.1")
        client = self.client()
        octets = MAIL + RCPT * 3 + b"DATA\r\n"
        self.assertEqual(client.say(octets, 5), ["250 2.1.0", "250 2.1.5", "550 5.9.1", "250 2.1.5", "354"])
        self.assertEqual(
            client.say(CONTENT + b".\r\n" + MAIL + RCPT, 3), ["250 2.0.0", "250 2.1.0", "250 2.1.5"]
        )
        self.assertEqual(len(self.upstream.messages[0].forward_paths), 2)

    def test_goodbye_in_a_group(self) -> None:
        """A 421 to one recipient ends the upstream's session: what was pipelined behind it hears of that."""
        self.upstream.faults["RCPT", 2] = Reply(421, "Bye", "4.9.2")
        answers = self.client().say(MAIL + RCPT * 3 + b"DATA\r\n", 5)
        self.assertEqual(answers, ["250 2.1.0", "250 2.1.5", "451 4.9.2", "451 4.4.2", "451 4.4.2"])
        self.assert_nothing_left()


class CongestionTests(ProxyCase):
    """Neither side holds more than the other takes."""

    def test_slow_upstream(self) -> None:
        """A client is read no further than its upstream reads, whatever the size of the message."""
        self.script(keywords=("SIZE",))
        self.proxy()
        client = self.client()
        client.send(MAIL + RCPT + b"DATA\r\n")
        (upstream,) = (each for each in self.network.ends if each.protocol is self.upstream.connections[0])
        upstream.pauseProducing()
        for _ in range(50):
            client.send(CONTENT)
        self.assertLess(upstream.other.queued, CONGESTED + 2 * len(CONTENT))
        self.assertGreater(client.transport.queued, 40 * len(CONTENT))
        upstream.resumeProducing()
        self.assertEqual(client.say(b".\r\n"), ["250 2.0.0"])
        self.assertTrue(self.upstream.messages[0].content.endswith(CONTENT * 50))
        self.assert_nothing_left()

    def test_deaf_upstream(self) -> None:
        """An upstream that reads no more of the content is given up, and the client keeps its message."""
        self.script()
        self.proxy()
        client = self.client()
        client.send(MAIL + RCPT + b"DATA\r\n")
        (upstream,) = (each for each in self.network.ends if each.protocol is self.upstream.connections[0])
        upstream.pauseProducing()
        self.assertEqual(client.say(CONTENT * 5 + b".\r\n"), ["451 4.4.2"])
        self.assertEqual(self.upstream.messages, [])
        self.assert_nothing_left()


class KeptTests(ProxyCase):
    """Connections that are kept for the next transaction."""

    def setUp(self) -> None:
        """A message has gone through."""
        super().setUp()
        self.script()
        self.proxy()
        self.assert_works()

    def test_one_connection(self) -> None:
        """One connection serves one transaction after another, of any client."""
        for _ in range(5):
            self.assert_works()
        self.assertEqual(len(self.upstream.connections), 1)

    def test_closed_meanwhile(self) -> None:
        """A client does not hear of it if the upstream closed the connection meanwhile, in any way."""
        faults: tuple[Fault, ...] = (CLOSE, RESET, Reply(421, "Idle", "4.4.2"))
        for fault in faults:
            self.upstream.interrupt(fault)
            self.network.settle()
            self.assert_works()

    def test_closed_when_it_is_used(self) -> None:
        """Nor if that is only found out with the next MAIL."""
        faults: tuple[Fault, ...] = (CLOSE, RESET, Reply(421, "Idle", "4.4.2"))
        for fault in faults:
            self.upstream.faults["MAIL"] = [fault]
            self.assert_works()

    def test_idle(self) -> None:
        """One that nobody uses is closed after a minute, with QUIT."""
        self.network.wait(65)
        self.assertEqual(self.upstream.open_connections, 0)
        self.assertEqual(self.upstream.commands[-1], b"QUIT")
        self.assert_works()

    def test_reset_fails(self) -> None:
        """Where RSET fails after a transaction that was given up, the next one is not harmed."""
        faults: tuple[Fault, ...] = (CLOSE, RESET, STALL, Reply(500, "What?", "5.5.2"))
        for fault in faults:
            client = self.client()
            client.send(MAIL + RCPT)
            self.upstream.faults["RSET"] = [fault]
            client.send(b"RSET\r\n")
            self.assert_works()
            client.vanish()
        self.assert_nothing_left()


class RouteTests(ProxyCase):
    """Upstreams that are not there."""

    def test_none(self) -> None:
        """Nobody listens: the client keeps its message, and the next is passed on when somebody does."""
        self.proxy()
        client = self.client()
        self.assertEqual(client.say(MAIL), ["451 4.4.1"])
        self.script()
        self.network.wait(AGAIN)
        self.assert_works(client)
        self.assert_nothing_left()

    def test_silent(self) -> None:
        """Nobody answers: the client is told so in time."""
        self.script()
        self.proxy()
        self.network.deaf.add(FIRST)
        since = self.network.seconds()
        self.assertEqual(self.client().say(MAIL), ["451 4.4.1"])
        self.assertLess(self.network.seconds() - since, 60)
        self.assert_nothing_left()

    def test_unknown_name(self) -> None:
        """A name that leads nowhere."""
        self.script()
        self.proxy("nowhere.example")
        self.assertEqual(self.client().say(MAIL), ["451 4.4.1"])
        self.assert_nothing_left()

    def test_name_that_nobody_resolves(self) -> None:
        """A name server that never answers holds nobody up longer than a server that does not."""
        self.script()
        self.network.resolveHostName = lambda receiver, *_, **__: receiver  # type: ignore[method-assign]
        self.proxy("mail.example")
        since = self.network.seconds()
        self.assertEqual(self.client().say(MAIL), ["451 4.4.1"])
        self.assertLess(self.network.seconds() - since, 60)
        self.network.wait(AGAIN)
        self.assert_nothing_left()

    def test_second(self) -> None:
        """The second server is asked where the first is down, and the first again when it is back."""
        self.script(host=SECOND)
        second = self.upstream
        self.proxy(f"{FIRST},{SECOND}")
        self.assert_works()
        self.script()
        self.network.wait(AGAIN)
        self.assert_works()
        self.assertEqual(len(second.messages), 1)

    def test_second_kept_too_long(self) -> None:
        """A connection that was kept may be stale, whichever server's: the client does not hear of it."""
        self.script(host=SECOND)
        self.proxy(f"{FIRST},{SECOND}")
        self.assert_works()
        faults: tuple[Fault, ...] = (CLOSE, STALL, Reply(421, "Idle", "4.4.2"))
        for fault in faults:
            self.upstream.faults["MAIL"] = [fault]
            self.assert_works()
        self.assert_nothing_left()

    def test_other_address(self) -> None:
        """Each address of a name is tried."""
        self.network.names["mail.example"] = [SECOND, FIRST]
        self.script()
        self.proxy("mail.example")
        self.assert_works()

    def test_restarts(self) -> None:
        """Gone within a transaction and back: that one is refused for now, the next is not."""
        self.script()
        self.proxy()
        client = self.client()
        client.send(MAIL)
        self.upstream.interrupt(RESET)
        self.assertEqual(client.say(RCPT), ["451 4.4.2"])
        self.assertEqual(client.say(b"RSET\r\n"), ["250 2.0.0"])
        self.assert_works(client)


class LMTPTests(ProxyCase):
    """An upstream that speaks LMTP."""

    def converse(self, faults: Any, clients: int = 2) -> list[str]:
        """Two recipients by LMTP; what is heard after their RCPT."""
        self.script(faults, lmtp=True)
        self.proxy(lmtp="yes", terms=Terms(hostname="mx.example", lmtp=True))
        client = self.client(greeted=False)
        client.send(b"LHLO client.example\r\n" + MAIL + RCPT * clients + b"DATA\r\n")
        return client.say(b"Subject: x\r\n\r\n.\r\n", clients)

    def test_each_recipient(self) -> None:
        """Each recipient's client hears what became of it."""
        heard = self.converse({("end of data", 2): Reply(452, "Full", "4.2.2")})
        self.assertEqual(heard, ["250 2.0.0", "452 4.2.2"])

    def test_gone_between(self) -> None:
        """Where the upstream goes between the replies, those it gave stand; the others are in doubt."""
        for fault in (CLOSE, HALF, STALL, GARBAGE):
            heard = self.converse({("end of data", 2): fault})
            self.assertEqual(heard, ["250 2.0.0", "451 4.5.0" if fault is GARBAGE else "451 4.4.2"])

    def test_smtp_client(self) -> None:
        """A client that speaks SMTP sends to one recipient at a time."""
        self.script(lmtp=True)
        self.proxy(lmtp="yes")
        self.assertEqual(self.client().say(MAIL + RCPT * 2, 3), ["250 2.1.0", "250 2.1.5", "452 4.5.3"])


class PatienceTests(ProxyCase):
    """The times of RFC 5321 section 4.5.3.2, when nothing else was said."""

    def test_client_is_answered(self) -> None:
        """A client hears before it gives up itself that the upstream does not answer."""
        for step, octets, longest in (
            ("MAIL", MAIL, 300),
            ("RCPT", MAIL + RCPT, 300),
            ("DATA", MAIL + RCPT + b"DATA\r\n", 120),
            ("end of data", MAIL + RCPT + b"DATA\r\n.\r\n", 600),
        ):
            self.script({step: STALL})
            self.proxy(greeting_timeout="", command_timeout="", data_timeout="", end_timeout="")
            client = self.client()
            *commands, last = octets.splitlines(keepends=True)
            client.send(b"".join(commands))
            since = self.network.seconds()
            self.assertEqual([each[:5] for each in client.say(last)], ["451 4"], step)
            self.assertLessEqual(self.network.seconds() - since, longest + 1, step)
