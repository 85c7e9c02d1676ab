"""TLS with the clients there are: STARTTLS and implicit, versions, names, certificates that change."""

import smtplib

from tests.certificates import make_pair
from tests.integration.harness import ONE_LINE, PATIENCE, free_port, wait_for
from tests.integration.programs import (
    RECIPIENT,
    SENDER,
    Outcome,
    SharedServerCase,
    TLSTestCase,
    curl,
    s_client,
    swaks,
    trusting,
)

MESSAGE = f"EHLO x\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n\r\n.\r\nQUIT\r\n".encode()


class SecureServerCase(SharedServerCase):
    """A server that offers STARTTLS, and has ports for implicit TLS and LMTP."""

    implicit: int
    lmtp: int

    @classmethod
    def start(cls, keeper: TLSTestCase) -> None:
        """With two certificates."""
        keeper.write("default.pem", "mx.example.net")
        keeper.write("other.pem", "other.example")
        cls.implicit, cls.lmtp = free_port(), free_port()
        cls.recording = keeper.recording_server(
            f"--tls={keeper.folder}",
            f"--tls-client-ca={keeper.authority_file()}",
            f"--listen=tls:{cls.implicit}:interface=127.0.0.1",
            f"--lmtp=tcp:{cls.lmtp}:interface=127.0.0.1",
        )

    def starttls(self, *options: str, text: bytes = b"QUIT\r\n") -> Outcome:
        """s_client connects and upgrades."""
        return s_client(self.recording.port, "-starttls", "smtp", *options, text=text)

    def sees(self, name: str, *options: str) -> bool:
        """Whether s_client is shown a certificate for this name."""
        options += "-CAfile", str(self.authority_file()), "-verify_hostname", name, "-verify_return_error"
        return "Verify return code: 0 (ok)" in self.starttls(*options).output


class OpenSSLTests(SecureServerCase):
    """openssl s_client."""

    def test_three_doors(self) -> None:
        """STARTTLS in SMTP and LMTP and implicit TLS lead to the same session."""
        for port, options in (
            (self.recording.port, ("-starttls", "smtp")),
            (self.lmtp, ("-starttls", "lmtp")),
            (self.implicit, ()),
        ):
            protocol, hello = ("LMTPS", b"LHLO") if port == self.lmtp else ("ESMTPS", b"EHLO")
            outcome = s_client(port, *options, text=MESSAGE.replace(b"EHLO", hello))
            self.assertIn("250 2.6.0", outcome.output)
            self.assertIn("221 2.0.0", outcome.output)
            self.assert_recorded(self.recording, protocol)

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, 1.1 is refused by the server, and the next client is served."""
        for version in ("1_2", "1_3"):
            self.assertIn(
                f"Protocol version: TLSv{version.replace('_', '.')}",
                self.starttls("-brief", f"-tls{version}").output,
            )
        old = self.starttls("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
        self.assertIn("alert protocol version", old.output)
        self.assert_served(self.recording)

    def test_application_protocol(self) -> None:
        """ALPN: ``smtp`` is agreed to, a browser that offers others alone is refused."""
        self.assertIn("ALPN protocol: smtp", s_client(self.implicit, "-alpn", "h2,smtp").output)
        refused = s_client(self.implicit, "-alpn", "h2,http/1.1")
        self.assertIn("no application protocol", refused.output)
        self.assertNotIn("220 ", refused.output)

    def test_name(self) -> None:
        """The name that the client asks for picks the certificate, and reaches the processor."""
        self.assertEqual(self.sees("other.example", "-servername", "other.example"), True)
        self.assertEqual(self.sees("other.example", "-servername", "mx.example.net"), False)
        self.assertEqual(self.sees("mx.example.net", "-servername", "unknown.example"), True)
        self.starttls("-servername", "other.example", text=MESSAGE)
        self.assertEqual(self.recording.message().facts["tls"]["server_name"], "other.example")

    def test_channel_binding(self) -> None:
        """What SCRAM-SHA-256-PLUS binds to is what OpenSSL makes of the connection (RFC 9266)."""
        options = ["-tls1_3", "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"]
        outcome = self.starttls(*options, text=MESSAGE)
        bound = self.recording.message().facts["tls"]["channel_binding"]
        self.assertIn(f"Keying material: {bound.upper()}", outcome.output)

    def test_client_certificate(self) -> None:
        """The name in a client's certificate reaches the processor, if the authority vouches for it."""
        stranger = make_pair(cn="authority", ca=True)
        for issuer, name in ((self.authority, "client.example"), (stranger, None)):
            file = self.directory() / "client"
            file.write_bytes(make_pair("client.example", cn="client.example", issuer=issuer).pem)
            outcome = s_client(self.implicit, "-cert", str(file), "-key", str(file), text=MESSAGE)
            self.assertIn("250 2.6.0", outcome.output)
            self.assertEqual(self.recording.message().facts["tls"]["client_name"], name)

    def test_new_certificate(self) -> None:
        """A certificate is replaced: the next client sees the new one, and who is connected stays."""
        with smtplib.SMTP("127.0.0.1", self.recording.port, timeout=PATIENCE) as client:
            client.starttls(context=trusting())
            self.write("other.pem", "renewed.example")
            wait_for(
                "the new certificate", lambda: self.sees("renewed.example", "-servername", "renewed.example")
            )
            client.sendmail(SENDER, RECIPIENT, ONE_LINE)
        self.assertEqual(self.recording.message().content, ONE_LINE)
        self.write("other.pem", "other.example")
        wait_for("the old name", lambda: self.sees("other.example", "-servername", "other.example"))


class ClientTests(SecureServerCase):
    """Programs that send mail."""

    def test_swaks(self) -> None:
        """swaks upgrades, and connects with TLS."""
        self.assert_ended_well(swaks(self.recording.address, "--tls"))
        self.assert_recorded(self.recording, "ESMTPS")
        self.assert_ended_well(swaks(("127.0.0.1", self.implicit), "--tls-on-connect"))
        self.assert_recorded(self.recording, "ESMTPS")

    def test_smtplib(self) -> None:
        """smtplib upgrades, and connects with TLS."""
        with smtplib.SMTP("127.0.0.1", self.recording.port, timeout=PATIENCE) as upgraded:
            upgraded.starttls(context=trusting())
            upgraded.sendmail(SENDER, RECIPIENT, ONE_LINE)
        self.assert_recorded(self.recording, "ESMTPS")
        context = trusting()
        with smtplib.SMTP_SSL("127.0.0.1", self.implicit, timeout=PATIENCE, context=context) as client:
            client.sendmail(SENDER, RECIPIENT, ONE_LINE)
        self.assert_recorded(self.recording, "ESMTPS")

    def test_curl(self) -> None:
        """curl upgrades when it must, and speaks smtps."""
        self.assert_ended_well(curl("smtp", self.recording.port, "--ssl-reqd"))
        self.assert_recorded(self.recording, "ESMTPS")
        self.assert_ended_well(curl("smtps", self.implicit))
        self.assert_recorded(self.recording, "ESMTPS")

    def test_required(self) -> None:
        """Where TLS is required, swaks is refused until it upgrades."""
        server = self.recording_server(f"--tls={self.folder}", "--require-tls")
        refused = swaks(server.address)
        self.assertIn("530 5.7.0", refused.output)
        self.assertNotEqual(refused.code, 0)
        self.assert_ended_well(swaks(server.address, "--tls"))
        self.assert_recorded(server, "ESMTPS")
