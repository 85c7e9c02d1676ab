"""AUTH: which mechanisms a session is offered, and one exchange from the AUTH command to the identity.

Secrets are kept by twisted.cred's checkers, asked as ``twisted.cred.portal`` asks them: by their
``credentialInterfaces``, several for one kind in turn. Nothing of an exchange is ever logged.
"""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from smtpserv import reply
from smtpserv.dialogue import mechanism
from smtpserv.dialogue.mechanism import Channel, Mechanism
from smtpserv.dialogue.sasl import Credentials
from smtpserv.dialogue.scram import ScramSecret, scram, scram_plus
from smtpserv.error import SMTPError
from smtpserv.interfaces import IAuthentication, IExchange
from smtpserv.message import Session
from smtpserv.policy.checkers import Checkers
from smtpserv.policy.credentials import ICertificateCredentials, IScramSecrets, ITokenCredentials
from smtpserv.policy.penalty import GUESSES, Penalties


@dataclass(frozen=True, slots=True)
class _Row:
    """One mechanism.

    :param needs: what some checker must take or provide.
    :param tls_fact: what TLS must have brought, as :class:`smtpserv.message.TLSFacts` names it.
    :param server_first: whether the client has nothing to say before the first challenge.
    """

    name: str
    mechanism: Mechanism
    needs: InterfaceClass
    tls_fact: str = ""
    server_first: bool = False


#: The strongest first.
_ROWS: Final = (
    _Row("EXTERNAL", mechanism.external, ICertificateCredentials, tls_fact="client_name"),
    _Row("SCRAM-SHA-256-PLUS", scram_plus, IScramSecrets, tls_fact="channel_binding"),
    _Row("SCRAM-SHA-256", scram, IScramSecrets),
    _Row("OAUTHBEARER", mechanism.oauthbearer, ITokenCredentials),
    _Row("XOAUTH2", mechanism.xoauth2, ITokenCredentials),
    _Row("CRAM-MD5", mechanism.cram_md5, IUsernameHashedPassword, server_first=True),
    _Row("PLAIN", mechanism.plain, IUsernamePassword),
    _Row("LOGIN", mechanism.login, IUsernamePassword),
)


def _ignore(name: str) -> None:
    """Nobody wants to know."""


@implementer(IAuthentication)
class Authentication:
    """Lets clients say who they are. One for the whole server.

    :param clock: on which failures are answered late.
    :param without_tls: whether the mechanisms are offered in clear as well.
    :param hostname: our name, which CRAM-MD5's challenge has in it.
    :param max_failures: from one address in an hour, see :class:`~smtpserv.policy.penalty.Penalties`.
    """

    def __init__(
        self,
        checkers: Iterable[ICredentialsChecker],
        clock: IReactorTime,
        *,
        without_tls: bool = False,
        hostname: str = "localhost",
        max_failures: int | None = None,
    ) -> None:
        self._checkers: Final = Checkers(checkers)
        self._penalties: Final = Penalties(clock, max_failures)
        self._without_tls: Final = without_tls
        self._hostname: Final = hostname

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        """The names to announce to this session, the strongest first; maybe none."""
        return tuple(row.name for row in _ROWS if self._refusal(row, session) is None)

    def start(self, name: str, session: Session, failed: Callable[[str], None] = _ignore) -> "Exchange":
        """Begin an exchange.

        :param name: the mechanism, in any case.
        :param failed: called with the user's name when credentials are wrong, before the client hears of it.
        :raises SMTPError: 504 for a mechanism that is not offered, 538 for one that TLS would permit.
        """
        found = [row for row in _ROWS if row.name == name.upper()]
        refusal = self._refusal(found[0], session) if found else reply.UNKNOWN_MECHANISM
        if refusal is not None:
            raise SMTPError(refusal)
        return Exchange(found[0], self._channel(session), self._checkers, self._penalties, session, failed)

    def _refusal(self, row: _Row, session: Session) -> reply.Reply | None:
        """What there is against offering a mechanism."""
        if not self._checkers.takes(row.needs):
            return reply.UNKNOWN_MECHANISM
        if session.tls is None:
            return None if self._without_tls and not row.tls_fact else reply.MECHANISM_NEEDS_TLS
        return reply.UNKNOWN_MECHANISM if row.tls_fact and not getattr(session.tls, row.tls_fact) else None

    def _channel(self, session: Session) -> Channel:
        nonce, tls = secrets.token_hex(16), session.tls
        if tls is None:
            return Channel(self._hostname, nonce)
        return Channel(self._hostname, nonce, tls.client_name, tls.channel_binding)


@implementer(IExchange)
class Exchange:
    """One AUTH command, from its initial response to the identity or the failure."""

    def __init__(
        self,
        row: _Row,
        channel: Channel,
        checkers: Checkers,
        penalties: Penalties,
        session: Session,
        failed: Callable[[str], None],
    ) -> None:
        self._server_first: Final = row.server_first
        self._steps: Final = row.mechanism(channel)
        self._checkers: Final = checkers
        self._penalties: Final = penalties
        self._session: Final = session
        self._failed: Final = failed
        self._name = ""
        self._begun = False
        #: What the client will hear at the end, for which it has waited already.
        self._verdict: SMTPError | None = None

    def respond(self, octets: bytes | None) -> "Deferred[bytes | str]":
        """Take what the client said; at most one answer is open at a time, and may be cancelled.

        :param octets: the initial response or a response, decoded; None when no initial response was sent.
        :return: octets, the next challenge; or text, the identity that the client has proved.
        :raises SMTPError: 535 for wrong credentials, 421 for too many of them in the session or from the
            address, 454 when a checker breaks, 501 for a malformed message; by the Deferred. The exchange
            has ended then.
        """
        return Deferred.fromCoroutine(self._respond(octets))

    async def _respond(self, octets: bytes | None) -> bytes | str:
        try:
            step = self._steps.send(octets or b"") if self._begun else self._begin(octets)
            while not isinstance(step, bytes):
                found = await self._ask(step)
                step = self._steps.throw(found) if isinstance(found, SMTPError) else self._steps.send(found)
            return step
        except StopIteration as done:
            identity: str = done.value
            self._penalties.welcome(self._session, self._name)
            return identity
        except SMTPError as error:
            raise await self._judge(error) from None

    def _begin(self, octets: bytes | None) -> bytes | Credentials:
        self._begun = True
        challenge = next(self._steps)
        if octets is None:
            return challenge
        if self._server_first:
            raise SMTPError(reply.NO_INITIAL_RESPONSE)
        return self._steps.send(octets)

    async def _ask(self, credentials: Credentials) -> str | ScramSecret | SMTPError:
        self._name = credentials.username
        if self._penalties.bars(self._session, self._name):
            raise SMTPError(reply.TOO_MANY_AUTHENTICATIONS)
        try:
            return await self._checkers.ask(credentials)
        except SMTPError as error:
            return await self._judge(error)
        except CancelledError:
            # Who goes before the answer has made the checker work all the same.
            self._penalties.count(self._session, self._name, is_wrong=False)
            raise

    async def _judge(self, error: SMTPError) -> SMTPError:
        """What to raise for an error; the client waits for it, once."""
        if self._verdict is None:
            if error.reply.code in GUESSES:
                self._failed(self._name)  # now: who does not wait for the answer has guessed all the same
            self._verdict = await self._penalties.impose(self._session, self._name, error)
        return self._verdict
