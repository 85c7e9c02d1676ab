"""The pages of ``--http``, over a transport in memory."""

import importlib
import sys
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.static import Data

from smtpserv.error import StartError
from smtpserv.metrics import Counts
from smtpserv.web import IDLE, MAX_BODY, make_site
from tests.server_tools import Wire, captured_log


@dataclass(frozen=True, slots=True)
class Response:
    """What a client was answered."""

    status: int
    headers: Headers
    body: bytes

    @classmethod
    def parse(cls, octets: bytes) -> "Response":
        """Of one answer whose length is in its head."""
        head, _, body = octets.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        headers = Headers()
        for line in lines:
            name, _, value = line.partition(b": ")
            headers.addRawHeader(name, value)
        return cls(int(status.split()[1]), headers, body)

    def header(self, name: str) -> str:
        """The one header of a name."""
        (value,) = self.headers.getRawHeaders(name, [])
        return value


class Client:
    """A browser's connection."""

    def __init__(self, site: IProtocolFactory) -> None:
        protocol: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 2525))
        self.transport = Wire(protocol, closes=True)
        protocol.makeConnection(self.transport)
        self._protocol = protocol

    def say(self, octets: bytes) -> bytes:
        """Send octets; what comes back."""
        self._protocol.dataReceived(octets)
        heard = bytes(self.transport.value())
        self.transport.clear()
        return heard

    def ask(self, method: str, path: str, host: str = "mx.example", more: str = "") -> Response:
        """Send a request without a body."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"
        return Response.parse(self.say(head.encode("ascii")))


class SiteTests(SynchronousTestCase):
    """What is served."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.counts = Counts()
        self.draining = False
        page = {"inbox": Data(b"mail", "text/html")}
        self.site: Any = make_site(self.counts, lambda: self.draining, self.clock, page, "MX.example")
        self.site.doStart()
        self.addCleanup(self.site.doStop)
        self.client = Client(self.site)

    def test_metrics(self) -> None:
        """The counts of now, in the text format."""
        self.counts.messages[2] += 1
        answer = self.client.ask("GET", "/metrics")
        self.assertEqual(
            (answer.status, answer.header("content-type")[:25]), (200, "text/plain; version=0.0.4")
        )
        read = {each.name: each for each in text_string_to_metric_families(answer.body.decode("utf-8"))}
        (accepted,) = [
            each.value for each in read["smtpserv_messages"].samples if each.labels == {"outcome": "accepted"}
        ]
        self.assertEqual(accepted, 1.0)

    def test_health(self) -> None:
        """Well, until the server is told to stop."""
        well = self.client.ask("GET", "/healthz")
        self.assertEqual((well.status, well.body), (200, b"ok\n"))
        self.draining = True
        leaving = self.client.ask("GET", "/healthz")
        self.assertEqual((leaving.status, leaving.body), (503, b"shutting down\n"))

    def test_nothing_else(self) -> None:
        """No other path is there: no list of pages, nothing below a page's own name."""
        for path in ("/", "/x", "/metrics/", "/metrics/x", "//metrics", "/../metrics", "/HEALTHZ", "/%00"):
            self.assertEqual(self.client.ask("GET", path).status, 404, path)

    def test_head(self) -> None:
        """The head alone is that of the whole, and no warning is logged for it."""
        log = captured_log(self)
        whole, head = (self.client.ask(method, "/healthz") for method in ("GET", "HEAD"))
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.header("content-length"), whole.header("content-length"))
        self.assertEqual(log, [])

    def test_other_methods(self) -> None:
        """Pages can be read and nothing else."""
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "WHAT"):
            answer = self.client.ask(method, "/healthz")
            self.assertEqual((answer.status, answer.header("allow")), (405, "GET, HEAD"))

    def test_headers(self) -> None:
        """Every answer keeps browsers from guessing and keeping, and tells no version."""
        for path in ("/metrics", "/healthz", "/x", "/inbox"):
            answer = self.client.ask("GET", path)
            self.assertEqual(answer.header("x-content-type-options"), "nosniff")
            self.assertEqual(answer.header("cache-control"), "no-store")
            self.assertIn("default-src 'none'", answer.header("content-security-policy"))
            self.assertEqual(answer.header("server"), "smtpserv")

    def test_pages(self) -> None:
        """A processor's pages hang beside ours."""
        answer = self.client.ask("GET", "/inbox")
        self.assertEqual((answer.status, answer.body), (200, b"mail"))
        self.assertEqual(self.client.ask("GET", "/healthz").status, 200)

    def test_elsewhere(self) -> None:
        """They are for those who ask for a name of ours: no other site gets them by a name of its own."""
        for host in (
            "mx.example:8080",
            "localhost",
            "127.0.0.1:80",
            "192.0.2.1",
            "[::1]:80",
            "[2001:db8::1]",
        ):
            self.assertEqual(self.client.ask("GET", "/inbox", host).status, 200, host)
        for host in ("evil.example", "mx.example.evil.example", "127.0.0.1.evil.example", "[", "", "1"):
            self.assertEqual(self.client.ask("GET", "/inbox", host).status, 421, host)
            self.assertEqual(self.client.ask("GET", "/healthz", host).status, 200, host)
        for origin, status in (
            ("http://mx.example:8080", 200),
            ("http://[::1]", 200),
            ("https://evil.example", 421),
            ("null", 421),
        ):
            answer = self.client.ask("GET", "/inbox", more=f"Origin: {origin}\r\n")
            self.assertEqual(answer.status, status, origin)

    def test_no_log(self) -> None:
        """Requests are not logged, and when nobody is connected no timer runs."""
        log = captured_log(self)
        for path in ("/metrics", "/x"):
            self.client.ask("GET", path)
        self.client.transport.loseConnection()
        self.assertEqual((log, self.clock.getDelayedCalls()), ([], []))

    def test_idle(self) -> None:
        """Who says nothing is cut off, on the clock that was given; who asks every minute is not."""
        for _ in range(3):
            self.clock.advance(60.0)
            self.assertEqual(self.client.ask("GET", "/healthz").status, 200)
        self.clock.advance(IDLE)
        self.assertFalse(self.client.transport.connected)

    def test_body(self) -> None:
        """A body is of no use here; one without an end ends the connection."""
        head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        answer = Response.parse(self.client.say(head % MAX_BODY + b"x" * MAX_BODY))
        self.assertEqual((answer.status, self.client.transport.connected), (405, True))
        self.client.say(head % (1 << 60))
        for _ in range(MAX_BODY >> 10):
            self.client.say(b"x" * 1024)
        self.assertTrue(self.client.transport.connected)
        self.assertEqual(self.client.say(b"x"), b"")
        self.assertFalse(self.client.transport.connected)

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.binary())
    def test_anything(self, octets: bytes) -> None:
        """Whatever comes after the method and path of a page, nothing breaks."""
        log = captured_log(self)
        client = Client(self.site)
        client.say(b"GET /metrics" + octets + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        client.transport.lose()
        self.assertEqual([each for each in log if "log_failure" in each], [])


class StartTests(SynchronousTestCase):
    """At start."""

    def test_missing(self) -> None:
        """Without prometheus_client the operator reads in one line what to install."""
        modules: dict[str, Any] = sys.modules
        name = "smtpserv.exposition"
        self.addCleanup(modules.update, {name: importlib.import_module(name)})
        modules[name] = None
        error = self.assertRaises(StartError, make_site, Counts(), bool, Clock())
        self.assertIn("--http needs prometheus_client: pip install 'smtpserv[metrics]'", str(error))
        self.assertNotIn("\n", str(error))
