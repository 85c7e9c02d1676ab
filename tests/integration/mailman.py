"""GNU Mailman 3.3 for tests: installed once, started with a configuration of its own.

It lives in a virtual environment, in the folder that the variable ``SMTPSERV_MAILMAN`` names, where it is
kept for the next run, or in a temporary one.
"""

import atexit
import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from twisted.trial.unittest import SkipTest

from smtpserv.mailman.configuration import MailmanOptions, mailman_config
from tests.integration.harness import PATIENCE, Client, IntegrationTestCase, free_port, wait_for

#: Where it is to be installed.
VARIABLE: Final = "SMTPSERV_MAILMAN"

#: With SQLAlchemy 2.1 the REST API of this version fails; on Python 3.13 pip would choose another version.
REQUIREMENTS: Final = ("mailman==3.3.10", "sqlalchemy<2.1")
PYTHONS: Final = ((3, 10), (3, 11), (3, 12))

#: Seconds that installing it may take: some of what it needs is built.
PIP_PATIENCE: Final = 900.0

USER: Final = "restadmin"
PASSWORD: Final = "restpass"

#: Seconds that starting it may take: several Pythons of 80 MB each, on a machine that may be busy.
START_PATIENCE: Final = 300.0

#: What it can run besides LMTP and REST, and what of it a post needs on its way to the members.
RUNNERS: Final = frozenset(
    {"archive", "bounces", "command", "digest", "in", "nntp", "out", "pipeline", "retry", "task", "virgin"}
)
POSTS: Final = frozenset({"in", "pipeline", "out"})

#: What of it talks to people as well. Mail walks through their queues in this order.
ALL: Final = ("bounces", "command", "virgin", "in", "pipeline", "out")

#: The queues of what went wrong.
WRONG: Final = ("bad", "retry", "shunt")

CONFIGURATION: Final = """\
[mailman]
site_owner: postmaster@example.test
layout: here
# lynx need not be there.
html_to_plain_text_command: /bin/cat $filename

[paths.here]
var_dir: {here}/var

{mta}
# Each member's copy of a personal list has a reverse-path that names the member.
verp_personalized_deliveries: yes

[webservice]
hostname: 127.0.0.1
port: {rest}
admin_user: {user}
admin_pass: {password}
workers: 1

[database]
url: sqlite:///{here}/var/data/mailman.db
"""

MAP_CONFIGURATION: Final = "[postfix]\ntransport_file_type: regex\n"


def find_python() -> str:
    """A Python that Mailman runs on; without one the test is skipped."""
    names = ["python3.12", "python3.11", "python3.10", "python3"]
    roots = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.1[0-2].*/bin/python3")
    for candidate in [sys.executable, *filter(None, map(shutil.which, names)), *map(str, sorted(roots))]:
        asked = f"import sys, venv, ensurepip; print(tuple(sys.version_info[:2]) in {PYTHONS})"
        said = subprocess.run([candidate, "-c", asked], capture_output=True, text=True, check=False)
        if said.stdout.strip() == "True":
            return candidate
    raise SkipTest("GNU Mailman 3.3.10 needs Python 3.10, 3.11 or 3.12, with venv")


@cache
def installation() -> Path:
    """The virtual environment that has it. Whoever comes while it is made, in another process too, waits."""
    named = os.environ.get(VARIABLE)
    folder = Path(named or tempfile.mkdtemp(prefix="smtpserv-mailman-")).absolute()
    if not named:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder / "environment", ignore_errors=True)
            install(folder / "environment")
            (folder / "complete").touch()
    return folder / "environment"


