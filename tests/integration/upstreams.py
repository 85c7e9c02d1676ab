"""Mail servers that nobody here wrote, to relay to. What they accept ends in files, or at our recorder."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SkipTest

from tests.integration.harness import PATIENCE, Address, Client, environment, free_port, require, wait_for


def require_root(what: str) -> None:
    """Without it the test is skipped."""
    if os.geteuid() != 0:
        raise SkipTest(f"{what} can only be started by root")


class Upstream:
    """A mail server of our own, in the foreground.

    :param here: an empty folder, for all that it writes.
    """

    def __init__(self, here: Path) -> None:
        self.here: Final = here
        here.chmod(0o755)
        self.port: Final = free_port()
        self.command = self.prepare()
        self.start()

    def prepare(self) -> Sequence[str]:
        """Write what it reads; its command line."""
        raise NotImplementedError

    @property
    def address(self) -> Address:
        """Where it listens."""
        return "127.0.0.1", self.port

    def start(self) -> None:
        """Start it, where it was; it greets when this returns."""
        with open(self.here / "output", "ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.here,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_for(f"a greeting of {self.command[0]}", self._greets)
        except AssertionError:
            self.kill()
            raise

    def _greets(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{self.command[0]} ended: {self.log}")
        try:
            Client(self.address).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it and what it has started."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(10)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and what it has started without any order (SIGKILL); they are a process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    @property
    def log(self) -> str:
        """What it has said."""
        files = [self.here / "output", *sorted(self.here.glob("*log"))]
        return "\n".join(file.read_text("utf-8", "replace")[-4000:] for file in files if file.exists())


class SMTPSink(Upstream):
    """Postfix's smtp-sink: the fastest there is; every message is a file."""

    def prepare(self) -> Sequence[str]:
        """It reads nothing."""
        messages = self.here / "messages"
        messages.mkdir()
        messages.chmod(0o777)
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        sink = require("smtp-sink", "postfix")
        return [sink, *user, "-d", f"{messages}/%H.", f"127.0.0.1:{self.port}", "100"]

    def messages(self) -> list[bytes]:
        """The contents, with LF for CRLF, behind the lines that it writes about each; it adds an LF."""
        files = (file.read_bytes() for file in (self.here / "messages").iterdir())
        return [content.removesuffix(b"\n") for content in files]


_EXIM: Final = """\
exim_path = {exim}
spool_directory = {here}/spool
log_file_path = {here}/%slog
primary_hostname = exim.example
keep_environment =
message_size_limit = 50M
rfc1413_query_timeout = 0s
smtp_accept_max = 50
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = accept
begin routers
onward:
  driver = manualroute
  route_list = * 127.0.0.1 byname
  self = send
  transport = onward
begin transports
onward:
  driver = smtp
  port = {onward}
  message_linelength_limit = 1000000
"""


class EximServer(Upstream):
    """Exim, which sends on what it accepts.

    :param onward: the port it sends it to.
    """

    def __init__(self, here: Path, onward: int) -> None:
        require_root("Exim")
        self._onward = onward
        super().__init__(here)

    def prepare(self) -> Sequence[str]:
        """One file."""
        exim = require("exim4", "exim4-daemon-light")
        self.here.chmod(0o777)
        (self.here / "configuration").write_text(_EXIM.format(exim=exim, here=self.here, onward=self._onward))
        address = f"<; [127.0.0.1]:{self.port}"
        return [exim, "-C", str(self.here / "configuration"), "-bdf", "-odb", "-oX", address]


_OPENSMTPD: Final = """\
listen on 127.0.0.1 port {port} hostname opensmtpd.example
action "onward" relay host smtp://127.0.0.1:{onward}
match from any for any action "onward"
"""

#: It wants its users, and folders that no configuration names: it is given them where nobody else sees them.
_OPENSMTPD_START: Final = """\
set -e
for file in passwd group; do mount --bind $file /etc/$file; done
for folder in /var/spool /var/lib /run; do mount -t tmpfs -o mode=755 none $folder; done
mkdir -p /var/lib/opensmtpd/empty
mkdir -m 711 /var/spool/smtpd
exec "$1" -d -f smtpd.conf
"""


class OpenSMTPD(Upstream):
    """OpenSMTPD, which sends on what it accepts.

    :param onward: the port it sends it to.
    """

    def __init__(self, here: Path, onward: int) -> None:
        require_root("OpenSMTPD")
        self._onward = onward
        super().__init__(here)

    def prepare(self) -> Sequence[str]:
        """Its users, its configuration, and what starts it."""
        smtpd = require("smtpd", "opensmtpd")
        users = [("opensmtpd", 64001), ("opensmtpq", 64002)]
        lines = "".join(f"{name}:x:{number}:{number}::/nonexistent:/bin/false\n" for name, number in users)
        (self.here / "passwd").write_text(Path("/etc/passwd").read_text("utf-8") + lines)
        lines = "".join(f"{name}:x:{number}:\n" for name, number in users)
        (self.here / "group").write_text(Path("/etc/group").read_text("utf-8") + lines)
        (self.here / "smtpd.conf").write_text(_OPENSMTPD.format(port=self.port, onward=self._onward))
        (self.here / "smtpd.conf").chmod(0o600)
        (self.here / "start").write_text(_OPENSMTPD_START)
        return [require("unshare", "util-linux"), "--mount", "sh", str(self.here / "start"), smtpd]


_DOVECOT: Final = """\
protocols = lmtp
base_dir = {here}/run
state_dir = {here}/state
log_path = {here}/dovecot.log
ssl = no
first_valid_uid = 1
mail_location = maildir:{here}/mail/%n
auth_mechanisms = {mechanism}
passdb {{
  driver = static
  args = {passdb}
}}
service auth {{
  unix_listener {here}/auth {{
    mode = 0666
  }}
}}
lmtp_proxy = {lmtp_proxy}
userdb {{
  driver = static
  args = uid=mail gid=mail home={here}/mail allow_all_users=yes
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
"""


class DovecotLMTP(Upstream):
    """Dovecot's LMTP server: every message is a file in a Maildir, unless it passes them on.

    :param onward: the port of another LMTP server, to which it passes each message as it comes.
    :param mechanism: by which it asks for a password, on the socket ``auth``; not by LMTP.
    """

    def __init__(
        self, here: Path, onward: int | None = None, mechanism: str = "plain", password: str = ""
    ) -> None:
        require_root("Dovecot")
        passdb = f"password={password}" if password else ""
        if onward:
            passdb = f"nopassword=y proxy=y protocol=lmtp host=127.0.0.1 port={onward}"
        self._facts = {"mechanism": mechanism, "passdb": passdb, "lmtp_proxy": "yes" if onward else "no"}
        super().__init__(here)

    def prepare(self) -> Sequence[str]:
        """One file."""
        (self.here / "mail").mkdir(mode=0o777)
        (self.here / "mail").chmod(0o777)
        configuration = self.here / "dovecot.conf"
        configuration.write_text(_DOVECOT.format(here=self.here, port=self.port, **self._facts))
        return [require("dovecot", "dovecot-core"), "-F", "-c", str(configuration)]

    def messages(self, user: str) -> list[bytes]:
        """The contents of one mailbox, with LF for CRLF, behind the fields that it adds."""
        return [file.read_bytes() for file in (self.here / "mail" / user / "new").glob("*")]
