"""The connections to one mail server: bounded, kept, reused, left alone for a while; nothing stays behind."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from smtpserv import reply
from smtpserv.message import Peer
from smtpserv.relay.client import SMTPClient
from smtpserv.relay.failure import Crowded, GivenUp, UpstreamFailed
from smtpserv.relay.pool import BACK_OFF, MAX_BACK_OFF, SWEEP, Pool, PoolLimits
from tests.relay_tools import BYE, MAIL, OK, Connection, Door, RelayCase, begun
from tests.server_tools import captured_log

DOWN, BUSY = "451 4.4.1", "451 4.4.5"


class PoolCase(RelayCase):
    """A pool, and a door whose connections the test makes."""

    def setUp(self) -> None:
        self.make()

    def make(self, chance: float = 1.0, closes: bool = True, **limits: Any) -> None:
        """Have a pool with these limits."""
        self.clock = Clock()
        self.door = Door(self.clock, "PIPELINING", closes=closes)
        self.pool = Pool(self.clock, self.door, PoolLimits(**limits), lambda: chance)

    def take(self, fresh: bool = False) -> "Deferred[SMTPClient]":
        """Want a connection."""
        return begun(self.pool.take, fresh)

    def taken(self) -> Connection:
        """One that is made now."""
        waiting = self.take()
        made = self.door.open()
        self.assertIs(self.successResultOf(waiting), made.client)
        return made

    def pass_time(self, seconds: float) -> None:
        """Let time pass, a second at a time."""
        self.clock.pump([1.0] * int(seconds) + [seconds % 1])

    def fail_once(self) -> None:
        """Want one, and get none."""
        waiting = self.take()
        self.door.fail(UpstreamFailed(reply.UPSTREAM_DOWN, "no"))
        self.assert_failed(waiting, UpstreamFailed, DOWN)

    def assert_nothing_left(self) -> None:
        """When the pool is closed and its connections are back, nobody waits, and nothing is to be called."""
        self.pool.close()
        self.pass_time(2 * SWEEP)
        self.assertEqual([str(call) for call in self.clock.getDelayedCalls()], [])
        self.assertEqual([each.is_gone for each in self.door.made], [True] * len(self.door.made))


class LendingTests(PoolCase):
    """A connection to one transaction at a time."""

    def test_reuse(self) -> None:
        """One that was given back is lent again, and known to have been used."""
        made = self.taken()
        self.assertFalse(self.pool.is_reused(made.client))
        self.pool.give_back(made.client)
        self.assertIs(self.successResultOf(self.take()), made.client)
        self.assertTrue(self.pool.is_reused(made.client))
        self.assertEqual(self.door.asked, [])
        self.pool.give_back(made.client)
        made.say(b"")
        self.answer_quit()
        self.assert_nothing_left()

    def answer_quit(self) -> None:
        """Close the pool, and say goodbye to its connections."""
        self.pool.close()
        for each in self.door.made:
            if b"QUIT" in each.hear():
                each.say(b"221 Bye\r\n")

    def test_one_each(self) -> None:
        """Two transactions at a time have two connections; the last that was used is lent first."""
        first, second = self.taken(), self.taken()
        self.pool.give_back(second.client)
        self.pool.give_back(first.client)
        self.assertIs(self.successResultOf(self.take()), first.client)
        self.assertIs(self.successResultOf(self.take()), second.client)

    def test_reset(self) -> None:
        """An open transaction is reset when its connection comes back."""
        made = self.taken().exchange((MAIL, OK))
        self.pool.give_back(made.client)
        self.assertEqual(made.hear(), b"RSET\r\n")
        self.assertIs(self.successResultOf(self.take()), made.client)

    def test_uses(self) -> None:
        """A connection is used so many times and no more."""
        self.make(uses=2)
        made = self.taken()
        self.pool.give_back(made.client)
        self.successResultOf(self.take())
        self.pool.give_back(made.client)
        self.assertEqual(made.hear(), b"QUIT\r\n")
        made.say(b"221 Bye\r\n")
        self.assertIsNot(self.taken(), made)

    def test_idle(self) -> None:
        """One that is not used for long enough takes its leave; the others stay."""
        self.make(idle=10.0)
        first, second = self.taken(), self.taken()
        self.pool.give_back(first.client)
        self.pass_time(5.0)
        self.pool.give_back(second.client)
        self.pass_time(5.0)
        self.assertEqual((first.hear(), second.hear()), (b"QUIT\r\n", b""))
        first.say(b"221 Bye\r\n")
        self.assertTrue(first.is_gone)
        self.pass_time(5.0)
        second.say(b"221 Bye\r\n")
        self.assert_nothing_left()

    def test_gone(self) -> None:
        """One that the server closed meanwhile is not lent, nor one that comes back so."""
        first, second = self.taken(), self.taken()
        self.pool.give_back(first.client)
        first.say(BYE)
        second.wire.lose()
        self.pool.give_back(second.client)
        self.assertIsNot(self.taken(), first)
        self.assertFalse(self.pool.is_reused(first.client))

    def test_closing(self) -> None:
        """Neither is one that is about to go."""
        self.make(closes=False)
        made = self.taken()
        self.pool.give_back(made.client)
        made.say(BYE)
        self.assertFalse(made.is_gone)
        self.assertIsNot(self.taken(), made)

    def test_fresh(self) -> None:
        """Who wants a new one gets it, whatever is free."""
        made = self.taken()
        self.pool.give_back(made.client)
        waiting = self.take(fresh=True)
        self.assertNoResult(waiting)
        self.assertIs(self.successResultOf(waiting) if self.door.open() else None, self.door.made[1].client)

    def test_fresh_when_full(self) -> None:
        """If there is no room for it, a free one makes room."""
        self.make(connections=1)
        made = self.taken()
        self.pool.give_back(made.client)
        waiting = self.take(fresh=True)
        self.assertEqual(made.hear(), b"QUIT\r\n")
        self.assertEqual(self.door.asked, [])
        made.say(b"221 Bye\r\n")
        self.door.open()
        self.assertIs(self.successResultOf(waiting), self.door.made[1].client)

    def test_holds(self) -> None:
        """It is known whether a peer is one of our connections, made or about to be."""
        peer = Peer("192.0.2.1", 12345)
        self.assertFalse(self.pool.holds(peer))
        self.taken().client.local = peer
        self.assertTrue(self.pool.holds(peer))
        self.door.peer = Peer("192.0.2.1", 7)
        self.assertTrue(self.pool.holds(self.door.peer))

    def test_usual_chance(self) -> None:
        """Without other wishes there are usual limits, and real chance."""
        pool = Pool(self.clock, self.door)
        self.assertFalse(pool.is_down)
        waiting = begun(pool.take)
        self.door.fail(UpstreamFailed(reply.UPSTREAM_DOWN))
        self.assert_failed(waiting, UpstreamFailed)
        self.assertTrue(pool.is_down)
        self.pass_time(BACK_OFF)
        self.assertFalse(pool.is_down)


class BoundTests(PoolCase):
    """Never too many."""

    def test_waiting(self) -> None:
        """Who comes when all are lent waits for one to come back, in turn."""
        self.make(connections=2)
        first, second = self.taken(), self.taken()
        waiting = [self.take() for _ in range(3)]
        self.assertEqual(self.door.asked, [])
        self.pool.give_back(second.client)
        self.assertIs(self.successResultOf(waiting[0]), second.client)
        self.assertNoResult(waiting[1])
        self.pool.give_back(first.client)
        self.assertIs(self.successResultOf(waiting[1]), first.client)
        self.pool.give_back(first.client)
        self.assertIs(self.successResultOf(waiting[2]), first.client)

    def test_those_being_made_count(self) -> None:
        """Connections that are being made take room as well."""
        self.make(connections=1)
        first, second = self.take(), self.take()
        self.assertEqual(len(self.door.asked), 1)
        made = self.door.open()
        self.successResultOf(first)
        self.pool.give_back(made.client)
        self.assertIs(self.successResultOf(second), made.client)

    def test_lost(self) -> None:
        """When one is lost, there is room for another."""
        self.make(connections=1)
        made = self.taken()
        waiting = self.take()
        made.wire.lose()
        self.door.open()
        self.successResultOf(waiting)

    def test_patience(self) -> None:
        """Nobody waits for ever; then the server is busy, which is no fault of its own."""
        self.make(connections=1, wait=10.0)
        self.taken()
        first = self.take()
        self.pass_time(5.0)
        second = self.take()
        self.pass_time(4.5)
        self.assertNoResult(first)
        self.pass_time(1.0)
        self.assert_failed(first, UpstreamFailed, BUSY)
        self.assertNoResult(second)
        self.pass_time(5.0)
        self.assert_failed(second, UpstreamFailed, BUSY)
        self.assertFalse(self.pool.is_down)

    def test_crowded(self) -> None:
        """When the last one of a server that takes no more is lost, all who wait for it are told, not one."""
        made = self.taken()
        waiting = [self.take()]
        self.door.fail(Crowded(reply.UPSTREAM_DOWN, "421 too many"))
        waiting += [self.take() for _ in range(3)]
        self.assertEqual(self.door.asked, [])
        made.wire.lose()
        for each in waiting:
            self.assert_failed(each, UpstreamFailed, DOWN)
        self.assert_nothing_left()

    def test_crowded_for_a_while(self) -> None:
        """Who is refused so waits for what others have, or for a connection when it is time to try again."""
        made = self.taken()
        first, second = self.take(), self.take()
        for _ in range(2):
            self.door.fail(Crowded(reply.UPSTREAM_DOWN, "421 too many"))
        self.pool.give_back(made.client)
        self.assertIs(self.successResultOf(first), made.client)
        self.assertNoResult(second)
        self.assertEqual(self.door.asked, [])
        self.pass_time(BACK_OFF)
        self.assertIs(self.successResultOf(second) if self.door.open() else None, self.door.made[1].client)

    def test_crowded_no_more(self) -> None:
        """When it takes one again, the next asks at once, and so on as far as the limit."""
        self.make(connections=4)
        self.taken()
        waiting = [self.take() for _ in range(3)]
        for _ in range(3):
            self.door.fail(Crowded(reply.UPSTREAM_DOWN, "421 too many"))
        waiting.append(self.take())
        self.pass_time(BACK_OFF)
        for each in waiting[:3]:
            self.assertEqual(len(self.door.asked), 1)
            self.door.open()
            self.successResultOf(each)
        self.assertEqual(self.door.asked, [])
        self.assertNoResult(waiting[3])

    def test_fresh_when_crowded(self) -> None:
        """Where who waits wants a new one, a free one is for the next."""
        first, second, _ = self.taken(), self.taken(), self.taken()
        fresh = [self.take(fresh=True) for _ in range(2)]
        for _ in range(4):
            self.pass_time(BACK_OFF)
            while self.door.asked:
                self.door.fail(Crowded(reply.UPSTREAM_DOWN, "421 too many"))
        waiting = [self.take() for _ in range(2)]
        self.pool.give_back(first.client)
        self.pool.give_back(second.client)
        self.pass_time(2 * SWEEP)
        self.assertEqual({self.successResultOf(each) for each in waiting}, {first.client, second.client})
        for each in fresh:
            self.assertNoResult(each)

    def test_lost_one_of_several(self) -> None:
        """For one that is lost the next makes another; those behind stay as they are."""
        self.make(connections=2)
        made, other = self.taken(), self.taken()
        waiting = [self.take() for _ in range(3)]
        before = list(self.pool._waiting)
        made.wire.lose()
        self.assertEqual(len(self.door.asked), 1)
        self.assertEqual(list(self.pool._waiting), before[1:])
        self.pool.give_back(other.client)
        self.assertIs(self.successResultOf(waiting[1]), other.client)
        self.door.open()
        self.successResultOf(waiting[0])

    def test_lost_one_of_a_crowd(self) -> None:
        """While the server takes no more, one that is lost changes nothing, and nobody loses his turn."""
        made, other = self.taken(), self.taken()
        first, second = self.take(), self.take()
        for _ in range(2):
            self.door.fail(Crowded(reply.UPSTREAM_DOWN, "421 too many"))
        made.wire.lose()
        self.pool.give_back(other.client)
        self.assertIs(self.successResultOf(first), other.client)
        self.assertNoResult(second)

    def test_given_up(self) -> None:
        """Who waits no more is passed over."""
        self.make(connections=1)
        made = self.taken()
        first, second = self.take(), self.take()
        first.cancel()
        self.assert_failed(first, CancelledError)
        self.pool.give_back(made.client)
        self.assertIs(self.successResultOf(second), made.client)
        self.pool.give_back(made.client)

    def test_given_up_and_swept(self) -> None:
        """When their time has come, those who gave up are forgotten."""
        self.make(connections=1, wait=10.0)
        self.taken()
        self.take().addErrback(lambda failure: failure.trap(CancelledError) and None).cancel()
        self.pass_time(11.0)
        self.assertEqual(len(self.pool._waiting), 0)

    def test_all_told_of_a_failure(self) -> None:
        """When the server fails, all who wait for it are told at once, however many."""
        self.make(connections=1)
        waiting = [self.take() for _ in range(2000)]
        self.door.fail(UpstreamFailed(reply.UPSTREAM_DOWN, "no"))
        for each in waiting:
            self.assert_failed(each, UpstreamFailed, DOWN)
        self.assert_nothing_left()

    def test_next_in_turn(self) -> None:
        """When somebody gives up a connection that is being made, the next makes his own."""
        self.make(connections=1)
        first, second = self.take(), self.take()
        self.door.fail(GivenUp())
        self.assert_failed(first, GivenUp)
        made = self.door.open()
        self.assertIs(self.successResultOf(second), made.client)


class BackOffTests(PoolCase):
    """A server that fails is left alone for a while."""

    def test_left_alone(self) -> None:
        """Nobody asks it again before its time, and who wants to is told at once."""
        self.fail_once()
        self.assertTrue(self.pool.is_down)
        self.assert_failed(self.take(), UpstreamFailed, DOWN)
        self.assertEqual(self.door.asked, [])
        self.pass_time(BACK_OFF)
        self.assertFalse(self.pool.is_down)
        self.taken()

    def test_doubled(self) -> None:
        """Each failure doubles the time, up to a limit."""
        for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
            self.fail_once()
            self.pass_time(pause - 0.5)
            self.assertTrue(self.pool.is_down)
            self.pass_time(0.5)
            self.assertFalse(self.pool.is_down)

    def test_for_days(self) -> None:
        """However often it fails, it is asked again."""
        for _ in range(1100):
            self.fail_once()
            self.clock.advance(MAX_BACK_OFF)
        self.taken()

    def test_jitter(self) -> None:
        """Chance takes up to half of it away, so that not all come back at once."""
        self.make(chance=0.0)
        self.fail_once()
        self.pass_time(BACK_OFF / 2)
        self.assertFalse(self.pool.is_down)

    def test_forgiven(self) -> None:
        """When it answers again, all is forgiven; both are logged, and nothing of a peer's unescaped."""
        events = captured_log(self)
        waiting = self.take()
        self.door.fail(UpstreamFailed(reply.UPSTREAM_DOWN, "550 \x1b[0m"))
        self.assert_failed(waiting, UpstreamFailed)
        self.pass_time(1.0)
        self.fail_once()
        self.pass_time(2.0)
        self.taken()
        self.fail_once()
        self.pass_time(1.0)
        self.assertFalse(self.pool.is_down)
        self.assertEqual([event["log_level"].name for event in events], ["warn", "warn", "info", "warn"])
        self.assertEqual(events[0]["why"], "550 \\x1b[0m")

    def test_no_failure_of_its_own(self) -> None:
        """Who gives up, or stumbles, does not make it a failing server."""
        for error in (GivenUp(), ZeroDivisionError()):
            waiting = self.take()
            self.door.fail(error)
            self.assert_failed(waiting, type(error))
            self.assertFalse(self.pool.is_down)

    def test_one_answers(self) -> None:
        """A server that answers one is not down, whatever another just met."""
        first, second = self.take(), self.take()
        self.door.fail(UpstreamFailed(reply.UPSTREAM_DOWN))
        self.assert_failed(first, UpstreamFailed)
        self.door.open()
        self.successResultOf(second)
        self.assertFalse(self.pool.is_down)

    def test_those_that_are_there(self) -> None:
        """While it is left alone, what is connected is still lent."""
        made = self.taken()
        self.fail_once()
        self.pool.give_back(made.client)
        self.assertIs(self.successResultOf(self.take()), made.client)


