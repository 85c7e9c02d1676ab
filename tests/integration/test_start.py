"""What is wrong about a start is said in one line, and what is right listens where it was told to."""

import contextlib
import json
import os
import pwd
import re
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.integration.harness import (
    PATIENCE,
    STOPPED,
    Client,
    IntegrationTestCase,
    Server,
    environment,
    free_port,
    require,
    script,
    wait_for,
)

RECORDER = "tests.integration.recorder"
MODULE = [sys.executable, "-m", "smtpserv"]

#: The same in a process that has imported everything already.
QUICKLY: list[str] = []

#: Says where to listen, for a start that was expected to fail and does not.
HARMLESS = ["--listen=tcp:0:interface=127.0.0.1"]

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT")

#: What is wrong on the command line, and what the line on stderr must name.
WRONG: Sequence[tuple[str, str]] = [
    ("--nonsense", "nonsense"),
    ("--max-size", "max-size"),
    ("--max-size=abc", "max-size"),
    ("--max-size=0", "max-size"),
    ("--max-size=-1", "max-size"),
    ("--max-recipients=99", "max-recipients"),
    ("--max-errors=1e3", "max-errors"),
    ("--idle-timeout=soon", "idle-timeout"),
    ("--idle-timeout=nan", "idle-timeout"),
    ("--processing-deadline=0", "processing-deadline"),
    ("--hostname=two words", "hostname"),
    ("--hostname=a\r\nb", "hostname"),
    ("--bare-newlines=perhaps", "bare-newlines"),
    ("--log-format=xml", "log-format"),
    ("--log=/nowhere/log", "/nowhere/log"),
    ("stray", "stray"),
    ("--listen=nonsense:1", "nonsense"),
    ("--listen=tcp:port", "tcp:port"),
    ("--listen=tcp:99999:interface=127.0.0.1", "99999"),
    ("--listen=", "--listen"),
    ("--listen=tcp:0:interface=nowhere.invalid", "nowhere.invalid"),
    ("--listen=unix:/nowhere/socket", "/nowhere/socket"),
    ("--listen=ssl:0:privateKey=/nowhere/key.pem", "/nowhere/key.pem"),
    ("--processor=debuging", "did you mean debugging"),
    ("--processor=", "processor"),
    ("--processor=debugging:format=xml", "xml"),
    ("--processor=debugging:colour=red", "colour"),
    ("--processor=debugging:text:text:text", "debugging"),
    ("--processor=debugging:format=json:format=json", "format"),
    ("--processor=discard:1", "discard"),
    ("--processor=no.such.module:Name", "no.such.module"),
    ("--processor=no.such.module", "no.such.module"),
    (f"--processor={RECORDER}:Nobody", "Nobody"),
    (f"--processor={RECORDER}:Recorder", "directory"),
    (f"--processor={RECORDER}:Unfinished", "process_message"),
    (f"--processor={RECORDER}:Undeclared", "IMessageProcessor"),
    (f"--processor={RECORDER}:Misshapen", "process_message"),
    (f"--processor={RECORDER}:Unmakeable:/nowhere", "Unmakeable"),
    (f"--processor={RECORDER}:SECRET", "SECRET"),
    ("--help-processor=debuging", "debugging"),
    ("--config=/nowhere/smtpserv.toml", "/nowhere/smtpserv.toml"),
    ("--config=/", "--config"),
]

#: What is wrong in a configuration file, and what the line on stderr must name beside the file.
WRONG_FILES: Sequence[tuple[str, str]] = [
    ("max-size = ", ".toml: "),
    ("colour = 'red'\n", "colour"),
    ("max-size = 'abc'\n", "max-size"),
    ("max-size = true\n", "max-size"),
    ("max-size = [1]\n", "max-size"),
    ("listen = 8025\n", "listen"),
    ("listen = [8025]\n", "listen"),
    ("listen = ['tcp:0:interface=127.0.0.1', 5]\n", "listen"),
    ("listen = []\n", "listen"),
    ("processor = 5\n", "processor"),
    ("[smtpserv]\nmax-size = 70000\n", "smtpserv"),
    ("hostname = 'gr\u00fc\u00dfe.example'\n", "hostname"),
]


