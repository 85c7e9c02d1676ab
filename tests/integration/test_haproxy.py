"""HAProxy stands in front: the server learns who its client is, and believes nobody else who tells it."""

import contextlib
import smtplib
import socket
import ssl
import subprocess

from tests.integration.harness import (
    ONE_LINE,
    PATIENCE,
    Client,
    environment,
    free_port,
    require,
    wait_for,
)
from tests.integration.programs import RECIPIENT, SENDER, SharedServerCase, TLSTestCase, trusting

CONFIGURATION = """\
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen one
    bind 127.0.0.1:{one}
    server smtp 127.0.0.1:{clear} send-proxy
listen two
    bind 127.0.0.1:{two}
    server smtp 127.0.0.1:{clear} send-proxy-v2
listen three
    bind 127.0.0.1:{three}
    server smtps 127.0.0.1:{implicit} send-proxy-v2
"""

#: Whence the clients of the proxy come.
CLIENT = "127.0.0.2"

V2 = b"\r\n\r\n\0\r\nQUIT\n"

#: What no proxy says: it is closed without a word. The last are cut short by the client.
BAD_HEADERS = (
    b"EHLO stranger.example\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 " + b"x" * 200,
    b"PROXY TCP4 192.0.2.1\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n",
    b"PROXY TCP4 192.0.2.1; 192.0.2.2 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    V2 + b"\x11\x11\0\x0c" + bytes(12),
    V2 + b"\x21\x11\0\x04" + bytes(4),
    V2 + b"\x21\x11\xff\xff" + bytes(65535),
    b"PROXY TCP4 192.0.2.1 192.0",
    V2 + b"\x21\x11\0\x0c" + bytes(5),
)


class HAProxyTests(SharedServerCase):
    """One HAProxy with both versions of the header, and TLS that goes through it."""

    ports: dict[str, int]

    @classmethod
    def start(cls, keeper: TLSTestCase) -> None:
        """Start the server, and HAProxy before it."""
        haproxy = require("haproxy")
        keeper.write("default.pem", "localhost")
        cls.ports = {name: free_port() for name in ("one", "two", "three", "clear", "implicit")}
        cls.recording = keeper.recording_server(
            "--trust-proxy=127.0.0.1",
            f"--tls={keeper.folder}",
            f"--listen=haproxy:tcp:{cls.ports['clear']}:interface=127.0.0.1",
            f"--listen=haproxy:tls:{cls.ports['implicit']}:interface=127.0.0.1",
        )
        file = keeper.directory() / "configuration"
        file.write_text(CONFIGURATION.format(**cls.ports))
        process = subprocess.Popen(
            [haproxy, "-db", "-q", "-f", str(file)],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        keeper.addCleanup(process.wait)
        keeper.addCleanup(process.terminate)
        wait_for("HAProxy", lambda: cls.greets(cls.ports["one"]))

    @staticmethod
    def greets(port: int) -> bool:
        """Whether a server greets there."""
        try:
            with Client(("127.0.0.1", port)) as client:
                return client.greeting[:3] == b"220"
        except OSError:
            return False

    def test_address(self) -> None:
        """The client's address reaches the processor, with either version of the header and with STARTTLS."""
        for name in ("one", "two"):
            for upgrade in (False, True):
                with smtplib.SMTP(
                    "127.0.0.1", self.ports[name], source_address=(CLIENT, 0), timeout=PATIENCE
                ) as client:
                    if upgrade:
                        client.starttls(context=trusting())
                    client.sendmail(SENDER, RECIPIENT, ONE_LINE)
                facts = self.recording.message().facts
                self.assertEqual(
                    (facts["peer"], facts["protocol"]), (CLIENT, "ESMTPS" if upgrade else "ESMTP")
                )

    def test_secure(self) -> None:
        """TLS that begins behind the header is the client's."""
        context: ssl.SSLContext = trusting()
        with smtplib.SMTP_SSL(
            "127.0.0.1", self.ports["three"], source_address=(CLIENT, 0), timeout=PATIENCE, context=context
        ) as client:
            client.sendmail(SENDER, RECIPIENT, ONE_LINE)
        facts = self.recording.message().facts
        self.assertEqual((facts["peer"], facts["protocol"]), (CLIENT, "ESMTPS"))

    def test_strangers(self) -> None:
        """Who is not the proxy is shown out, whatever he says; a port without a proxy knows no header."""
        forged = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nEHLO x\r\n"
        self.assertEqual(self.said(self.ports["clear"], forged, "127.0.0.1")[:3], b"220")
        for name in ("clear", "implicit"):
            self.assertEqual(self.said(self.ports[name], forged, "127.0.0.3"), b"")
        with Client(self.recording.address) as client:
            client.expect("PROXY TCP4 192.0.2.1 192.0.2.2 1 2", "500")
            client.hello()
            client.send_message(ONE_LINE)
        self.assertEqual(self.recording.message().facts["peer"], "127.0.0.1")

    def test_bad_headers(self) -> None:
        """Headers that are cut, oversized or forged are not answered, and the next client is served."""
        for header in BAD_HEADERS:
            answer = self.said(self.ports["clear"], header, "127.0.0.1")
            self.assertEqual(answer, b"", header[:60])
        self.assertEqual(self.greets(self.ports["two"]), True)

    def said(self, port: int, octets: bytes, source: str) -> bytes:
        """What is answered to all that an address has to say."""
        with socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0)) as client:
            answer = b""
            with contextlib.suppress(OSError):
                client.sendall(octets)
                client.shutdown(socket.SHUT_WR)
                while octets := client.recv(4096):
                    answer += octets
            return answer
