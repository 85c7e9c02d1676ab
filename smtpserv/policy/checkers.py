"""twisted.cred's checkers, asked as its portal asks them."""

import traceback
from collections.abc import Iterable, Iterator
from typing import Any, Final

from twisted.cred.checkers import (
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.error import LoginFailed, Unauthorized
from twisted.cred.strcred import InvalidAuthType, findCheckerFactories, findCheckerFactory
from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.logger import Logger
from zope.interface.interface import InterfaceClass

from smtpserv import reply
from smtpserv.dialogue.sasl import Certificate, Credentials, Digest, Password, SecretOf, Token
from smtpserv.dialogue.scram import ScramSecret
from smtpserv.error import SMTPError, StartError
from smtpserv.escape import escape_controls
from smtpserv.policy.credentials import (
    CREDENTIALS,
    CertificateCredentials,
    DigestCredentials,
    IScramSecrets,
    PasswordCredentials,
    TokenCredentials,
)

_log = Logger()


def make_checker(description: str) -> ICredentialsChecker:
    """Make the checker that ``--auth=TYPE[:ARGS]`` describes.

    :raises StartError: for one that can't be made; the line quotes no arguments, which may be passwords.
    """
    kind, _, arguments = description.partition(":")
    try:
        factory = findCheckerFactory(kind)
    except InvalidAuthType:
        known = ", ".join(sorted(each.authType for each in findCheckerFactories()))
        raise StartError(f"--auth: no checker is called {kind!r}; there are: {known}") from None
    try:
        if kind == "file" and arguments:
            open(arguments, "rb").close()  # Twisted's own checker begins without its file
        checker: ICredentialsChecker = factory.generateChecker(arguments)
    except StartError as error:
        raise StartError(f"--auth={kind}: {error}") from None
    except OSError as error:
        raise StartError(f"--auth={kind}: cannot read {error.filename}: {error.strerror}") from None
    except Exception:
        raise StartError(f"--auth={kind}: bad arguments; it takes: {factory.argStringFormat}") from None
    if not any(map(Checkers([checker]).takes, CREDENTIALS)):
        raise StartError(f"--auth={kind}: it takes no credentials that a client could send")
    return checker


class Checkers:
    """Several checkers, of which each takes some kinds of credentials."""

    def __init__(self, checkers: Iterable[ICredentialsChecker]) -> None:
        self._checkers: Final = [_in_octets(checker) for checker in checkers]

    def takes(self, interface: InterfaceClass) -> bool:
        """Whether some checker takes credentials that provide the interface, or provides it itself."""
        return any(
            interface.providedBy(checker) or any(map(interface.isOrExtends, checker.credentialInterfaces))
            for checker in self._checkers
        )

    async def ask(self, credentials: Credentials) -> str | ScramSecret:
        """Whose credentials they are; for :class:`SecretOf` the secret, which may be a decoy.

        :raises SMTPError: 535 when nobody takes them, 454 when one broke that might have; or what a checker
            raised of its own.
        """
        if isinstance(credentials, SecretOf):
            return await self._secret(credentials)
        attempt = _Attempt(credentials)
        wrapped = _WRAPPERS[type(credentials)](credentials)
        for checker in self._for(wrapped):
            if identity := _name(await attempt.call(checker.requestAvatarId, wrapped)):
                return identity
        raise attempt.failure()

    def _for(self, credentials: object) -> Iterator[ICredentialsChecker]:
        for checker in self._checkers:
            if any(each.providedBy(credentials) for each in checker.credentialInterfaces):
                yield checker

    async def _secret(self, question: SecretOf) -> ScramSecret:
        attempt = _Attempt(question)
        keepers = [checker for checker in self._checkers if IScramSecrets.providedBy(checker)]
        for keeper in keepers:
            if secret := await attempt.call(keeper.scram_secret, question.username):
                return secret  # type: ignore[no-any-return]
        if not attempt.broken and (decoy := await attempt.call(keepers[0].decoy_secret, question.username)):
            return decoy  # type: ignore[no-any-return]
        raise attempt.failure()


_WRAPPERS: Final[dict[type, Any]] = {
    Password: PasswordCredentials,
    Digest: DigestCredentials,
    Token: TokenCredentials,
    Certificate: CertificateCredentials,
}


class _Attempt:
    """Asks one checker after the other, and remembers whether any broke."""

    def __init__(self, credentials: Credentials) -> None:
        self._secret: Final = getattr(credentials, "password", "") or getattr(credentials, "token", "")
        self.broken = False

    async def call(self, question: Any, *facts: object) -> Any:
        """The answer, or None where there is none."""
        try:
            return await maybeDeferred(question, *facts)
        except (SMTPError, CancelledError):
            raise
        except (LoginFailed, Unauthorized):
            return None
        except Exception as error:
            self.broken = True
            where = "".join(traceback.format_tb(error.__traceback__))
            what = f"{type(error).__name__}: {self._without_secret(str(error))}"
            _log.error("A checker failed: {what}\n{where}", what=escape_controls(what), where=where)
            return None

    def _without_secret(self, text: str) -> str:
        """The text, unless the secret is in it as it is or escaped."""
        forms = (self._secret, ascii(self._secret)[1:-1], repr(self._secret.encode())[2:-1])
        return "(not shown)" if self._secret and any(form in text for form in forms) else text

    def failure(self) -> SMTPError:
        """What to raise when nobody had an answer."""
        return SMTPError(reply.AUTHENTICATION_FAILED if self.broken else reply.WRONG_CREDENTIALS)


def _name(avatar_id: object) -> str:
    """The identity as text; empty for an anonymous one, which may not send."""
    if isinstance(avatar_id, bytes):
        return avatar_id.decode("utf-8", "backslashreplace")
    return avatar_id if isinstance(avatar_id, str) else ""


def _in_octets(checker: ICredentialsChecker) -> ICredentialsChecker:
    """strcred's ``memory:`` gives text to a checker that compares octets; it would know nobody."""
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        users: dict[Any, bytes] = checker.users
        for name in [name for name in users if isinstance(name, str)]:
            users[name.encode("utf-8")] = users.pop(name)
    return checker
