"""Postfix relays through the server: an instance of its own in a temporary folder."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.integration.harness import (
    DOTS,
    EIGHT_BIT,
    HEADER,
    ONE_LINE,
    PATIENCE,
    Client,
    IntegrationTestCase,
    Recorded,
    RecordingServer,
    environment,
    free_port,
    large_message,
    require,
    wait_for,
)
from tests.integration.programs import TLSTestCase

MAIN = """\
compatibility_level = 3.6
queue_directory = {here}/spool
data_directory = {here}/data
maillog_file = {here}/log/maillog
maillog_file_prefixes = {here}
mail_owner = postfix
myhostname = postfix.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [127.0.0.1]:{upstream}
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtp_tls_security_level = none
alias_maps =
alias_database =
message_size_limit = 33554432
smtp_destination_recipient_limit = 1000
smtp_line_length_limit = 0
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
"""

MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix n - n 60   1 pickup
cleanup   unix n - n -    0 cleanup
qmgr      unix n - n 1    1 qmgr
rewrite   unix - - n -    - trivial-rewrite
bounce    unix - - n -    0 bounce
defer     unix - - n -    0 bounce
trace     unix - - n -    0 bounce
flush     unix n - n 1000? 0 flush
proxymap  unix - - n -    - proxymap
smtp      unix - - n -    - smtp
relay     unix - - n -    - smtp
lmtp      unix - - n -    - lmtp
tlsmgr    unix - - n 1000? 1 tlsmgr
error     unix - - n -    - error
retry     unix - - n -    - error
anvil     unix - - n -    1 anvil
scache    unix - - n -    1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


def settings(written: str) -> str:
    """Each setting once, as it was said last.

    Of one that is said twice every process of Postfix warns in the log. When there are more than ten such
    lines before the log's own process reads the first, that one waits for itself, and all wait for it.
    """
    lines = {line.partition("=")[0].strip(): line for line in written.splitlines() if line.strip()}
    return "".join(f"{line}\n" for line in lines.values())


class Postfix:
    """A Postfix of our own.

    :param here: an empty folder.
    :param upstream: the port it relays to.
    :param more: settings that win over ours.
    """

    def __init__(self, here: Path, upstream: int, more: str = "") -> None:
        self.here = here
        self.address = ("127.0.0.1", free_port())
        here.chmod(0o755)
        for name in ("etc", "spool", "data", "log"):
            (here / name).mkdir()
        shutil.chown(here / "data", "postfix")
        (here / "etc" / "main.cf").write_text(settings(MAIN.format(here=here, upstream=upstream) + more))
        (here / "etc" / "master.cf").write_text(MASTER.format(port=self.address[1]))
        self.master = subprocess.Popen(
            [require("postfix"), "-c", str(here / "etc"), "start-fg"],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_until_ready(self) -> None:
        """Until it greets."""

        def greets() -> bool:
            try:
                Client(self.address).close()
            except OSError:
                return False
            return True

        wait_for("Postfix", greets)

    def stop(self) -> None:
        """Stop all of it, whatever it is doing."""
        stop = [require("postfix"), "-c", str(self.here / "etc"), "abort"]
        subprocess.run(stop, env=environment(), capture_output=True, timeout=PATIENCE, check=False)
        try:
            self.master.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.master.terminate()
            self.master.wait(PATIENCE)

    @property
    def log(self) -> str:
        """What it has logged."""
        file = self.here / "log" / "maillog"
        return file.read_text("utf-8", "replace") if file.exists() else ""


class PostfixCase(IntegrationTestCase):
    """Has a Postfix that relays to a server that records."""

    recording: RecordingServer
    postfix: Postfix

    def start(self, recording: RecordingServer, more: str = "") -> None:
        """Start Postfix, which relays to a server."""
        require("postfix")
        if os.geteuid() != 0:
            raise SkipTest("Postfix can only be started by root")
        self.recording = recording
        self.postfix = Postfix(self.directory(), recording.port, more)
        self.addCleanup(self.postfix.stop)
        self.postfix.wait_until_ready()

    def submit(self, content: bytes, *recipients: str, sender: str = "sender@example.org") -> None:
        """Give Postfix a message."""
        with Client(self.postfix.address) as client:
            client.hello()
            asked = "" if sender.isascii() else " SMTPUTF8"
            client.expect(f"MAIL FROM:<{sender}> BODY=8BITMIME{asked}", "250")
            for recipient in recipients or ["recipient@example.net"]:
                client.expect(f"RCPT TO:<{recipient}>", "250")
            client.expect("DATA", "354")
            client.send((b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
            self.assertEqual(client.reply()[:3], b"250")

    def received(self, count: int) -> list[Recorded]:
        """The messages, when as many have come."""

        def arrived() -> list[Recorded]:
            messages = self.recording.messages()
            return messages if len(messages) >= count else []

        try:
            return wait_for(f"{count} messages", arrived)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.postfix.log[-4000:]}") from None

    def wait_for_log(self, pattern: str, postfix_did: str) -> None:
        """Until Postfix has logged what a regular expression finds."""
        try:
            wait_for(postfix_did, lambda: re.search(pattern, self.postfix.log))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.postfix.log[-4000:]}") from None


class PostfixTests(PostfixCase):
    """A queueing relay as client: whatever it accepts arrives."""

    def setUp(self) -> None:
        """Start both."""
        self.start(self.recording_server())

    def test_octet_for_octet(self) -> None:
        """A line, dots, 8-bit octets and 20 MiB arrive as they were, behind the field that Postfix adds."""
        sent = [ONE_LINE, DOTS, EIGHT_BIT, HEADER + b"a" * 5000 + b"\r\n", large_message()]
        for number, content in enumerate(sent, 1):
            self.submit(content)
            message = self.received(number)[-1]
            added = message.content[: -len(content)]
            self.assertEqual(added[:21], b"Received: from client")
            self.assertEqual(message.content.endswith(content), True, f"message {number} is changed")
            self.assertEqual(message.facts["protocol"], "ESMTP")
            self.assertEqual("SIZE" in message.parameters, True)
        self.assertEqual(message.parameters["BODY"], "8BITMIME")

    def test_nothing(self) -> None:
        """Of a message of no octets arrives the header that Postfix makes, and no body."""
        self.submit(b"")
        (message,) = self.received(1)
        self.assertRegex(message.content, rb"\A(?:[!-9;-~]+: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+(?:\r\n)?\Z")

    def test_utf8_addresses(self) -> None:
        """Addresses in UTF-8 arrive as such, since SMTPUTF8 is offered."""
        self.submit(EIGHT_BIT, "j\u00fcrgen@b\u00fccher.example", sender="gr\u00fc\u00dfe@example.org")
        (message,) = self.received(1)
        self.assertEqual(
            (message.sender, message.recipients),
            ("gr\u00fc\u00dfe@example.org", ["j\u00fcrgen@b\u00fccher.example"]),
        )
        self.assertEqual("SMTPUTF8" in message.parameters, True)
        self.assertEqual(message.content[-len(EIGHT_BIT) :], EIGHT_BIT)

    def test_many(self) -> None:
        """A thousand recipients come in one transaction; two hundred messages arrive once each."""
        recipients = [f"recipient{number}@example.net" for number in range(1000)]
        self.submit(ONE_LINE, *recipients)
        self.assertEqual(sorted(self.received(1)[0].recipients), sorted(recipients))
        with Client(self.postfix.address) as client:
            client.hello()
            for number in range(200):
                self.assertEqual(client.send_message(HEADER + b"%d\r\n" % number)[:3], b"250")
        numbers = [int(message.content.rpartition(b"\r\n\r\n")[2]) for message in self.received(201)[1:]]
        self.assertEqual(sorted(numbers), list(range(200)))

    def test_server_comes_back(self) -> None:
        """While the server is down Postfix keeps a program's mail, and sends it when it is back."""
        self.recording.stop()
        command = [
            require("sendmail"),
            "-C",
            str(self.postfix.here / "etc"),
            "-i",
            "-f",
            "sender@example.org",
        ]
        subprocess.run(
            [*command, "recipient@example.net"],
            input=ONE_LINE.replace(b"\r\n", b"\n"),
            env=environment(),
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        wait_for("Postfix's first attempt", lambda: "status=deferred" in self.postfix.log)
        self.recording = self.started(self.recording.again())
        (message,) = self.received(1)
        self.assertEqual(message.content[-len(ONE_LINE) :], ONE_LINE)


class ForwardingPostfixTests(PostfixCase):
    """Postfix tells of the client it has a message from."""

    def test_trusted(self) -> None:
        """By XFORWARD, for each message anew; the server knows it, and that Postfix is its client."""
        self.start(self.recording_server("--trust-xclient=127.0.0.1"), "smtp_send_xforward_command = yes\n")
        for count in (1, 2):
            self.submit(ONE_LINE)
            self.received(count)
        first, second = (message.facts for message in self.recording.messages())
        for facts in (first, second):
            told = facts["forwarded"]
            self.assertEqual((facts["hello"], facts["peer"]), ("postfix.example", "127.0.0.1"))
            self.assertEqual(
                (told["HELO"], told["ADDR"], told["PROTO"]), ("client.example", "127.0.0.1", "ESMTP")
            )
        self.assertNotEqual(first["forwarded"]["IDENT"], second["forwarded"]["IDENT"])

    def test_stranger(self) -> None:
        """Who is not trusted is not offered it, and Postfix sends its mail without."""
        self.start(self.recording_server(), "smtp_send_xforward_command = yes\n")
        self.submit(ONE_LINE)
        (message,) = self.received(1)
        self.assertEqual(message.facts["forwarded"], {})


SECURE = """\
smtp_tls_security_level = verify
smtp_tls_CAfile = {authority}
smtp_tls_secure_cert_match = localhost
smtp_tls_verify_cert_match = localhost
smtp_tls_loglevel = 1
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = static:alice:secret
smtp_sasl_security_options = noanonymous
smtp_sasl_tls_security_options = noanonymous
smtp_sasl_mechanism_filter = {mechanism}
"""


class SecurePostfixTests(PostfixCase, TLSTestCase):
    """Postfix verifies the server's certificate, and says who it is."""

    def assert_authenticates(self, mechanism: str) -> None:
        """What Postfix relays comes through TLS, from the user."""
        self.write("default.pem", "localhost")
        users = self.directory() / "users"
        users.write_text("alice:secret\n")
        options = [f"--tls={self.folder}", "--require-tls", "--require-auth", f"--auth=file:{users}"]
        more = SECURE.format(authority=self.authority_file(), mechanism=mechanism)
        self.start(self.recording_server(*options), more)
        self.submit(EIGHT_BIT)
        (message,) = self.received(1)
        self.assertEqual(message.content[-len(EIGHT_BIT) :], EIGHT_BIT)
        self.assertEqual((message.facts["protocol"], message.facts["identity"]), ("ESMTPSA", "alice"))
        self.assertIn("Verified TLS connection established", self.postfix.log)

    def test_plain(self) -> None:
        """With a password in clear."""
        self.assert_authenticates("plain")

    def test_cram_md5(self) -> None:
        """With a digest of it."""
        self.assert_authenticates("cram-md5")
