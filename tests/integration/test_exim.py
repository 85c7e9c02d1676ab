"""Exim relays through the server: its binary with a configuration and a spool of its own. It sends BDAT."""

import os
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.integration.harness import (
    DOTS,
    EIGHT_BIT,
    ONE_LINE,
    RecordingServer,
    free_port,
    large_message,
    require,
)
from tests.integration.programs import RECIPIENT, SENDER, Outcome, TLSTestCase, run

CONFIGURATION = """\
exim_path = {exim}
spool_directory = {here}/spool
log_file_path = {here}/%slog
primary_hostname = exim.example
keep_environment =
message_size_limit = 50M
begin routers
upstream:
  driver = manualroute
  route_list = * 127.0.0.1 byname
  self = send
  transport = upstream
begin transports
upstream:
  driver = smtp
  port = {port}
  message_linelength_limit = 1000000
  {transport}
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  client_send = ^alice^secret
"""

SECURE = """\
hosts_require_tls = *
  hosts_require_auth = *
  tls_verify_certificates = {authority}
  tls_verify_cert_hostnames ="""


class Exim:
    """An Exim of our own; it runs for one message at a time.

    :param here: an empty folder.
    :param port: of the server it relays to.
    :param transport: settings of how it does.
    """

    def __init__(self, here: Path, port: int, transport: str = "") -> None:
        if os.geteuid() != 0:
            raise SkipTest("Exim can only be run by root")
        self._here = here
        self._exim = require("exim4", "exim4-daemon-light")
        here.chmod(0o777)
        text = CONFIGURATION.format(exim=self._exim, here=here, port=port, transport=transport)
        (here / "configuration").write_text(text)

    def send(self, content: bytes, *recipients: str, sender: str = SENDER) -> Outcome:
        """Deliver a message before it ends."""
        text = content.replace(b"\r\n", b"\n")
        return run([*self._command, "-odf", "-i", "-f", sender, *(recipients or [RECIPIENT])], text)

    def run_queue(self) -> Outcome:
        """Try again what is due."""
        return run([*self._command, "-q"])

    @property
    def _command(self) -> list[str]:
        return [self._exim, "-C", str(self._here / "configuration")]

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self._here / "mainlog").read_text("utf-8", "replace")


class EximTests(TLSTestCase):
    """Exim as a client."""

    def assert_sends(self, exim: Exim, recording: RecordingServer, content: bytes, protocol: str) -> None:
        """The message arrives as it is, behind the field that Exim adds."""
        outcome = exim.send(content)
        self.assertEqual(recording.messages() != [], True, outcome.output + exim.log)
        message = recording.message()
        header, _, body = content.partition(b"\r\n\r\n")
        self.assertEqual(message.content[:20], b"Received: from root ")
        self.assertEqual(message.content.endswith(b"\r\n\r\n" + body), True, "it is changed")
        self.assertIn(header, message.content)
        self.assertEqual(message.facts["protocol"], protocol)

    def test_chunks(self) -> None:
        """Exim sends BDAT, as its log says by a K; dots, 8-bit octets and 20 MiB arrive as they were."""
        recording = self.recording_server()
        exim = Exim(self.directory(), recording.port)
        sent = [ONE_LINE, DOTS, EIGHT_BIT, large_message()]
        for content in sent:
            self.assert_sends(exim, recording, content, "ESMTP")
        self.assertEqual(exim.log.count(" K C="), len(sent), exim.log)

    def test_secure(self) -> None:
        """With TLS, a verified certificate and AUTH."""
        self.write("default.pem", "localhost")
        users = self.directory() / "users"
        users.write_text("alice:secret\n")
        options = [f"--tls={self.folder}", "--require-tls", "--require-auth", f"--auth=file:{users}"]
        recording = self.recording_server(*options)
        here = self.directory()
        authority = self.authority_file().rename(here / "authority")
        exim = Exim(here, recording.port, SECURE.format(authority=authority))
        self.assert_sends(exim, recording, EIGHT_BIT, "ESMTPSA")
        self.assertIn("CV=yes", exim.log)


class OpenSMTPDTests(TLSTestCase):
    """OpenSMTPD's client, which needs none of its daemon."""

    def test_doors(self) -> None:
        """In clear, with STARTTLS, and with implicit TLS."""
        self.write("default.pem", "localhost")
        implicit = free_port()
        listen = f"--listen=tls:{implicit}:interface=127.0.0.1"
        recording = self.recording_server(f"--tls={self.folder}", listen)
        command = [require("smtp", "opensmtpd"), "-C", "-F", SENDER, "-H", "client.example"]
        for scheme, port, protocol in (
            ("smtp+notls", recording.port, "ESMTP"),
            ("smtp+tls", recording.port, "ESMTPS"),
            ("smtps", implicit, "ESMTPS"),
        ):
            outcome = run([*command, "-s", f"{scheme}://127.0.0.1:{port}", RECIPIENT], DOTS)
            self.assertEqual(outcome.code, 0, outcome.output)
            message = recording.message()
            self.assertEqual(message.facts["protocol"], protocol)
            self.assertEqual(message.content.endswith(DOTS), True, "it is changed")
