"""``smtpserv.testing.upstream``: the server that fails as it is told to, and remembers what it was sent."""

import base64
from types import SimpleNamespace
from typing import Any, Final

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.task import Clock
from twisted.protocols import tls
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.policy.authentication import Authentication
from smtpserv.reply import Reply
from smtpserv.testing import at_every_split
from smtpserv.testing.upstream import (
    CLOSE,
    ENDLESS,
    GARBAGE,
    HALF,
    RESET,
    STALL,
    Plan,
    ScriptedUpstream,
    Step,
)
from tests.certificates import CertificatesCase, make_pair
from tests.server_tools import CONTENT, ENVELOPE, GRANTED, HELLO, PREAMBLE, TRANSACTION, Wire, codes
from tests.test_server_starttls import Client as TLSClient

REFUSED = Reply(550, "No", "5.1.1")
DEFERRED = Reply(451, "Not now", "4.2.0")
DONE = ["250 2.1.0", "250 2.1.5", "354", "250 2.0.0"]
CHUNK = b"BDAT 4\r\nDear"
LAST = b"BDAT 6 LAST\r\n.all\r\n"

#: What a client has said when the step is reached, and what it has heard before.
REACHED: Final = {
    "banner": (b"", []),
    "EHLO": (HELLO, GRANTED[:1]),
    "MAIL": (HELLO + b"MAIL FROM:<>\r\n", GRANTED[:2]),
    "RCPT": (HELLO + ENVELOPE, GRANTED[:3]),
    "DATA": (PREAMBLE, GRANTED[:4]),
    "content": (PREAMBLE + CONTENT, GRANTED),
    "end of data": (PREAMBLE + CONTENT + b".\r\n", GRANTED),
    "BDAT": (HELLO + ENVELOPE + CHUNK, GRANTED[:4]),
    "RSET": (HELLO + b"RSET\r\n", GRANTED[:2]),
    "QUIT": (HELLO + b"QUIT\r\n", GRANTED[:2]),
}


class Client:
    """A client of an upstream, without a network."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.protocol = upstream.buildProtocol(None)
        self.wire = Wire(self.protocol, closes=True)
        self.protocol.makeConnection(self.wire)

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed."""
        return not self.wire.connected

    def hear(self) -> bytes:
        """What came since the last call."""
        heard = bytes(self.wire.value())
        self.wire.clear()
        return heard

    def say(self, octets: bytes) -> bytes:
        """Send something; what comes, the answer included."""
        if not self.is_gone:
            self.protocol.dataReceived(octets)
        return self.hear()


class UpstreamCase(SynchronousTestCase):
    """Has an upstream and a client of it."""

    def script(self, faults: dict[Step, Plan] | None = None, **choices: Any) -> Client:
        """Make both."""
        self.upstream = ScriptedUpstream(faults, **choices)
        return Client(self.upstream)


