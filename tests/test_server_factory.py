"""All sessions of a server: how many there may be, how they are seen out, what is left of them: nothing."""

import gc
import os
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.message import Peer
from smtpserv.reply import Reply
from smtpserv.server.factory import SHARE, peer_of
from smtpserv.server.limits import LINGER, Limits
from smtpserv.server.protocol import SMTPServerProtocol
from smtpserv.testing import HandThread, RecordingProcessor
from tests.server_tools import (
    CONTENT,
    DONE,
    ENVELOPE,
    GRANTED,
    HELLO,
    PREAMBLE,
    TRANSACTION,
    Client,
    Later,
    Policy,
    Processor,
    Server,
    Sink,
    codes,
    light_collection,
)


def server(processor: object | None = None, **choices: Any) -> Server:
    """A server without a network."""
    return Server(processor or RecordingProcessor(), **choices)


class ConnectionLimitTests(SynchronousTestCase):
    """No more connections than there is room for."""

    def test_in_all(self) -> None:
        """One too many is told 421 4.7.0 and closed; when another goes, there is room again."""
        house = server(limits=Limits(max_connections=2))
        first, second = house.connect("192.0.2.1"), house.connect("192.0.2.2")
        third = house.connect("192.0.2.3")
        self.assertEqual((codes(third.hear()), third.is_gone), (["421 4.7.0"], True))
        self.assertEqual(codes(first.hear() + second.hear()), ["220", "220"])
        first.disconnect()
        self.assertEqual(codes(house.connect("192.0.2.3").hear()), ["220"])

    def test_from_one_address(self) -> None:
        """An address has its share, and others are not concerned."""
        house = server(limits=Limits(max_connections_per_address=2))
        first = house.connect("192.0.2.1")
        house.connect("192.0.2.1")
        self.assertEqual(codes(house.connect("192.0.2.1").hear()), ["421 4.7.0"])
        self.assertEqual(codes(house.connect("192.0.2.2").hear()), ["220"])
        first.say(b"QUIT\r\n")
        self.assertEqual(codes(house.connect("192.0.2.1").hear()), ["220"])

    def test_default_spares_this_machine(self) -> None:
        """By default loopback and Unix sockets have no share of their own, and others have a hundred."""
        house = server()
        for host, over in (("127.0.0.1", "220"), ("::1", "220"), ("", "220"), ("192.0.2.1", "421 4.7.0")):
            clients = [house.connect(host) for _ in range(101)]
            self.assertEqual([codes(client.hear()) for client in clients], [["220"]] * 100 + [[over]], host)

    def test_given_holds_for_this_machine(self) -> None:
        """When the option is given, it holds for loopback as well."""
        house = server(limits=Limits(max_connections_per_address=1))
        for host in ("127.0.0.1", "::1", ""):
            self.assertEqual([codes(house.connect(host).hear()) for _ in range(2)], [["220"], ["421 4.7.0"]])

    def test_refused_do_not_count(self) -> None:
        """Refused connections take nobody's place."""
        house = server(limits=Limits(max_connections_per_address=1))
        first = house.connect()
        for _ in range(10):
            house.connect()
        first.disconnect()
        self.assertEqual(codes(house.connect().hear()), ["220"])

    def test_message_in_the_works_counts(self) -> None:
        """A session whose client left while its message is processed is still one."""
        later = Later()
        house = server(Processor(later), limits=Limits(max_connections=1))
        client = house.connect()
        client.say(PREAMBLE + CONTENT + b".\r\n")
        client.disconnect()
        self.assertEqual(codes(house.connect().hear()), ["421 4.7.0"])
        later.fire()
        self.assertEqual(codes(house.connect().hear()), ["220"])

    def test_refused_client_that_stays(self) -> None:
        """A refused client that does not close its side is cut off like any other."""
        house = server(limits=Limits(max_connections=0))
        client = house.connect(closes=False)
        house.advance(LINGER + 2)
        self.assertTrue(client.is_gone)


