"""Making a connection to a mail server, up to where MAIL may be said."""

from base64 import b64encode
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols import tls

from smtpserv.dialogue import state
from smtpserv.dialogue.login import Credentials
from smtpserv.message import Peer
from smtpserv.relay.client import SMTPClient
from smtpserv.relay.failure import GivenUp, UpstreamFailed
from smtpserv.relay.patience import Patience
from smtpserv.relay.upstream import Doorway, Upstream
from smtpserv.testing import ScriptedUpstream
from smtpserv.tls.upstream import TLSMode, UpstreamTLS
from tests.certificates import CertificatesCase, make_pair
from tests.memory_network import Network
from tests.relay_tools import RelayCase, begun
from tests.server_tools import captured_log

HOST, PORT = "192.0.2.25", 25
HELLO = "250-mx.example\r\n250 "
DOWN, LOST, SLOW, CONFUSED = "451 4.4.1", "451 4.4.2", "451 4.4.2", "451 4.5.0"
INSECURE, LOGIN = "451 4.7.5", "451 4.7.0"
TIM = Credentials("tim", "hush")


class Played(Protocol):
    """A server that says what it was told to, a line for each that it hears."""

    transport: Any

    def __init__(self, script: list[str]) -> None:
        self._script = iter(script)
        self.heard: list[str] = []

    def connectionMade(self) -> None:
        self.answer()

    def dataReceived(self, data: bytes) -> None:
        for line in data.decode("latin-1").splitlines():
            self.heard.append(line)
            self.answer()

    def answer(self) -> None:
        """The next line of the script; an empty one is not said."""
        self.transport.write(next(self._script, "").encode())


class Threads(Network):
    """A network whose threads are done at once."""

    def getThreadPool(self) -> "Threads":
        return self

    def callInThreadWithCallback(self, done: Any, call: Any, *facts: Any) -> None:
        try:
            done(True, call(*facts))
        except Exception as error:
            done(False, error)

    def callFromThread(self, call: Any, *facts: Any) -> None:
        call(*facts)