class DefaultTests(UpstreamCase):
    """An upstream without a script."""

    def test_accepts_everything(self) -> None:
        """It takes a message, its dots unstuffed, and remembers all of it with what it was answered."""
        client = self.script()
        octets = (
            HELLO + b"MAIL FROM:<a@a.example> SIZE=99 BODY=8BITMIME RET=HDRS\r\n"
            b"RCPT TO:<b@b.example> NOTIFY=NEVER\r\nRCPT TO:<c@c.example>\r\n"
            b"DATA\r\n..\r\n\xff\r\n.\r\nQUIT\r\n"
        )
        heard = codes(client.say(octets))
        self.assertEqual(heard, ["220", "250", *DONE[:2], *DONE[1:], "221 2.0.0"])
        (transaction,) = self.upstream.transactions
        parameters = {"SIZE": "99", "BODY": "8BITMIME", "RET": "HDRS"}
        self.assertEqual(transaction.reverse_path, ReversePath("a@a.example", parameters))
        recipients = [ForwardPath("b@b.example", {"NOTIFY": "NEVER"}), ForwardPath("c@c.example")]
        self.assertEqual(transaction.forward_paths, recipients)
        self.assertEqual(transaction.content, b".\r\n\xff\r\n")
        self.assertEqual((transaction.is_complete, transaction.answers), (True, [reply.OK]))
        self.assertEqual(self.upstream.messages, [transaction])
        self.assertEqual(self.upstream.commands[1], octets.split(b"\r\n")[1])
        self.assertTrue(client.is_gone)
        self.assertEqual(self.upstream.open_connections, 0)

    def test_any_split(self) -> None:
        """However the network splits it, it has heard and answered the same."""
        octets = PREAMBLE + b"a\r\n..\r\n.\r\nRSET\r\n" + ENVELOPE + CHUNK + LAST + b"NOOP\r\n"
        seen = set()
        for pieces in at_every_split(octets):
            client = self.script()
            heard = client.hear() + b"".join(map(client.say, pieces))
            facts = tuple((each.content, each.is_accepted) for each in self.upstream.transactions)
            seen.add((heard, facts, tuple(self.upstream.commands)))
        ((heard, facts, commands),) = seen
        self.assertEqual(
            codes(heard),
            [*GRANTED, "250 2.0.0", "250 2.0.0", *DONE[:2], "250 2.0.0", "250 2.0.0", "250 2.0.0"],
        )
        self.assertEqual(facts, ((b"a\r\n.\r\n", True), (b"Dear.all\r\n", True)))
        verbs = [each.split()[0] for each in commands]
        expected = b"EHLO MAIL RCPT DATA RSET MAIL RCPT BDAT BDAT NOOP"
        self.assertEqual(b" ".join(verbs), expected)

    def test_transaction_that_ends_early(self) -> None:
        """A message that did not come whole is not complete, and none of its messages."""
        for octets in (HELLO + ENVELOPE, PREAMBLE + CONTENT, HELLO + ENVELOPE + CHUNK):
            client = self.script()
            client.say(octets)
            client.wire.lose()
            (transaction,) = self.upstream.transactions
            self.assertEqual((transaction.is_complete, self.upstream.messages), (False, []))
            self.assertEqual(self.upstream.open_connections, 0)

    def test_keywords(self) -> None:
        """It offers what it is told to, in these words, and takes nothing else."""
        client = self.script(keywords=("SIZE 100", "XFORWARD NAME", "X-OTHER 1 2"))
        client.hear()
        expected = b"250-upstream.example\r\n250-SIZE 100\r\n250-XFORWARD NAME\r\n250 X-OTHER 1 2\r\n"
        self.assertEqual(client.say(HELLO), expected)
        self.assertEqual(codes(client.say(b"XFORWARD NAME=a.example\r\n")), ["250 2.0.0"])
        for line, code in {
            b"MAIL FROM:<> SIZE=101\r\n": "552 5.3.4",
            b"MAIL FROM:<> BODY=8BITMIME\r\n": "555 5.5.4",
            b"BDAT 0 LAST\r\n": "500 5.5.2",
        }.items():
            self.assertEqual(codes(client.say(line)), [code])

    def test_lmtp(self) -> None:
        """Under LMTP each recipient has a reply of its own."""
        faults: dict[Step, Plan] = {("end of data", 2): REFUSED}
        client = self.script(faults, lmtp=True)
        three = b"RCPT TO:<b@b.example>\r\n" * 3
        heard = client.say(b"LHLO a.example\r\nMAIL FROM:<>\r\n" + three + b"DATA\r\n.\r\nNOOP\r\n")
        self.assertEqual(codes(heard)[-4:], ["250 2.0.0", "550 5.1.1", "250 2.0.0", "250 2.0.0"])
        self.assertEqual(self.upstream.messages[0].answers, [reply.OK, REFUSED, reply.OK])


