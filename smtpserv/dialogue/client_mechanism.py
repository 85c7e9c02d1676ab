"""SASL mechanisms, the client's part, as generators: the mirror of :mod:`smtpserv.dialogue.mechanism`.

A mechanism yields responses and is sent the server's challenges. What it yields first is its initial
response (RFC 4954 section 4); None says that the server speaks first.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac
from typing import Final

from smtpserv.dialogue.sasl import cram_md5_digest, is_token, saslname
from smtpserv.dialogue.saslprep import saslprep
from smtpserv.dialogue.scram import BASE64, TLS_EXPORTER, derive_keys, exclusive_or

#: Rounds of hashing that a server may ask for. Fewer make a stolen exchange cheap to guess at (RFC 7677
#: section 4); more would be an attack on us.
MIN_ITERATIONS: Final = 4096
MAX_ITERATIONS: Final = 2_000_000


class LoginError(ValueError):
    """The server broke the rules of the mechanism, or did not prove that it knows the password.

    Its text is a line for the log, and quotes nobody.
    """


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who a client is, and what proves it: a password, a bearer token (RFC 6750) or both.

    :raises ValueError: for what no mechanism could send; the error quotes nothing.
    """

    user: str
    password: str = field(default="", repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.user or not (self.password or self.token):
            raise ValueError("a user needs a name, and a password or a token")
        for what, value in (("name", self.user), ("password", self.password)):
            try:
                empty = value and not saslprep(value)
            except ValueError as error:
                raise ValueError(f"the user's {what} cannot be used: {error}") from None
            if empty:
                raise ValueError(f"the user's {what} cannot be used: no character counts")
        if self.token is not None and not is_token(self.token):
            raise ValueError("the token is no bearer token (RFC 6750 section 2.1)")


@dataclass(frozen=True, slots=True)
class Response:
    """What the client says next.

    :param octets: not in base64 yet; None, which is nothing at all, only before the first challenge.
    :param final: whether the server may say yes to it; until then, it has something left to prove.
    """

    octets: bytes | None = field(repr=False)
    final: bool = True


Responses = Generator[Response, bytes, None]

#: Given the credentials, a nonce and the octets of the channel binding, which may be none.
ClientSteps = Callable[[Credentials, str, bytes], Responses]


def plain(credentials: Credentials, nonce: str, binding: bytes) -> Responses:
    """PLAIN (RFC 4616)."""
    yield Response(f"\0{credentials.user}\0{credentials.password}".encode())


def login(credentials: Credentials, nonce: str, binding: bytes) -> Responses:
    """LOGIN (draft-murchison-sasl-login); each server words its challenges as it likes."""
    yield Response(None, final=False)
    yield Response(credentials.user.encode(), final=False)
    yield Response(credentials.password.encode())


def cram_md5(credentials: Credentials, nonce: str, binding: bytes) -> Responses:
    """CRAM-MD5 (RFC 2195)."""
    challenge = yield Response(None, final=False)
    digest = cram_md5_digest(credentials.password.encode(), challenge)
    yield Response(credentials.user.encode() + b" " + digest)


def xoauth2(credentials: Credentials, nonce: str, binding: bytes) -> Responses:
    """XOAUTH2, as Google and Microsoft have it."""
    yield Response(f"user={credentials.user}\x01auth=Bearer {credentials.token}\x01\x01".encode())
    # A challenge tells what is wrong with the token. It is answered, and then the failure comes.
    yield Response(b"", final=False)


def oauthbearer(credentials: Credentials, nonce: str, binding: bytes) -> Responses:
    """OAUTHBEARER (RFC 7628)."""
    yield Response(f"n,a={saslname(credentials.user)},\x01auth=Bearer {credentials.token}\x01\x01".encode())
    # As above; section 3.2.3 has this answer.
    yield Response(b"\x01", final=False)


def scram(credentials: Credentials, nonce: str, binding: bytes) -> Responses:
    """SCRAM-SHA-256 (RFC 7677)."""
    # y tells a server that does offer -PLUS that somebody hid it from us (RFC 5802 section 6).
    return _scram(credentials, nonce, "y,," if binding else "n,,", b"")


def scram_plus(credentials: Credentials, nonce: str, binding: bytes) -> Responses:
    """SCRAM-SHA-256-PLUS: nobody between us and the server can pass this on (RFC 9266)."""
    return _scram(credentials, nonce, f"{TLS_EXPORTER},,", binding)


def _scram(credentials: Credentials, nonce: str, header: str, binding: bytes) -> Responses:
    """The names of the values are those of RFC 5802 section 3."""
    bare = f"n={saslname(saslprep(credentials.user))},r={nonce}"
    server_first = _parse_server_first((yield Response((header + bare).encode(), final=False)), nonce)
    client_key, server_key = derive_keys(
        saslprep(credentials.password), server_first.salt, server_first.iterations
    )
    bound = b64encode(header.encode("ascii") + binding).decode("ascii")
    unproved = f"c={bound},r={server_first.nonce}"
    signed = f"{bare},{server_first.text},{unproved}".encode()
    proof = exclusive_or(client_key, hmac(sha256(client_key).digest(), signed, "sha256"))
    said = yield Response(f"{unproved},p=".encode("ascii") + b64encode(proof), final=False)
    if not compare_digest(said, b"v=" + b64encode(hmac(server_key, signed, "sha256"))):
        raise LoginError("the server has not proved that it knows the password")
    yield Response(b"")


@dataclass(frozen=True, slots=True)
class _ServerFirst:
    """``server-first-message`` (RFC 5802 section 7)."""

    text: str
    nonce: str
    salt: bytes
    iterations: int


def _parse_server_first(octets: bytes, nonce: str) -> _ServerFirst:
    """What the server asks of us.

    :param nonce: ours, with which the server's begins.
    :raises LoginError: for what is malformed, of another exchange, or too cheap or dear to answer.
    """
    text = octets.decode("ascii", "replace")
    match = _SERVER_FIRST.fullmatch(text)
    if match is None or not match[2]:
        raise LoginError("the server's first message is malformed")
    if not match[1].startswith(nonce) or match[1] == nonce:
        raise LoginError("the server's nonce does not go on from ours")
    iterations = int(match[3])
    if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
        raise LoginError(
            f"the server asks for {iterations} iterations, not {MIN_ITERATIONS} to {MAX_ITERATIONS}"
        )
    return _ServerFirst(text, match[1], b64decode(match[2]), iterations)


# server-first-message = "r=" printable "," "s=" base64 "," "i=" posit-number ["," extensions]; "m=", a
# mandatory extension before these, nobody knows.
_SERVER_FIRST: Final = re.compile(
    rf"r=([!-+\--~]+),s={BASE64},i=([1-9][0-9]{{0,9}})(?:,[A-Za-z]=[ -+\--~]+)*"
)
