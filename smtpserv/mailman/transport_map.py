"""The directory that Mailman writes for Postfix: its transport map of regular expressions.

Each line has one address of one list: ``/^ant-bounces(\\+.*)?@lists\\.example$/ lmtp:[127.0.0.1]:8024``.
As nothing is in them but the address, they are looked up rather than tried. Where a domain has an alias, the
map has the alias's addresses, and ``postfix_vmap`` beside it the domain's own.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from smtpserv.error import StartError
from smtpserv.escape import escape_controls
from smtpserv.mailman.address import bare_address
from smtpserv.mailman.directory import DirectoryAway, IListDirectory

#: Beside the map, if Mailman has alias domains.
VIRTUAL: Final = "postfix_vmap"

_ESCAPED: Final = r"((?:\\\.|[^\s/@()+.\\])+)"
_LINE: Final = re.compile(rf"/\^{_ESCAPED}(?:\(\\\+\.\*\)\?)?@{_ESCAPED}\$/[ \t]+\S+")

#: Tells a file from a changed one: mtime in nanoseconds, size, inode; None where there is no file.
_Stamp = tuple[int, int, int] | None

_log = Logger()


@implementer(IListDirectory)
class TransportMap:
    """Knows the addresses in the map, which is read again when it changes.

    While it is broken, or gone, the lists that it held before are still known, and others may have been made.

    :param path: Mailman's ``var/data/postfix_lmtp``, written with ``transport_file_type: regex``.
    :param in_thread: calls a function where it may block, and gives a Deferred of what it returns.
    :raises StartError: for a map that can't be read, or is none.
    """

    def __init__(self, path: str, in_thread: "Callable[..., Deferred[Any]]") -> None:
        self._paths: Final = (path, str(Path(path).with_name(VIRTUAL)))
        self._in_thread: Final = in_thread
        self._turn: Final = DeferredLock()
        #: What is wrong with the map as it is now; empty if it was read.
        self._fault = ""
        self._stamps = self._look()
        try:
            self._addresses, self._domains = self._read()
        except OSError as error:
            raise StartError(f"cannot read {path}: {error.strerror}") from None
        except ValueError as error:
            raise StartError(str(error)) from None

    async def knows(self, mailbox: str) -> bool:
        """Whether the map, as it is now, has the address."""
        if self._look() != self._stamps:
            await self._turn.run(self._renew)
        address = bare_address(mailbox)
        known = address in self._addresses
        if not known and self._fault and address and _domain(address) in self._domains:
            raise DirectoryAway(self._fault)
        return known

    async def _renew(self) -> None:
        stamps = self._look()
        if stamps == self._stamps:
            return
        try:
            self._addresses, self._domains = await self._in_thread(self._read)
            self._fault = ""
        except OSError as error:
            self._complain(str(error))
            return  # what can't be read now can be later, and need not change for that
        except ValueError as error:
            self._complain(str(error))
        # Looked at before it was read: what changes in between is read again. What is broken is so once.
        self._stamps = stamps

    def _complain(self, fault: str) -> None:
        if fault != self._fault:
            _log.error("{fault}; what was known of lists stays in use", fault=escape_controls(fault))
        self._fault = fault

    def _look(self) -> tuple[_Stamp, ...]:
        return tuple(map(_stamp, self._paths))

    def _read(self) -> tuple[frozenset[str], frozenset[str]]:
        """The addresses, and the domains that they are of."""
        addresses = set(_addresses(self._paths[0]))
        with suppress(FileNotFoundError):
            addresses.update(_addresses(self._paths[1]))
        return frozenset(addresses), frozenset(map(_domain, addresses))


def _domain(address: str) -> str:
    return address.rpartition("@")[2]


def _addresses(path: str) -> Iterator[str]:
    """The addresses in a file.

    :raises ValueError: that names the first line that is none of Mailman's.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            rule = line.strip()
            if rule and not rule.startswith("#"):
                yield _address(rule, f"{path}, line {number}")


def _address(rule: str, where: str) -> str:
    match = _LINE.fullmatch(rule)
    address = bare_address(f"{match[1]}@{match[2]}".replace("\\.", ".")) if match else None
    if address is None:
        raise ValueError(f"{where}: not a line of Mailman's map of type regex")
    return address


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
