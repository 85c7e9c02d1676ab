"""AUTH with the clients there are: each mechanism they know, right and wrong passwords, each checker."""

import ctypes
import smtplib
import socket
from base64 import b64encode
from ctypes.util import find_library
from hashlib import pbkdf2_hmac, sha256
from hmac import digest

from OpenSSL import SSL
from twisted.trial.unittest import SkipTest

from tests.certificates import client_context, make_pair
from tests.integration.harness import ONE_LINE, PATIENCE, ROOT, Client, free_port, require
from tests.integration.programs import (
    RECIPIENT,
    SENDER,
    Outcome,
    SharedServerCase,
    TLSTestCase,
    curl,
    run,
    swaks,
    trusting,
)

USER, PASSWORD, TOKEN = "alice", "correct horse", "ya29.token"

#: A checker of bearer tokens, as somebody else would write one.
TOKEN_CHECKER = f"""\
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import implementer

from smtpserv.policy.credentials import ITokenCredentials

@implementer(ICredentialsChecker)
class Tokens:
    credentialInterfaces = (ITokenCredentials,)

    def requestAvatarId(self, credentials):
        if credentials.token != {TOKEN!r}:
            raise UnauthorizedLogin
        return {USER!r}

@implementer(IPlugin, ICheckerFactory)
class Factory:
    authType, authHelp, argStringFormat = "tokens", "", ""
    credentialInterfaces = (ITokenCredentials,)

    def generateChecker(self, argstring):
        return Tokens()

tokens = Factory()
"""


def scram_secret(password: str, salt: bytes = b"sixteen octets..") -> str:
    """A password's SCRAM-SHA-256 secret as PostgreSQL writes it (RFC 5803 has the parts)."""
    salted = pbkdf2_hmac("sha256", password.encode(), salt, 4096)
    stored = sha256(digest(salted, b"Client Key", "sha256")).digest()
    server = digest(salted, b"Server Key", "sha256")
    salt, stored, server = map(b64encode, (salt, stored, server))
    return f"SCRAM-SHA-256$4096:{salt.decode()}${stored.decode()}:{server.decode()}"


class AuthenticatingCase(SharedServerCase):
    """A server with TLS that knows one user, by password, SCRAM secret and token."""

    implicit: int

    @classmethod
    def start(cls, keeper: TLSTestCase) -> None:
        """With three checkers."""
        keeper.write("default.pem", "localhost")
        here = keeper.directory()
        (here / "passwords").write_text(f"{USER}:{PASSWORD}\n")
        (here / "secrets").write_text(f"{USER}:{scram_secret(PASSWORD)}\n")
        plugins = here / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "tokens_plugin.py").write_text(TOKEN_CHECKER)
        cls.implicit = free_port()
        cls.recording = keeper.recording_server(
            f"--tls={keeper.folder}",
            f"--listen=tls:{cls.implicit}:interface=127.0.0.1",
            f"--auth=file:{here / 'passwords'}",
            f"--auth=scram:{here / 'secrets'}",
            "--auth=tokens",
            env={"PYTHONPATH": f"{ROOT}:{here}"},
        )

    def assert_known(self, outcome: Outcome, how: str = "235 2.7.0") -> None:
        """The client was believed, and its message came from the user."""
        self.assert_ended_well(outcome)
        self.assertIn(how, outcome.output)
        self.assert_recorded(self.recording, "ESMTPSA", USER)

    def assert_unknown(self, outcome: Outcome) -> None:
        """The client was not believed, gave up, and has sent nothing."""
        self.assertNotEqual(outcome.code, 0)
        self.assertIn("535", outcome.output)
        self.assertEqual(self.recording.messages(), [])
        self.assertNotIn("wrong", self.recording.stderr)