class SweepTests(SynchronousTestCase):
    """The deadlines are looked at every second, and only while there is somebody."""

    def test_deadlines_are_kept(self) -> None:
        """The factory alone sees to it that an idle client is told to go."""
        house = server(limits=Limits(idle_timeout=300.0))
        client = house.connect()
        client.hear()
        house.advance(299.0)
        self.assertEqual(client.hear(), b"")
        house.advance(2.0)
        self.assertEqual((codes(client.hear()), client.is_gone), (["421 4.4.2"], True))

    def test_stops_with_the_last(self) -> None:
        """With the last session the sweep ends; with the next one it begins again."""
        house = server(limits=Limits(idle_timeout=300.0))
        self.assertEqual(house.leftovers(), [])
        for _ in range(3):
            clients = [house.connect(), house.connect()]
            self.assertEqual(len(house.leftovers()), 1)
            for client in clients:
                client.disconnect()
            self.assertEqual(house.leftovers(), [])

    def test_many(self) -> None:
        """However many there are, each is looked at about once a second, few of them in one turn."""
        house = server(limits=Limits(max_connections_per_address=3000))
        for _ in range(3000):
            house.connect()
        looks: list[SMTPServerProtocol] = []
        self.patch(SMTPServerProtocol, "sweep", lambda session, now: looks.append(session))
        house.advance(1.0)
        turns = []
        for _ in range(1100):
            looks.clear()
            house.advance(0.001)
            turns.append(list(looks))
        self.assertLessEqual(max(map(len, turns)), 2 * SHARE)
        times = Counter(session for turn in turns for session in turn)
        self.assertEqual((len(times), min(times.values()), max(times.values()) <= 2), (3000, 1, True))

    def test_ends_itself(self) -> None:
        """The sweep that ends the last session stops itself."""
        house = server(limits=Limits(idle_timeout=10.0))
        house.connect()
        house.advance(12.0)
        self.assertEqual(house.leftovers(), [])

    def test_stranger_does_not_stop_it(self) -> None:
        """A processor's canceller that raises does not stop the deadlines of everybody else."""

        def broken(_: object) -> None:
            raise ValueError("in the canceller")

        house = server(
            Processor(lambda message: Deferred(broken)),
            limits=Limits(processing_deadline=10.0, idle_timeout=20.0),
        )
        house.connect().say(PREAMBLE + CONTENT + b".\r\n")
        idle = house.connect()
        idle.hear()
        house.advance(30.0)
        self.flushLoggedErrors(ValueError)
        self.assertEqual(codes(idle.hear()), ["421 4.4.2"])


class LingerTests(SynchronousTestCase):
    """A client that was told goodbye and does not close."""

    def test_cut_off(self) -> None:
        """It has ten seconds; then the connection is aborted."""
        for farewell in (b"QUIT\r\n", b""):
            house = server(limits=Limits(idle_timeout=300.0))
            client = house.connect(closes=False)
            client.say(farewell)
            if not farewell:
                house.advance(300.0)
            self.assertTrue(client.transport.disconnecting)
            house.advance(LINGER - 1)
            self.assertFalse(client.transport.aborted)
            house.advance(2.0)
            self.assertTrue(client.transport.aborted)
            self.assertEqual(house.leftovers(), [])

    def test_not_heard_any_more(self) -> None:
        """What it says after the goodbye is not read."""
        house = server()
        client = house.connect(closes=False)
        client.say(b"QUIT\r\n")
        self.assertEqual(client.say(HELLO + TRANSACTION), b"")
        house.advance(LINGER - 1)
        self.assertEqual(client.hear(), b"")


class FailingSessionTests(SynchronousTestCase):
    """One session that fails does not take the others with it."""

    def test_sweep_goes_on(self) -> None:
        """A session whose transport fails in the sweep is cut; the others have their deadlines."""
        house = server()
        broken, other = house.connect(), house.connect()

        def fail(data: bytes) -> None:
            raise ValueError("broken transport")

        self.patch(broken.transport, "write", fail)
        house.advance(301)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual((broken.is_gone, other.is_gone), (True, True))
        self.assertEqual(codes(other.hear())[-1], "421 4.4.2")
        self.assertEqual(house.leftovers(), [])
        self.successResultOf(house.factory.sessions.drain(30))

    def test_ipv6_networks(self) -> None:
        """Addresses of one /64 are one customer's: they count as one."""
        house = server(limits=Limits(max_connections_per_address=2))
        heard = [codes(house.connect(f"2001:db8::{n}").hear())[0] for n in (1, 2, 3)]
        self.assertEqual(heard, ["220", "220", "421 4.7.0"])
        self.assertEqual(codes(house.connect("2001:db8:0:1::1").hear()), ["220"])