class WrongStartTests(IntegrationTestCase):
    """A start that can't be: exit code 1 and one line that tells why."""

    def starts(
        self, command: Sequence[str], options: Sequence[Sequence[str]]
    ) -> list[tuple[int | None, str]]:
        """Start with each of these options: exit codes (None: it did not end) and what stderr says."""
        servers = []
        for number, each in enumerate(options):
            folder = self.here / f"start-{number}"
            folder.mkdir()
            servers.append(Server([*command, *each], ("", 0), folder))
            self.addCleanup(servers[-1].kill)
        return [(self.end_of(server), server.stderr) for server in servers]

    def end_of(self, server: Server) -> int | None:
        """Its exit code, None if it does not end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return server.wait()
        return None

    def assert_one_line(self, command: Sequence[str], wrong: Sequence[tuple[str, str]]) -> None:
        """All of these end with 1 and say why in one line; only lines of the log may stand before it."""
        options = [
            [option] if "listen" in f"{option}{named}" else [*HARMLESS, option] for option, named in wrong
        ]
        complaints = []
        for (option, named), (code, error) in zip(wrong, self.starts(command, options), strict=True):
            lines = [line for line in error.splitlines() if not LOG_LINE.match(line)]
            if (code, len(lines)) != (1, 1) or named not in lines[0]:
                complaints.append(
                    f"{option!r} ended with {code}, without {named!r} in one line: {error[-300:]}"
                )
        self.assertEqual("\n".join(complaints), "")

    def setUp(self) -> None:
        """A folder to start in."""
        self.here = self.directory()

    def test_command_line(self) -> None:
        """Every wrong option and argument is named."""
        self.assert_one_line(QUICKLY, WRONG)

    def test_smtpserv(self) -> None:
        """The command ``smtpserv`` says the same."""
        self.assert_one_line([script("smtpserv")], WRONG[::20])

    def test_twistd(self) -> None:
        """``twistd -n smtpserv`` says the same."""
        twistd = [script("twistd"), "--nodaemon", "--pidfile=", "smtpserv"]
        self.assert_one_line(twistd, WRONG[::20])

    def test_configuration_file(self) -> None:
        """Everything wrong in a file is named, and the file too."""
        wrong = []
        for number, (text, named) in enumerate(WRONG_FILES):
            file = self.here / f"{number}.toml"
            file.write_text(text, "utf-8")
            wrong.append((f"--config={file}", named))
        self.assert_one_line(QUICKLY, wrong)

    def test_file_that_is_not_text(self) -> None:
        """Neither is a file that is no UTF-8 a reason for more than a line."""
        file = self.here / "octets.toml"
        file.write_bytes(b"hostname = '\xff'\n")
        self.assert_one_line(MODULE, [(f"--config={file}", "octets.toml")])

    def test_port_taken(self) -> None:
        """A port that another server has is named, in the last line; the log may have begun by then."""
        twistd = [script("twistd"), "--nodaemon", "--pidfile=", "--logfile=twistd.log", "smtpserv"]
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"--listen=tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            for command in (MODULE, [script("smtpserv")], twistd):
                done = subprocess.run(
                    [*command, listen],
                    env=environment(),
                    cwd=self.here,
                    capture_output=True,
                    timeout=PATIENCE,
                )
                error = done.stderr.decode()
                last = error.splitlines()[-1]
                self.assertEqual((done.returncode, listen in last, "in use" in last), (1, True, True), error)
                self.assertEqual("Traceback" in error, False, error)

    def test_second_port_taken(self) -> None:
        """One port that can't be had ends the start, whatever the others are."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            options = [f"--listen=tcp:{each}:interface=127.0.0.1" for each in (free_port(), port)]
            done = subprocess.run(
                [*MODULE, *options], env=environment(), cwd=self.here, capture_output=True, timeout=PATIENCE
            )
        self.assertEqual((done.returncode, str(port) in done.stderr.decode().splitlines()[-1]), (1, True))