class SwaksTests(AuthenticatingCase):
    """swaks."""

    def login(self, mechanism: str, password: str = PASSWORD) -> Outcome:
        """Send a message after AUTH."""
        options = ["--tls", "--auth", mechanism, "--auth-user", USER, "--auth-password", password]
        return swaks(self.recording.address, *options)

    def test_mechanisms(self) -> None:
        """PLAIN, LOGIN and CRAM-MD5 let in who has the password, and nobody else."""
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            self.assert_known(self.login(mechanism))
        for mechanism in ("PLAIN", "CRAM-MD5"):
            self.assert_unknown(self.login(mechanism, "wrong"))

    def test_not_offered(self) -> None:
        """CRAM-SHA1, DIGEST-MD5 and NTLM are not offered, and nothing at all is offered in clear."""
        for mechanism in ("CRAM-SHA1", "DIGEST-MD5", "NTLM"):
            outcome = self.login(mechanism)
            self.assertNotEqual(outcome.code, 0)
            self.assertNotIn("~> AUTH", outcome.output)
        clear = swaks(self.recording.address, "--auth", "--auth-user", USER, "--auth-password", PASSWORD)
        self.assertNotEqual(clear.code, 0)
        self.assertNotIn("AUTH", clear.output.replace("AUTH not", ""))

    def test_implicit(self) -> None:
        """AUTH works on implicit TLS as it does after STARTTLS."""
        options = ["--tls-on-connect", "--auth", "PLAIN", "--auth-user", USER, "--auth-password", PASSWORD]
        self.assert_known(swaks(("127.0.0.1", self.implicit), *options))


class CurlTests(AuthenticatingCase):
    """curl."""

    def login(self, mechanism: str, password: str = PASSWORD, *, scheme: str = "smtp") -> Outcome:
        """Send a message after AUTH."""
        options = ["--ssl-reqd", "--login-options", f"AUTH={mechanism}", "--user", f"{USER}:{password}"]
        return curl(scheme, self.implicit if scheme == "smtps" else self.recording.port, *options)

    def test_mechanisms(self) -> None:
        """PLAIN, LOGIN and CRAM-MD5 let in who has the password, and nobody else."""
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            self.assert_known(self.login(mechanism))
        self.assert_known(self.login("PLAIN", scheme="smtps"))
        self.assert_unknown(self.login("LOGIN", "wrong"))

    def test_token(self) -> None:
        """OAUTHBEARER lets in who has the token, and nobody else."""
        options = ["--ssl-reqd", "--user", USER, "--oauth2-bearer"]
        self.assert_known(curl("smtp", self.recording.port, *options, TOKEN))
        self.assert_unknown(curl("smtp", self.recording.port, *options, "wrong"))


class MsmtpTests(AuthenticatingCase):
    """msmtp, whose mechanisms are those of GNU SASL."""

    def login(self, mechanism: str, secret: str) -> Outcome:
        """Send a message after AUTH."""
        command = [require("msmtp"), "--debug", "--file=/dev/null", "--host=127.0.0.1"]
        command += [f"--port={self.recording.port}", "--tls=on", "--tls-certcheck=off"]
        command += [f"--auth={mechanism}", f"--user={USER}", f"--passwordeval=echo '{secret}'"]
        return run([*command, f"--from={SENDER}", RECIPIENT], b"Subject: msmtp\n\nHello\n")

    def test_mechanisms(self) -> None:
        """All it has in common with the server; SCRAM as it proves that the server knows the user, too."""
        for mechanism in ("plain", "login", "cram-md5", "scram-sha-256"):
            self.assert_known(self.login(mechanism, PASSWORD))
        for mechanism in ("xoauth2", "oauthbearer"):
            self.assert_known(self.login(mechanism, TOKEN))

    def test_wrong(self) -> None:
        """A wrong password and a wrong token are refused."""
        self.assert_unknown(self.login("scram-sha-256", "wrong"))
        self.assert_unknown(self.login("oauthbearer", "wrong"))


