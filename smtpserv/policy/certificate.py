"""``--auth=certificate[:NAME,...]``: clients are known by their TLS certificates."""

from collections.abc import Callable
from typing import Any, Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from zope.interface import implementer

from smtpserv.error import StartError
from smtpserv.policy.credentials import ICertificateCredentials


@implementer(ICredentialsChecker)
class CertificateChecker:
    """Lets in whom a certificate names that an authority of ``--tls-client-ca`` vouches for.

    An authority that vouches for anybody who asks vouches for nobody: with it there must be names.

    :param names: separated by commas, those that are let in; nothing for all.
    :param in_thread: given to every checker; this one has nothing to wait for.
    :raises StartError: for a list without a name.
    """

    credentialInterfaces = (ICertificateCredentials,)

    def __init__(self, names: str = "", in_thread: Callable[..., Any] | None = None) -> None:
        self._names: Final = frozenset(filter(None, map(str.strip, names.split(","))))
        if names and not self._names:
            raise StartError("a list of names such as a@a.example,host.example is missing")

    def requestAvatarId(self, credentials: Any) -> Any:
        """The name itself, if it is one of those that are let in."""
        if self._names and credentials.name not in self._names:
            raise UnauthorizedLogin
        return credentials.name
