"""AUTH, the client's part (RFC 4954): which mechanism it is to be, and one exchange to its end."""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from smtpserv.dialogue import client_mechanism as mechanism
from smtpserv.dialogue.client_mechanism import ClientSteps
from smtpserv.dialogue.client_mechanism import Credentials as Credentials
from smtpserv.dialogue.client_mechanism import LoginError as LoginError

#: Octets of a command line, CRLF included (RFC 5321 section 4.5.3.1.4); responses may be longer.
MAX_COMMAND: Final = 512


@dataclass(frozen=True, slots=True)
class _Row:
    """One mechanism.

    :param token: whether it sends the token, and not the password or a proof of it.
    :param tells: whether who listens learns the password or token.
    :param binds: whether it needs a channel binding.
    :param costly: whether a response may take so long that others would wait.
    """

    name: str
    steps: ClientSteps
    token: bool = False
    tells: bool = False
    binds: bool = False
    costly: bool = False


#: The strongest first.
_ROWS: Final = (
    _Row("SCRAM-SHA-256-PLUS", mechanism.scram_plus, binds=True, costly=True),
    _Row("SCRAM-SHA-256", mechanism.scram, costly=True),
    _Row("OAUTHBEARER", mechanism.oauthbearer, token=True, tells=True),
    _Row("XOAUTH2", mechanism.xoauth2, token=True, tells=True),
    _Row("CRAM-MD5", mechanism.cram_md5),
    _Row("PLAIN", mechanism.plain, tells=True),
    _Row("LOGIN", mechanism.login, tells=True),
)


class ClientMechanism:
    """One exchange with a server. What is said is octets; base64 is the dialogue's.

    A server that says 334 is answered by :meth:`respond`; one that says 235 must pass :meth:`verify`.
    """

    def __init__(self, row: _Row, credentials: Credentials, nonce: str, binding: bytes) -> None:
        #: As AUTH says it.
        self.name: Final = row.name
        #: Whether :meth:`respond` may take a second, by hashing: not in the reactor's thread.
        self.is_costly: Final = row.costly
        self._steps: Final = row.steps(credentials, nonce, binding)
        self._said = next(self._steps)
        #: Goes with the AUTH command; None when the mechanism has none, or it is too long for that.
        self.initial: Final = self._said.octets if self._fits() else None
        #: Whether an initial response waits for the empty challenge that asks for it.
        self._waits = self.initial is not self._said.octets

    def _fits(self) -> bool:
        length = len(b64encode(self._said.octets or b""))
        return len(f"AUTH {self.name} \r\n") + length <= MAX_COMMAND

    def respond(self, challenge: bytes) -> bytes:
        """The answer to what a 334 said.

        :raises LoginError: for a challenge that makes no sense here, or a server that is not whom it should
            be: answer ``*`` (RFC 4954 section 4) and log in no more.
        """
        if self._waits:
            self._waits = False
            if challenge:
                raise LoginError("the server's first challenge is not empty")
        else:
            self._said = self._next(challenge)
        return self._said.octets or b""

    def _next(self, challenge: bytes) -> mechanism.Response:
        try:
            return self._steps.send(challenge)
        except StopIteration:
            raise LoginError("the server has one challenge too many") from None

    @property
    def is_done(self) -> bool:
        """Whether the server may say 235: all is said, and it has proved what it has to prove."""
        return self._said.final and not self._waits

    def verify(self, text: str = "") -> None:
        """See that a 235 may be believed.

        :param text: of the reply. Some servers prove themselves there, in base64, to save a round trip.
        :raises LoginError: for a server that has not proved itself: hang up.
        """
        if self.is_done:
            return
        proof = _ADDITIONAL.search(text)
        if proof is None or self.respond(b64decode(proof[0])) or not self.is_done:
            raise LoginError("the server says yes before it may")


# The base64 of SCRAM's "v=" and 44 characters, at the end of what is said.
_ADDITIONAL: Final = re.compile(r"(?<!\S)dj0[A-Za-z0-9+/]{59}==\Z")


def choose(
    offered: Iterable[str],
    credentials: Credentials,
    nonce: str,
    *,
    secure: bool,
    channel_binding: bytes = b"",
    insecure: bool = False,
) -> ClientMechanism | None:
    """Begin with the strongest mechanism that both ends know; None when there is none.

    :param offered: the names behind AUTH in the answer to EHLO, in any case.
    :param nonce: random, used once; printable ASCII without a comma.
    :param secure: whether nobody but the server can hear us: TLS, and its certificate was verified.
    :param channel_binding: ``tls-exporter`` octets (RFC 9266); none without TLS 1.3.
    :param insecure: whether password or token may be told all the same.
    """
    names = {name.upper() for name in offered}
    for row in _ROWS:
        has_proof = bool(credentials.token if row.token else credentials.password)
        safe = secure or insecure or not row.tells
        if row.name in names and has_proof and safe and (channel_binding or not row.binds):
            return ClientMechanism(row, credentials, nonce, channel_binding)
    return None