class DrainTests(SynchronousTestCase):
    """How a server stops."""

    def test_nobody_there(self) -> None:
        """With no session it is done at once."""
        house = server()
        self.successResultOf(house.factory.sessions.drain(30.0))
        self.assertEqual(house.leftovers(), [])

    def test_idle_sessions(self) -> None:
        """Sessions between messages are told 421 4.3.2 at once, and it is done."""
        house = server()
        clients = [house.connect() for _ in range(4)]
        clients[1].say(HELLO)
        clients[2].say(HELLO + TRANSACTION)
        clients[3].say(HELLO + ENVELOPE + b"RSET\r\n")
        for client in clients:
            client.hear()
        done = house.factory.sessions.drain(30.0)
        self.assertEqual([codes(client.hear()) for client in clients], [["421 4.3.2"]] * 4)
        self.successResultOf(done)
        self.assertEqual(house.leftovers(), [])

    def test_refused_session(self) -> None:
        """So is one that was greeted with 554 and has not gone."""
        house = server(policies=[Policy(connect=lambda session: Reply(554, "no"))])
        client = house.connect()
        client.hear()
        self.successResultOf(house.factory.sessions.drain(30.0))
        self.assertEqual(codes(client.hear()), ["421 4.3.2"])

    def test_transaction_under_way(self) -> None:
        """One in the middle of a transaction finishes it, and then hears 421 4.3.2."""
        whole = ENVELOPE + b"DATA\r\n" + CONTENT + b".\r\n"
        for cut in (
            ENVELOPE.index(b"RCPT"),
            len(ENVELOPE),
            len(ENVELOPE) + 6,
            len(whole) - 5,
            len(whole) - 1,
        ):
            house = server()
            client = house.connect()
            heard = client.say(HELLO + whole[:cut])
            done = house.factory.sessions.drain(30.0)
            self.assertNoResult(done)
            heard += client.say(whole[cut:])
            self.assertEqual(codes(heard)[2:], [*DONE, "421 4.3.2"], cut)
            self.successResultOf(done)
            self.assertEqual(house.leftovers(), [])

    def test_message_in_the_works(self) -> None:
        """A message that is being processed is answered first."""
        later = Later()
        house = server(Processor(later))
        client = house.connect()
        client.say(PREAMBLE + CONTENT + b".\r\n")
        done = house.factory.sessions.drain(30.0)
        self.assertEqual(client.hear(), b"")
        later.fire()
        self.assertEqual(codes(client.hear()), ["250 2.6.0", "421 4.3.2"])
        self.successResultOf(done)

    def test_client_that_left(self) -> None:
        """A message whose client has left is waited for as well."""
        later = Later()
        house = server(Processor(later))
        client = house.connect()
        client.say(PREAMBLE + CONTENT + b".\r\n")
        client.disconnect()
        done = house.factory.sessions.drain(30.0)
        self.assertNoResult(done)
        later.fire()
        self.successResultOf(done)

    def test_deadline(self) -> None:
        """At the deadline, and not before, whoever is left is told 421 4.3.2 and cut off."""
        sink = Sink()
        house = server(sink, limits=Limits(min_data_rate=0.0))
        client = house.connect()
        client.say(PREAMBLE + CONTENT)
        done = house.factory.sessions.drain(30.0)
        house.advance(29.0)
        self.assertEqual(client.hear(), b"")
        self.assertNoResult(done)
        house.advance(1.0)
        self.assertEqual((codes(client.hear()), sink.calls[-1]), (["421 4.3.2"], "abort"))
        self.successResultOf(done)
        self.assertEqual(house.leftovers(), [])

    def test_deadline_of_a_processor_that_hangs(self) -> None:
        """A processor that hangs does not keep the server from stopping: it is cancelled."""
        later = Later()
        house = server(Processor(later))
        client = house.connect()
        client.say(PREAMBLE + CONTENT + b".\r\n")
        done = house.factory.sessions.drain(30.0)
        house.advance(30.0)
        self.assertEqual((codes(client.hear()), later.cancelled), (["421 4.3.2"], 1))
        self.successResultOf(done)

    def test_deadline_when_the_client_left(self) -> None:
        """Nor when its client has left in the meantime."""
        later = Later()
        house = server(Processor(later))
        client = house.connect()
        client.say(PREAMBLE + CONTENT + b".\r\n")
        client.disconnect()
        done = house.factory.sessions.drain(30.0)
        house.advance(30.0)
        self.assertEqual(later.cancelled, 1)
        self.successResultOf(done)
        self.assertEqual(house.leftovers(), [])

    def test_deadline_while_finishing(self) -> None:
        """A sink that is finishing is cancelled and not aborted as well: either of the two ends it."""
        later = Later()
        sink = Sink(finish=later)
        house = server(sink)
        house.connect().say(PREAMBLE + CONTENT + b".\r\n")
        house.factory.sessions.drain(30.0)
        house.advance(30.0)
        self.assertEqual((later.cancelled, sink.calls[-1]), (1, "finish"))

    def test_pipelining_client(self) -> None:
        """A client that sends its next transaction with the end of the last is told 421 as well."""
        processor = RecordingProcessor()
        house = server(processor)
        client = house.connect()
        client.say(PREAMBLE + CONTENT)
        house.factory.sessions.drain(30.0)
        self.assertEqual(codes(client.say(b".\r\n" + TRANSACTION + b"QUIT\r\n")), ["250 2.6.0", "421 4.3.2"])
        self.assertEqual(len(processor.messages), 1)

    def test_client_that_stays(self) -> None:
        """A client that does not close its side is cut off after ten seconds, and only then it is done."""
        house = server()
        client = house.connect(closes=False)
        done = house.factory.sessions.drain(30.0)
        self.assertNoResult(done)
        house.advance(LINGER + 1)
        self.assertTrue(client.transport.aborted)
        self.successResultOf(done)
        self.assertEqual(house.leftovers(), [])

    def test_new_connections(self) -> None:
        """Whoever connects while the server stops is refused."""
        house = server()
        house.connect().say(PREAMBLE)
        house.factory.sessions.drain(30.0)
        late = house.connect()
        self.assertEqual((codes(late.hear()), late.is_gone), (["421 4.3.2"], True))

    def test_policy_at_work(self) -> None:
        """A session whose greeting is not decided yet is told 421 when it is."""
        later = Later()
        house = server(policies=[Policy(connect=later)])
        client = house.connect()
        done = house.factory.sessions.drain(30.0)
        self.assertNoResult(done)
        later.fire()
        self.assertEqual(codes(client.hear())[-1], "421 4.3.2")
        self.successResultOf(done)


