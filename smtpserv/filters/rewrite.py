"""``recipient-rewrite``: recipients become those that a file of aliases says they stand for."""

import os
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from smtpserv import reply
from smtpserv.arguments import read_argument
from smtpserv.collecting import InThread
from smtpserv.domain import Domains
from smtpserv.edit import Redirect
from smtpserv.error import StartError
from smtpserv.escape import escape_controls
from smtpserv.filters.aliases import Aliases, parse_aliases
from smtpserv.interfaces import IRecipientFilter, Rewriting
from smtpserv.message import ForwardPath, Parameters, ReversePath, Session
from smtpserv.reply import Reply

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore

_log = Logger()

#: Seconds between two looks at the file.
LOOK: Final = 1.0

#: Tells a file from a changed one: mtime in nanoseconds, size, inode; None where there is no file.
_Stamp = tuple[int, int, int] | None
_NEVER: Final = (0, 0, 0)

#: Characters of an ORCPT parameter (RFC 3461 section 4.2).
_MOST_ORCPT: Final = 500

# xtext = *( xchar / hexchar ) ; xchar = %d33-42 / %d44-60 / %d62-126 (RFC 3461 section 4)
_NO_XCHAR: Final = re.compile(r"[^!-*,-<>-~]")
# QCHAR = %x21-2a / %x2c-3c / %x3e-5b / %x5d-7e ; all else as EmbeddedUnicodeChar (RFC 6533 section 3)
_NO_QCHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~]")


class AliasFile:
    """A file of aliases, read again when it changes.

    :param domains: those in which a name without a domain is an alias; None for all.
    :raises StartError: for a file that can't be read, or a line that is broken, by its number.
    """

    def __init__(self, path: str, domains: Domains | None = None) -> None:
        self._path: Final = path
        self._domains: Final = domains
        self._stamp: _Stamp = _NEVER
        self.aliases = Aliases({})
        self.look()

    def look(self) -> None:
        """Read it if it has changed; may block.

        :raises StartError: for one that is broken, once; what was read before stays.
        """
        before = self._stamp
        try:
            with open(self._path, encoding="utf-8") as file:
                facts = os.fstat(file.fileno())
                self._stamp = facts.st_mtime_ns, facts.st_size, facts.st_ino
                if self._stamp != before:
                    self.aliases = parse_aliases(file.read(), self._domains)
        except OSError as error:
            self._stamp = None
            if before is not None:
                raise StartError(f"cannot read {self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise StartError(f"{self._path} is not UTF-8") from None
        except ValueError as error:
            raise StartError(f"{self._path}, {error}") from None


@implementer(IRecipientFilter)
class RecipientRewrite:
    """Rewrites recipients. The file is looked at when one is named, at most once a second.

    :param hostname: our own name, the domain of a recipient that has none (``postmaster``).
    :param in_thread: runs the reading of the file.
    """

    def __init__(self, file: AliasFile, hostname: str, clock: IReactorTime, in_thread: InThread) -> None:
        self._file: Final = file
        self._hostname: Final = hostname
        self._clock: Final = clock
        self._in_thread: Final = in_thread
        self._looked = clock.seconds()

    def filter_recipient(
        self, session: Session, reverse_path: ReversePath, forward_path: ForwardPath
    ) -> Rewriting:
        """What it stands for."""
        now = self._clock.seconds()
        if now - self._looked < LOOK:
            return self._rewritten(reverse_path, forward_path)
        self._looked = now
        return self._look_and_rewrite(reverse_path, forward_path)

    async def _look_and_rewrite(
        self, reverse_path: ReversePath, forward_path: ForwardPath
    ) -> tuple[ForwardPath, ...] | Reply | None:
        try:
            await self._in_thread(self._file.look)
        except StartError as error:
            said = escape_controls(str(error))
            _log.error("recipient-rewrite: {error}; what was in use stays in use", error=said)
        return self._rewritten(reverse_path, forward_path)

    def _rewritten(
        self, reverse_path: ReversePath, forward_path: ForwardPath
    ) -> tuple[ForwardPath, ...] | Reply | None:
        original = forward_path.local_part, forward_path.domain or self._hostname
        try:
            mailboxes = self._file.aliases.expand(original)
        except OverflowError:
            address = escape_controls(forward_path.address)
            _log.error("recipient-rewrite: {address} leads to too many others", address=address)
            return reply.LIST_TOO_LONG
        if mailboxes == [original]:
            return None
        addresses = ["@".join(each) for each in mailboxes]
        if not (reverse_path.smtputf8 or all(map(str.isascii, addresses))):
            return reply.NEEDS_SMTPUTF8
        parameters = _with_original(forward_path)
        try:
            return Redirect(tuple(ForwardPath(address, parameters) for address in addresses)).forward_paths
        except ValueError:  # its local-part goes with a domain that is too long for it
            return reply.BAD_FORWARD_PATH


def _with_original(path: ForwardPath) -> Parameters:
    """Its parameters; a notification, if one is asked for, shall name whom the client named."""
    if "NOTIFY" not in path.parameters or "ORCPT" in path.parameters:
        return path.parameters
    original = _orcpt(path.address)
    return {**path.parameters, "ORCPT": original} if len(original) <= _MOST_ORCPT else path.parameters


def _orcpt(address: str) -> str:
    if address.isascii():
        return "rfc822;" + _NO_XCHAR.sub(lambda match: f"+{ord(match[0]):02X}", address)
    return "utf-8;" + _NO_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):X}}}", address)


def make_rewrite(reactor: "IReactorCore", hostname: str, file: str, domains: str = "") -> RecipientRewrite:
    """The filter of ``--filter=recipient-rewrite:FILE``.

    :raises StartError: for arguments that are wrong, and a file that can't be read or is broken.
    """
    clock: Any = reactor
    own = read_argument("domains", Domains.parse, domains) if domains else None
    in_thread = partial(deferToThreadPool, clock, clock.getThreadPool())
    return RecipientRewrite(AliasFile(file, own), hostname, clock, in_thread)
