"""The proxy before an upstream that fails at TLS or AUTH, and the network between them that has TLS."""

import os
from typing import Any, Final

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.protocols import tls

from smtpserv.policy.authentication import Authentication
from smtpserv.reply import Reply
from smtpserv.testing.upstream import CLOSE, ENDLESS, GARBAGE, HALF, RESET, STALL, Fault
from smtpserv.tls import Certificates
from tests.certificates import make_pair
from tests.proxy_tools import AGAIN, FIRST, ProxyCase

#: Every fault, and what the client hears of it at STARTTLS, in the handshake and at AUTH, where TLS and AUTH
#: must be. What is said in clear behind the answer to STARTTLS is no handshake. Whether a server
#: trusts us, or we trust it, is never its client's fault.
TABLE: Final[dict[str, tuple[Fault, str, str, str]]] = {
    "refuse": (Reply(554, "No", "5.7.0"), "451 4.7.5", "", "451 4.7.0"),
    "defer": (Reply(454, "Later", "4.7.0"), "451 4.7.5", "", "451 4.7.0"),
    "close": (CLOSE, "451 4.4.2", "451 4.7.5", "451 4.4.2"),
    "RST": (RESET, "451 4.4.2", "451 4.4.2", "451 4.4.2"),
    "half": (HALF, "451 4.4.2", "451 4.5.0", "451 4.4.2"),
    "stall": (STALL, "451 4.4.2", "451 4.7.5", "451 4.4.2"),
    "garbage": (GARBAGE, "451 4.5.0", "451 4.5.0", "451 4.5.0"),
    # Under TLS what is endless would be asked for by a timer of the real reactor; TLS knows no other.
    "endless": (ENDLESS, "451 4.5.0", "451 4.5.0", ""),
}
STEPS: Final = ("STARTTLS", "handshake", "AUTH")
MAIL: Final = b"MAIL FROM:<a@a.example>\r\n"


class TLSCase(ProxyCase):
    """Has an upstream with a certificate and a user."""

    def setUp(self) -> None:
        """Make both."""
        super().setUp()
        self.patch(tls, "_get_default_clock", lambda: self.network)
        self.network.names["mail.example"] = [FIRST]
        authority = make_pair(cn="authority", ca=True)
        self.roots = self.write(authority.certificate_pem)
        self.shown = self.write(make_pair("mail.example", issuer=authority).pem)

    def write(self, octets: bytes) -> str:
        """A file that is nobody else's."""
        path: str = self.mktemp()
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(octets)
        return path

    def secure_script(self, faults: Any = None, **choices: Any) -> None:
        """An upstream that offers STARTTLS and AUTH."""
        users = InMemoryUsernamePasswordDatabaseDontUse(user=b"secret")
        authentication = Authentication([users], self.network, without_tls=True)
        certificates = Certificates(self.shown, self.network)
        self.script(faults, tls=certificates, authentication=authentication, **choices)

    def secure_proxy(self, mode: str = "required", **arguments: str) -> None:
        """A proxy that speaks TLS, and may say who it is."""
        self.proxy("mail.example", tls=mode, **arguments)


class FaultTests(TLSCase):
    """Every fault at every step."""

    def test_table(self) -> None:
        """Where TLS is a must, the client hears the truth, and the next transaction is passed on."""
        password = self.write(b"secret\n")
        for name, (fault, *answers) in TABLE.items():
            for step, answer in zip(STEPS, answers, strict=True):
                if answer:
                    self.secure_script({step: [fault]})
                    self.secure_proxy(trust_roots=self.roots, user="user", password_file=password)
                    client = self.client()
                    self.assertEqual(client.say(MAIL), [answer], f"{name} at {step}")
                    self.assertEqual(self.upstream.transactions, [])
                    client.vanish()
                    self.network.wait(AGAIN)
                    self.assert_works()
                    session = self.upstream.connections[-1].session
                    self.assertEqual((session.tls is not None, session.identity), (True, "user"))
                    self.assert_nothing_left()

    def test_opportunistic(self) -> None:
        """Where TLS is no must, mail goes in clear when it can't be had."""
        faults: tuple[tuple[str, Fault], ...] = (
            ("STARTTLS", Reply(454, "Later", "4.7.0")),
            ("handshake", CLOSE),
            ("handshake", STALL),
        )
        for step, fault in faults:
            self.secure_script({step: fault})
            self.secure_proxy("opportunistic")
            client = self.client()
            self.assertEqual(client.say(MAIL), ["250 2.1.0"], f"{fault} at {step}")
            self.assertIsNone(self.upstream.connections[-1].session.tls)
            self.assert_nothing_left()

    def test_not_trusted(self) -> None:
        """A certificate that nobody vouches for, or none: not a word of the client's gets there."""
        self.secure_script()
        self.secure_proxy(trust_roots=self.write(make_pair(cn="another", ca=True).certificate_pem))
        self.assertEqual(self.client().say(MAIL), ["451 4.7.5"])
        self.assertEqual([line.split()[0] for line in self.upstream.commands], [b"EHLO", b"STARTTLS"])
        self.assert_nothing_left()
        self.script()
        self.secure_proxy(trust_roots=self.roots)
        self.assertEqual(self.client().say(MAIL), ["451 4.7.5"])
        self.assertEqual([line.split()[0] for line in self.upstream.commands], [b"EHLO"])
        self.assert_nothing_left()

    def test_password_in_clear(self) -> None:
        """To a server elsewhere no password goes in clear, whatever it offers."""
        self.secure_script({"STARTTLS": Reply(454, "Later", "4.7.0")})
        self.secure_proxy("opportunistic", user="user", password_file=self.write(b"secret\n"))
        self.client().say(MAIL)
        said = b" ".join(self.upstream.commands)
        for clear in (b"PLAIN", b"LOGIN", b"AHVzZXIAc2VjcmV0", b"c2VjcmV0"):
            self.assertNotIn(clear, said)
