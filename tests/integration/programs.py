"""Programs that nobody here wrote, how they are run, and what they are given to read."""

import atexit
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import Pair, make_pair
from tests.integration.harness import (
    PATIENCE,
    Address,
    IntegrationTestCase,
    RecordingServer,
    environment,
    require,
)

SENDER = "sender@example.org"
RECIPIENT = "recipient@example.net"


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and all it wrote."""

    code: int
    output: str


def run(command: Sequence[str], text: bytes = b"", **more: str) -> Outcome:
    """Run a program to its end, whatever end that is.

    :param more: its environment.
    """
    done = subprocess.run(
        command,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        env=environment(**more),
        check=False,
    )
    return Outcome(done.returncode, done.stdout.decode("utf-8", "replace"))


def s_client(port: int, *options: str, text: bytes = b"QUIT\r\n") -> Outcome:
    """openssl s_client, which says a text once TLS is there, and prints all until the server closes."""
    return run([require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", *options], text)


def swaks(address: Address, *options: str) -> Outcome:
    """swaks, which sends a message."""
    command = [require("swaks"), "--server", str(address[0]), "--port", str(address[1])]
    return run([*command, "--helo", "client.example", "--from", SENDER, "--to", RECIPIENT, *options])


def curl(scheme: str, port: int, *options: str) -> Outcome:
    """curl, which sends a message and believes every certificate.

    :param scheme: ``smtp`` or ``smtps``.
    """
    command = [require("curl"), "--silent", "--show-error", "--insecure", "--verbose"]
    command += [
        f"{scheme}://127.0.0.1:{port}/client.example",
        "--mail-from",
        SENDER,
        "--mail-rcpt",
        RECIPIENT,
    ]
    return run([*command, "--upload-file", "-", *options], b"Subject: curl\r\n\r\nHello\r\n")


def trusting() -> ssl.SSLContext:
    """What a client that believes every certificate connects with."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class TLSTestCase(IntegrationTestCase):
    """Has a certificate authority and servers with TLS."""

    def setUp(self) -> None:
        """The authority, and a folder for what is shown."""
        self.authority = make_pair(cn="authority", ca=True)
        self.folder = self.directory()

    def write(self, name: str, *names: str, cn: str = "") -> Path:
        """A new certificate, signed by the authority, with its key, in one file that appears at once."""
        pair = make_pair(*names, cn=cn, issuer=self.authority)
        return self.write_pair(name, pair)

    def write_pair(self, name: str, pair: Pair) -> Path:
        """A key and certificate in one file."""
        (self.folder / f"{name}.part").write_bytes(pair.pem)
        return (self.folder / f"{name}.part").rename(self.folder / name)

    def authority_file(self) -> Path:
        """The authority's certificate."""
        file = self.directory() / "authority"
        file.write_bytes(self.authority.certificate_pem)
        return file

    def assert_ended_well(self, outcome: Outcome) -> None:
        """The program has done what it was to do."""
        self.assertEqual(outcome.code, 0, outcome.output)

    def assert_recorded(self, recording: RecordingServer, protocol: str, identity: str | None = None) -> None:
        """One message came, in this way."""
        facts = recording.message().facts
        self.assertEqual((facts["protocol"], facts["identity"]), (protocol, identity))


class SharedServerCase(TLSTestCase):
    """One server with TLS for all the tests of a class, and of those that inherit its :meth:`start`: it takes
    a second to start one, and trial has no ``setUpClass``. The first test starts it; it ends with the
    program.
    """

    keeper: TLSTestCase | None = None
    recording: RecordingServer

    @classmethod
    def start(cls, keeper: TLSTestCase) -> None:
        """Start what the tests need, as ``cls.recording`` and more."""
        raise NotImplementedError

    def setUp(self) -> None:
        """See that it is there, and forget what earlier tests have sent."""
        cls = next(each for each in type(self).__mro__ if "start" in vars(each))
        assert issubclass(cls, SharedServerCase)
        if cls.keeper is None:
            keeper = TLSTestCase("directory")
            atexit.register(keeper.doCleanups)
            keeper.setUp()
            cls.start(keeper)
            cls.keeper = keeper
        self.authority, self.folder = cls.keeper.authority, cls.keeper.folder
        self.recording.forget()
