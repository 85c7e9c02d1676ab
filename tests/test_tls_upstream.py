"""TLS towards upstreams: whom we talk to in each mode, and what we show."""

import os
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect
from zope.interface import implementer

from smtpserv.error import StartError
from smtpserv.tls import Facts, TLSMode, UpstreamTLS, tls_facts
from tests.certificates import DAY, NOW, CertificatesCase, Pair, make_pair

MX = "mx.example"
VERIFIED = (TLSMode.REQUIRED, TLSMode.IMPLICIT)


@implementer(IHandshakeListener)
class End(Protocol):
    """One end of a connection, which greets the other."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: Failure | None = None

    def handshakeCompleted(self) -> None:
        """Speak."""
        assert self.transport is not None
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        """Listen."""
        self.heard += data

    def facts(self) -> Facts:
        """What this end knows of the connection."""
        transport: Any = self.transport
        return tls_facts(transport.getHandle())

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        """Remember why."""
        self.lost = reason


@implementer(IOpenSSLServerConnectionCreator)
class Server:
    """An upstream that shows any certificate, and asks for ours if it knows authorities."""

    def __init__(
        self, pair: Pair, *chain: Pair, authorities: tuple[Pair, ...] = (), version: int = 0
    ) -> None:
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.use_certificate(pair.certificate)
        self.context.use_privatekey(pair.key)
        for each in chain:
            self.context.add_extra_chain_cert(each.certificate)
        if version:
            self.context.set_cipher_list(b"ALL:@SECLEVEL=0")
            self.context.set_min_proto_version(version)
            self.context.set_max_proto_version(version)
        store = self.context.get_cert_store()
        assert store is not None
        for each in authorities:
            store.add_cert(X509.from_cryptography(each.certificate))
            self.context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)

    def serverConnectionForTLS(self, protocol: IProtocol) -> SSL.Connection:
        """As TLSMemoryBIOFactory wants it."""
        return SSL.Connection(self.context)


class Case(CertificatesCase):
    """An authority, and upstreams that it vouches for or not."""

    def setUp(self) -> None:
        super().setUp()
        self.ca = make_pair(cn="authority", ca=True)
        self.roots = self.write("roots.crt", self.ca.certificate_pem)

    def tls(self, mode: TLSMode, **options: Any) -> UpstreamTLS:
        """What an operator wants who trusts our authority where anybody is verified."""
        return UpstreamTLS.read(mode, **({"trust_roots": self.roots} if mode.is_verified else {}), **options)

    def shake(self, creator: IOpenSSLClientConnectionCreator, server: Any) -> tuple[End, End]:
        """A client and a server that have shaken hands, or have not."""
        ends = (End(), End())
        factories = [
            TLSMemoryBIOFactory(each, is_client, Factory.forProtocol(lambda end=end: end), self.clock)  # type: ignore[misc]
            for each, is_client, end in zip((creator, server), (True, False), ends, strict=True)
        ]
        client, served = (factory.buildProtocol(None) for factory in factories)
        transports = FakeTransport(client, False), FakeTransport(served, True)
        pump = connect(served, transports[1], client, transports[0])
        for _ in range(5):
            self.clock.advance(1)
            pump.flush()
        return ends

    def passes(self, tls: UpstreamTLS, server: Any, host: str = MX) -> bool:
        """Whether mail would be sent: both have said something that the other has heard."""
        end, other = self.shake(tls.creator(host), server)
        heard = end.heard, other.heard
        self.assertIn(heard, ((b"hello", b"hello"), (b"", b"")))
        self.assertEqual(end.lost is None, heard[0] == b"hello")
        return heard[0] == b"hello"

    def verdicts(self, server: Any, host: str = MX) -> tuple[bool, bool, bool]:
        """Whether it passes where TLS is opportunistic, required and implicit."""
        modes = (TLSMode.OPPORTUNISTIC, *VERIFIED)
        one, two, three = (self.passes(self.tls(mode), server, host) for mode in modes)
        return one, two, three


class VerificationTests(Case):
    """Whom we believe."""

    def test_right_name(self) -> None:
        """A certificate of the host's own name is good, in any case, with a final dot or a wildcard."""
        for name in ("a.mx.example", "*.mx.example", "A.MX.EXAMPLE"):
            for host in ("a.mx.example", "A.MX.Example", "a.mx.example."):
                server = Server(make_pair(name, issuer=self.ca))
                self.assertEqual(self.verdicts(server, host), (True, True, True), (name, host))

    def test_wrong_name(self) -> None:
        """One of another name is not; a common name is no name of a host (RFC 6125 section 6.4.4)."""
        for pair in (
            make_pair("other.example", issuer=self.ca),
            make_pair("*.mx.example", issuer=self.ca),
            make_pair(cn=MX, issuer=self.ca),
        ):
            self.assertEqual(self.verdicts(Server(pair)), (True, False, False))

    def test_unknown(self) -> None:
        """Nor is one that a stranger vouches for, even one of the same name, or nobody but itself."""
        stranger = make_pair(cn="authority", ca=True)
        signed = Server(make_pair(MX, issuer=stranger), stranger)
        self.assertEqual(self.verdicts(signed), (True, False, False))
        self.assertEqual(self.verdicts(Server(make_pair(MX))), (True, False, False))

    def test_out_of_date(self) -> None:
        """Nor one that has expired, or is not valid yet."""
        for since, until in ((NOW - 2 * DAY, NOW - DAY), (NOW + DAY, NOW + 2 * DAY)):
            pair = make_pair(MX, issuer=self.ca, since=since, until=until)
            self.assertEqual(self.verdicts(Server(pair)), (True, False, False))

    def test_chain(self) -> None:
        """What lies between the upstream and the authority, the upstream brings along."""
        between = make_pair(cn="between", ca=True, issuer=self.ca)
        pair = make_pair(MX, issuer=between)
        self.assertEqual(self.verdicts(Server(pair, between)), (True, True, True))
        self.assertEqual(self.verdicts(Server(pair)), (True, False, False))

    def test_self_signed(self) -> None:
        """The certificate of the upstream itself may be what is trusted."""
        pair = make_pair(MX)
        self.roots = self.write("roots.crt", pair.certificate_pem)
        self.assertEqual(self.verdicts(Server(pair)), (True, True, True))
        self.assertEqual(self.verdicts(Server(pair), "other.example"), (True, False, False))

    def test_address(self) -> None:
        """An upstream that has only an IP address has it in its certificate, as an address."""
        for address in ("192.0.2.1", "2001:db8::1"):
            pair = make_pair(x509.IPAddress(ip_address(address)), issuer=self.ca)
            self.assertEqual(self.verdicts(Server(pair), address), (True, True, True))
            self.assertEqual(self.verdicts(Server(pair), "192.0.2.2"), (True, False, False))
        pair = make_pair("192.0.2.1", issuer=self.ca)
        self.assertEqual(self.verdicts(Server(pair), "192.0.2.1"), (True, False, False))

    def test_server_name(self) -> None:
        """The operator may know the upstream by another name than that of the host."""
        server = Server(make_pair(MX, issuer=self.ca))
        for mode in VERIFIED:
            self.assertTrue(self.passes(self.tls(mode, server_name=MX), server, "192.0.2.1"))
            self.assertFalse(self.passes(self.tls(mode, server_name="other.example"), server, MX))

    def test_platform(self) -> None:
        """Without trust roots the platform's authorities are believed, whoever they are."""
        server = Server(make_pair(MX, issuer=self.ca))
        for mode in VERIFIED:
            self.assertFalse(self.passes(UpstreamTLS.read(mode), server))
        self.addCleanup(os.environ.update, dict(os.environ))
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = self.roots
        for mode in VERIFIED:
            self.assertTrue(self.passes(UpstreamTLS.read(mode), server))

    def test_no_name(self) -> None:
        """One that has no names, or names that make no sense, is nobody's, whoever vouches for it."""
        for names in ((), ("*.example",), ("*",), ("",), (x509.RFC822Name("mx.example"),), ("mx..example",)):
            pair = make_pair(*names, cn=MX, issuer=self.ca)
            self.assertEqual(self.verdicts(Server(pair)), (True, False, False), names)
            self.assertEqual(self.verdicts(Server(pair), "192.0.2.1"), (True, False, False), names)

    def test_reason(self) -> None:
        """The connection ends for a reason that the log can tell."""
        stranger = make_pair(cn="stranger", ca=True)
        expired = make_pair(MX, issuer=self.ca, since=NOW - 2 * DAY, until=NOW - DAY)
        for server, reason in (
            (Server(make_pair("other.example", issuer=self.ca)), "is not that of mx.example"),
            (Server(make_pair(MX)), "is signed by nobody but itself"),
            (Server(make_pair(MX, issuer=stranger), stranger), "is from an authority that is not trusted"),
            (Server(make_pair(MX, issuer=stranger)), "is from an authority that is not trusted"),
            (Server(expired), "has expired"),
            (Server(make_pair(MX, issuer=self.ca, since=NOW + DAY, until=NOW + 2 * DAY)), "is not valid yet"),
        ):
            end, _ = self.shake(self.tls(TLSMode.REQUIRED).creator(MX), server)
            error: Any = end.lost and end.lost.value
            self.assertIsInstance(error, SSL.Error)
            self.assertEqual(error.args[0][0][2], f"the upstream's certificate {reason}")


