"""SASL mechanisms as generators, which know neither where secrets are kept nor how octets are encoded.

A mechanism yields octets, the next challenge, and is sent the client's response; or it yields credentials,
and is sent the identity that goes with them, or has an SMTPError thrown into it. It returns the identity at
last. Its first challenge is for a client that sent no initial response (RFC 4954 section 4); one that did
does not see it.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from smtpserv.dialogue.sasl import (
    Certificate,
    Credentials,
    Password,
    Token,
    authorized,
    parse_cram_md5,
    parse_oauthbearer,
    parse_plain,
    parse_xoauth2,
    prepared,
    text_of,
    wrong,
)
from smtpserv.error import SMTPError


@dataclass(frozen=True, slots=True)
class Channel:
    """What a mechanism is told of the session it runs in.

    :param nonce: random, used once; printable ASCII without a comma.
    :param client_name: whom the verified TLS certificate of the client names.
    :param binding: ``tls-exporter`` octets (RFC 9266); given exactly when a -PLUS mechanism is offered.
    """

    hostname: str
    nonce: str = field(repr=False)
    client_name: str | None = None
    binding: bytes = field(default=b"", repr=False)


Steps = Generator[bytes | Credentials, Any, str]
Mechanism = Callable[[Channel], Steps]


def plain(channel: Channel) -> Steps:
    """PLAIN (RFC 4616)."""
    credentials = parse_plain((yield b""))
    return authorized(credentials.authzid, (yield credentials), credentials.username)


def login(channel: Channel) -> Steps:
    """LOGIN (draft-murchison-sasl-login): obsolete, and all that some clients speak."""
    username = text_of((yield b"Username:"))
    password = text_of((yield b"Password:"))
    identity: str = yield Password(prepared(username), prepared(password))
    return identity


def cram_md5(channel: Channel) -> Steps:
    """CRAM-MD5 (RFC 2195)."""
    challenge = f"<{channel.nonce}@{channel.hostname}>".encode("ascii")
    identity: str = yield parse_cram_md5((yield challenge), challenge)
    return identity


def xoauth2(channel: Channel) -> Steps:
    """XOAUTH2, as Google and Microsoft have it."""
    return (yield from _bearer(parse_xoauth2((yield b"")), b'{"status":"401","schemes":"bearer"}'))


def oauthbearer(channel: Channel) -> Steps:
    """OAUTHBEARER (RFC 7628)."""
    return (yield from _bearer(parse_oauthbearer((yield b"")), b'{"status":"invalid_token"}'))


def _bearer(credentials: Token, complaint: bytes) -> Steps:
    try:
        if not credentials.token:
            raise wrong()
        return authorized(credentials.username, (yield credentials))
    except SMTPError as error:
        # The client answers the complaint before it hears the reply (RFC 7628 section 3.2.3).
        if error.reply.reply_class == 5:
            yield complaint
        raise


def external(channel: Channel) -> Steps:
    """EXTERNAL (RFC 4422 appendix A): the TLS certificate has said who the client is."""
    authzid = text_of((yield b""))
    if not channel.client_name:
        raise wrong()
    return authorized(authzid, (yield Certificate(channel.client_name)), channel.client_name)
