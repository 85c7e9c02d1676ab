"""Certificates for tests, made on the spot, and a client that shakes hands in memory."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.tls import Certificates

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass
class Pair:
    """A private key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def locked_key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))

    @property
    def pem(self) -> bytes:
        return self.key_pem + self.certificate_pem


def make_pair(
    *names: x509.GeneralName | str,
    cn: str = "",
    issuer: Pair | None = None,
    ca: bool = False,
    since: datetime = NOW - DAY,
    until: datetime = NOW + DAY,
) -> Pair:
    """A certificate with these subjectAltNames, DNS names where they are text.

    :param issuer: who signs it; nobody means itself.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else [])
    signer = issuer or Pair(key, None)  # type: ignore[arg-type]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        general = [x509.DNSName(each) if isinstance(each, str) else each for each in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return Pair(key, builder.sign(signer.key, SHA256()))


def client_context(pair: Pair | None = None, chain: Iterable[Pair] = ()) -> SSL.Context:
    """What a client that trusts everybody connects with, showing a certificate if it has one."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    if pair is not None:
        context.use_certificate(pair.certificate)
        context.use_privatekey(pair.key)
        for each in chain:
            context.add_extra_chain_cert(each.certificate)
    return context


class Handshake:
    """A client and a server that shake hands without a network.

    :param certificates: the server's.
    :param name: what the client asks for, if anything.
    :param alpn: what it offers to speak.
    :raises OpenSSL.SSL.Error: when they do not come to an agreement.
    """

    def __init__(
        self,
        certificates: Any,
        name: str = "",
        context: SSL.Context | None = None,
        alpn: list[bytes] | None = None,
        session: SSL.Session | None = None,
    ) -> None:
        self.server: SSL.Connection = certificates.serverConnectionForTLS(None)
        self.server.set_accept_state()
        self.client = SSL.Connection(context or client_context())
        self.client.set_connect_state()
        if name:
            self.client.set_tlsext_host_name(name.encode())
        if alpn:
            self.client.set_alpn_protos(alpn)
        if session:
            self.client.set_session(session)
        self.go()

    def go(self) -> None:
        """Carry octets between the two until both have nothing more to say."""
        for _ in range(4):
            for end, other in (self.client, self.server), (self.server, self.client):
                try:
                    end.do_handshake()
                except SSL.WantReadError:
                    pass
                finally:
                    carry(end, other)
        for end in (self.client, self.server):
            with suppress(SSL.WantReadError):
                end.recv(100)

    @property
    def shown(self) -> x509.Certificate:
        """The certificate the server showed."""
        found = self.client.get_peer_certificate(as_cryptography=True)
        assert found is not None
        return found


def carry(end: SSL.Connection, other: SSL.Connection) -> None:
    """Bring what one says to the other."""
    with suppress(SSL.WantReadError):
        other.bio_write(end.bio_read(1 << 16))


class CertificatesCase(SynchronousTestCase):
    """A folder of PEM files."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.writes = 0

    def write(self, name: str, *pieces: bytes) -> str:
        """A file in the folder; its time is another with each write."""
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.writelines(pieces)
        self.writes += 1
        os.utime(path, ns=(self.writes, self.writes))
        return path

    def certificates(self, path: str = "", client_ca: str | None = None) -> Certificates:
        """Of the whole folder, or of one file."""
        return Certificates(path or self.folder, self.clock, client_ca)

    def shown(self, certificates: Certificates, name: str = "") -> x509.Certificate:
        """What a client that comes two seconds later is shown."""
        self.clock.advance(2)
        return Handshake(certificates, name).shown
