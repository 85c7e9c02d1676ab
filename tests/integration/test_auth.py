"""AUTH with the clients there are: each mechanism they know, right and wrong passwords, each checker."""

import smtplib
from base64 import b64encode
from hashlib import pbkdf2_hmac, sha256
from hmac import digest

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
