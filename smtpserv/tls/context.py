"""How connections shake hands, and what is known of them when they have."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypedDict
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509

from smtpserv.tls.pem import alternative_names

#: What a client that negotiates a protocol at all (ALPN, RFC 7301) must offer.
ALPN: Final = b"smtp"

_OPTIONS: Final = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE

#: Whether all of a client's certificate chain was found good; not there for a client that showed none.
_verdicts: Final[WeakKeyDictionary[SSL.Connection, bool]] = WeakKeyDictionary()


class Facts(TypedDict):
    """The fields of ``smtpserv.message.TLSFacts``."""

    version: str
    cipher: str
    server_name: str
    client_name: str | None
    channel_binding: bytes


def bare_context(method: int) -> SSL.Context:
    """TLS 1.2 and newer. The ciphers are OpenSSL's own choice, which the system's maintainers look after."""
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def show(context: SSL.Context, key: Any, chain: Sequence[x509.Certificate]) -> None:
    """Say by a certificate who we are.

    :raises OpenSSL.SSL.Error: for a key or certificate that OpenSSL does not take, such as a short one.
    """
    context.use_certificate(chain[0])
    context.use_privatekey(key)
    for each in chain[1:]:
        context.add_extra_chain_cert(each)


def trust(context: SSL.Context, authorities: Sequence[x509.Certificate]) -> None:
    """Believe the certificates that these vouch for."""
    store = context.get_cert_store()
    assert store is not None
    for each in authorities:
        store.add_cert(X509.from_cryptography(each))


def make_context(
    key: Any,
    chain: list[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    choose: Callable[[SSL.Connection], None],
) -> SSL.Context:
    """What the server makes connections from.

    :param authorities: whose clients are known by their certificate; when there are none, no client is asked.
    :param choose: called with a connection whose client has said which name it wants, or that it wants none.
    :raises OpenSSL.SSL.Error: for a key or certificate that OpenSSL does not take, such as a short one.
    """
    context = bare_context(SSL.TLS_SERVER_METHOD)
    context.set_session_id(b"smtpserv")
    show(context, key, chain)
    context.set_alpn_select_callback(_select_protocol)
    context.set_tlsext_servername_callback(choose)
    if authorities:
        _ask_clients(context, authorities)
    return context


@contextmanager
def blaming(path: str) -> Iterator[None]:
    """Where a key or certificate is put to use, tell the file that holds it from those that are good.

    :raises ValueError: in one line, for one that is not taken.
    """
    try:
        yield
    except SSL.Error as error:
        reasons = ", ".join(reason for _, _, reason in error.args[0])
        raise ValueError(f"{path}: OpenSSL does not take it: {reasons}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: a certificate that cannot be used: {error}") from None


def _ask_clients(context: SSL.Context, authorities: Sequence[x509.Certificate]) -> None:
    """Ask clients for a certificate, and note what it is worth.

    No session is resumed: it would bring the certificate back, but not what was found of it.
    """
    trust(context, authorities)
    for each in authorities:
        context.add_client_ca(each)
    context.set_verify(SSL.VERIFY_PEER, _note_verdict)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)


def _note_verdict(connection: SSL.Connection, _: X509, error: int, depth: int, good: int) -> bool:
    """Called for each certificate of the chain; whatever it is, the handshake goes on."""
    _verdicts[connection] = bool(good) and _verdicts.get(connection, True)
    return True


def _select_protocol(_: SSL.Connection, offered: list[bytes]) -> bytes:
    """Speak SMTP or nothing: what a client meant for another protocol is not ours to answer.

    :raises OpenSSL.SSL.Error: which OpenSSL tells the client as ``no_application_protocol`` (RFC 7301
        section 3.2), and Twisted takes for the end of the handshake.
    """
    if ALPN not in offered:
        raise SSL.Error([("", "", "no application protocol")])
    return ALPN


def tls_facts(connection: SSL.Connection) -> Facts:
    """What is known of a connection that has shaken hands."""
    return {
        "version": connection.get_protocol_version_name(),
        "cipher": connection.get_cipher_name() or "",
        "server_name": server_name(connection),
        "client_name": _client_name(connection),
        "channel_binding": _channel_binding(connection),
    }


def server_name(connection: SSL.Connection) -> str:
    """Which server the client wants (SNI, RFC 6066 section 3), as it was sent; empty when it did not say."""
    return (connection.get_servername() or b"").decode("ascii", "backslashreplace")


def _client_name(connection: SSL.Connection) -> str | None:
    """Whom the client's certificate names, a mailbox, else a host, else a CN; None for one not found good."""
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None or not _verdicts.get(connection, False):
        return None
    try:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        mailboxes = alternative_names(certificate, x509.RFC822Name)
        hosts = alternative_names(certificate, x509.DNSName)
    except ValueError:  # what OpenSSL takes and cryptography does not
        return None
    names = (*mailboxes, *hosts, *(each.value for each in common))
    return next((name for name in names if isinstance(name, str) and name), None)


def _channel_binding(connection: SSL.Connection) -> bytes:
    """The ``tls-exporter`` of RFC 9266, 32 octets.

    TLS 1.2 has one only with the extended master secret, and pyOpenSSL does not tell whether that is used.
    """
    if connection.get_protocol_version() < SSL.TLS1_3_VERSION:
        return b""
    return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