class DaemonTests(IntegrationTestCase):
    """``twistd smtpserv`` without ``-n``: the parent tells how the start went."""

    def setUp(self) -> None:
        """A folder for the pid and the log."""
        self.here = self.directory()
        self.pidfile, self.logfile = self.here / "twistd.pid", self.here / "twistd.log"

    def start(self, port: int) -> "subprocess.CompletedProcess[bytes]":
        """Run the parent to its end."""
        twistd = [script("twistd"), f"--pidfile={self.pidfile}", f"--logfile={self.logfile}", "smtpserv"]
        listen = f"--listen=tcp:{port}:interface=127.0.0.1"
        return subprocess.run(
            [*twistd, listen, "--processor=discard"],
            env=environment(),
            cwd=self.here,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def test_good_start(self) -> None:
        """The parent ends with 0 when the port is open; SIGTERM ends the daemon and its pid file."""
        port = free_port()
        done = self.start(port)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        pid = int(self.pidfile.read_text())
        try:
            with Client(("127.0.0.1", port)) as client:
                client.hello()
                self.assertEqual(client.send_message(b"x\r\n")[:3], b"250")
        finally:
            os.kill(pid, 15)
        wait_for("its end", lambda: not self.pidfile.exists())
        self.assertEqual("Traceback" in self.logfile.read_text(), False)

    def test_port_taken(self) -> None:
        """The parent ends with 1 and names the port, and no pid file is left."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = self.start(port)
        said = (done.stdout + done.stderr).decode()
        self.assertEqual((done.returncode, str(port) in said), (1, True), said)
        wait_for("its end", lambda: not self.pidfile.exists())


class ListenTests(IntegrationTestCase):
    """Servers that listen where they were told to."""

    def listening(self, address: "tuple[str, int] | str", *options: str) -> Server:
        """A server with its own ``--listen``, ready at that address."""
        return self.started(Server([*MODULE, *options], address, self.directory()))

    def test_twice(self) -> None:
        """Two endpoints, of IPv4 and IPv6, serve both; a line in the log for each says so."""
        first, second = free_port(), free_port("::1")
        four, six = f"tcp:{first}:interface=127.0.0.1", f"tcp6:{second}:interface=\\:\\:1"
        server = self.listening(("127.0.0.1", first), f"--listen={four}", "-l", six, "-p", "discard")
        self.assert_served(server)
        server.address = ("::1", second)
        self.assert_served(server)
        lines = [line for line in server.stderr.splitlines() if "SMTP on" in line]
        self.assertEqual([four in lines[0], six in lines[1], len(lines)], [True, True, 2], server.stderr)
        self.assertEqual(server.stderr.count("processor discard"), 1, server.stderr)
        self.assertEqual(server.stop() in STOPPED, True)

    def test_unix_socket(self) -> None:
        """A Unix socket serves, and is gone when the server is."""
        path = self.directory() / "smtp.sock"
        server = self.listening(str(path), f"--listen=unix:{path}", "--processor=debugging:format=json")
        self.assert_served(server)
        (shown,) = map(json.loads, server.stdout.splitlines())
        self.assertEqual(shown["session"]["peer"], {"host": "", "port": 0})
        server.stop()
        self.assertEqual(path.exists(), False)

    def certificate(self, folder: Path) -> tuple[Path, Path]:
        """A key and a certificate for localhost, signed by itself."""
        key, certificate = folder / "key.pem", folder / "cert.pem"
        command = [require("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost"]
        subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
        return key, certificate

    def assert_tls(self, endpoint: str, port: int, certificate: Path) -> None:
        """smtplib sends through TLS, and the processor is told of it."""
        options = [f"--listen={endpoint}", "--processor=debugging:format=json"]
        server = Server([*MODULE, *options], ("127.0.0.1", port), self.directory())
        self.addCleanup(server.kill)
        context = ssl.create_default_context(cafile=str(certificate))

        def is_listening() -> bool:
            self.assertEqual(server.process.poll(), None, server.stderr)
            with socket.socket() as probe:
                return probe.connect_ex(server.address) == 0

        wait_for("a server", is_listening)
        with smtplib.SMTP_SSL("localhost", port, timeout=PATIENCE, context=context) as client:
            client.sendmail("a@example.org", "b@example.net", b"Subject: secret\r\n\r\n" + b"x\r\n" * 1000000)
        (shown,) = map(json.loads, server.stdout.splitlines())
        self.assertEqual((shown["session"]["protocol"], shown["size"]), ("ESMTPS", 3000019))
        self.assertEqual(shown["session"]["tls"]["version"][:4], "TLSv")
        server.stop()
        self.assertEqual("Traceback" in server.stderr, False, server.stderr)

    def test_ssl(self) -> None:
        """An ``ssl`` endpoint: TLS from the first octet."""
        key, certificate = self.certificate(self.directory())
        port = free_port()
        endpoint = f"ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        self.assert_tls(endpoint, port, certificate)

    def test_tls(self) -> None:
        """A ``tls`` endpoint: certificates from a folder, chosen by name."""
        folder = self.directory()
        key, certificate = self.certificate(self.directory())
        (folder / "localhost.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
        port = free_port()
        self.assert_tls(f"tls:{folder}:{port}:interface=127.0.0.1", port, certificate)

    def test_systemd(self) -> None:
        """A socket that systemd has bound is served."""
        with socket.create_server(("127.0.0.1", 0)) as bound:
            address = ("127.0.0.1", bound.getsockname()[1])
            become = (
                "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()),"
                " LISTEN_FDS='1', LISTEN_FDNAMES='smtp'); os.execv(sys.argv[2], sys.argv[2:])"
            )
            options = ["--listen=systemd:domain=INET:index=0", "--processor=discard"]
            command = [sys.executable, "-c", become, str(bound.fileno()), *MODULE, *options]
            server = Server(command, address, self.directory(), pass_fds=[bound.fileno()])
        self.started(server)
        self.assert_served(server)
        server.stop()

    def test_low_port(self) -> None:
        """A port below 1024 is bound by root; the mail is received by nobody."""
        if os.geteuid() != 0:
            raise SkipTest("ports below 1024 can only be bound by root")
        port = low_port()
        directory = self.directory()
        directory.chmod(0o755)
        listen = f"--listen=tcp:{port}:interface=127.0.0.1"
        twistd = [script("twistd"), "-n", "--pidfile=", "--uid=nobody", "--gid=nogroup", "smtpserv"]
        server = self.started(Server([*twistd, listen], ("127.0.0.1", port), directory))
        self.assertEqual(os.stat(f"/proc/{server.process.pid}").st_uid, pwd.getpwnam("nobody").pw_uid)
        self.assert_served(server)
        server.stop()

    def test_configuration_file(self) -> None:
        """A TOML file holds the same names; what the command line says wins."""
        ports = [free_port(), free_port()]
        listen = [f"tcp:{port}:interface=127.0.0.1" for port in ports]
        file = self.directory() / "smtpserv.toml"
        file.write_text(
            f"listen = {json.dumps(listen)}\n"
            "hostname = 'file.example'\nmax-size = 70000\nprocessor = 'discard'\n"
        )
        server = self.listening(("127.0.0.1", ports[1]), f"--config={file}", "--hostname=line.example")
        with Client(("127.0.0.1", ports[0])) as client:
            self.assertEqual(client.greeting, b"220 line.example ESMTP smtpserv\r\n")
            self.assertEqual(b"SIZE 70000" in client.expect("EHLO client.example", "250"), True)
            self.assertEqual(client.send_message(b"x\r\n")[:3], b"250")
        self.assertEqual(server.stdout, b"")

    def test_listen_on_the_command_line_wins(self) -> None:
        """The endpoints of the command line stand in place of those of the file."""
        port, unwanted = free_port(), free_port()
        file = self.directory() / "smtpserv.toml"
        file.write_text(f"listen = 'tcp:{unwanted}:interface=127.0.0.1'\n")
        self.listening(("127.0.0.1", port), f"--config={file}", f"--listen=tcp:{port}:interface=127.0.0.1")
        with socket.socket() as probe:
            self.assertEqual(probe.connect_ex(("127.0.0.1", unwanted)) != 0, True)

    def test_debugging(self) -> None:
        """What the default processor prints is on stdout, in smtpd's form; the log is not."""
        server = self.server(processor="debugging")
        self.assert_served(server)
        self.assertEqual(
            server.stdout.decode().splitlines(),
            [
                "---------- MESSAGE FOLLOWS ----------",
                "Subject: next",
                "X-Peer: 127.0.0.1",
                "",
                "Hello",
                "------------ END MESSAGE ------------",
            ],
        )

    def test_log(self) -> None:
        """``--log`` takes the line of each message; nothing a client sends can forge one."""
        log = self.directory() / "mail.log"
        server = self.server(f"--log={log}", "--log-format=json")
        with Client(server.address) as client:
            client.hello()
            self.assertEqual(client.send_message(b"x\r\n", "a=b@example.org")[:3], b"250")
        entry = wait_for(
            "the line", lambda: [x for x in map(json.loads, log.open()) if x["event"] == "message"]
        )[0]
        self.assertEqual((entry["sender"], entry["size"], entry["code"]), ("a=b@example.org", 3, 250))


def low_port() -> int:
    """A port below 1024 that nobody listens on."""
    for port in range(1023, 600, -1):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise SkipTest("every port below 1024 is taken")
