"""How ``--auth`` finds our checkers: twisted.cred's plugins, made from the arguments alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory
from twisted.internet.threads import deferToThread
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, ICheckerFactory)
@dataclass(frozen=True)
class CheckerFactory:
    """Makes a checker; one of a file works in the reactor's threads.

    :param checker: makes it of the arguments, and of what calls a function in a thread.
    """

    # The names are those of ICheckerFactory.
    authType: str
    authHelp: str
    argStringFormat: str
    checker: Callable[[str, Any], ICredentialsChecker]
    credentialInterfaces: tuple[Any, ...] = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> ICredentialsChecker:
        """Make it.

        :raises smtpserv.error.StartError: for arguments that are wrong, a file that can't be read, or a
            broken line in it.
        """
        return self.checker(argstring, deferToThread)
