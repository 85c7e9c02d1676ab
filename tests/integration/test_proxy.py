"""The proxy in a process of its own, and real mail servers behind it."""

import re
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

from tests.integration.harness import (
    ONE_LINE,
    Client,
    IntegrationTestCase,
    RecordingServer,
    Server,
    wait_for,
)
from tests.integration.messages import messages
from tests.integration.test_postfix import Postfix
from tests.integration.upstreams import (
    DovecotLMTP,
    EximServer,
    OpenSMTPD,
    SMTPSink,
    Upstream,
    require_root,
)

#: Messages that servers pass on which queue each, and think about it; and those that one takes as it is.
SOME: Final = 100
MANY: Final = 1000

_NUMBER: Final = re.compile(rb"Message-ID: <([0-9]+)@messages\.example>\r?\n")

Numbered = dict[int, bytes]


def numbered(contents: Iterable[bytes]) -> Numbered:
    """Messages by their number, each from the field that has it on: what stands before was added on the way.

    :raises AssertionError: for two of the same number that are not the same.
    """
    found: Numbered = {}
    for content in contents:
        match = _NUMBER.search(content)
        assert match is not None, content[:500]
        message = content[match.start() :]
        assert found.setdefault(int(match[1]), message) == message, f"{match[0]!r} came twice, not the same"
    return found


