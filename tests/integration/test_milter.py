"""Milters that nobody here wrote: OpenDKIM signs what goes through, rspamd judges it."""

import base64
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import dkim  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.integration.harness import (
    DOTS,
    EIGHT_BIT,
    LONG_LINES,
    ONE_LINE,
    Client,
    IntegrationTestCase,
    RecordingServer,
    Server,
    environment,
    free_port,
    require,
    wait_for,
)
from tests.integration.messages import messages

OPENDKIM = """\
Syslog no
UserID root
PidFile {directory}/pid
Socket {socket}
Mode s
Domain example.org
Selector s1
KeyFile {directory}/key
RequireSafeKeys no
Canonicalization {canonicalization}
"""

#: The little of rspamd that needs no network, no other program, and a second to start.
RSPAMD = """\
options {{
    pidfile = "{directory}/pid";
    control_socket = "{directory}/control mode=0600";
    cache_file = "{directory}/cache";
    tempdir = "{directory}";
    url_tld = "{directory}/suffixes";
    disable_hyperscan = true;
    filters = [];
    enable_test_patterns = true;
    dns {{ nameserver = ["127.0.0.1:{dns}:1"]; }}
}}
logging {{ type = "console"; level = "error"; }}
lang_detection {{ languages = ""; }}
actions {{ reject = 15; add_header = 6; }}
worker "rspamd_proxy" {{
    bind_socket = "127.0.0.1:{port}";
    milter = yes;
    count = 1;
    spam_header = "X-Spam";
    upstream "local" {{ default = yes; self_scan = yes; }}
}}
"""

#: What rspamd rejects, and what it marks, always.
REJECTED = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
MARKED = b"YJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

LARGE = ONE_LINE + b"x" * 70 + b"\r\n" + b"".join(b"%07d some text\r\n" % i for i in range(200_000))


def rsa_pair() -> tuple[bytes, bytes]:
    """A key, and what the DNS would say of it."""
    key = rsa.generate_private_key(65537, 2048)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


class MilterCase(IntegrationTestCase):
    """Runs a milter, and a server that asks it."""

    def milter(self, command: Sequence[str], is_there: Path | int) -> None:
        """A milter, when it can be asked; ended with the test.

        :param is_there: the path of its socket, or its port.
        """
        with open(self.directory() / "output", "wb") as output:
            process = subprocess.Popen(
                command, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)

        def can_be_asked() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"the milter ended: {Path(output.name).read_text('utf-8', 'replace')}")
            if isinstance(is_there, Path):
                return is_there.exists()
            try:
                Client(("127.0.0.1", is_there), greeted=False).close()
            except OSError:
                return False
            return True

        wait_for("the milter", can_be_asked)

    def answer(self, server: Server, content: bytes) -> str:
        """The reply to a message."""
        with Client(server.address) as client:
            client.hello()
            return client.send_message(content).decode("ascii")


class OpenDKIMTests(MilterCase):
    """OpenDKIM, which signs."""

    def setUp(self) -> None:
        """A key, and the program."""
        self.opendkim = require("opendkim")
        self.private, self.record = rsa_pair()

    def start(self, is_there: Path | int, canonicalization: str = "relaxed/relaxed") -> None:
        """Start it, on a path or a port."""
        directory = self.directory()
        (directory / "key").write_bytes(self.private)
        (directory / "key").chmod(0o600)
        socket = f"local:{is_there}" if isinstance(is_there, Path) else f"inet:{is_there}@127.0.0.1"
        configuration = OPENDKIM.format(directory=directory, socket=socket, canonicalization=canonicalization)
        (directory / "configuration").write_text(configuration)
        self.milter([self.opendkim, "-f", "-x", str(directory / "configuration")], is_there)

    def assert_signed(self, server: RecordingServer, content: bytes) -> None:
        """A message arrives with a signature that holds, and else as it was sent."""
        self.assertEqual(self.answer(server, content)[:3], "250")
        arrived = server.message().content
        self.assertTrue(arrived.startswith(b"DKIM-Signature: ") and arrived.endswith(content))
        self.assertTrue(dkim.verify(arrived, dnsfunc=lambda name, timeout=5: self.record))

    def test_signed(self) -> None:
        """Every message is, whatever its size; the signature holds."""
        port = free_port()
        self.start(port)
        server = self.recording_server(f"--filter=milter:inet:{port}@127.0.0.1")
        for content in (ONE_LINE, DOTS, LARGE):
            self.assert_signed(server, content)

    def test_simple(self) -> None:
        """Over a Unix socket, and in a form that bears no change of a space; fields we add do no harm."""
        path = self.directory() / "socket"
        self.start(path, "simple/simple")
        server = self.recording_server(f"--filter=milter:unix:{path}", "--filter=add-header:X-Ours:yes")
        content = ONE_LINE.replace(b"Subject: a", b"Subject:  A \r\n\tb")
        self.assertEqual(self.answer(server, content)[:3], "250")
        arrived = server.message().content
        self.assertIn(b"\r\nX-Ours: yes\r\n\r\n", arrived)
        self.assertTrue(dkim.verify(arrived, dnsfunc=lambda name, timeout=5: self.record))

    def test_many(self) -> None:
        """Many messages at once, each on a connection of its own."""
        port = free_port()
        self.start(port)
        server = self.recording_server(f"--filter=milter:tcp:127.0.0.1:{port}")
        before = server.descriptors()
        clients = [Client(server.address) for _ in range(20)]
        for client in clients:
            client.hello()
            client.begin_message()
        for client in clients:
            client.send(ONE_LINE + b".\r\n")
        self.assertEqual([client.reply()[:3] for client in clients], [b"250"] * 20)
        for client in clients:
            client.close()
        self.assertEqual([each.content[:15] for each in server.messages()], [b"DKIM-Signature:"] * 20)
        wait_for("the connections' end", lambda: server.descriptors() <= before)

    def test_away(self) -> None:
        """While it is away mail waits, or goes on as it is where that was wanted."""
        port = free_port()
        server = self.recording_server(f"--filter=milter:tcp:127.0.0.1:{port}")
        self.assertEqual(self.answer(server, ONE_LINE)[:9], "451 4.7.1")
        self.start(port)
        self.assert_signed(server, ONE_LINE)
        server = self.recording_server(f"--filter=milter:tcp:127.0.0.1:{free_port()}:default=accept")
        self.assertEqual(self.answer(server, ONE_LINE)[:3], "250")
        self.assertEqual(server.message().content, ONE_LINE)


