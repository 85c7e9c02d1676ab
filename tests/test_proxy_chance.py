"""The proxy when clients and upstreams do as chance has it, many at once: what a client was told is so."""

import random
from typing import Final

from smtpserv.dialogue.terms import Terms
from smtpserv.edit import AddField, AddRecipient, RemoveRecipient
from smtpserv.filters.arrangement import arrange
from smtpserv.message import ForwardPath
from smtpserv.reply import Reply
from smtpserv.server.factory import SMTPServerFactory
from smtpserv.testing import memory_house
from smtpserv.testing.memory import run_now
from smtpserv.testing.upstream import CLOSE, ENDLESS, GARBAGE, HALF, RESET, STALL, Fault, Plan, Step
from tests.filter_tools import Filter, HeaderFilter, RecipientFilter
from tests.fuzz import SCALE
from tests.proxy_tools import Client, ProxyCase

#: How many times it is played.
GAMES: Final = max(1, int(40 * SCALE))

#: Those that an upstream says bear the status that says it was the upstream.
_SAID: Final[tuple[Fault, ...]] = (
    Reply(550, "No", "5.9.1"),
    Reply(452, "Later", "4.9.1"),
    Reply(421, "Bye", "4.9.2"),
)
_BROKEN: Final[tuple[Fault, ...]] = (CLOSE, RESET, HALF, STALL, GARBAGE, ENDLESS)
_STEPS: Final[tuple[Step, ...]] = (
    *("banner", "EHLO", "MAIL", "RCPT", ("RCPT", 2), "DATA", "end of data", "RSET", "QUIT"),
)

#: What a filter makes of a message.
_DECISIONS: Final = (
    *(
        None,
        [AddField("A", "1")],
        [AddRecipient(ForwardPath("z@b.example"))],
        [RemoveRecipient("y@b.example")],
    ),
    *(Reply(450, "Later", "4.9.7"), Reply(550, "No", "5.9.7")),
)


