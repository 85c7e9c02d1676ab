"""A private key for DKIM, in a file that is read again when it changes."""

import base64
import binascii
import os
import re
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from twisted.logger import Logger

#: Bits of an RSA key; signatures by shorter ones count for nothing (RFC 8301 section 3.2).
LEAST_BITS: Final = 1024

#: Octets of a key file.
_MOST: Final = 1 << 16

#: A seed of Ed25519, as RFC 8463 and dkimpy's ``dknewkey`` write it: base64 of so many octets.
_SEED: Final = 32

_PEM: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")

_log = Logger()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key as dkimpy wants it.

    :param algorithm: of RFC 6376 or RFC 8463: ``rsa-sha256``, ``ed25519-sha256``.
    """

    algorithm: bytes
    octets: bytes = field(repr=False)

    @classmethod
    def parse(cls, octets: bytes) -> "SigningKey":
        """Read a key: RSA or Ed25519, in PEM or base64.

        :raises ValueError: for what is none; it quotes nothing of it.
        """
        key = _load(octets)
        if isinstance(key, Ed25519PrivateKey):
            return cls(b"ed25519-sha256", base64.b64encode(key.private_bytes_raw()))
        if not isinstance(key, RSAPrivateKey):
            raise ValueError("the key is neither RSA nor Ed25519")
        if key.key_size < LEAST_BITS:
            raise ValueError(f"the key has fewer than {LEAST_BITS} bits")
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        return cls(b"rsa-sha256", pem)


def _load(octets: bytes) -> Any:
    try:
        if _PEM.search(octets):
            return load_pem_private_key(octets, None)
        decoded = base64.b64decode(b"".join(octets.split()), validate=True)
        if len(decoded) == _SEED:
            return Ed25519PrivateKey.from_private_bytes(decoded)
        return load_der_private_key(decoded, None)
    except (ValueError, TypeError, UnsupportedAlgorithm, binascii.Error):
        # What the library says might quote the key.
        raise ValueError("the private key is encrypted, damaged or of an unknown kind") from None


class KeyFile:
    """The key in a file. It is used in threads: what was read is never changed, only replaced.

    :raises ValueError: for a file that can't be used, in a line that names it.
    """

    def __init__(self, path: str) -> None:
        self._path: Final = path
        self._read: tuple[tuple[int, ...], SigningKey] = self._load()

    def key(self) -> SigningKey:
        """The key as the file has it now; if that can't be used, as it had it before. May block."""
        try:
            facts = os.stat(self._path)
            if _stamp(facts) != self._read[0]:
                self._read = self._load()
        except (OSError, ValueError) as error:
            _log.warn("The key in use is an older one: {error}", error=str(error))
        return self._read[1]

    def _load(self) -> tuple[tuple[int, ...], SigningKey]:
        try:
            with open(self._path, "rb") as file:
                facts = os.fstat(file.fileno())
                octets = file.read(_MOST)
        except OSError as error:
            raise ValueError(f"{self._path}: {error.strerror}") from None
        if facts.st_mode & 0o007:
            raise ValueError(f"{self._path}: others may read or write it (mode {facts.st_mode & 0o777:o})")
        try:
            return _stamp(facts), SigningKey.parse(octets)
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from None


def _stamp(facts: os.stat_result) -> tuple[int, ...]:
    """What tells one version of a file from another; its mode counts too."""
    return facts.st_mtime_ns, facts.st_size, facts.st_ino, facts.st_mode