class ReplyTests(UpstreamCase):
    """Replies that are not the usual ones."""

    def test_each_step(self) -> None:
        """At each step the reply is the one that was given, and the session goes on if it can."""
        usual = [*GRANTED, "250 2.0.0", "250 2.0.0", "221 2.0.0"]
        octets = PREAMBLE + CONTENT + b".\r\nRSET\r\nQUIT\r\n"
        steps = ["banner", "EHLO", "MAIL", "RCPT", "DATA", "end of data", "RSET", "QUIT"]
        for number, step in enumerate(steps[5:], 5):
            heard = codes(self.script({step: DEFERRED}).say(octets))
            self.assertEqual(heard, [*usual[:number], "451 4.2.0", *usual[number + 1 :]], step)
        for number, step in enumerate(steps[:5]):
            heard = codes(self.script({step: DEFERRED}).say(octets))
            self.assertEqual(heard[: number + 1], [*usual[:number], "451 4.2.0"], step)
            self.assertEqual(self.upstream.messages, [], step)

    def test_goodbye(self) -> None:
        """A 421 closes the connection, at whatever step."""
        goodbye = Reply(421, "Bye", "4.3.2")
        for step in ("banner", "EHLO", "MAIL", "RCPT", "DATA", "content", "end of data", "RSET"):
            client = self.script({step: goodbye})
            heard = codes(client.say(PREAMBLE + CONTENT + b".\r\nRSET\r\n" + HELLO))
            self.assertEqual((heard[-1], heard.count("421 4.3.2")), ("421 4.3.2", 1), step)
            self.assertTrue(client.is_gone, step)

    def test_chunks(self) -> None:
        """A chunk is answered as BDAT, the last one as the end of data."""
        octets = HELLO + ENVELOPE + CHUNK + LAST
        heard = codes(self.script({"BDAT": DEFERRED, "end of data": REFUSED}).say(octets))
        self.assertEqual(heard[-2:], ["451 4.2.0", "550 5.1.1"])

    def test_one_recipient(self) -> None:
        """A number names one recipient of each transaction, whatever became of those before it."""
        client = self.script({("RCPT", 2): REFUSED})
        three = b"MAIL FROM:<>\r\n" + b"RCPT TO:<b@b.example>\r\n" * 3 + b"RSET\r\n"
        heard = codes(client.say(HELLO + three + three))[2:]
        self.assertEqual(heard, ["250 2.1.0", "250 2.1.5", "550 5.1.1", "250 2.1.5", "250 2.0.0"] * 2)
        self.assertEqual([len(each.forward_paths) for each in self.upstream.transactions], [2, 2])

    def test_in_turn(self) -> None:
        """Faults in a list hold once each, and None is none; then everything is as usual."""
        client = self.script({"MAIL": [REFUSED, None, DEFERRED]})
        heard = codes(client.say(HELLO + b"MAIL FROM:<>\r\nRSET\r\n" * 4))[2::2]
        self.assertEqual(heard, ["550 5.1.1", "250 2.1.0", "451 4.2.0", "250 2.1.0"])

    def test_changed(self) -> None:
        """What goes wrong may be changed on the way."""
        client = self.script()
        client.say(HELLO)
        self.upstream.faults["MAIL"] = REFUSED
        self.assertEqual(codes(client.say(b"MAIL FROM:<>\r\n")), ["550 5.1.1"])
        self.upstream.faults.clear()
        self.assertEqual(codes(client.say(b"MAIL FROM:<>\r\n")), ["250 2.1.0"])


