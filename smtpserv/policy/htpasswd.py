"""``--auth=htpasswd:PATH``: users and the argon2 or bcrypt hashes of their passwords, a line each."""

import re
from collections.abc import Callable
from typing import Any, Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from smtpserv.error import StartError
from smtpserv.policy.user_file import UserFile

#: Whether a password, in octets, is the one that was hashed.
Verify = Callable[[bytes], bool]


def parse_hash(text: str) -> Verify:
    """What checks passwords against a hash.

    :raises ValueError: for what is no hash of a kind known here, or one whose library is not installed.
    """
    for pattern, make in _KINDS:
        if pattern.match(text):
            try:
                return make(text)
            except ImportError as error:
                raise ValueError(f"its hash needs {error.name}: pip install smtpserv[passwords]") from None
    raise ValueError("not an argon2 or bcrypt hash")


def _argon2(text: str) -> Verify:
    from argon2 import PasswordHasher, extract_parameters
    from argon2.exceptions import InvalidHashError, VerifyMismatchError

    try:
        extract_parameters(text)
    except InvalidHashError:
        raise ValueError("a broken argon2 hash") from None
    hasher = PasswordHasher()

    def verify(password: bytes) -> bool:
        try:
            return hasher.verify(text, password)
        except VerifyMismatchError:
            return False

    return verify


def _bcrypt(text: str) -> Verify:
    from bcrypt import checkpw

    if not _BCRYPT.fullmatch(text):
        raise ValueError("a broken bcrypt hash")
    hashed = text.encode("ascii")
    # Of a longer password bcrypt hashed the first 72 octets alone.
    return lambda password: checkpw(password[:72], hashed)


_BCRYPT: Final = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")

_KINDS: Final = (
    (re.compile(r"\$argon2(id|i|d)\$"), _argon2),
    (re.compile(r"\$2[a-z]?\$"), _bcrypt),
)


@implementer(ICredentialsChecker)
class HtpasswdChecker:
    """Checks passwords against a file, which is read again when it changes.

    :param in_thread: calls a function where it may block, and gives a Deferred of what it returns.
    :raises StartError: for a file that can't be read, or a line that is broken, by its number.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, path: str, in_thread: Callable[..., "Deferred[Any]"]) -> None:
        if not path:
            raise StartError("the path of a file is missing")
        self._file: Final = UserFile(path, parse_hash)
        self._in_thread: Final = in_thread

    def requestAvatarId(self, credentials: Any) -> "Deferred[Any]":
        """The name, if the password is the user's."""
        return self._in_thread(self._check, credentials.username, credentials.password)

    def _check(self, username: bytes, password: bytes) -> bytes:
        secrets = self._file.secrets()
        verify = secrets.get(username.decode("utf-8"))
        # A user whom nobody knows costs what one of the others does.
        fits = (verify or next(iter(secrets.values()), _nobody))(password)
        if verify is None or not fits:
            raise UnauthorizedLogin
        return username


def _nobody(password: bytes) -> bool:
    return False
