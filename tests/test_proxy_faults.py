"""The proxy before an upstream that fails: every fault at every step, and what the client hears."""

from typing import Final

from smtpserv.reply import Reply
from smtpserv.testing.upstream import CLOSE, ENDLESS, GARBAGE, HALF, RESET, STALL, Fault, Step
from tests.proxy_tools import AGAIN, Client, ProxyCase

REFUSED: Final = Reply(550, "No", "5.9.1")
DEFERRED: Final = Reply(452, "Later", "4.9.1")
GOODBYE: Final = Reply(421, "Bye", "4.9.2")

#: Every fault, by the name that the table has for it.
FAULTS: Final[dict[str, Fault]] = {
    "refuse": REFUSED,
    "defer": DEFERRED,
    "421": GOODBYE,
    "close": CLOSE,
    "RST": RESET,
    "half": HALF,
    "stall": STALL,
    "garbage": GARBAGE,
    "endless": ENDLESS,
}

DOWN, LOST, SLOW, CONFUSED = "451 4.4.1", "451 4.4.2", "451 4.4.2", "451 4.5.0"
NO, LATER, BYE = "550 5.9.1", "452 4.9.1", "451 4.9.2"

#: What the client hears of each fault of FAULTS, in their order, at each step of the upstream, and to which
#: command: as the upstream said it, or that it is down, lost, slow or confused; never a 5yz of our own.
TABLE: Final[dict[Step, tuple[str, tuple[str, ...]]]] = {
    "banner": ("MAIL", (DOWN, DOWN, DOWN, LOST, LOST, LOST, SLOW, CONFUSED, CONFUSED)),
    "EHLO": ("MAIL", ("250 2.1.0", DOWN, DOWN, LOST, LOST, LOST, SLOW, CONFUSED, CONFUSED)),
    "MAIL": ("MAIL", (NO, LATER, BYE, LOST, LOST, LOST, SLOW, CONFUSED, CONFUSED)),
    ("RCPT", 1): ("RCPT", (NO, LATER, BYE, LOST, LOST, LOST, SLOW, CONFUSED, CONFUSED)),
    ("RCPT", 2): ("RCPT 2", (NO, LATER, BYE, LOST, LOST, LOST, SLOW, CONFUSED, CONFUSED)),
    "DATA": ("DATA", (NO, LATER, BYE, LOST, LOST, LOST, SLOW, CONFUSED, CONFUSED)),
    ("content", 10): ("end", (NO, LATER, BYE, LOST, LOST, LOST, SLOW, CONFUSED, CONFUSED)),
    "end of data": ("end", (NO, LATER, BYE, LOST, LOST, LOST, SLOW, CONFUSED, CONFUSED)),
}

#: What a client says in turn.
COMMANDS: Final = {
    "MAIL": b"MAIL FROM:<a@a.example>\r\n",
    "RCPT": b"RCPT TO:<b@b.example>\r\n",
    "RCPT 2": b"RCPT TO:<c@b.example>\r\n",
    "DATA": b"DATA\r\n",
    "content": b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 20000,
    "end": b"0123456789\r\n.\r\n",
}


def converse(client: Client, last: str) -> list[str]:
    """Say the commands up to one, each when the one before was answered; what that one was answered."""
    heard: list[str] = []
    for name, octets in COMMANDS.items():
        heard = client.say(octets, replies=name != "content")
        if name == last:
            break
    return heard


class TableTests(ProxyCase):
    """Every fault at every step."""

    def test_table(self) -> None:
        """Each time the client hears the truth, the next transaction is passed on, and nothing is left."""
        for step, (command, answers) in TABLE.items():
            for (name, fault), answer in zip(FAULTS.items(), answers, strict=True):
                with self.subTest(step=step, fault=name):
                    self.script({step: [fault]})
                    self.proxy()
                    client = self.client()
                    self.assertEqual(converse(client, command), [answer], f"{name} at {step}")
                    complete = step == "end of data"
                    self.assertEqual(
                        [each for each in self.upstream.transactions if each.is_accepted],
                        [],
                        f"{name} at {step}",
                    )
                    self.assertEqual(any(each.is_complete for each in self.upstream.transactions), complete)
                    self.assertFalse(client.is_gone, f"{name} at {step}")
                    client.vanish()
                    self.network.wait(AGAIN)
                    self.assert_works()
                    self.assert_nothing_left()