class BreakTests(UpstreamCase):
    """What is no reply."""

    def test_close(self) -> None:
        """It closes in good order in place of the reply."""
        for step, (octets, before) in REACHED.items():
            client = self.script({step: CLOSE})
            self.assertEqual(codes(client.say(octets)), before, step)
            self.assertEqual((client.is_gone, client.wire.aborted), (True, False), step)

    def test_reset(self) -> None:
        """It cuts the connection off in place of the reply."""
        for step, (octets, before) in REACHED.items():
            client = self.script({step: RESET})
            self.assertEqual(codes(client.say(octets)), before, step)
            self.assertEqual((client.is_gone, client.wire.aborted), (True, True), step)

    def test_stall(self) -> None:
        """It says nothing more, and hears nothing more, until it is told to go on; then all goes on."""
        for step, (octets, before) in REACHED.items():
            client = self.script({step: [STALL]})
            self.assertEqual(codes(client.say(octets)), before, step)
            self.assertEqual(
                client.say(b"" if "DATA" in step or step == "content" else b"NOOP\r\n"), b"", step
            )
            self.upstream.resume()
            heard = codes(client.hear())
            if step == "content":
                self.assertEqual(codes(client.say(b".\r\n")), ["250 2.0.0"])
            else:
                self.assertNotEqual(heard, [], step)
            self.assertEqual(self.upstream.open_connections, step != "QUIT", step)

    def test_stall_at_the_end(self) -> None:
        """A reply to a message that comes late is the usual one, and the next command is answered."""
        client = self.script({"end of data": STALL})
        client.say(PREAMBLE + CONTENT + b".\r\nNOOP\r\n")
        self.assertEqual(self.upstream.messages, [])
        self.upstream.resume()
        self.assertEqual(codes(client.hear()), ["250 2.0.0", "250 2.0.0"])
        self.assertEqual(len(self.upstream.messages), 1)

    def test_stall_of_one_that_goes(self) -> None:
        """What stalled for a client that is gone does not go on."""
        client = self.script({"end of data": STALL})
        client.say(PREAMBLE + CONTENT + b".\r\n")
        client.wire.lose()
        self.upstream.resume()
        self.assertEqual((self.upstream.messages, client.hear()), ([], b""))

    def test_nonsense(self) -> None:
        """It says what is no reply, or half a reply before it closes."""
        client = self.script({"MAIL": GARBAGE})
        self.assertEqual(client.say(HELLO + b"MAIL FROM:<>\r\n")[-len(GARBAGE.octets) :], GARBAGE.octets)
        self.assertFalse(client.is_gone)
        client = self.script({"MAIL": HALF})
        self.assertEqual(client.say(HELLO + b"MAIL FROM:<>\r\n")[-len(HALF.octets) :], HALF.octets)
        self.assertTrue(client.is_gone)

    def test_endless(self) -> None:
        """It says more of the same reply each time there is room for it."""
        client = self.script({"EHLO": ENDLESS})
        self.assertTrue(client.say(HELLO).endswith(ENDLESS.octets))
        for _ in range(3):
            client.wire.producer.resumeProducing()
            self.assertEqual(client.hear(), ENDLESS.octets)

    def test_amount_of_content(self) -> None:
        """It breaks off when so much of the content is there, and not before."""
        client = self.script({("content", 1000): RESET})
        client.say(PREAMBLE + b"x" * 999)
        self.assertFalse(client.is_gone)
        client.say(b"x" * 10)
        self.assertTrue(client.is_gone)
        self.assertEqual(self.upstream.transactions[0].is_complete, False)

    def test_lmtp(self) -> None:
        """Under LMTP it breaks off between the replies; late, each recipient still has one."""
        for fault, late in ((CLOSE, []), (STALL, ["250 2.0.0"] * 2)):
            client = self.script({("end of data", 2): [fault]}, lmtp=True)
            recipients = b"RCPT TO:<b@b.example>\r\n" * 3
            client.say(b"LHLO a.example\r\nMAIL FROM:<>\r\n" + recipients + b"DATA\r\n")
            self.assertEqual(codes(client.say(b".\r\n")), ["250 2.0.0"])
            self.upstream.resume()
            self.assertEqual(codes(client.hear()), late)

    def test_interrupt(self) -> None:
        """It says or does something that nobody asked for, on every open connection."""
        client, other = self.script(), Client(self.upstream)
        client.hear(), other.hear()
        self.upstream.interrupt(DEFERRED)
        self.assertEqual((codes(client.hear()), codes(other.hear())), (["451 4.2.0"], ["451 4.2.0"]))
        client.wire.lose()
        self.upstream.interrupt(CLOSE)
        self.assertTrue(other.is_gone)