@dataclass
class Scene:
    """One client of one server in some state, and what is to be released."""

    house: Server
    client: Client
    later: Later
    thread: HandThread


def _scene(stage: str = "", octets: bytes = b"", processor: object | None = None, **limits: Any) -> Scene:
    later, thread = Later(), HandThread()
    policies = [Policy(**{stage: later})] if stage in ("connect", "hello", "sender", "recipient") else []
    processors: dict[str, Callable[[], object]] = {
        "begin": lambda: Sink(begin=later),
        "write": lambda: Sink(write=later),
        "finish": lambda: Sink(finish=later),
        "process": lambda: Processor(later),
    }
    house = Server(
        processors.get(stage, RecordingProcessor)(),
        policies,
        limits=Limits(memory_limit=100, idle_timeout=50.0, processing_deadline=50.0),
        in_thread=thread,
    )
    client = house.connect()
    client.say(octets)
    return Scene(house, client, later, thread)


BIG = CONTENT + b"x" * 200 + b"\r\n"

#: Every state in which a session may be when something ends it.
STATES: dict[str, tuple[str, bytes]] = {
    "waiting for the connect policy": ("connect", b""),
    "greeted": ("", b""),
    "half a command": ("", b"EHL"),
    "waiting for the hello policy": ("hello", HELLO),
    "ready": ("", HELLO),
    "waiting for the sender policy": ("sender", HELLO + ENVELOPE),
    "in a transaction": ("", HELLO + ENVELOPE),
    "waiting for the recipient policy": ("recipient", HELLO + ENVELOPE),
    "waiting for the sink": ("begin", PREAMBLE),
    "told to send": ("", PREAMBLE),
    "content in memory": ("", PREAMBLE + CONTENT),
    "content on its way to a file": ("", PREAMBLE + BIG),
    "waiting for the sink's write": ("write", PREAMBLE + CONTENT),
    "content refused": ("", PREAMBLE + b"a\nb\r\n"),
    "waiting for the sink's finish": ("finish", PREAMBLE + CONTENT + b".\r\n"),
    "last block on its way to a file": ("", PREAMBLE + BIG + b".\r\n"),
    "waiting for the processor": ("process", PREAMBLE + CONTENT + b".\r\n"),
    "a second message pipelined": ("process", HELLO + TRANSACTION * 2),
    "after a message": ("process", HELLO + TRANSACTION),
}


