"""Every mail client there is can send through the server, and nothing of what it sends is changed."""

import random
import smtplib
import subprocess
from collections.abc import Sequence
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

from tests.integration.harness import (
    DOTS,
    EIGHT_BIT,
    HEADER,
    LONG_LINES,
    ONE_LINE,
    PATIENCE,
    Client,
    IntegrationTestCase,
    RecordingServer,
    environment,
    large_message,
    require,
)

SENDER = "sender@example.org"
RECIPIENT = "recipient@example.net"
THOUSAND = [f"recipient{number}@example.net" for number in range(1000)]


def run(command: Sequence[str], text: bytes = b"", **more: str) -> None:
    """Run a client program to its good end."""
    done = subprocess.run(
        command, input=text, capture_output=True, timeout=4 * PATIENCE, env=environment(**more), check=False
    )
    if done.returncode:
        raise AssertionError(
            f"{command[0]} ended with {done.returncode}: {done.stdout!r} {done.stderr!r}"[-2000:]
        )


class ClientTestCase(IntegrationTestCase):
    """Has a server that records."""

    recording: RecordingServer

    def setUp(self) -> None:
        """Start it."""
        self.recording = self.recording_server("--hostname=mx.example.net")

    def assert_received(
        self, content: bytes, recipients: Sequence[str] = (RECIPIENT,), sender: str = SENDER
    ) -> None:
        """The processor saw the message, octet for octet."""
        message = self.recording.message()
        self.assertEqual((message.sender, message.recipients), (sender, list(recipients)))
        self.assert_same(message.content, content)

    def assert_same(self, seen: bytes, sent: bytes) -> None:
        """Equal; if not, the failure is of a size that can be read."""
        if seen != sent:
            pairs = enumerate(zip(seen, sent, strict=False))
            at = next((index for index, (one, other) in pairs if one != other), min(len(seen), len(sent)))
            around = slice(max(0, at - 40), at + 40)
            self.fail(f"{len(seen)} octets for {len(sent)}, at {at}: {seen[around]!r} for {sent[around]!r}")


class SocketTests(ClientTestCase):
    """A client that sends exactly these octets."""

    def send(self, content: bytes, sender: str = SENDER) -> None:
        """Send one message that must be accepted."""
        with Client(self.recording.address) as client:
            client.hello()
            self.assertEqual(client.send_message(content, sender)[:9], b"250 2.6.0")

    def test_nothing(self) -> None:
        """A message of no octets is a message."""
        self.send(b"")
        self.assert_received(b"")

    def test_null_sender(self) -> None:
        """A notification, which has the null reverse-path, is accepted."""
        self.send(ONE_LINE, sender="")
        self.assert_received(ONE_LINE, sender="")

    def test_octet_for_octet(self) -> None:
        """Dots, NUL, control characters, 8-bit octets and long lines come through as they were sent."""
        odd = HEADER + bytes(octet for octet in range(256) if octet not in b"\r\n") + b"\r\n"
        for content in (b"\r\n", b".\r\n", b"x\r\n", ONE_LINE, DOTS, EIGHT_BIT, LONG_LINES, odd):
            self.send(content)
            self.assert_received(content)

    def test_one_octet_at_a_time(self) -> None:
        """However small the packets are, the message is the same."""
        content = HEADER + b".\r\n..\r\nend\r\n"
        with Client(self.recording.address) as client:
            client.hello()
            client.begin_message()
            for octet in content.replace(b"\r\n.", b"\r\n..") + b".\r\n":
                client.send(bytes([octet]))
            self.assertEqual(client.reply()[:3], b"250")
        self.assert_received(content)

    def test_pipelined(self) -> None:
        """Two transactions in one packet are answered in their order."""
        one = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode()
        with Client(self.recording.address) as client:
            client.hello()
            client.send(one + b"one\r\n.\r\nRSET\r\n" + one + b"two\r\n.\r\nQUIT\r\n")
            codes = [line[:3] for line in client.rest().splitlines()]
        transaction = [b"250", b"250", b"354", b"250"]
        self.assertEqual(codes, [*transaction, b"250", *transaction, b"221"])
        self.assertEqual([message.content for message in self.recording.messages()], [b"one\r\n", b"two\r\n"])

    def test_bare_newline(self) -> None:
        """LF.LF does not end a message, and a message with a bare LF is refused at its real end."""
        with Client(self.recording.address) as client:
            client.hello()
            client.begin_message()
            client.send(b"Subject: x\r\n\r\nsmuggled\n.\nMAIL FROM:<x@example.org>\r\n.\r\n")
            self.assertEqual(client.reply()[:9], b"550 5.6.0")
            client.expect("NOOP", "250")
        self.assertEqual(self.recording.messages(), [])


