"""The way to a mail server that answers, several in order of preference."""

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from smtpserv import reply
from smtpserv.message import Peer
from smtpserv.relay.failure import Crowded, GivenUp, UpstreamFailed
from smtpserv.relay.pool import Pool, PoolLimits
from smtpserv.relay.route import Lent, Route
from tests.relay_tools import Door, RelayCase, begun


class RouteTests(RelayCase):
    """``Route`` and ``Lent``."""

    def setUp(self) -> None:
        self.make(1, 1)

    def make(self, *connections: int) -> None:
        """Have a route of two servers that take so many."""
        self.clock = Clock()
        self.doors = [Door(self.clock, *offers) for offers in (("DSN", "SIZE 1"), ("DSN", "SMTPUTF8"))]
        limits = [PoolLimits(connections=each) for each in connections]
        self.pools = [Pool(self.clock, *each, lambda: 1.0) for each in zip(self.doors, limits, strict=True)]
        self.route = Route(self.pools)

    def taken(self, door: int = 0) -> Lent:
        """A connection to a server that answers now; those before it fail."""
        waiting = begun(self.route.take)
        for each in self.doors[:door]:
            each.fail(UpstreamFailed(reply.UPSTREAM_DOWN))
        self.doors[door].open()
        lent: Lent = self.successResultOf(waiting)
        return lent

    def test_preference(self) -> None:
        """The first server that answers is taken."""
        lent = self.taken()
        self.assertIs(lent.client, self.doors[0].made[0].client)
        self.assertEqual(self.doors[1].asked, [])

    def test_next(self) -> None:
        """If it does not, the next one is, for as long as the first is left alone."""
        lent = self.taken(1)
        self.assertIs(lent.client, self.doors[1].made[0].client)
        lent.give_back()
        again = self.successResultOf(begun(self.route.take))
        self.assertIs(again.client, lent.client)
        again.give_back()
        self.clock.advance(1.0)
        self.assertIs(self.taken().client, self.doors[0].made[0].client)

    def test_tried_again(self) -> None:
        """While somebody finds out whether the first one answers again, the others take the next at once."""
        self.make(2, 1)
        self.taken(1).give_back()
        self.clock.advance(1.0)
        finding_out = begun(self.route.take)
        self.assertNoResult(finding_out)
        other = self.successResultOf(begun(self.route.take))
        self.assertIs(other.client, self.doors[1].made[0].client)
        self.doors[0].open()
        self.assertIs(self.successResultOf(finding_out).client, self.doors[0].made[0].client)

    def test_busy(self) -> None:
        """Where all connections to the first are used, the next is taken; if that is busy too, one waits."""
        first, second = self.taken(), begun(self.route.take)
        self.doors[1].open()
        self.assertIs(self.successResultOf(second).client, self.doors[1].made[0].client)
        third = begun(self.route.take)
        self.assertNoResult(third)
        first.give_back()
        self.assertIs(self.successResultOf(third).client, first.client)

    def test_busy_and_tried_again(self) -> None:
        """Where all connections to the first are used, one waits while the next is tried again."""
        self.make(1, 2)
        first, waiting = self.taken(), begun(self.route.take)
        self.doors[1].fail(UpstreamFailed(reply.UPSTREAM_DOWN))
        self.clock.advance(1.0)
        finding_out, other = begun(self.route.take), begun(self.route.take)
        self.assertEqual(len(self.doors[1].asked), 1)
        for each in (waiting, other):
            first.give_back()
            first = self.successResultOf(each)
        self.assertNoResult(finding_out)

    def test_kept_while_tried_again(self) -> None:
        """A free connection to it is taken meanwhile."""
        self.make(1, 9)
        self.taken()
        lent = []
        for _ in range(2):
            waiting = begun(self.route.take)
            self.doors[1].open()
            lent.append(self.successResultOf(waiting))
        waiting = begun(self.route.take)
        self.crowd(1)
        self.clock.advance(1.0)
        finding_out = begun(self.route.take)
        self.assertEqual(len(self.doors[1].asked), 1)
        lent[0].give_back()
        self.assertIs(self.successResultOf(begun(self.route.take)).client, lent[0].client)
        for each in (waiting, finding_out):
            self.assertNoResult(each)

    def crowd(self, door: int = 0) -> None:
        """A server takes no more."""
        self.doors[door].fail(Crowded(reply.UPSTREAM_DOWN, "421 too many"))

    def test_crowded(self) -> None:
        """Who finds that the first takes no more goes on to the next at once, as do those who come later."""
        self.make(9, 9)
        self.taken()
        for _ in range(2):
            waiting = begun(self.route.take)
            if self.doors[0].asked:
                self.crowd()
            self.doors[1].open()
            self.assertIs(self.successResultOf(waiting).client, self.doors[1].made[-1].client)

    def test_all_crowded(self) -> None:
        """If none takes more, one waits for the first that has some."""
        self.make(9, 9)
        first = self.taken()
        waiting = begun(self.route.take)
        self.crowd()
        self.crowd(1)
        self.assertNoResult(waiting)
        first.give_back()
        self.assertIs(self.successResultOf(waiting).client, first.client)

    def test_crowded_by_others(self) -> None:
        """One that takes no more and has none of ours is not waited for."""
        self.make(9, 9)
        second = self.taken(1)
        self.clock.advance(1.0)
        waiting = begun(self.route.take)
        self.crowd()
        self.crowd(1)
        self.assertNoResult(waiting)
        second.give_back()
        self.assertIs(self.successResultOf(waiting).client, second.client)
        self.clock.advance(2.0)
        second.client.abort()
        waiting = begun(self.route.take)
        self.crowd()
        self.crowd(1)
        self.assert_failed(waiting, Crowded, "451 4.4.1")

    def test_none_while_tried_again(self) -> None:
        """If none but the first is left, they wait for it."""
        waiting = begun(self.route.take)
        for door in self.doors:
            door.fail(UpstreamFailed(reply.UPSTREAM_DOWN))
        self.assert_failed(waiting, UpstreamFailed)
        self.clock.advance(1.0)
        first, second = begun(self.route.take), begun(self.route.take)
        self.doors[1].fail(UpstreamFailed(reply.UPSTREAM_DOWN))
        self.assertNoResult(second)
        self.doors[0].open()
        self.successResultOf(first).give_back()
        self.assertIs(self.successResultOf(second).client, self.doors[0].made[0].client)

    def test_none(self) -> None:
        """When none does, the last failure is told; and so it is when there is none to ask."""
        waiting = begun(self.route.take)
        self.doors[0].fail(UpstreamFailed(reply.UPSTREAM_DOWN))
        self.doors[1].fail(UpstreamFailed(reply.UPSTREAM_SLOW))
        error: Any = self.failureResultOf(waiting, UpstreamFailed).value
        self.assertEqual(error.reply, reply.UPSTREAM_SLOW)
        self.assert_failed(begun(Route([]).take), UpstreamFailed, "451 4.4.1")

    def test_given_up(self) -> None:
        """Who gives up while a server is asked asks no other."""
        for error in (GivenUp(), CancelledError(), ZeroDivisionError()):
            waiting = begun(self.route.take)
            self.doors[0].fail(error)
            self.assert_failed(waiting, type(error))
            self.assertEqual(self.doors[1].asked, [])

    def test_lent_once(self) -> None:
        """A connection is given back once, whoever does it again; then it may not be used."""
        lent = self.taken()
        self.assertFalse(lent.is_back or lent.is_reused)
        lent.give_back()
        self.assertTrue(lent.is_back)
        other = self.successResultOf(begun(self.route.take))
        lent.give_back()
        self.assertTrue(other.is_reused)
        waiting = begun(self.pools[0].take)
        self.assertNoResult(waiting)
        other.give_back()
        self.assertIs(self.successResultOf(waiting), lent.client)

    def test_fresh(self) -> None:
        """A new one can be wanted, whatever is free."""
        lent = self.taken()
        lent.give_back()
        waiting = begun(self.route.take, fresh=True)
        self.doors[0].made[0].say(b"221 Bye\r\n")
        self.doors[0].open()
        self.assertFalse(self.successResultOf(waiting).is_reused)

    def test_offers(self) -> None:
        """What all servers offered when they were last spoken to; those that never were do not count."""
        self.assertEqual(self.route.offers, frozenset())
        self.taken()
        self.assertEqual(self.route.offers, {"DSN", "SIZE"})
        self.doors[1].offers = {"DSN": "", "SMTPUTF8": ""}
        self.assertEqual(self.route.offers, {"DSN"})
        self.doors[1].offers = {}
        self.assertEqual(self.route.offers, frozenset())

    def test_lmtp(self) -> None:
        """It speaks LMTP if one of its servers does."""
        self.assertFalse(self.route.is_lmtp)
        self.doors[1].is_lmtp = True
        self.assertTrue(self.route.is_lmtp)

    def test_name(self) -> None:
        """All servers are told the same name of ours."""
        self.route.call_us("mx.example")
        self.assertEqual([door.hello_name for door in self.doors], ["mx.example"] * 2)

    def test_comes_from(self) -> None:
        """It is known whether a peer is one of our connections to any of them."""
        peer = Peer("192.0.2.1", 12345)
        self.assertFalse(self.route.comes_from(peer))
        self.doors[1].peer = peer
        self.assertTrue(self.route.comes_from(peer))

    def test_close(self) -> None:
        """All pools are closed."""
        lent = self.taken()
        lent.give_back()
        self.route.close()
        self.assertEqual(self.doors[0].made[0].hear(), b"QUIT\r\n")
        self.assert_failed(begun(self.route.take), UpstreamFailed, "451 4.4.1")