def _vanish(scene: Scene) -> None:
    scene.client.disconnect()


def _hang(scene: Scene) -> None:
    scene.house.advance(200.0)


def _drain(scene: Scene) -> None:
    scene.house.factory.sessions.drain(30.0)
    scene.house.advance(100.0)


def _quit(scene: Scene) -> None:
    scene.client.say(b"\r\n.\r\nQUIT\r\n")
    scene.house.advance(200.0)


def _vanish_then_drain(scene: Scene) -> None:
    scene.client.disconnect()
    scene.house.factory.sessions.drain(30.0)
    scene.house.advance(100.0)


#: Every way in which a session may end.
DEATHS: dict[str, Callable[[Scene], None]] = {
    "the client vanishes": _vanish,
    "everybody hangs": _hang,
    "the server stops": _drain,
    "the client says QUIT": _quit,
    "the client vanishes and the server stops": _vanish_then_drain,
}


class NothingLeftTests(SynchronousTestCase):
    """Whatever dies first in whatever state: no timer, no session, no file is left."""

    def setUp(self) -> None:
        light_collection(self)

    def check(self, state: str, death: Callable[[Scene], None]) -> None:
        """Bring a session into a state, end it, let colleagues finish, and look for what is left."""
        stage, octets = STATES[state]
        files = len(os.listdir("/proc/self/fd"))
        scene = _scene(stage, octets)
        protocol = weakref.ref(scene.client.protocol)
        death(scene)
        while scene.thread.waiting:
            scene.thread.step()
        for given in scene.later.given:
            if not given.called:
                given.callback(None)
        while scene.thread.waiting:
            scene.thread.step()
        scene.house.clock.advance(0)
        self.assertEqual(scene.house.leftovers(), [], state)
        self.assertEqual(list(scene.house.factory.sessions._sessions), [], state)
        self.assertEqual(scene.house.factory.sessions._places, {}, state)
        del scene
        gc.collect()
        self.assertIsNone(protocol(), state)
        self.assertEqual(len(os.listdir("/proc/self/fd")), files, state)

    def test_states_are_what_they_say(self) -> None:
        """The table's states are reached: the replies that were heard tell."""
        heard = {state: _scene(*facts).client for state, facts in STATES.items()}
        self.assertEqual(heard["waiting for the connect policy"].hear(), b"")
        scene = _scene(*STATES["content on its way to a file"])
        self.assertEqual(len(scene.thread.waiting), 1)
        for state, (stage, octets) in STATES.items():
            if stage:
                self.assertEqual(len(_scene(stage, octets).later.given), 1, state)
        self.assertEqual(
            codes(Client(_scene().house.factory, IPv4Address("TCP", "192.0.2.9", 1)).say(PREAMBLE)), GRANTED
        )


def _case(state: str, death: Callable[[Scene], None]) -> Callable[[NothingLeftTests], None]:
    def test(self: NothingLeftTests) -> None:
        self.check(state, death)

    return test


for _state in STATES:
    for _name, _death in DEATHS.items():
        _test = _case(_state, _death)
        _test.__doc__ = f"{_state}, and {_name}: nothing is left."
        setattr(NothingLeftTests, f"test_{_state} and {_name}".replace(" ", "_").replace("'", ""), _test)


class PeerTests(SynchronousTestCase):
    """Who a peer is, by its address."""

    def test_kinds(self) -> None:
        """IPv4, IPv6, Unix sockets with a name or without, and no address at all."""
        self.assertEqual(peer_of(IPv4Address("TCP", "192.0.2.1", 25)), Peer("192.0.2.1", 25))
        self.assertEqual(peer_of(IPv6Address("TCP", "2001:db8::1", 25)), Peer("2001:db8::1", 25))
        self.assertEqual(peer_of(UNIXAddress(b"/run/mail.sock")), Peer("/run/mail.sock"))
        self.assertEqual(peer_of(UNIXAddress(b"/run/\xff")), Peer("/run/\N{REPLACEMENT CHARACTER}"))
        self.assertEqual((peer_of(UNIXAddress(None)), peer_of(None)), (Peer(""), Peer("")))