class AuthenticationTests(UpstreamCase):
    """AUTH."""

    def authenticating(self, **faults: Plan) -> Client:
        """A client of an upstream that knows one user."""
        users = InMemoryUsernamePasswordDatabaseDontUse(user=b"secret")
        client = self.script(
            dict(faults.items()), authentication=Authentication([users], Clock(), without_tls=True)
        )
        client.hear()
        self.assertIn(b"AUTH CRAM-MD5 PLAIN LOGIN", client.say(HELLO))
        return client

    def test_plain(self) -> None:
        """It believes who knows the password, and knows who that is."""
        client = self.authenticating()
        response = base64.b64encode(b"\0user\0secret")
        self.assertEqual(codes(client.say(b"AUTH PLAIN " + response + b"\r\n")), ["235 2.7.0"])
        self.assertEqual(client.protocol.session.identity, "user")

    def test_login(self) -> None:
        """It asks as often as the mechanism does."""
        client = self.authenticating()
        self.assertEqual(codes(client.say(b"AUTH LOGIN\r\n")), ["334"])
        self.assertEqual(codes(client.say(base64.b64encode(b"user") + b"\r\n")), ["334"])
        self.assertEqual(codes(client.say(base64.b64encode(b"secret") + b"\r\n")), ["235 2.7.0"])

    def test_refused(self) -> None:
        """It refuses what it does not know, and whom the script wants refused."""
        client = self.authenticating()
        self.assertEqual(codes(client.say(b"AUTH X\r\n")), ["504 5.5.4"])
        client = self.authenticating(AUTH=[None, reply.WRONG_CREDENTIALS])
        self.assertEqual(codes(client.say(b"AUTH LOGIN\r\n")), ["334"])
        self.assertEqual(codes(client.say(b"dXNlcg==\r\n")), ["535 5.7.8"])


class TLSTests(CertificatesCase):
    """TLS, with hands that are really shaken."""

    def upstream_with(self, faults: dict[Step, Plan] | None = None, **choices: Any) -> ScriptedUpstream:
        """An upstream that offers STARTTLS, or more."""
        self.patch(tls, "_get_default_clock", lambda: self.clock)
        path = self.write("mail.pem", make_pair("upstream.example").pem)
        return ScriptedUpstream(faults, tls=self.certificates(path), **choices)

    def connect(self, upstream: ScriptedUpstream) -> TLSClient:
        """A client that can shake hands."""
        server: Any = SimpleNamespace(factory=upstream, clock=self.clock)
        return TLSClient(server)

    def test_starttls(self) -> None:
        """What was said in clear is forgotten; what comes under TLS is heard."""
        upstream = self.upstream_with()
        client = self.connect(upstream)
        self.assertIn(b"STARTTLS", client.say(HELLO))
        client.say(b"STARTTLS\r\n")
        client.shake_hands()
        self.assertEqual(codes(client.tell(b"MAIL FROM:<>\r\n")), ["503 5.5.1"])
        self.assertNotIn(b"STARTTLS", client.tell(HELLO))
        self.assertEqual(codes(client.tell(TRANSACTION)), DONE)
        self.assertEqual(len(upstream.messages), 1)
        self.assertIsNotNone(upstream.connections[0].session.tls)

    def test_said_ahead(self) -> None:
        """What was said in clear behind STARTTLS is not heard."""
        upstream = self.upstream_with()
        client = self.connect(upstream)
        client.say(HELLO + b"STARTTLS\r\nNOOP\r\n")
        client.shake_hands()
        self.assertEqual(client.tell(HELLO)[:4], b"250-")
        self.assertEqual(upstream.commands, [b"EHLO client.example", b"STARTTLS", b"EHLO client.example"])

    def test_implicit(self) -> None:
        """Hands are shaken before the greeting."""
        client = self.connect(self.upstream_with(is_implicit=True))
        self.assertEqual(client.hear(), b"")
        client.shake_hands()
        self.assertEqual(client.tell(HELLO)[:4], b"220 ")

    def test_faults(self) -> None:
        """It may refuse, break off, or say something else than a handshake."""
        for fault in (reply.TLS_UNAVAILABLE, CLOSE):
            client = self.connect(self.upstream_with({"STARTTLS": fault}))
            client.say(HELLO)
            heard = client.say(b"STARTTLS\r\n")
            self.assertEqual(codes(heard), ["454 4.7.0"] if isinstance(fault, Reply) else [])
            self.assertEqual(client.wire.connected, isinstance(fault, Reply))
        for fault in (CLOSE, RESET, GARBAGE, STALL):
            client = self.connect(self.upstream_with({"handshake": fault}))
            client.say(HELLO)
            self.assertEqual(client.say(b"STARTTLS\r\n")[9:], reply.READY_FOR_TLS.octets[9:] + fault.octets)
            self.assertEqual(client.wire.connected, fault in (GARBAGE, STALL))
            self.assertEqual(client.wire.TLS, False)