class DoorwayCase(RelayCase):
    """A doorway to a server in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.network = Threads()
        self.patience = Patience(connect=10.0, greeting=20.0, command=20.0, block=20.0)

    def door(self, mode: TLSMode = TLSMode.NONE, **choices: Any) -> Doorway:
        """A doorway to it."""
        security = UpstreamTLS(mode)
        facts: dict[str, Any] = {"host": HOST, "port": PORT, "tls": security, "patience": self.patience}
        upstream = Upstream(**facts | choices)
        return Doorway(self.network, upstream, "client.example")

    def play(self, *script: str) -> None:
        """Have a server that says this."""
        self.server = Played(list(script))
        factory = Factory()
        factory.buildProtocol = lambda addr: self.server  # type: ignore[method-assign]
        self.network.listen(HOST, PORT, factory)

    def wait(self, door: Doorway, seconds: int) -> None:
        """Let time pass, with a look at what lasts too long."""
        for _ in range(seconds):
            self.network.wait(1)
            door.sweep(self.network.seconds())
        self.network.settle()

    def connect(self, door: Doorway) -> "Deferred[SMTPClient]":
        """Want a connection."""
        waiting = begun(door.connect)
        self.network.settle()
        return waiting

    def connected(self, door: Doorway) -> SMTPClient:
        """A connection that is ready."""
        client: SMTPClient = self.successResultOf(self.connect(door))
        self.assertIs(client.dialogue.state, state.READY)
        return client

    def assert_none(self, door: Doorway, code: str, waiting: "Deferred[Any] | None" = None) -> str:
        """There is no connection, for this reason, and nothing is left; what the log is told."""
        waiting = waiting or self.connect(door)
        self.network.wait(1)
        error = self.assert_failed(waiting, UpstreamFailed, code)
        self.assertEqual((self.network.ends, door._opening), ([], {}))
        why: str = error.why
        return why


class PlainTests(DoorwayCase):
    """Without TLS, or proof of who we are."""

    def test_ready(self) -> None:
        """It is greeted and has said hello; what the server offers is kept."""
        self.play("220 mx.example\r\n", HELLO + "DSN\r\n")
        door = self.door()
        self.assertIsNone(door.offers)
        self.assertTrue(self.connected(door).is_usable)
        self.assertEqual((self.server.heard, door.offers), (["EHLO client.example"], {"DSN": ""}))

    def test_lmtp(self) -> None:
        """LMTP has its own hello."""
        self.play("220 mx.example\r\n", HELLO + "DSN\r\n")
        self.connected(self.door(lmtp=True))
        self.assertEqual(self.server.heard, ["LHLO client.example"])

    def test_helo(self) -> None:
        """A server that knows no EHLO will do."""
        self.play("220 mx.example\r\n", "500 What?\r\n", "250 mx.example\r\n")
        door = self.door()
        self.connected(door)
        self.assertEqual(door.offers, {})

    def test_name(self) -> None:
        """A server may be known by its name, at any of its addresses."""
        self.network.names["mx.example"] = ["192.0.2.99", HOST]
        self.play("220 mx.example\r\n", HELLO + "DSN\r\n")
        waiting = begun(self.door(host="mx.example").connect)
        self.network.wait(3)
        self.successResultOf(waiting)
        waiting = begun(self.door(host="nowhere.example").connect)
        self.network.settle()
        self.assert_failed(waiting, UpstreamFailed, DOWN)

    def test_refused(self) -> None:
        """A server that is not there, or has no time for us, is down; the log hears why."""
        self.assertIn(f"{HOST}:{PORT}", self.assert_none(self.door(), DOWN))
        for script in (
            ("554 5.7.1 Not you\r\n",),
            ("421 4.3.2 Busy\r\n",),
            ("220 mx.example\r\n", "450 Not you\r\n"),
            ("220 mx.example\r\n", "550 Not you\r\n", "550 Not you\r\n"),
        ):
            self.play(*script)
            why = self.assert_none(self.door(), DOWN)
            self.assertEqual(why[:3], script[-1][:3])

    def test_confused(self) -> None:
        """One that makes no sense is confused."""
        for script in (("what?\r\n",), ("354 x\r\n",), ("220 mx.example\r\n", "354 x\r\n")):
            self.play(*script)
            self.assert_none(self.door(), CONFUSED)

    def test_deaf(self) -> None:
        """A connection takes so long and no longer; meanwhile nothing else is waited for."""
        self.patience = Patience(connect=10.0, greeting=5.0)
        self.network.deaf.add(HOST)
        door = self.door()
        waiting = self.connect(door)
        self.wait(door, 9)
        self.assertNoResult(waiting)
        self.wait(door, 1)
        self.assert_none(door, DOWN, waiting)

    def test_mute(self) -> None:
        """So does an answer."""
        for script in (("",), ("220 mx.example\r\n", "")):
            self.play(*script)
            door = self.door()
            waiting = self.connect(door)
            door.sweep(self.network.seconds())
            self.wait(door, 19)
            self.assertNoResult(waiting)
            self.wait(door, 1)
            self.assert_none(door, SLOW, waiting)

    def test_given_up(self) -> None:
        """Who wants it no more leaves nothing behind, at whatever stage; it is no fault of the server's."""
        self.network.deaf.add(HOST)
        for script in ((), ("",), ("220 mx.example\r\n", "")):
            if script:
                self.network.deaf.clear()
                self.play(*script)
            door = self.door()
            waiting = self.connect(door)
            self.assertNoResult(waiting)
            waiting.cancel()
            self.failureResultOf(waiting, GivenUp, CancelledError)
            self.network.settle()
            self.assertEqual((self.network.ends, door._opening), ([], {}))

    def test_given_up_before_it_has_an_address(self) -> None:
        """Nor is it one while its name is looked up."""
        self.patch(self.network, "resolveHostName", lambda *facts, **more: None)
        waiting = self.connect(self.door())
        waiting.cancel()
        self.failureResultOf(waiting, GivenUp, CancelledError)

    def test_comes_from(self) -> None:
        """While it is made, its end of ours is known."""
        self.play("")
        door, peer = self.door(), Peer("192.0.2.1", 12345)
        waiting = self.connect(door)
        self.assertFalse(door.comes_from(peer))
        (client,) = door._opening
        client.local = peer
        self.assertTrue(door.comes_from(peer))
        waiting.cancel()
        self.failureResultOf(waiting, GivenUp, CancelledError)
        self.assertFalse(door.comes_from(peer))

    def test_unix(self) -> None:
        """A path is that of a Unix socket."""
        reactor: Any = MemoryReactorClock()
        upstream = Upstream("/run/lmtp", 25, tls=UpstreamTLS(TLSMode.NONE))
        waiting = begun(Doorway(reactor, upstream, "client.example").connect)
        ((path, _, timeout, _),) = reactor.unixClients
        self.assertEqual((path, timeout, str(upstream)), ("/run/lmtp", 30.0, "/run/lmtp"))
        self.assertEqual((upstream.is_local, upstream.tls_name), (True, "localhost"))
        waiting.cancel()
        self.failureResultOf(waiting, GivenUp, CancelledError)