def install(path: Path) -> None:
    """Make the virtual environment, by pip as this machine has it configured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for command in (
        [find_python(), "-m", "venv", str(path)],
        [str(path / "bin" / "pip"), "install", "--quiet", *REQUIREMENTS],
    ):
        done = subprocess.run(
            command,
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PIP_PATIENCE,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")


class Mailman:
    """A Mailman of our own, with no lists.

    :param here: an empty folder.
    :param smtp: the port that it sends to.
    :param runners: of :data:`RUNNERS`, those that are started: :data:`POSTS` and more.
    :param with_map: whether it writes the map that Postfix would read.
    """

    def __init__(
        self, here: Path, smtp: int = 0, runners: Iterable[str] = (), with_map: bool = False
    ) -> None:
        self.here = here
        self.lmtp = ("127.0.0.1", free_port())
        self.rest_port = free_port()
        self.smtp_port = smtp or free_port()
        self.runners = frozenset(runners)
        #: As ``map=`` is given it.
        self.map = here / "var" / "data" / "postfix_lmtp"
        (here / "home").mkdir()
        (here / "map.cfg").write_text(MAP_CONFIGURATION)
        self.start(with_map)

    def _configuration(self, with_map: bool) -> str:
        options = MailmanOptions(
            lmtp_port=self.lmtp[1],
            smtp_port=self.smtp_port,
            map_config=str(self.here / "map.cfg") if with_map else "",
        )
        text = CONFIGURATION.format(
            here=self.here, mta=mailman_config(options), rest=self.rest_port, user=USER, password=PASSWORD
        )
        for name in sorted(RUNNERS):
            text += f"[runner.{name}]\n{'sleep_time: 0.1s' if name in self.runners else 'start: no'}\n"
        return text

    def start(self, with_map: bool = False) -> None:
        """Start it, in the foreground; after a stop, with the lists it had. It then takes some seconds."""
        (self.here / "mailman.cfg").write_text(self._configuration(with_map))
        command = [str(installation() / "bin" / "master"), "--force", "-C", str(self.here / "mailman.cfg")]
        with open(self.here / "log", "ab") as log:
            self.master = subprocess.Popen(
                command,
                cwd=self.here,
                # gunicorn has a socket in its home: each instance needs its own.
                env={"HOME": str(self.here / "home"), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def api(self) -> str:
        """As ``api=`` is given it."""
        return f"http://127.0.0.1:{self.rest_port}/3.1"

    @property
    def log(self) -> str:
        """What it has logged, all of it."""
        files = [self.here / "log", *(self.here / "var" / "logs").glob("*.log")]
        return "".join(f"--- {file.name}\n{file.read_text('utf-8', 'replace')[-2000:]}" for file in files)

    @property
    def heard(self) -> str:
        """What its LMTP server has been told, all of it, and more."""
        return (self.here / "var" / "logs" / "smtp.log").read_text("utf-8", "replace")

    def wait_until_ready(self) -> None:
        """Until REST and LMTP answer: neither waits for the other."""

        def answers() -> bool:
            if self.has_ended():
                raise AssertionError("Mailman has ended")
            try:
                self.rest("system/versions")
                Client(self.lmtp).close()
            except OSError:
                time.sleep(0.2)  # It has enough to do.
                return False
            return True

        try:
            wait_for("Mailman", answers, START_PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def has_ended(self) -> bool:
        """Whether its first process has; it is not waited for, so that the group keeps its name."""
        return bool(os.waitid(os.P_PID, self.master.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))

    def stop(self) -> None:
        """Ask it to stop, and see that it does; it takes some seconds."""
        os.kill(self.master.pid, signal.SIGTERM)
        try:
            wait_for("Mailman's end", self.has_ended)
        finally:
            self.kill()

    def kill(self) -> None:
        """End all of its processes at once, if they still run."""
        if self.master.returncode is None:
            os.killpg(self.master.pid, signal.SIGKILL)
            self.master.wait()

    def rest(self, path: str, method: str = "GET", **fields: object) -> Any:
        """Ask the REST API.

        :return: what the JSON says; None where nothing is said.
        :raises OSError: when it refuses, or is not there.
        """
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        body = urlencode(fields).encode() if fields else None
        request = urllib.request.Request(
            f"{self.api}/{path}", body, {"Authorization": f"Basic {token}"}, method=method
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return json.loads(response.read() or b"null")

    def add_domain(self, domain: str, **more: object) -> None:
        """Make it know a domain; ``alias_domain`` may be given."""
        self.rest("domains", "POST", mail_host=domain, **more)

    def add_list(self, address: str, members: Iterable[str] = (), **configuration: object) -> None:
        """Make a list, with members who may post at once."""
        self.rest("lists", "POST", fqdn_listname=address)
        settings: dict[str, Any] = {"send_welcome_message": False, "archive_policy": "never"} | configuration
        self.rest(f"lists/{address}/config", "PATCH", **settings)
        for member in members:
            self.add_member(address, member)

    def add_member(self, address: str, member: str, **more: object) -> None:
        """Subscribe somebody, with all formalities done; a ``role`` may be given."""
        approved: dict[str, Any] = {"pre_verified": True, "pre_confirmed": True, "pre_approved": True}
        list_id = address.replace("@", ".")
        self.rest("members", "POST", list_id=list_id, subscriber=member, **approved | more)

    def members(self, address: str) -> dict[str, dict[str, Any]]:
        """What it says of each member of a list, by address."""
        found = self.rest(f"lists/{address}/roster/member")
        return {each["email"]: each for each in found.get("entries", ())}

    def wait_until_idle(self) -> None:
        """Until nothing is in its queues; what is in hand is there as well.

        :raises AssertionError: when something went wrong.
        """

        def is_idle() -> bool:
            if any(map(self._queued, WRONG)):
                raise AssertionError(f"Mailman could not do something\n{self.log}")
            # What one runner gives back to an earlier one may be missed once.
            return not any(map(self._queued, ALL * 2))

        wait_for("empty queues of Mailman", is_idle)

    def _queued(self, queue: str) -> list[Path]:
        # What was being written when it was killed ends in .tmp, and stays.
        files = (self.here / "var" / "queue" / queue).glob("*")
        return [each for each in files if each.suffix in (".pck", ".bak")]

    def delete_list(self, address: str) -> None:
        """Delete a list."""
        self.rest(f"lists/{address}", "DELETE")

    def takes(self, *mailboxes: str) -> list[bool]:
        """What its LMTP server says to each mailbox at RCPT: whether it is a list's."""
        with Client(self.lmtp) as client:
            client.expect("LHLO client.example", "250")
            client.expect("MAIL FROM:<sender@example.org>", "250")
            replies = [client.command(f"RCPT TO:<{each}>")[:3] for each in mailboxes]
        wrong = set(replies) - {b"250", b"550"}
        if wrong:
            raise AssertionError(f"Mailman's LMTP server said {wrong}\n{self.log}")
        return [each == b"250" for each in replies]


class MailmanCase(IntegrationTestCase):
    """Starts Mailmans."""

    def mailman(self, **more: Any) -> Mailman:
        """One that is ready; ended with the test."""
        installation()
        mailman = Mailman(self.directory(), **more)
        self.addCleanup(mailman.kill)
        mailman.wait_until_ready()
        return mailman