class SmtplibTests(ClientTestCase):
    """Python's own client; it sends octets as they are and sees to a last CRLF."""

    def send(
        self, content: bytes, recipients: Sequence[str] = (RECIPIENT,), options: Sequence[str] = ()
    ) -> None:
        """Send one message that all recipients get."""
        with smtplib.SMTP("127.0.0.1", self.recording.port, timeout=PATIENCE) as client:
            self.assertEqual(client.sendmail(SENDER, recipients, content, options), {})

    def test_nothing(self) -> None:
        """An empty message; smtplib makes a line end of it."""
        self.send(b"")
        self.assert_received(b"\r\n")

    def test_octet_for_octet(self) -> None:
        """One line, dots, 8-bit octets and long lines come through as they were sent."""
        for content in (ONE_LINE, DOTS, EIGHT_BIT, LONG_LINES):
            self.send(content, options=["BODY=8BITMIME"])
            self.assert_received(content)

    def test_large(self) -> None:
        """So do 20 MiB."""
        content = large_message()
        self.send(content)
        self.assert_received(content)

    def test_many_recipients(self) -> None:
        """A message may go to a thousand recipients."""
        self.send(ONE_LINE, THOUSAND)
        self.assert_received(ONE_LINE, THOUSAND)

    def test_utf8_addresses(self) -> None:
        """Addresses may be in UTF-8 when the client asks for SMTPUTF8."""
        message = EmailMessage(policy=SMTP.clone(utf8=True))
        message["From"], message["To"], message["Subject"] = "jörg@köln.example", "用户@例え.example", "Grüße"
        message.set_content("你好\n", cte="8bit")
        with smtplib.SMTP("127.0.0.1", self.recording.port, timeout=PATIENCE) as client:
            client.send_message(message)
        recorded = self.recording.message()
        self.assertEqual((recorded.sender, recorded.recipients), ("jörg@köln.example", ["用户@例え.example"]))
        self.assertEqual(recorded.parameters["SMTPUTF8"], None)
        self.assert_same(recorded.content, message.as_bytes())

    def test_several_messages(self) -> None:
        """A connection carries as many messages as the client likes."""
        with smtplib.SMTP("127.0.0.1", self.recording.port, timeout=PATIENCE) as client:
            for number in range(50):
                client.sendmail(SENDER, RECIPIENT, b"%d\r\n" % number)
        seen = [message.content for message in self.recording.messages()]
        self.assertEqual(seen, [b"%d\r\n" % number for number in range(50)])


class CurlTests(ClientTestCase):
    """curl sends a file as it is."""

    def send(self, content: bytes, recipients: Sequence[str] = (RECIPIENT,), sender: str = SENDER) -> None:
        """Send one message."""
        file, config = self.directory() / "message", self.directory() / "config"
        file.write_bytes(content)
        config.write_text("".join(f'mail-rcpt = "{recipient}"\n' for recipient in recipients))
        url = f"smtp://127.0.0.1:{self.recording.port}/client.example"
        command = [require("curl"), "--silent", "--show-error", url, "--mail-from", sender]
        run([*command, "--config", str(config), "--upload-file", str(file)], LC_ALL="C.UTF-8")

    def test_octet_for_octet(self) -> None:
        """Nothing, one line, dots, 8-bit octets and long lines come through as they were sent."""
        for content in (b"", ONE_LINE, DOTS, EIGHT_BIT, LONG_LINES):
            self.send(content)
            self.assert_received(content)

    def test_large(self) -> None:
        """So do 20 MiB."""
        content = large_message()
        self.send(content)
        self.assert_received(content)

    def test_many_recipients(self) -> None:
        """A message may go to a thousand recipients."""
        self.send(ONE_LINE, THOUSAND)
        self.assert_received(ONE_LINE, THOUSAND)

    def test_utf8_addresses(self) -> None:
        """A local part in UTF-8 makes curl ask for SMTPUTF8, and is taken."""
        self.send(ONE_LINE, ["用户@example.net"], sender="jörg@example.org")
        self.assert_received(ONE_LINE, ["用户@example.net"], sender="jörg@example.org")


