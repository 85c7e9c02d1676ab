"""Which list an address belongs to, by the rules of Mailman 3 and of Mailman 2.

A mailbox gives candidates, in the order they are to be asked about: the first that is a list has the mail.
These are answers to "whose is it?" alone: what Mailman is given is the mailbox as it was sent, for the tokens
in it are case-sensitive.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from smtpserv.domain import canonical

#: Mailman 3's sub-addresses: ``LIST-bounces@DOMAIN`` ...
SUBADDRESSES: Final = frozenset(
    {"bounces", "confirm", "join", "leave", "owner", "request", "subscribe", "unsubscribe"}
)

#: Mailman 2's, which are the second word of its wrapper's command line as well.
EXTENSIONS: Final = SUBADDRESSES | {"admin"}

#: What follows it in the local-part is a token, or whose mail bounced (VERP).
DELIMITER: Final = "+"

# The most that Mailman 3's listname_chars may allow; a plus sign is the delimiter.
_NAME: Final = re.compile(r"[A-Za-z0-9_.=!$*{}~-]+")

# Mailman 2's ACCEPTABLE_LISTNAME_CHARACTERS. A name becomes an argument and a folder: it begins neither as an
# option nor as a hidden file does.
_MAILMAN2_NAME: Final = re.compile(r"[a-z0-9_+=][a-z0-9_+=.-]*")

# The extensions that a token may follow.
_WITH_TOKEN: Final = re.compile(r"-(bounces|confirm)\+")


@dataclass(frozen=True, slots=True)
class ListAddress:
    """An address that a list may have.

    :param list_name: ``ant@lists.example.org``; Mailman 2, which knows no domains, calls it ``ant``.
    :param subaddress: what the address is for; None is for posts.
    """

    list_name: str
    subaddress: str | None = None


def bare_address(mailbox: str, hosts: Mapping[str, str] | None = None) -> str | None:
    """A mailbox as Mailman 3 compares it: in lower case, without what follows the delimiter.

    :param hosts: Mailman's domains by canonical name, those of alias domains by the alias.
    :return: None for what is no list's: a mailbox of no domain, an address literal, quotes, another domain.
    """
    local_part, _, domain = mailbox.rpartition("@")
    name = local_part.partition(DELIMITER)[0]
    host = canonical(domain)
    if host is not None and hosts is not None:
        host = hosts.get(host)
    return f"{name.lower()}@{host}" if host and _NAME.fullmatch(name) else None


def candidates(mailbox: str, hosts: Mapping[str, str] | None = None) -> tuple[ListAddress, ...]:
    """Mailman 3's: a list may be called as another's sub-address is, and is the one that is meant then.

    :param hosts: as :func:`bare_address` takes them.
    """
    bare = bare_address(mailbox, hosts)
    if bare is None:
        return ()
    local_part, _, domain = bare.partition("@")
    name, _, subaddress = local_part.rpartition("-")
    whole = ListAddress(bare)
    if name and subaddress in SUBADDRESSES:
        return whole, ListAddress(f"{name}@{domain}", subaddress)
    return (whole,)


def mailman2_candidates(mailbox: str) -> tuple[ListAddress, ...]:
    """Mailman 2's, whatever the domain; names may have plus signs, and tokens hyphens."""
    local_part = mailbox.rpartition("@")[0]
    if not local_part.isascii():
        return ()
    local_part = local_part.lower()
    name, _, extension = local_part.rpartition("-")
    found = [ListAddress(local_part)]
    if extension in EXTENSIONS:
        found.append(ListAddress(name, extension))
    for match in _WITH_TOKEN.finditer(local_part):
        found.append(ListAddress(local_part[: match.start()], match[1]))
    return tuple(each for each in found if is_mailman2_name(each.list_name))


def is_mailman2_name(name: str) -> bool:
    """Whether a list of Mailman 2 may be called so, and no program or file system takes it for more."""
    return _MAILMAN2_NAME.fullmatch(name) is not None