class GnuSaslTests(AuthenticatingCase):
    """SCRAM-SHA-256-PLUS by GNU SASL's library, which no mail program at hand has for it."""

    #: Properties that gsasl.h has: name, password, and what binds; and the outcomes of a step.
    NAME, SECRET, BINDING = 1, 3, 25
    OK, NEEDS_MORE = 0, 1

    def login(self, port: int, password: str = PASSWORD, binding: bytes = b"") -> bytes:
        """Try to authenticate on implicit TLS; the last reply.

        :param binding: in place of what binds the exchange to the connection.
        """
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain:
            connection = SSL.Connection(client_context(), plain)
            plain.setblocking(True)
            connection.set_connect_state()
            connection.do_handshake()
            bound = binding or connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
            client = self.client(
                {self.NAME: USER, self.SECRET: password, self.BINDING: b64encode(bound).decode()}
            )
            self.ask(connection, b"")
            self.ask(connection, b"EHLO client.example\r\n")
            reply = self.ask(
                connection, b"AUTH SCRAM-SHA-256-PLUS %s\r\n" % self.step(client, self.NEEDS_MORE)
            )
            for outcome in (self.NEEDS_MORE, self.OK):
                if reply.startswith(b"334"):
                    reply = self.ask(connection, self.step(client, outcome, reply[4:].strip()) + b"\r\n")
            return reply

    def setUp(self) -> None:
        """Load the library."""
        super().setUp()
        name = find_library("gsasl")
        if name is None:
            raise SkipTest("GNU SASL's library is not installed; Debian's package libgsasl18 has it")
        self.library = ctypes.CDLL(name)
        self.library.gsasl_property_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]

    def client(self, properties: dict[int, str]) -> ctypes.c_void_p:
        """A client's part of the exchange."""
        context, client = ctypes.c_void_p(), ctypes.c_void_p()
        self.assertEqual(self.library.gsasl_init(ctypes.byref(context)), self.OK)
        self.addCleanup(self.library.gsasl_done, context)
        begun = self.library.gsasl_client_start(context, b"SCRAM-SHA-256-PLUS", ctypes.byref(client))
        self.assertEqual(begun, self.OK)
        self.addCleanup(self.library.gsasl_finish, client)
        for number, value in properties.items():
            self.library.gsasl_property_set(client, number, value.encode())
        return client

    def step(self, client: ctypes.c_void_p, outcome: int, challenge: bytes = b"") -> bytes:
        """What the client says to a challenge, both in base64."""
        said = ctypes.c_char_p()
        self.assertEqual(self.library.gsasl_step64(client, challenge, ctypes.byref(said)), outcome)
        return said.value or b""

    @staticmethod
    def ask(connection: SSL.Connection, line: bytes) -> bytes:
        """Say something; the reply's last line."""
        connection.sendall(line)
        heard = b""
        while not heard.endswith(b"\r\n") or heard.splitlines()[-1][3:4] == b"-":
            heard += connection.recv(4096)
        return heard.splitlines()[-1]

    def test_bound(self) -> None:
        """Who has the password and ends the same TLS connection is let in, and has seen that we know him."""
        self.assertEqual(self.login(self.implicit)[:9], b"235 2.7.0")

    def test_not_bound(self) -> None:
        """Who has another password, or whose TLS ends at somebody in the middle, is not."""
        self.assertEqual(self.login(self.implicit, "wrong")[:9], b"535 5.7.8")
        self.assertEqual(self.login(self.implicit, binding=bytes(32))[:9], b"535 5.7.8")