class SwaksTests(ClientTestCase):
    """swaks sends what it is told; unless told so it doubles dots and adds a line end."""

    def send(self, content: bytes, *options: str, recipients: str = RECIPIENT) -> None:
        """Send one message."""
        file = self.directory() / "message"
        file.write_bytes(content)
        command = [
            require("swaks"),
            "--server",
            "127.0.0.1",
            "--port",
            str(self.recording.port),
            "--silent",
            "2",
        ]
        command += ["--helo", "client.example", "--from", SENDER, "--to", recipients, "--data", f"@{file}"]
        run([*command, *options])

    def test_own_message(self) -> None:
        """The message swaks makes by itself is accepted."""
        command = [
            require("swaks"),
            "--server",
            "127.0.0.1",
            "--port",
            str(self.recording.port),
            "--silent",
            "2",
        ]
        run([*command, "--from", SENDER, "--to", RECIPIENT, "--attach", f"@{__file__}"])
        message = message_from_bytes(self.recording.message().content, policy=SMTP)
        (attachment,) = message.iter_attachments()
        self.assertEqual(attachment.get_payload(decode=True), Path(__file__).read_bytes())

    def test_octet_for_octet(self) -> None:
        """One line, dots, 8-bit octets and long lines come through; swaks adds a line end to each."""
        for content in (ONE_LINE, DOTS + b"end\r\n", EIGHT_BIT, LONG_LINES):
            self.send(content)
            self.assert_received(content + b"\r\n")

    def test_untouched(self) -> None:
        """What swaks sends without any fixing comes through as it was sent."""
        for content in (b"", ONE_LINE, EIGHT_BIT):
            self.send(content + b".\r\n", "--no-data-fixup")
            self.assert_received(content)

    def test_large(self) -> None:
        """So do 20 MiB."""
        content = large_message()
        self.send(content + b".\r\n", "--no-data-fixup")
        self.assert_received(content)

    def test_many_recipients(self) -> None:
        """A message may go to a thousand recipients."""
        self.send(ONE_LINE + b".\r\n", "--no-data-fixup", recipients=",".join(THOUSAND))
        self.assert_received(ONE_LINE, THOUSAND)

    def test_pipelined(self) -> None:
        """swaks sees that PIPELINING is offered, and is answered in order."""
        self.send(ONE_LINE + b".\r\n", "--no-data-fixup", "--pipeline", recipients=",".join(THOUSAND[:100]))
        self.assert_received(ONE_LINE, THOUSAND[:100])


class MsmtpTests(ClientTestCase):
    """msmtp reads a message from its input, makes CRLF of its line ends, and adds nothing to its header."""

    def send(self, content: bytes, recipients: Sequence[str] = (RECIPIENT,)) -> None:
        """Send one message."""
        command = [require("msmtp"), "--file=/dev/null", "--host=127.0.0.1", f"--port={self.recording.port}"]
        command += [
            "--auth=off",
            "--tls=off",
            f"--from={SENDER}",
            "--domain=client.example",
            "--",
            *recipients,
        ]
        run(command, content.replace(b"\r\n", b"\n"))

    def test_octet_for_octet(self) -> None:
        """One line, dots, 8-bit octets and long lines come through as they were sent."""
        for content in (ONE_LINE, DOTS, EIGHT_BIT, LONG_LINES):
            self.send(content)
            self.assert_received(content)

    def test_large(self) -> None:
        """So do 20 MiB."""
        content = large_message()
        self.send(content)
        self.assert_received(content)

    def test_many_recipients(self) -> None:
        """A message may go to a thousand recipients."""
        self.send(ONE_LINE, THOUSAND)
        self.assert_received(ONE_LINE, THOUSAND)


class MailxTests(ClientTestCase):
    """s-nail, as mailx: it writes the header itself."""

    def send(self, text: bytes, *options: str, recipients: Sequence[str] = (RECIPIENT,)) -> None:
        """Send one message."""
        url = f"mta=smtp://127.0.0.1:{self.recording.port}"
        command = [
            require("s-nail"),
            "-:/",
            "-S",
            "v15-compat=yes",
            "-S",
            url,
            "-S",
            "smtp-auth=none",
            "-S",
            "DEAD=/dev/null",
        ]
        command += [
            "-S",
            f"from={SENDER}",
            "-S",
            "hostname=client.example",
            "-S",
            "sendwait",
            "-S",
            "sendcharsets=utf-8",
        ]
        run(
            [*command, "-s", "a test", *options, *recipients],
            text,
            LC_ALL="C.UTF-8",
            HOME=str(self.directory()),
        )

    def assert_text(self, text: str) -> None:
        """The processor saw this text."""
        message = self.recording.message()
        self.assertEqual((message.sender, message.recipients), (SENDER, [RECIPIENT]))
        parsed = message_from_bytes(message.content, policy=SMTP)
        self.assertEqual(parsed["Subject"], "a test")
        self.assertEqual(parsed.get_content().replace("\r\n", "\n"), text)

    def test_text(self) -> None:
        """Nothing, a line, dots and UTF-8 come through, in 8 bits or in an encoding of s-nail's choice."""
        for text in ("", "Hello\n", ".\n..\n.leading\n\n.\n", "Grüße, 你好\n"):
            for encoding in ("8bit", "quoted-printable", "base64"):
                self.send(text.encode(), "-S", f"mime-encoding={encoding}")
                self.assert_text(text)

    def test_large(self) -> None:
        """So do attachments of 20 MiB."""
        file = self.directory() / "attachment.bin"
        file.write_bytes(random.Random(1).randbytes(14 << 20))
        self.send(b"See there.\n", "-a", str(file))
        content = self.recording.message().content
        self.assertGreater(len(content), 18 << 20)
        (attachment,) = message_from_bytes(content, policy=SMTP).iter_attachments()
        payload = attachment.get_payload(decode=True)
        assert isinstance(payload, bytes)
        self.assert_same(payload, file.read_bytes())

    def test_many_recipients(self) -> None:
        """A message may go to a thousand recipients."""
        self.send(b"Hello\n", recipients=THOUSAND)
        self.assertEqual(self.recording.message().recipients, THOUSAND)