class EndTests(PoolCase):
    """Timers, and the end of it all."""

    def test_sweeps_while_there_is_need(self) -> None:
        """What lasts too long is looked for while there are connections, and being made; then no more."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        waiting = self.take()
        self.pass_time(2 * SWEEP)
        self.assertEqual(self.door.swept, [1.0, 2.0])
        made = self.door.open()
        client = self.successResultOf(waiting)
        client.ask(MAIL)
        self.pass_time(300 + SWEEP)
        self.assertTrue(made.wire.aborted)
        self.pass_time(2 * SWEEP)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.taken().client._questions), 0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_close(self) -> None:
        """Free connections go at once, lent ones when they come back, and nobody gets one any more."""
        lent, free = self.taken(), self.taken()
        self.pool.give_back(free.client)
        self.pool.close()
        self.assertEqual((lent.hear(), free.hear()), (b"", b"QUIT\r\n"))
        free.say(b"221 Bye\r\n")
        self.assert_failed(self.take(), UpstreamFailed, DOWN)
        self.pool.give_back(lent.client)
        lent.say(b"221 Bye\r\n")
        self.assert_nothing_left()

    def test_close_while_some_wait(self) -> None:
        """Those who wait are told."""
        self.make(connections=1)
        made = self.taken()
        waiting = [self.take() for _ in range(3)]
        self.pool.close()
        for each in waiting:
            self.assert_failed(each, UpstreamFailed, DOWN)
        self.pool.give_back(made.client)
        made.say(b"221 Bye\r\n")
        self.assert_nothing_left()

    def test_close_while_one_is_made(self) -> None:
        """One that is being made then is still lent, and goes when it comes back."""
        waiting = self.take()
        self.pool.close()
        made = self.door.open()
        self.pool.give_back(self.successResultOf(waiting))
        self.assertEqual(made.hear(), b"QUIT\r\n")
        made.say(b"221 Bye\r\n")
        self.assert_nothing_left()

    def test_lost_at_once(self) -> None:
        """One that is lost in the moment when it is made is forgotten."""
        waiting = self.take()
        made = Connection(self.clock).ready()
        made.wire.lose()
        self.door.asked.pop().callback(made.client)
        self.pool.give_back(self.successResultOf(waiting))
        self.assert_nothing_left()

    def test_unresponsive(self) -> None:
        """A server that neither answers QUIT nor closes is cut off, and takes no room for ever."""
        self.make(closes=False, connections=1, idle=10.0)
        made = self.taken()
        self.pool.give_back(made.client)
        self.pass_time(11.0)
        self.assertEqual(made.hear(), b"QUIT\r\n")
        self.pass_time(301.0)
        self.assertTrue(made.wire.aborted)
        self.taken().wire.lose()
        self.assert_nothing_left()
