"""Credentials as twisted.cred's checkers know them, and what a checker provides for more than passwords."""

# Interface methods take no self, and have no body but their contract.
# mypy: disable-error-code="empty-body"

from collections.abc import Awaitable
from hmac import compare_digest
from typing import Final

from twisted.cred.credentials import ICredentials, IUsernameHashedPassword, IUsernamePassword
from zope.interface import Attribute, Interface, implementer

from smtpserv.dialogue.sasl import Certificate, Digest, Password, Token
from smtpserv.dialogue.saslprep import saslprep
from smtpserv.dialogue.scram import ScramSecret


class ITokenCredentials(ICredentials):
    """A bearer token of OAUTHBEARER (RFC 7628) or XOAUTH2.

    A checker that names it in its ``credentialInterfaces`` returns whose token it is, or fails with
    ``twisted.cred.error.UnauthorizedLogin``.
    """

    username: str = Attribute("Whom the client says it is; may be empty. Another identity is refused.")
    token: str = Attribute("The token as it was sent; never to be logged.")


class ICertificateCredentials(ICredentials):
    """A TLS certificate that an authority of ``--tls-client-ca`` vouches for (EXTERNAL).

    A checker that names it in its ``credentialInterfaces`` returns who that is, or fails with
    ``twisted.cred.error.UnauthorizedLogin``.
    """

    name: str = Attribute("Whom the certificate names: a mailbox, else a host, else a CN.")


class IScramSecrets(Interface):
    """A checker that provides this as well has what SCRAM-SHA-256 needs."""

    def scram_secret(username: str) -> ScramSecret | Awaitable[ScramSecret | None] | None:
        """What is kept of the user's password; None for one it does not know."""

    def decoy_secret(username: str) -> ScramSecret | Awaitable[ScramSecret]:
        """For a user nobody knows, a secret that looks like the others: see :meth:`ScramSecret.decoy`."""


@implementer(IUsernamePassword)
class PasswordCredentials:
    """A name and password in clear, in octets as twisted.cred has them."""

    def __init__(self, credentials: Password) -> None:
        self.username: Final = credentials.username.encode("utf-8")
        self.password: Final = credentials.password.encode("utf-8")

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether this is the password; both are compared in their prepared form (RFC 4616 section 2)."""
        return compare_digest(_prepared(_octets(password)), self.password)


@implementer(IUsernameHashedPassword)
class DigestCredentials:
    """A name, and the digest that CRAM-MD5 made of the password."""

    def __init__(self, credentials: Digest) -> None:
        self.username: Final = credentials.username.encode("utf-8")
        self._credentials: Final = credentials

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether the digest is of this password; never of an empty one."""
        return self._credentials.fits(_octets(password)) and bool(password)


@implementer(ITokenCredentials)
class TokenCredentials:
    """A bearer token."""

    def __init__(self, credentials: Token) -> None:
        self.username: Final = credentials.username
        self.token: Final = credentials.token


@implementer(ICertificateCredentials)
class CertificateCredentials:
    """A name that a good certificate has."""

    def __init__(self, credentials: Certificate) -> None:
        self.name: Final = credentials.username


#: What clients may be asked for.
CREDENTIALS: Final = (
    IUsernamePassword,
    IUsernameHashedPassword,
    ITokenCredentials,
    ICertificateCredentials,
    IScramSecrets,
)


def _octets(password: bytes | str) -> bytes:
    return password.encode("utf-8") if isinstance(password, str) else password


def _prepared(password: bytes) -> bytes:
    """The prepared form, or what there is where it has none; such a password fits nobody's."""
    try:
        return saslprep(password.decode("utf-8")).encode("utf-8")
    except ValueError:
        return password