class Game:
    """One proxy, one upstream and some clients, each of whom sends messages or goes away.

    :ivar told: what was answered to the end of each message, by its number; None where it never came to that.
    """

    def __init__(self, case: ProxyCase, seed: int, with_filters: bool) -> None:
        self.told: dict[int, list[str] | None] = {}
        self._case: Final = case
        self._chance: Final = random.Random(seed)
        self._clients: list[Client] = []
        self.lmtp: Final = self._chance.random() < 0.3
        case.script(self._plans(), lmtp=self.lmtp)
        case.proxy(
            connections=str(self._chance.choice([1, 2, 5])),
            uses=str(self._chance.choice([1, 3, 100])),
            forward_client=self._chance.choice(["yes", "no"]),
            lmtp="yes" if self.lmtp else "no",
            terms=(terms := Terms(hostname="mx.example", max_errors=10**6, lmtp=self.lmtp)),
        )
        if with_filters:
            arranged = arrange(case.processor, self._filters(), run_now, 1 << 20)
            case.house = memory_house(arranged, case.network, case.journal, terms=terms)
            case.factory = SMTPServerFactory(case.house)

    def _filters(self) -> list[object]:
        """One that looks at the whole message or the header alone, and one that makes two of a recipient."""
        kind = self._chance.choice([HeaderFilter, Filter])
        decide = kind(*(self._chance.choice(_DECISIONS) for _ in range(60)))
        return [decide, RecipientFilter(b0="x y", b1="y")] if self._chance.random() < 0.5 else [decide]

    def _plans(self) -> dict[Step, Plan]:
        """A fault three times in ten at each step."""
        plans: dict[Step, Plan] = {step: self._plan(_SAID + _BROKEN) for step in _STEPS}
        # Who says no in the middle of a content, and then takes it, has lied himself.
        return {**plans, ("content", 10): self._plan(_BROKEN)}

    def _plan(self, faults: tuple[Fault, ...]) -> Plan:
        return [self._chance.choice(faults) if self._chance.random() < 0.3 else None for _ in range(30)]

    def play(self) -> None:
        """A few moves, each of some client's."""
        for _ in range(self._chance.randint(3, 25)):
            self._clients = [each for each in self._clients if not each.is_gone]
            if not self._clients or self._chance.random() < 0.3:
                self._clients.append(self.greeted())
            client = self._chance.choice(self._clients)
            match self._chance.randrange(10):
                case 0:
                    client.vanish()
                case 1:
                    self._case.network.wait(self._chance.choice([1, 5, 70]))
                case _:
                    self._transaction(client)

    def end(self) -> None:
        """Nobody plays any more."""
        for client in self._clients:
            client.vanish()

    def greeted(self) -> Client:
        """One more client, of ours or a stranger, for whom less is asked at MAIL."""
        client = self._case.client(greeted=False, host=self._chance.choice(["127.0.0.1", "203.0.113.9"]))
        client.send(b"LHLO client.example\r\n" if self.lmtp else b"EHLO client.example\r\n")
        return client

    def _transaction(self, client: Client) -> None:
        """One message, for up to three recipients, as far as it gets."""
        number, recipients = len(self.told), self._chance.randint(1, 3)
        self.told[number] = None
        paths = b"".join(b"RCPT TO:<b%d@b.example>\r\n" % each for each in range(recipients))
        client.say(b"RSET\r\n")
        if client.is_gone:
            return
        if self._chance.random() < 0.1:
            client.send(b"MAIL FROM:<a@a.example>\r\n" + paths + b"DATA\r\n" + self._content(number))
            client.vanish()
            return
        answers = client.say(b"MAIL FROM:<a@a.example>\r\n" + paths + b"DATA\r\n", 2 + recipients)
        if answers[-1:] == ["354"]:
            self._send(client, number, sum(each[:3] == "250" for each in answers[1:]))

    def _send(self, client: Client, number: int, recipients: int) -> None:
        content = self._content(number)
        if self._chance.random() < 0.1:
            client.send(content)
            client.vanish()
        else:
            self.told[number] = client.say(content + b".\r\n", recipients if self.lmtp else 1)

    def _content(self, number: int) -> bytes:
        return b"X-Number: %d\r\n\r\n" % number + b"0123456789\r\n" * self._chance.choice([1, 30, 20000])


class ChanceTests(ProxyCase):
    """Many games."""

    def test_games(self) -> None:
        """No yes without the message, no message behind a no, none half, none twice, and nothing is left."""
        for seed in range(GAMES):
            with self.subTest(seed=seed):
                self.play(seed)

    def test_filtered(self) -> None:
        """The same where filters change the envelope, refuse, or look at the whole message first."""
        for seed in range(GAMES):
            with self.subTest(seed=seed):
                self.play(seed, with_filters=True)

    def play(self, seed: int, with_filters: bool = False) -> None:
        """One game, and what is true when it is over."""
        self.setUp()
        game = Game(self, seed, with_filters)
        game.play()
        for number, answers in game.told.items():
            self.assert_true(number, answers, with_filters, game.lmtp)
        self.upstream.faults.clear()
        game.end()
        self.network.wait(130)
        if not with_filters:
            self.assert_works(game.greeted())
        self.assert_nothing_left()
        self.assertEqual(self.flushLoggedErrors(), [])

    def assert_true(self, number: int, answers: list[str] | None, with_filters: bool, lmtp: bool) -> None:
        """What a client was told of a message is what became of it."""
        there = [each for each in self.upstream.transactions if b"X-Number: %d\r\n" % number in each.content]
        accepted = [each for each in there if each.is_accepted]
        self.assertEqual({each.content[-12:] for each in accepted} - {b"0123456789\r\n"}, set())
        if answers is None:
            self.assertEqual([each for each in there if each.is_complete], [])
        elif any(each[:3] == "250" for each in answers):
            self.assertLessEqual(len(accepted), 1)
            self.assertTrue(accepted or with_filters)  # which may have left nobody to receive it
        elif all(".9." in each for each in answers) and not (with_filters and lmtp):
            # Else it may be the answer of one of several that a recipient became.
            self.assertEqual(accepted, [])