VERIFIER = """\
Syslog no
UserID root
PidFile {directory}/pid
Socket inet:{port}@127.0.0.1
Mode v
AlwaysAddARHeader yes
AuthservID mx.example
TestPublicKeys {directory}/keys
"""


class VerifierTests(MilterCase):
    """OpenDKIM, which verifies what ``dkim-sign`` signed and the proxy passed on."""

    def setUp(self) -> None:
        """A key, the verifier, and a server behind it."""
        opendkim, directory, port = require("opendkim"), self.directory(), free_port()
        private, record = rsa_pair()
        key = directory / "key"
        key.write_bytes(private)
        key.chmod(0o600)
        (directory / "keys").write_text(f"s1._domainkey.example.org {record.decode('ascii')}\n")
        (directory / "configuration").write_text(VERIFIER.format(directory=directory, port=port))
        self.milter([opendkim, "-f", "-x", str(directory / "configuration")], port)
        self.recording = self.recording_server(f"--filter=milter:inet:{port}@127.0.0.1")
        self.sign = f"--filter=dkim-sign:domain=example.org:selector=s1:key-file={key}"

    def results(self, contents: Sequence[bytes], *options: str) -> list[bytes]:
        """What OpenDKIM says of messages that go through a proxy."""
        proxy = self.server(*options, processor=f"proxy:127.0.0.1:{self.recording.port}")
        for content in contents:
            self.assertEqual(self.answer(proxy, content)[:3], "250", proxy.stderr[-2000:])
        said = [re.search(rb"dkim=(\w+)", each.content) for each in self.recording.messages()]
        self.recording.forget()
        return [match[1] if match else b"" for match in said]

    def test_verified(self) -> None:
        """Every signature holds there."""
        ours = [b"From: Sender <sender@example.org>\r\n" + each for each in messages(100)]
        ours = [each for each in ours if each.lower().count(b"\nfrom:") == 0]
        contents = [ONE_LINE, DOTS, EIGHT_BIT, LONG_LINES, LARGE, *ours]
        self.assertEqual(self.results(contents, self.sign), [b"pass"] * len(contents))

    def test_changed(self) -> None:
        """One over a message that was changed behind it does not."""
        self.assertEqual(self.results([ONE_LINE], self.sign, "--filter=add-header:Subject:x"), [b"fail"])


class RspamdTests(MilterCase):
    """rspamd, which judges."""

    def test_judged(self) -> None:
        """Spam is refused in rspamd's words, what may be some is marked, the rest left as it is."""
        rspamd = require("rspamd")
        directory, port = self.directory(), free_port()
        (directory / "suffixes").write_text("com\nexample\nnet\norg\n")
        (directory / "configuration").write_text(
            RSPAMD.format(directory=directory, port=port, dns=free_port())
        )
        self.milter(
            [rspamd, "-f", "-i", "-u", "root", "-g", "root", "-c", str(directory / "configuration")], port
        )
        server = self.recording_server(f"--filter=milter:inet:{port}@127.0.0.1")
        self.assertEqual(self.answer(server, ONE_LINE)[:3], "250")
        self.assertEqual(server.message().content, ONE_LINE)
        self.assertEqual(self.answer(server, ONE_LINE + REJECTED + b"\r\n"), "554 5.7.1 Gtube pattern\r\n")
        self.assertEqual(server.messages(), [])
        content = ONE_LINE + MARKED + b"\r\n"
        self.assertEqual(self.answer(server, content)[:3], "250")
        header, _, body = server.message().content.partition(b"\r\n\r\n")
        self.assertIn(b"\r\nX-Spam: Yes", b"\r\n" + header)
        self.assertEqual(body, content.partition(b"\r\n\r\n")[2])