class TLSTests(DoorwayCase, CertificatesCase):
    """STARTTLS, or TLS from the first octet, with hands that are really shaken."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = self.network
        self.patch(tls, "_get_default_clock", lambda: self.network)
        pair = make_pair("mx.example")
        self.roots = self.write("roots.pem", pair.certificate_pem)
        self.known = self.certificates(self.write("mail.pem", pair.pem))

    def script(self, faults: Any = None, **choices: Any) -> None:
        """Have a server that shakes hands."""
        self.upstream = ScriptedUpstream(faults, tls=self.known, **choices)
        self.network.listen(HOST, PORT, self.upstream)

    def verified(self, mode: TLSMode, name: str = "mx.example") -> Doorway:
        """A doorway that wants to know whom it talks to."""
        return self.door(tls=UpstreamTLS.read(mode, trust_roots=self.roots, server_name=name))

    def test_starttls(self) -> None:
        """Hello is said again behind it, and what was offered in clear is forgotten."""
        self.script()
        for door in (self.door(TLSMode.OPPORTUNISTIC), self.verified(TLSMode.REQUIRED)):
            client = self.connected(door)
            self.assertIsNotNone(client.tls)
            assert door.offers is not None
            self.assertNotIn("STARTTLS", door.offers)
        self.assertEqual(
            self.upstream.commands[:3], [b"EHLO client.example", b"STARTTLS", b"EHLO client.example"]
        )

    def test_none(self) -> None:
        """Where the operator wants none, none is asked for."""
        self.script()
        self.assertIsNone(self.connected(self.door(TLSMode.NONE)).tls)

    def test_implicit(self) -> None:
        """From the first octet."""
        self.script(is_implicit=True)
        client = self.connected(self.verified(TLSMode.IMPLICIT))
        self.assertIsNotNone(client.tls)
        self.assertNotIn(b"STARTTLS", self.upstream.commands)

    def test_not_offered(self) -> None:
        """A server without it is spoken to in clear, or not at all where it is required."""
        for script in (
            ("220 mx.example\r\n", HELLO + "DSN\r\n"),
            ("220 mx.example\r\n", HELLO + "STARTTLS\r\n", "454 4.7.0 Not now\r\n"),
        ):
            self.play(*script)
            self.assertIsNone(self.connected(self.door(TLSMode.OPPORTUNISTIC)).tls)
            for end in list(self.network.ends):
                end.abortConnection()
            self.play(*script)
            self.assert_none(self.verified(TLSMode.REQUIRED), INSECURE)

    def test_not_whom_we_want(self) -> None:
        """A server of another name is told nothing."""
        self.script()
        self.assert_none(self.verified(TLSMode.REQUIRED, "other.example"), INSECURE)
        self.script(is_implicit=True)
        self.assert_none(self.verified(TLSMode.IMPLICIT, "other.example"), INSECURE)

    def test_can_not_shake_hands(self) -> None:
        """Who would talk to anybody talks in clear then, and says so; who would not does not."""
        events = captured_log(self)
        script = ("220 mx.example\r\n", HELLO + "STARTTLS\r\n", "220 Go\r\n", "what?\r\n" * 100)
        again = [Played(list(script)), Played(["220 mx.example\r\n", HELLO + "STARTTLS\r\n"])]
        factory = Factory()
        factory.buildProtocol = lambda addr: again.pop(0)  # type: ignore[method-assign]
        self.network.listen(HOST, PORT, factory)
        self.assertIsNone(self.connected(self.door(TLSMode.OPPORTUNISTIC)).tls)
        self.assertEqual(again, [])
        warnings = [event for event in events if event["log_level"].name == "warn"]
        self.assertEqual(len(warnings), 1)
        for end in list(self.network.ends):
            end.abortConnection()
        self.play(*script)
        self.assert_none(self.verified(TLSMode.REQUIRED), INSECURE)

    def test_given_up(self) -> None:
        """Who gives up while hands are shaken does not want it in clear."""
        self.play("220 mx.example\r\n", HELLO + "STARTTLS\r\n", "220 Go\r\n")
        waiting = self.connect(self.door(TLSMode.OPPORTUNISTIC))
        self.assertNoResult(waiting)
        waiting.cancel()
        self.failureResultOf(waiting, GivenUp, CancelledError)
        self.network.settle()
        self.assertEqual(self.network.ends, [])


class LoginTests(DoorwayCase):
    """AUTH, where the server wants to know who we are."""

    def login(self, offered: str, *script: str, **choices: Any) -> Doorway:
        """A server that offers these mechanisms, and goes on so."""
        self.play("220 mx.example\r\n", f"{HELLO}AUTH {offered}\r\n", *script)
        return self.door(credentials=TIM, **choices)

    def test_accepted(self) -> None:
        """By challenge and response."""
        challenge = b64encode(b"<1@mx.example>").decode()
        self.connected(self.login("CRAM-MD5", f"334 {challenge}\r\n", "235 2.7.0 Yes\r\n"))
        self.assertEqual(self.server.heard[1], "AUTH CRAM-MD5")
        self.assertEqual(len(self.server.heard), 3)

    def test_refused(self) -> None:
        """Wrong credentials are for the operator to mend; a client tries again later."""
        door = self.login("CRAM-MD5", "334 PDE+\r\n", "535 5.7.8 No\r\n")
        self.assertEqual(self.assert_none(door, LOGIN), "535 5.7.8 No")

    def test_nothing_offered(self) -> None:
        """Neither is a password told in clear, but to a server on this machine."""
        for offered in ("", "PLAIN LOGIN", "EXTERNAL"):
            self.assertNotIn("hush", self.assert_none(self.login(offered), LOGIN))
            self.assertEqual(len(self.server.heard), 1)
        self.network.names["localhost"] = [HOST]
        waiting = self.connect(self.login("PLAIN", "235 2.7.0 Yes\r\n", host="localhost"))
        self.network.wait(1)
        self.successResultOf(waiting)
        self.assertEqual(self.server.heard[1], "AUTH PLAIN AHRpbQBodXNo")

    def test_breaks_the_rules(self) -> None:
        """A server whose challenge makes no sense hears that we give up."""
        for script in (("334 what?\r\n",), ("334 PDE+\r\n", "334 PDE+\r\n")):
            door = self.login("CRAM-MD5", *script, "501 5.7.0 Cancelled\r\n")
            self.assert_none(door, LOGIN)
            self.assertEqual(self.server.heard[-1], "*")

    def test_yes_too_early(self) -> None:
        """One that says yes before it has proved who it is is not believed."""
        self.assert_none(self.login("SCRAM-SHA-256", "235 2.7.0 Yes\r\n"), LOGIN)

    def test_in_thread(self) -> None:
        """What takes its time is done in a thread; what goes wrong there is heard of."""
        first = b64encode(b"r=x,s=QSXCR+Q6sek8bf92,i=4096").decode()
        self.assert_none(self.login("SCRAM-SHA-256", f"334 {first}\r\n", "501 5.7.0 Cancelled\r\n"), LOGIN)
        self.assertEqual(self.server.heard[-1], "*")

    def test_lost(self) -> None:
        """A server that is gone meanwhile is lost."""
        door = self.login("CRAM-MD5", "")
        waiting = self.connect(door)
        self.server.transport.abortConnection()
        self.assert_none(door, LOST, waiting)
