"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's part (RFC 5802, RFC 7677, RFC 9266).

The names of the values are those of RFC 5802 section 3.
"""

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from hashlib import pbkdf2_hmac, sha256
from hmac import compare_digest
from hmac import digest as hmac
from typing import Final

from smtpserv.dialogue.mechanism import Channel, Steps
from smtpserv.dialogue.sasl import SecretOf, authorized, malformed, parse_saslname, text_of, wrong

#: Rounds of hashing where nothing else is said; RFC 7677 section 4 wants 4096 at least.
ITERATIONS: Final = 4096

#: The type of channel binding (RFC 9266).
TLS_EXPORTER: Final = "p=tls-exporter"


def derive_keys(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """ClientKey and ServerKey of a prepared password. It takes milliseconds: not for the reactor's thread."""
    salted = pbkdf2_hmac("sha256", password.encode("utf-8"), salt, iterations)
    return hmac(salted, b"Client Key", "sha256"), hmac(salted, b"Server Key", "sha256")


def exclusive_or(left: bytes, right: bytes) -> bytes:
    """XOR of as many octets."""
    return bytes(one ^ other for one, other in zip(left, right, strict=True))


@dataclass(frozen=True, slots=True)
class ScramSecret:
    """What is kept of a password: enough to check it and, unless it leaks, not enough to use it."""

    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def from_password(cls, password: str, salt: bytes, iterations: int = ITERATIONS) -> "ScramSecret":
        """The secret of a prepared password. It takes milliseconds: not for the reactor's thread."""
        client_key, server_key = derive_keys(password, salt, iterations)
        return cls(iterations, salt, sha256(client_key).digest(), server_key)

    @classmethod
    def parse(cls, text: str) -> "ScramSecret":
        """Read ``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey``, PostgreSQL's form of RFC 5803.

        :raises ValueError: for anything else; it tells nothing of the text.
        """
        match = _STORED.fullmatch(text)
        if match is None:
            raise ValueError("no SCRAM-SHA-256 secret")
        salt, stored_key, server_key = (b64decode(match[at]) for at in (2, 3, 4))
        if not (salt and len(stored_key) == len(server_key) == 32):
            raise ValueError("no SCRAM-SHA-256 secret")
        return cls(int(match[1]), salt, stored_key, server_key)

    def fits(self, password: str) -> bool:
        """Whether it is this prepared password's. Not for the reactor's thread."""
        made = self.from_password(password, self.salt, self.iterations)
        return compare_digest(made.stored_key, self.stored_key)

    def decoy(self, username: str) -> "ScramSecret":
        """A secret that no password fits, like this one to look at, and always the same for a name.

        It is for names that nobody has: a client must not learn that before its proof has failed.
        """
        salt, stored_key, server_key = (
            hmac(self.server_key, f"{part} of {username}".encode(), "sha256")
            for part in ("salt", "stored key", "server key")
        )
        return ScramSecret(self.iterations, salt[: len(self.salt)], stored_key, server_key)


#: ``base64`` of RFC 5802 section 7, a group of its own.
BASE64: Final = r"((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)"
_STORED: Final = re.compile(rf"SCRAM-SHA-256\$([1-9][0-9]{{0,8}}):{BASE64}\${BASE64}:{BASE64}")


@dataclass(frozen=True, slots=True)
class _ClientFirst:
    """``gs2-header client-first-message-bare`` (RFC 5802 section 7)."""

    header: str
    flag: str
    authzid: str
    bare: str
    username: str
    nonce: str


def _parse_client_first(octets: bytes) -> _ClientFirst:
    match = _CLIENT_FIRST.fullmatch(text_of(octets))
    if match is None:
        raise malformed()
    header, flag, authzid, bare, username, nonce = match.groups()
    return _ClientFirst(header, flag, parse_saslname(authzid or ""), bare, parse_saslname(username), nonce)


# gs2-header = gs2-cbind-flag "," [ "a=" saslname ] "," ; gs2-cbind-flag = ("p=" cb-name) / "n" / "y"
# client-first-message-bare = "n=" saslname "," "r=" printable ["," extensions]; "m=", a mandatory extension
# before these, nobody knows.
_CLIENT_FIRST: Final = re.compile(
    r"((n|y|p=[A-Za-z0-9.-]+),(?:a=([^,]+))?,)(n=([^,]+),r=([!-+\--~]+)(?:,[A-Za-z]=[^,\0]+)*)"
)

# client-final-message = "c=" base64 "," "r=" nonce ["," extensions] "," "p=" base64
_CLIENT_FINAL: Final = re.compile(rf"(c=([^,]+),r=([^,]+)(?:,[A-Za-z]=[^,\0]+)*),p={BASE64}")


def scram(channel: Channel) -> Steps:
    """SCRAM-SHA-256 (RFC 7677)."""
    first = _parse_client_first((yield b""))
    # A client that says y did not see the -PLUS that was offered: somebody hid it (RFC 5802 section 6).
    if first.flag.startswith("p=") or (first.flag == "y" and channel.binding):
        raise wrong()
    return (yield from _exchange(channel, first, b""))


def scram_plus(channel: Channel) -> Steps:
    """SCRAM-SHA-256-PLUS: the client proves that it ends the same TLS connection as we (RFC 9266)."""
    first = _parse_client_first((yield b""))
    if first.flag != TLS_EXPORTER or not channel.binding:
        raise wrong()
    return (yield from _exchange(channel, first, channel.binding))


def _exchange(channel: Channel, first: _ClientFirst, binding: bytes) -> Steps:
    secret: ScramSecret = yield SecretOf(first.username)
    nonce = first.nonce + channel.nonce
    salt = b64encode(secret.salt).decode("ascii")
    server_first = f"r={nonce},s={salt},i={secret.iterations}"
    final = _CLIENT_FINAL.fullmatch(text_of((yield server_first.encode("ascii"))))
    if final is None:
        raise malformed()
    bound = b64encode(first.header.encode("utf-8") + binding).decode("ascii")
    # c= and the proof are both judged before either is: a failure tells nothing of which it was.
    signed = f"{first.bare},{server_first},{final[1]}".encode()
    proven = _is_proof(secret, signed, final[4])
    if not (_same(final[2], bound) and _same(final[3], nonce) and proven):
        raise wrong()
    identity = authorized(first.authzid, first.username)
    if (yield b"v=" + b64encode(hmac(secret.server_key, signed, "sha256"))):
        raise malformed()
    return identity


def _same(said: str, expected: str) -> bool:
    return compare_digest(said.encode("utf-8"), expected.encode("utf-8"))


def _is_proof(secret: ScramSecret, signed: bytes, proof: str) -> bool:
    """Whether the proof was made with a ClientKey whose hash is the StoredKey (RFC 5802 section 3)."""
    octets = b64decode(proof)
    signature = hmac(secret.stored_key, signed, "sha256")
    if len(octets) != len(signature):
        raise malformed()
    client_key = exclusive_or(octets, signature)
    return compare_digest(sha256(client_key).digest(), secret.stored_key)
