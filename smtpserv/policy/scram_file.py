"""``--auth=scram:PATH``: users and their SCRAM-SHA-256 secrets, a line each, as PostgreSQL writes them."""

from collections.abc import Callable
from typing import Any, Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from smtpserv.dialogue.scram import ScramSecret
from smtpserv.error import StartError
from smtpserv.policy.credentials import IScramSecrets
from smtpserv.policy.user_file import UserFile


@implementer(ICredentialsChecker, IScramSecrets)
class ScramChecker:
    """Knows what SCRAM needs, with which it checks passwords in clear as well.

    :param in_thread: calls a function where it may block, and gives a Deferred of what it returns.
    :raises StartError: for a file that can't be read, or a line that is broken, by its number.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, path: str, in_thread: Callable[..., "Deferred[Any]"]) -> None:
        if not path:
            raise StartError("the path of a file is missing")
        self._file: Final = UserFile(path, ScramSecret.parse)
        self._in_thread: Final = in_thread

    def scram_secret(self, username: str) -> "Deferred[ScramSecret | None]":
        """The user's line."""
        return self._in_thread(lambda: self._file.secrets().get(username))

    def decoy_secret(self, username: str) -> "Deferred[ScramSecret]":
        """A secret made up for the name, which looks like that of the first line."""
        return self._in_thread(self._decoy, username)

    def _decoy(self, username: str) -> ScramSecret:
        return next(iter(self._file.secrets().values()), _EMPTY).decoy(username)

    def requestAvatarId(self, credentials: Any) -> "Deferred[Any]":
        """The name, if the password is the user's."""
        return self._in_thread(self._check, credentials.username, credentials.password)

    def _check(self, username: bytes, password: bytes) -> bytes:
        name = username.decode("utf-8")
        secret = self._file.secrets().get(name)
        # A user whom nobody knows costs what one of the others does.
        if not (secret or self._decoy(name)).fits(password.decode("utf-8")):
            raise UnauthorizedLogin
        return username


#: What the decoys of an empty file look like; there is nobody they could be told from.
_EMPTY: Final = ScramSecret(4096, bytes(16), bytes(32), bytes(32))