class CertificateTests(TLSTestCase):
    """msmtp with a certificate of its own, and EXTERNAL."""

    def login(self, checker: str) -> Outcome:
        """Send a message as the one whom the certificate names."""
        self.write("default.pem", "localhost")
        options = (f"--tls={self.folder}", f"--tls-client-ca={self.authority_file()}")
        self.recording = self.recording_server(*options, f"--auth={checker}", "--require-auth")
        file = self.directory() / "client"
        file.write_bytes(make_pair(cn=USER, issuer=self.authority).pem)
        file.chmod(0o600)
        command = [require("msmtp"), "--debug", "--file=/dev/null", "--host=127.0.0.1"]
        command += [f"--port={self.recording.port}", "--tls=on", "--tls-certcheck=off"]
        command += [f"--tls-cert-file={file}", f"--tls-key-file={file}"]
        command += ["--auth=external", f"--user={USER}", f"--from={SENDER}", RECIPIENT]
        return run(command, b"Subject: msmtp\n\nHello\n")

    def test_let_in(self) -> None:
        """The checker of certificates lets in whom one names."""
        self.assert_ended_well(self.login("certificate"))
        self.assert_recorded(self.recording, "ESMTPSA", USER)

    def test_not_let_in(self) -> None:
        """If it has names, only those; and a certificate is nothing to the other checkers."""
        passwords = self.directory() / "passwords"
        passwords.write_text(f"{USER}:{PASSWORD}\n")
        for checker in ("certificate:bob", f"file:{passwords}"):
            outcome = self.login(checker)
            self.assertNotEqual(outcome.code, 0)
            self.assertEqual(self.recording.messages(), [])


class SmtplibTests(TLSTestCase):
    """smtplib, with each kind of checker and in clear."""

    def checked_by(self, kind: str, line: str, *options: str) -> int:
        """A server with a checker that reads a file of one line; its port."""
        file = self.directory() / "users"
        file.write_text(f"{line}\n")
        self.recording = self.recording_server(f"--auth={kind}:{file}", *options)
        return self.recording.port

    def assert_lets_in(self, port: int, features: str, upgrade: bool = True) -> None:
        """Who has the password is let in, with the mechanism that smtplib likes best; nobody else is."""
        with smtplib.SMTP("localhost", port, timeout=PATIENCE) as client:
            self.assert_offers(client, features, upgrade)
            client.user, client.password = USER, "wrong"
            self.assertRaises(smtplib.SMTPAuthenticationError, client.auth, "PLAIN", client.auth_plain)
            client.login(USER, PASSWORD)
            client.sendmail(SENDER, RECIPIENT, ONE_LINE)
        self.assertEqual(self.recording.message().facts["identity"], USER)

    def assert_offers(self, client: smtplib.SMTP, features: str, upgrade: bool) -> None:
        """The mechanisms are these, after an upgrade if there is to be one."""
        client.ehlo()
        if upgrade:
            self.assertEqual(client.has_extn("auth"), False)
            client.starttls(context=trusting())
            client.ehlo()
        self.assertEqual(client.esmtp_features["auth"].split(), features.split())

    def test_htpasswd(self) -> None:
        """Bcrypt hashes."""
        from bcrypt import gensalt, hashpw

        self.write("default.pem", "localhost")
        hashed = hashpw(PASSWORD.encode(), gensalt(4)).decode()
        port = self.checked_by("htpasswd", f"{USER}:{hashed}", f"--tls={self.folder}")
        self.assert_lets_in(port, "PLAIN LOGIN")

    def test_scram(self) -> None:
        """SCRAM secrets; AUTH must come first here."""
        self.write("default.pem", "localhost")
        line = f"{USER}:{scram_secret(PASSWORD)}"
        port = self.checked_by("scram", line, f"--tls={self.folder}", "--require-auth")
        with Client(self.recording.address) as stranger:
            stranger.hello()
            stranger.expect(f"MAIL FROM:<{SENDER}>", "530")
        self.assert_lets_in(port, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN")

    def test_clear(self) -> None:
        """In clear, where the operator wants that."""
        port = self.checked_by("file", f"{USER}:{PASSWORD}", "--auth-without-tls")
        self.assert_lets_in(port, "CRAM-MD5 PLAIN LOGIN", upgrade=False)
