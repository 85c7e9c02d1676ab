"""LMTP with the clients there are: a reply for each recipient, and each is heeded."""

import smtplib

from tests.integration.harness import (
    DOTS,
    ONE_LINE,
    PATIENCE,
    Client,
    IntegrationTestCase,
    RecordingServer,
    free_port,
    require,
)
from tests.integration.programs import RECIPIENT, SENDER, run, swaks
from tests.integration.test_postfix import PostfixCase
from tests.integration.upstreams import DovecotLMTP

#: Sorted, as Postfix sends them.
RECIPIENTS = ["first@example.net", "later@example.net", "never@example.net", "zoe@example.net"]


class Mixed(IntegrationTestCase):
    """Has a server that accepts for some recipients alone."""

    recording: RecordingServer
    lmtp: int

    def start_server(self) -> None:
        """Start it."""
        self.lmtp = free_port()
        self.recording = self.recording_server(f"--lmtp=tcp:{self.lmtp}:interface=127.0.0.1", kind="Mixed")


class ClientTests(Mixed):
    """Programs that send one message."""

    def setUp(self) -> None:
        """Start the server."""
        self.start_server()

    def test_smtplib(self) -> None:
        """smtplib.LMTP sends to all, and a reply for each recipient follows the data."""
        with smtplib.LMTP("127.0.0.1", self.lmtp) as client:
            assert client.sock is not None
            client.sock.settimeout(PATIENCE)
            client.ehlo_or_helo_if_needed()
            self.assertEqual(client.mail(SENDER)[0], 250)
            self.assertEqual([client.rcpt(each)[0] for each in RECIPIENTS], [250] * 4)
            self.assertEqual(client.data(DOTS)[0], 250)
            self.assertEqual([client.getreply()[0] for _ in RECIPIENTS[1:]], [451, 550, 250])
            self.assertEqual(client.noop()[0], 250)
        message = self.recording.message()
        self.assertEqual((message.content, message.recipients), (DOTS, RECIPIENTS))
        self.assertEqual(message.facts["protocol"], "LMTP")

    def test_swaks(self) -> None:
        """swaks sees the reply of each recipient."""
        outcome = swaks(("127.0.0.1", self.lmtp), "--protocol", "LMTP", "--to", ",".join(RECIPIENTS))
        for line in ("<-  250 2", "<** 451 4.2.0 Not yet", "<** 550 5.1.1 Not at all"):
            self.assertIn(line, outcome.output)
        self.assertEqual(self.recording.message().recipients, RECIPIENTS)

    def test_opensmtpd(self) -> None:
        """OpenSMTPD's client speaks LMTP."""
        command = [require("smtp", "opensmtpd"), "-F", SENDER, "-H", "client.example"]
        outcome = run([*command, "-s", f"lmtp://127.0.0.1:{self.lmtp}", RECIPIENT], ONE_LINE)
        self.assertEqual(outcome.code, 0, outcome.output)
        message = self.recording.message()
        self.assertEqual((message.facts["protocol"], message.recipients), ("LMTP", [RECIPIENT]))


class DovecotTests(Mixed):
    """Dovecot's lmtp client, by which its proxy passes on what comes."""

    def test_mixed(self) -> None:
        """Dovecot is told of each recipient, and passes it on; the message is the same, behind its field."""
        self.start_server()
        dovecot = DovecotLMTP(self.directory(), self.lmtp)
        self.addCleanup(dovecot.kill)
        with Client(dovecot.address) as client:
            client.expect("LHLO client.example", "250")
            client.begin_message(SENDER, RECIPIENTS)
            client.send((b"\r\n" + DOTS).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
            self.assertEqual([client.reply()[:3] for _ in RECIPIENTS], [b"250", b"451", b"550", b"250"])
        message = self.recording.message()
        self.assertEqual((message.sender, message.recipients), (SENDER, RECIPIENTS))
        self.assertEqual(message.content.endswith(DOTS), True, "it is changed")


class PostfixTests(PostfixCase, Mixed):
    """Postfix's lmtp client."""

    def test_mixed(self) -> None:
        """Of four recipients two are delivered, one waits and one is returned to the sender."""
        self.start_server()
        more = f"relayhost =\ndefault_transport = lmtp:inet:127.0.0.1:{self.lmtp}\n"
        self.start(self.recording, more + "minimal_backoff_time = 300s\nmaximal_backoff_time = 300s\n")
        self.submit(ONE_LINE, *RECIPIENTS)
        for name, status in (
            ("first", "sent"),
            ("later", "deferred"),
            ("never", "bounced"),
            ("zoe", "sent"),
        ):
            self.wait_for_log(
                rf"to=<{name}@example.net>.*status={status}", f"Postfix to be told about {name}"
            )
        original, notification = self.received(2)
        self.assertEqual((original.sender, original.recipients), (SENDER, RECIPIENTS))
        self.assertEqual((notification.sender, notification.recipients), ("", [SENDER]))
        self.assertIn(b"550 5.1.1 Not at all", notification.content)