class AgreementTests(Case):
    """What is said in a handshake."""

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, and nothing older even where anything goes."""
        pair = make_pair(MX, issuer=self.ca)
        for version, good in (
            (SSL.TLS1_1_VERSION, False),
            (SSL.TLS1_2_VERSION, True),
            (SSL.TLS1_3_VERSION, True),
        ):
            self.assertEqual(self.verdicts(Server(pair, version=version)), (good, good, good), version)

    def test_facts(self) -> None:
        """Both ends know the same of the connection; SNI tells the upstream's name, and no IP address."""
        names = MX, "xn--bcher-kva.example", x509.IPAddress(ip_address("192.0.2.1"))
        server = Server(make_pair(*names, issuer=self.ca))
        for mode in (TLSMode.OPPORTUNISTIC, *VERIFIED):
            for host, asked in (
                (f"{MX}.", MX),
                ("bücher.example", "xn--bcher-kva.example"),
                ("192.0.2.1", ""),
            ):
                end, other = self.shake(self.tls(mode).creator(host), server)
                mine, others = end.facts(), other.facts()
                self.assertEqual((others["server_name"], mine["version"]), (asked, "TLSv1.3"))
                self.assertEqual(mine["channel_binding"], others["channel_binding"])
                self.assertEqual(len(mine["channel_binding"]), 32)

    def test_certificate(self) -> None:
        """Who asks for our certificate is shown it with its chain, in every mode."""
        between = make_pair(cn="between", ca=True, issuer=self.ca)
        me = make_pair("me.example", issuer=between)
        path = self.write("me.pem", me.pem, between.certificate_pem)
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            server = Server(make_pair(MX, issuer=self.ca), authorities=(self.ca,), version=version)
            for mode in (TLSMode.OPPORTUNISTIC, *VERIFIED):
                self.assertTrue(self.passes(self.tls(mode, certificate=path), server), mode)
                self.assertFalse(self.passes(self.tls(mode), server), mode)

    def test_many(self) -> None:
        """One creator makes every connection to a host."""
        creator = self.tls(TLSMode.REQUIRED).creator(MX)
        for pair, good in ((make_pair(MX, issuer=self.ca), True), (make_pair(MX), False)) * 2:
            end, _ = self.shake(creator, Server(pair))
            self.assertEqual(end.lost is None, good)


