"""A processor that somebody else wrote drops in: the package under ``examples``, and the README's."""

import mailbox
import re
import shlex
import smtplib
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from textwrap import dedent

from tests.integration.harness import PATIENCE, ROOT, IntegrationTestCase, Server, environment, free_port
from tests.integration.test_packaging import INSTALLED, archive, install, run, sources

MESSAGE = b"From: a@a.example\r\nSubject: caf\xc3\xa9\r\n\r\n.\r\n..two dots\r\nbare octet \xff\r\n"


def example() -> Path:
    """The folder of the example package."""
    return sources("example") / "examples" / "maildir"


def installed() -> Path:
    """The ``bin`` folder of an installation with both packages."""
    return install(archive("whl"), example())


class InstalledServerTestCase(IntegrationTestCase):
    """Starts the server that is installed."""

    def start(self, command: Sequence[str], directory: Path) -> Server:
        """A server on a free port, in a folder."""
        port = free_port()
        listening = [*command, f"--listen=tcp:{port}:interface=127.0.0.1"]
        return self.started(Server(listening, ("127.0.0.1", port), directory, env=INSTALLED))


def send(server: Server, recipients: Sequence[str], message: bytes = MESSAGE) -> dict[str, tuple[int, bytes]]:
    """Send a message as programs do; the recipients that were refused."""
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        return client.sendmail("a@a.example", recipients, message)


class ExampleTests(InstalledServerTestCase):
    """The example package, installed beside smtpserv."""

    def server_with(self, processor: str) -> Server:
        """A server with one of its processors."""
        return self.start([str(installed() / "smtpserv"), f"--processor={processor}"], self.directory())

    def test_processors_are_listed(self) -> None:
        """``--help-processors`` names both: the one of the entry point and the one of the plugin file."""
        listed = run(installed() / "smtpserv", "--help-processors")
        self.assertRegex(listed, r"(?m)^maildir +stores each message in a Maildir$")
        self.assertRegex(listed, r"(?m)^mailboxes +stores each message in the Maildirs of its recipients, ")

    def test_arguments_are_explained(self) -> None:
        """``--help-processor=NAME`` tells the arguments."""
        for name in ("maildir", "mailboxes"):
            self.assertRegex(run(installed() / "smtpserv", f"--help-processor={name}"), r"(?m)^ *FOLDER +\w")

    def test_maildir_receives_mail(self) -> None:
        """A message is in the Maildir when its client is told so, with every octet it sent."""
        folder = self.directory() / "mail"
        self.assertEqual(send(self.server_with(f"maildir:{folder}"), ["b@b.example"]), {})
        (file,) = (folder / "new").iterdir()
        trace, _, content = file.read_bytes().partition(b"From:")
        self.assertEqual(b"From:" + content, MESSAGE)
        self.assertTrue(trace.startswith(b"Return-Path: <a@a.example>\r\nReceived: from "))
        (message,) = mailbox.Maildir(folder)
        self.assertEqual(message["Return-Path"], "<a@a.example>")

    def test_mailboxes_receive_mail(self) -> None:
        """Each user has the message, and strangers are refused while the client still knows them apart."""
        folder = self.directory()
        for user in ("alice", "bob"):
            (folder / user).mkdir()
        server = self.server_with(f"mailboxes:{folder}")
        refused = send(server, ["alice@b.example", "carol@b.example", "bob@b.example"])
        self.assertEqual(refused, {"carol@b.example": (550, b"5.1.1 No such mailbox here")})
        self.assertEqual([len(mailbox.Maildir(folder / user)) for user in ("alice", "bob")], [1, 1])

    def check_refused(self, processor: str, line: str) -> None:
        """The start ends with one line."""
        done = subprocess.run(
            [installed() / "smtpserv", f"--processor={processor}", "--listen=tcp:0:interface=127.0.0.1"],
            cwd=self.directory(),
            env=environment(**INSTALLED),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (1, "", f"smtpserv: {line}\n"))

    def test_misspelt_name(self) -> None:
        """A misspelt name gets the nearest."""
        self.check_refused("malidir:/tmp", "no processor is called 'malidir'; did you mean maildir?")

    def test_folder_that_cannot_be_made(self) -> None:
        """A folder that can't be made ends the start with a line that names it."""
        self.check_refused(
            "maildir:/nowhere/mail", "--processor=maildir: /nowhere/mail: No such file or directory"
        )

    def test_its_own_tests_pass(self) -> None:
        """Its tests need no more than what is installed."""
        printed = run(installed() / "python", "-m", "twisted.trial", "test_maildir", cwd=example())
        self.assertRegex(printed, r"PASSED \(successes=\d+\)")


@cache
def readme_blocks() -> list[str]:
    """What the README tells to write or to run."""
    block = re.compile(r"^(?:\.\. code-block:: python|.*::)\n\n((?:    .*\n|\n)+)", re.MULTILINE)
    return [
        dedent(match[1]).strip() + "\n" for match in block.finditer((ROOT / "README.rst").read_text("utf-8"))
    ]


class ReadmeTests(InstalledServerTestCase):
    """What the README tells about a processor of one's own."""

    def setUp(self) -> None:
        """Write its two files where its reader would."""
        self.work = self.directory()
        processor, tests = (block for block in readme_blocks() if "import" in block and "class" in block)
        (self.work / "tickets.py").write_text(processor)
        (self.work / "test_tickets.py").write_text(tests)

    def command(self, word: str) -> list[str]:
        """The one command with that word, for this installation."""
        (line,) = (line for block in readme_blocks() for line in block.splitlines() if word in line)
        program, *arguments = shlex.split(line)
        return [str(installed() / Path(program).name), *arguments]

    def test_processor(self) -> None:
        """It takes mail, refuses mail, and shows what it does."""
        server = self.start(self.command("tickets:Tickets"), self.work)
        send(server, ["b@b.example"])
        error = self.assertRaises(
            smtplib.SMTPDataError, send, server, ["b@b.example"], b"From: a@a.example\r\n"
        )
        self.assertEqual((error.smtp_code, error.smtp_error), (550, b"5.7.1 A ticket needs a subject"))
        self.assertIn("New ticket: café", server.stdout.decode("utf-8") + server.stderr)

    def test_tests(self) -> None:
        """Its tests pass."""
        self.assertIn("PASSED (successes=1)", run(*self.command("test_tickets"), cwd=self.work))
