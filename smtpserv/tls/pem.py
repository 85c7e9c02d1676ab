"""What PEM files hold: a private key and its certificates, or the certificates of authorities."""

import re
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_KEY: Final = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


def read_identity(path: str) -> tuple[Any, list[x509.Certificate]]:
    """The private key of a server and its chain of certificates, its own first.

    :raises ValueError: in one line, for a file that does not hold them, or not for today.
    """
    octets = _read(path)
    chain = _certificates(path, octets)
    key = _private_key(path, octets)
    if key.public_key() != chain[0].public_key():
        raise ValueError(f"{path}: the private key is not that of the first certificate")
    since, until = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
    now = datetime.now(UTC)
    if now > until:
        raise ValueError(f"{path}: the certificate expired on {until:%Y-%m-%d}")
    if now < since:
        raise ValueError(f"{path}: the certificate is not valid before {since:%Y-%m-%d}")
    return key, chain


def read_authorities(path: str) -> list[x509.Certificate]:
    """The certificates in a file, one at least.

    :raises ValueError: in one line, for a file that holds none.
    """
    return _certificates(path, _read(path))


def alternative_names(certificate: x509.Certificate, kind: Any) -> list[str]:
    """The subjectAltNames of a kind (RFC 5280 section 4.2.1.6).

    :raises ValueError: for a certificate whose extensions make no sense.
    """
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return found.value.get_values_for_type(kind)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


def _certificates(path: str, octets: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(octets)
    except ValueError:
        raise ValueError(f"{path}: holds no certificate, or a damaged one") from None


def _private_key(path: str, octets: bytes) -> Any:
    found = _KEY.search(octets)
    if found is None:
        raise ValueError(f"{path}: holds no private key")
    try:
        return load_pem_private_key(found[0], None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What the library says might quote the key.
        raise ValueError(f"{path}: the private key is encrypted, damaged or of an unknown kind") from None