class StartTests(Case):
    """What an operator who is mistaken reads at the start."""

    def fault(self, mode: TLSMode = TLSMode.REQUIRED, **options: Any) -> str:
        """The one line."""
        error: StartError = self.assertRaises(StartError, UpstreamTLS.read, mode, **options)
        self.assertNotIn("\n", str(error))
        return str(error)

    def test_trust_roots(self) -> None:
        """Files that are not there or hold no certificate."""
        missing = os.path.join(self.folder, "missing.crt")
        self.assertEqual(self.fault(trust_roots=missing), f"{missing}: No such file or directory")
        self.assertEqual(self.fault(trust_roots=self.folder), f"{self.folder}: Is a directory")
        broken = self.ca.certificate_pem.replace(b"A", b"", 1)
        for octets in (b"", self.ca.key_pem, broken):
            path = self.write("roots.crt", octets)
            self.assertEqual(self.fault(trust_roots=path), f"{path}: holds no certificate, or a damaged one")

    def test_certificate(self) -> None:
        """Keys that do not fit, are missing or locked, and certificates that have expired."""
        me, other = make_pair("me.example"), make_pair("me.example")
        expired = make_pair("me.example", since=NOW - 2 * DAY, until=NOW - DAY)
        for octets, said in (
            (me.key_pem + other.certificate_pem, "the private key is not that of the first certificate"),
            (me.certificate_pem, "holds no private key"),
            (me.key_pem, "holds no certificate, or a damaged one"),
            (me.locked_key_pem + me.certificate_pem, "the private key is encrypted"),
            (expired.pem, "the certificate expired on "),
        ):
            path = self.write("me.pem", octets)
            for mode in (TLSMode.OPPORTUNISTIC, *VERIFIED):
                self.assertTrue(self.fault(mode, certificate=path).startswith(f"{path}: {said}"), said)

    def test_short_key(self) -> None:
        """What OpenSSL does not take is found at the start, and not at the first message."""
        key = rsa.generate_private_key(65537, 1024)
        name = x509.Name([])
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - DAY, NOW + DAY)
            .sign(key, SHA256())
            .public_bytes(Encoding.PEM)
        )
        octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.write("me.pem", octets, certificate)
        self.assertIn("key too small", self.fault(certificate=path))

    def test_not_used(self) -> None:
        """Who names trust roots expects that they count: they do nothing where nobody is verified."""
        for mode in (TLSMode.NONE, TLSMode.OPPORTUNISTIC):
            expected = f"{self.roots}: no trust roots are used with tls={mode.value}"
            self.assertEqual(self.fault(mode, trust_roots=self.roots), expected)
        path = self.write("me.pem", make_pair("me.example").pem)
        expected = f"{path}: no certificate is used with tls=none"
        self.assertEqual(self.fault(TLSMode.NONE, certificate=path), expected)

    def test_names(self) -> None:
        """What is no host's name is refused before anything is connected."""
        for mode in (TLSMode.OPPORTUNISTIC, *VERIFIED):
            for host in ("", "a..example", "x" * 64 + ".example"):
                self.assertRaises(StartError, self.tls(mode).creator, host)
        self.assertTrue(self.passes(self.tls(TLSMode.OPPORTUNISTIC), Server(make_pair(MX)), "mail_server"))

    def test_kept_secret(self) -> None:
        """No key is in a repr."""
        path = self.write("me.pem", make_pair("me.example").pem)
        self.assertEqual(
            repr(UpstreamTLS.read(TLSMode.OPPORTUNISTIC, certificate=path)),
            "UpstreamTLS(mode=<TLSMode.OPPORTUNISTIC: 'opportunistic'>, server_name='')",
        )
