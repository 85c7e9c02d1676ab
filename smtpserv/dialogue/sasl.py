"""What clients say in a SASL exchange, parsed into credentials; base64 is off the octets already."""

import hmac
import re
from dataclasses import dataclass, field
from typing import Final

from smtpserv import reply
from smtpserv.dialogue.saslprep import saslprep
from smtpserv.error import SMTPError

#: Octets of a name or password; RFC 4616 section 2 wants 255 at least.
MAX_TEXT: Final = 1024


@dataclass(frozen=True, slots=True)
class Password:
    """A name, and the password in clear (RFC 4616).

    :param authzid: whom the client wants to act as; empty for itself.
    """

    username: str
    password: str = field(repr=False)
    authzid: str = ""


@dataclass(frozen=True, slots=True)
class Digest:
    """A name, and the proof of its password by a digest (RFC 2195)."""

    username: str
    challenge: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def fits(self, password: bytes) -> bool:
        """Whether the digest was made with this password."""
        return hmac.compare_digest(cram_md5_digest(password, self.challenge), self.digest)


def cram_md5_digest(password: bytes, challenge: bytes) -> bytes:
    """The proof of a password in hexadecimal digits (RFC 2195 section 2)."""
    return hmac.new(password, challenge, "md5").hexdigest().encode("ascii")


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token (RFC 6750), and whom the client says it is, which may be empty."""

    username: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whom the client's TLS certificate names, which was found good."""

    username: str


@dataclass(frozen=True, slots=True)
class SecretOf:
    """Asks for the SCRAM secret of a name; no credential yet."""

    username: str


Credentials = Password | Digest | Token | Certificate | SecretOf


def malformed() -> SMTPError:
    """501: the octets are no message of the mechanism."""
    return SMTPError(reply.BAD_RESPONSE)


def wrong() -> SMTPError:
    """535: the credentials are not good."""
    return SMTPError(reply.WRONG_CREDENTIALS)


def text_of(octets: bytes) -> str:
    """A message as text.

    :raises SMTPError: 501 for what is not UTF-8.
    """
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed() from None


def prepared(text: str) -> str:
    """A name or password in the form in which it is compared.

    :raises SMTPError: 535, as verification fails where preparation does (RFC 4616 section 2).
    """
    if len(text) > MAX_TEXT:
        raise wrong()
    try:
        result = saslprep(text)
    except ValueError:
        raise wrong() from None
    if not result:
        raise wrong()
    return result


def authorized(authzid: str, *names: str) -> str:
    """The identity, the first of the names; nobody may act as anybody else.

    :raises SMTPError: 535 for an authzid that is none of the names.
    """
    if authzid and authzid not in names:
        raise wrong()
    return names[0]


def parse_plain(octets: bytes) -> Password:
    """``[authzid] NUL authcid NUL passwd`` (RFC 4616 section 2)."""
    parts = text_of(octets).split("\0")
    if len(parts) != 3:
        raise malformed()
    authzid, username, password = parts
    return Password(prepared(username), prepared(password), authzid and prepared(authzid))


def parse_cram_md5(octets: bytes, challenge: bytes) -> Digest:
    """``username SP digest`` (RFC 2195 section 2); the name may have spaces."""
    username, _, digest = octets.rpartition(b" ")
    if not _MD5_DIGEST.fullmatch(digest):
        raise malformed()
    return Digest(prepared(text_of(username)), challenge, digest)


_MD5_DIGEST: Final = re.compile(rb"[0-9a-f]{32}")


def parse_xoauth2(octets: bytes) -> Token:
    """``user=NAME ^A auth=Bearer TOKEN ^A ^A`` (Google's "OAuth 2.0 Mechanism")."""
    match = _XOAUTH2.fullmatch(octets)
    if match is None:
        raise malformed()
    return Token(prepared(text_of(match[1])), match[2].decode("ascii"))


def parse_oauthbearer(octets: bytes) -> Token:
    """``gs2-header ^A *(key=value ^A) ^A`` (RFC 7628 section 3.1); no token when ``auth`` has none."""
    match = _OAUTHBEARER.fullmatch(octets)
    if match is None:
        raise malformed()
    bearer = _BEARER.search(match[2])
    return Token(
        parse_saslname(text_of(match[1] or b"")), bearer[1].decode("ascii") if bearer is not None else ""
    )


def parse_saslname(escaped: str) -> str:
    """A name with its ``=2C`` and ``=3D`` undone (RFC 5801 section 4); empty where there is none."""
    if _BAD_ESCAPE.search(escaped):
        raise malformed()
    return escaped and prepared(escaped.replace("=2C", ",").replace("=3D", "="))


def saslname(name: str) -> str:
    """A name with its commas and equals signs escaped (RFC 5801 section 4)."""
    return name.replace("=", "=3D").replace(",", "=2C")


_BAD_ESCAPE: Final = re.compile("=(?!2C|3D)|\0|,")


def is_token(text: str) -> bool:
    """Whether it may stand behind ``Bearer`` (RFC 6750 section 2.1)."""
    return text.isascii() and re.fullmatch(_B64TOKEN, text.encode("ascii")) is not None


# b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_B64TOKEN: Final = rb"([A-Za-z0-9._~+/-]+=*)"
_XOAUTH2: Final = re.compile(rb"user=([^\x01]+)\x01auth=[Bb]earer +" + _B64TOKEN + rb"\x01\x01")
_BEARER: Final = re.compile(rb"(?:^|\x01)auth=bearer +" + _B64TOKEN + rb"\x01", re.IGNORECASE)
# kvpair = key "=" value kvsep ; key = 1*ALPHA ; value = *( VCHAR / SP / HTAB / CR / LF ) ; kvsep = %x01
_OAUTHBEARER: Final = re.compile(rb"[ny],(?:a=([^,\x01]*))?,\x01((?:[A-Za-z]+=[\t\n\r -~]*\x01)*)\x01")