def send(client: Client, number: int, content: bytes) -> bytes:
    """One transaction; its last reply."""
    mail = (
        f"MAIL FROM:<sender{number}@example.org> BODY=8BITMIME\r\nRCPT TO:<recipient@example.net>\r\nDATA\r\n"
    )
    client.send(mail.encode())
    answers = [client.reply(), client.reply(), client.reply()]
    if not answers[-1].startswith(b"354"):
        client.command("RSET")
        return next(answer for answer in answers if not answer.startswith(b"250"))
    client.send((b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
    return client.reply()


class ProxyCase(IntegrationTestCase):
    """Has a proxy."""

    def proxy(self, port: int, *arguments: str) -> Server:
        """A proxy before a server on loopback."""
        return self.server(processor=":".join(["proxy", "127.0.0.1", str(port), *arguments]))

    def started_upstream(self, kind: Any, *facts: Any) -> Any:
        """An upstream that ends with the test."""
        upstream: Upstream = kind(self.directory(), *facts)
        self.addCleanup(upstream.stop)
        return upstream

    def send_all(self, proxy: Server, sent: Numbered) -> None:
        """Send the messages in one session; each is accepted."""
        with Client(proxy.address) as client:
            client.hello()
            for number, content in sent.items():
                answer = send(client, number, content)
                self.assertEqual(answer[:3], b"250", (number, answer, proxy.stderr[-2000:]))

    def received(self, recording: RecordingServer, count: int) -> Numbered:
        """What our recorder has, once there are so many."""
        wait_for(f"{count} messages", lambda: len(recording.messages()) >= count)
        return numbered(message.content for message in recording.messages())

    def assert_same(self, received: Numbered, sent: Numbered) -> None:
        """Octet for octet."""
        self.assertEqual(received.keys(), sent.keys())
        for number, content in sent.items():
            self.assertEqual(received[number] == content, True, f"message {number} is changed")


def some() -> Numbered:
    """A hundred, but for those that are only a header: behind it some servers add an empty line."""
    return {number: each for number, each in enumerate(messages(SOME)) if number % 10 != 8}


def with_lf(sent: Numbered) -> Numbered:
    """As they lie in files."""
    return {number: content.replace(b"\r\n", b"\n") for number, content in sent.items()}


class ExactTests(ProxyCase):
    """Upstreams that take content as it is."""

    def test_octet_for_octet(self) -> None:
        """A thousand messages arrive octet for octet, behind one Received field."""
        recording = self.recording_server()
        sent = dict(enumerate(messages(MANY)))
        self.send_all(self.proxy(recording.port), sent)
        contents = [message.content for message in recording.messages()]
        self.assertEqual(len(contents), MANY)
        self.assert_same(numbered(contents), sent)
        field = re.compile(rb"Received: from client\.example [^\r]*(?:\r\n[ \t][^\r]*)*\r\nMessage-ID: ")
        self.assertEqual([each[:300] for each in contents if not field.match(each)], [])

    def test_smtp_sink(self) -> None:
        """A thousand messages arrive in Postfix's smtp-sink."""
        sink: SMTPSink = self.started_upstream(SMTPSink)
        sent = dict(enumerate(messages(MANY)))
        self.send_all(self.proxy(sink.port), sent)
        self.assert_same(numbered(sink.messages()), with_lf(sent))

    def test_upstream_comes_and_goes(self) -> None:
        """While the upstream is killed and started again a client keeps its mail, and nothing is lost."""
        recording = self.recording_server()
        proxy = self.proxy(recording.port)
        sent = dict(enumerate(messages(SOME)))
        deferred = 0
        with Client(proxy.address) as client:
            client.hello()
            for number, content in sent.items():
                if number % 40 == 20:
                    recording.kill()
                    self.assertEqual(send(client, number, content)[:7], b"451 4.4")
                    recording = self.started(recording.again())
                while (answer := send(client, number, content))[:3] != b"250":
                    self.assertEqual(answer[:7], b"451 4.4", answer)
                    deferred += 1
                    time.sleep(0.05)
        self.assert_same(numbered(message.content for message in recording.messages()), sent)
        self.assertNotIn("Traceback", proxy.stderr)

    def test_upstream_is_killed_at_any_moment(self) -> None:
        """Whatever it was doing then: what a client was told is accepted is there, and all of it."""
        recording = self.recording_server()
        proxy = self.proxy(recording.port)
        sent = dict(enumerate(messages(SOME)))
        killer = threading.Timer(0.2, recording.kill)
        killer.start()
        self.addCleanup(killer.cancel)
        with Client(proxy.address) as client:
            client.hello()
            accepted = set()
            for number, content in sent.items():
                if (answer := send(client, number, content))[:3] != b"250":
                    break
                accepted.add(number)
            killer.join()
            self.assertEqual(answer[:7] if len(accepted) < SOME else b"451 4.4", b"451 4.4", answer)
        received = numbered(message.content for message in recording.messages())
        self.assertLessEqual(accepted, received.keys())
        self.assert_same(received, {number: sent[number] for number in received})
        self.assertNotIn("Traceback", proxy.stderr)


class QueueingTests(ProxyCase):
    """Upstreams that queue what they accept, and send it on to our recorder."""

    def assert_passes(self, recording: RecordingServer, port: int, sent: Numbered) -> None:
        """All messages arrive."""
        self.send_all(self.proxy(port), sent)
        self.assert_same(self.received(recording, len(sent)), sent)

    def test_postfix(self) -> None:
        """Postfix."""
        require_root("Postfix")
        recording = self.recording_server()
        postfix = Postfix(self.directory(), recording.port)
        self.addCleanup(postfix.stop)
        postfix.wait_until_ready()
        self.assert_passes(recording, postfix.address[1], some())

    def test_exim(self) -> None:
        """Exim, which offers STARTTLS with a certificate that nobody knows."""
        recording = self.recording_server()
        exim = self.started_upstream(EximServer, recording.port)
        self.assert_passes(recording, exim.port, some())
        self.assertIn("P=esmtps", exim.log)

    def test_opensmtpd(self) -> None:
        """OpenSMTPD."""
        recording = self.recording_server()
        opensmtpd = self.started_upstream(OpenSMTPD, recording.port)
        self.assert_passes(recording, opensmtpd.port, some())


class ForwardingTests(ProxyCase):
    """Postfix is told who the client is."""

    def pass_on(self, more: str) -> tuple[list[bytes], str]:
        """Two clients elsewhere send through the proxy; the messages as they arrive, and Postfix's log."""
        require_root("Postfix")
        recording = self.recording_server()
        postfix = Postfix(self.directory(), recording.port, more)
        self.addCleanup(postfix.stop)
        postfix.wait_until_ready()
        processor = f"proxy:127.0.0.1:{postfix.address[1]}:forward-client=yes"
        options = ["--trust-xclient=127.0.0.1", "--relay-from=192.0.2.0/24"]
        proxy = self.server(*options, processor=processor)
        for number in (1, 2):
            with Client(proxy.address) as client:
                client.hello()
                client.expect(f"XCLIENT ADDR=192.0.2.{number}", "220")
                client.expect(f"EHLO host{number}.example", "250")
                self.assertEqual(client.send_message(ONE_LINE)[:3], b"250", postfix.log)
        wait_for("both messages", lambda: len(recording.messages()) == 2)
        return sorted(message.content for message in recording.messages()), postfix.log

    def test_xforward(self) -> None:
        """For its log: nobody is taken for somebody else, though both come over one connection."""
        _, log = self.pass_on("smtpd_authorized_xforward_hosts = 127.0.0.1\n")
        for number in (1, 2):
            self.assertIn(f"orig_client=unknown[192.0.2.{number}]", log)

    def test_xclient(self) -> None:
        """For its decisions: it knows the client's address and hello, and relays for none but the client."""
        more = "smtpd_authorized_xclient_hosts = 127.0.0.1\nmynetworks = 192.0.2.0/24\n"
        for number, content in enumerate(self.pass_on(more)[0], 1):
            field = f"Received: from host{number}.example (unknown [192.0.2.{number}])\r\n"
            self.assertTrue(content.startswith(field.encode()), content)


#: Postfix, which asks Dovecot who may relay.
SASL: Final = """\
mynetworks =
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {socket}
smtpd_sasl_security_options = noanonymous
"""


class LoginTests(ProxyCase):
    """Postfix and Dovecot want to know who we are."""

    def log_in(self, mechanism: str, password: bytes) -> tuple[bytes, str]:
        """The reply to a message that is sent when we have said it, and Postfix's log."""
        dovecot = self.started_upstream(DovecotLMTP, None, mechanism, "pass,word=\u20ac")
        socket = dovecot.here / "auth"
        recording = self.recording_server()
        postfix = Postfix(self.directory(), recording.port, SASL.format(socket=socket))
        self.addCleanup(postfix.stop)
        postfix.wait_until_ready()
        secret = self.directory() / "secret"
        secret.touch(0o600)
        secret.write_bytes(password)
        port = postfix.address[1]
        proxy = self.proxy(port, "tls=none", "user=us@example.net", f"password-file={secret}")
        with Client(proxy.address) as client:
            client.hello()
            answer = send(client, 1, ONE_LINE)
        self.assertNotIn(password.decode().strip(), proxy.stderr)
        return answer, postfix.log

    def test_mechanisms(self) -> None:
        """By each of these."""
        for mechanism in ("plain", "login", "cram-md5", "scram-sha-256"):
            answer, log = self.log_in(mechanism, "pass,word=\u20ac\n".encode())
            self.assertEqual(answer[:3], b"250", f"{mechanism}: {answer!r} {log[-2000:]}")
            self.assertIn(f"sasl_method={mechanism.upper()}, sasl_username=us@example.net", log)

    def test_wrong(self) -> None:
        """A wrong password is ours to mend: the client keeps its mail."""
        for mechanism in ("plain", "scram-sha-256"):
            self.assertEqual(self.log_in(mechanism, b"wrong\n")[0][:9], b"451 4.7.0")


class UnixTests(ProxyCase):
    """A server that is reached by a Unix socket."""

    def test_lmtp(self) -> None:
        """Messages arrive there as well."""
        path = self.directory() / "lmtp"
        recording = self.recording_server(f"--lmtp=unix:{path}")
        proxy = self.server(processor=f"proxy:{path}:lmtp=yes")
        with Client(proxy.address) as client:
            client.hello()
            for _ in range(2):
                self.assertEqual(client.send_message(ONE_LINE)[:3], b"250", proxy.stderr[-2000:])
        messages = recording.messages()
        self.assertEqual([message.content[-len(ONE_LINE) :] for message in messages], [ONE_LINE] * 2)
        self.assertEqual([message.facts["protocol"] for message in messages], ["LMTP"] * 2)


class LMTPTests(ProxyCase):
    """Dovecot's LMTP server."""

    def test_dovecot(self) -> None:
        """Messages lie in a Maildir as they were sent."""
        dovecot = self.started_upstream(DovecotLMTP)
        sent = some()
        self.send_all(self.proxy(dovecot.port, "lmtp=yes"), sent)
        self.assert_same(numbered(dovecot.messages("recipient")), with_lf(sent))
