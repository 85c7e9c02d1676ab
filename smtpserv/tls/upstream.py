"""TLS towards upstreams: whether there is any, whom we believe, and who we say we are."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IProtocol
from zope.interface import implementer

from smtpserv.error import StartError
from smtpserv.tls.context import bare_context, blaming, show, trust
from smtpserv.tls.pem import read_authorities, read_identity


class TLSMode(Enum):
    """What becomes of a connection to an upstream.

    ``none``: in clear, whatever is offered. ``opportunistic``: STARTTLS where it is offered, whatever the
    certificate. ``required``: STARTTLS, and a certificate of the upstream's own name, or nothing is sent.
    ``implicit``: the same, with TLS from the first octet (RFC 8314 section 3).

    Opportunistic TLS keeps out who only listens (RFC 7435). To verify would keep out nobody else: who can put
    a certificate in the way can hide the offer of STARTTLS as well, and the mail would go in clear.
    """

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    IMPLICIT = "implicit"

    @property
    def is_verified(self) -> bool:
        """Whether we know whom we talk to."""
        return self in (TLSMode.REQUIRED, TLSMode.IMPLICIT)


@dataclass(frozen=True, slots=True)
class UpstreamTLS:
    """What an operator wants of TLS towards upstreams. TLS is 1.2 or newer.

    :param server_name: whom certificates must name in place of the host that is connected to; empty for that.
    """

    mode: TLSMode
    server_name: str = ""
    #: Whom we believe; nobody means the platform's authorities.
    _authorities: tuple[x509.Certificate, ...] = field(default=(), repr=False)
    #: A private key and its chain of certificates.
    _identity: tuple[Any, list[x509.Certificate]] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def read(
        cls, mode: TLSMode, *, trust_roots: str = "", certificate: str = "", server_name: str = ""
    ) -> "UpstreamTLS":
        """Read the files.

        :param trust_roots: a PEM file of the authorities that are believed; empty for the platform's.
        :param certificate: a PEM file of a private key and its chain of certificates, to show to upstreams
            that ask for one.
        :raises StartError: in one line, for a file that is of no use, or would not be used.
        """
        if trust_roots and not mode.is_verified:
            raise StartError(f"{trust_roots}: no trust roots are used with tls={mode.value}")
        if certificate and mode is TLSMode.NONE:
            raise StartError(f"{certificate}: no certificate is used with tls={mode.value}")
        try:
            authorities = tuple(read_authorities(trust_roots)) if trust_roots else ()
            identity = read_identity(certificate) if certificate else None
            tls = cls(mode, server_name, authorities, identity)
            with blaming(certificate or trust_roots):
                tls._context()
        except ValueError as error:
            raise StartError(str(error)) from None
        return tls

    def creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        """What ``startTLS`` and ``wrapClientTLS`` make connections to a host from.

        Make one for each host and keep it: each reads the platform's authorities.

        :param host: a name, or an IP address, which must stand as such in the certificate.
        :raises StartError: for what can be no host's name.
        """
        return _Creator(self._context(), (self.server_name or host).rstrip("."), self.mode.is_verified)

    def _context(self) -> SSL.Context:
        context = bare_context(SSL.TLS_CLIENT_METHOD)
        if self._identity is not None:
            show(context, *self._identity)
        if self._authorities:
            trust(context, self._authorities)
        elif self.mode.is_verified:
            context.set_default_verify_paths()
        return context


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """Makes connections to one host.

    Twisted's own, of ``optionsForClientTLS``, takes a certificate without any name for everybody's (seen in
    26.10): what cannot be compared is logged there, and let pass.
    """

    def __init__(self, context: SSL.Context, name: str, verified: bool) -> None:
        is_address = isIPAddress(name) or isIPv6Address(name)
        self._name: Final = name if is_address else _in_ascii(name)
        self._context: Final = context
        self._is_address: Final = is_address
        if verified:
            context.set_verify(SSL.VERIFY_PEER, self._verify)

    def clientConnectionForTLS(self, protocol: IProtocol) -> SSL.Connection:
        """A connection about to shake hands. SNI takes no IP addresses (RFC 6066 section 3)."""
        connection = SSL.Connection(self._context)
        if not self._is_address:
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        return connection

    def _verify(self, _: SSL.Connection, certificate: X509, error: int, depth: int, good: int) -> bool:
        """Called for each certificate of the chain, the upstream's own last, at depth 0.

        :raises OpenSSL.SSL.Error: which Twisted takes for the end of the handshake, and its reason.
        """
        if not good:
            raise _refusal(_FAULTS.get(error, f"is not good (X.509 error {error})"))
        if depth == 0:
            verify = verify_certificate_ip_address if self._is_address else verify_certificate_hostname
            try:
                verify(certificate.to_cryptography(), self._name)
            except Exception:  # of any kind: what cannot be compared is nobody's name
                raise _refusal(f"is not that of {self._name}") from None
        return True


def _in_ascii(name: str) -> str:
    """A host's name as DNS has it.

    :raises StartError: for what is none.
    """
    try:
        found = name.encode("idna").decode("ascii")
    except UnicodeError:
        found = ""
    if not found:
        raise StartError(f"{name!r} is no name of a host")
    return found


def _refusal(fault: str) -> SSL.Error:
    return SSL.Error([("", "", f"the upstream's certificate {fault}")])


_Codes: Final = SSL.X509VerificationCodes
_FAULTS: Final = {
    _Codes.ERR_CERT_HAS_EXPIRED: "has expired",
    _Codes.ERR_CERT_NOT_YET_VALID: "is not valid yet",
    _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "is signed by nobody but itself",
    _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: "is from an authority that is not trusted",
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "is from an authority that is not trusted",
    _Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: "is from an authority that is not trusted",
}
