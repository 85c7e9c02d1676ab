"""Aliases, as aliases(5) has them: which names stand for which others, and how a file says so."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from smtpserv.domain import Domains, canonical
from smtpserv.edit import AddRecipient
from smtpserv.message import ForwardPath

#: Names that may lead one to another in a row, and mailboxes to which one may lead.
MOST_STEPS: Final = 50
MOST_MAILBOXES: Final = 1000

#: Local-part and domain as they were written.
Mailbox = tuple[str, str]

#: An alias, or what one stands for: a mailbox, a local-part in any domain, or all of a domain.
Name = tuple[str | None, str | None]

_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)

# name ":" target *("," target) ; quoted strings and address literals may have colons in them
_ALIAS: Final = re.compile(rf'((?:{_QUOTED.pattern}|\[[^\[\]]*\]|[^":\[\]\s])+)\s*:(.*)', re.DOTALL)
_TARGETS: Final = re.compile(rf'(?:{_QUOTED.pattern}|[^"])*', re.DOTALL)
_TARGET: Final = re.compile(rf'(?:{_QUOTED.pattern}|[^",])+', re.DOTALL)

#: What aliases(5) has besides addresses, and we have not: a mail server that runs and writes nothing.
_ELSEWHERE: Final = (("|", "a command"), ("/", "a file"), (":include:", "a file of addresses"))


@dataclass(frozen=True, slots=True)
class Aliases:
    """What each alias stands for.

    :param table: by the alias in the form in which it is compared.
    :param domains: those in which a name without a domain is an alias; None for all.
    """

    table: Mapping[Name, tuple[Name, ...]]
    domains: Domains | None = None

    def targets(self, mailbox: Mailbox) -> list[Mailbox] | None:
        """What a mailbox stands for: as itself, by its local-part, or by its domain, the first that is there.

        Where that has no domain, or no local-part, it has the mailbox's own.
        """
        local_part, domain = _folded(mailbox)
        names: list[Name] = [(local_part, domain), (local_part, None), (None, domain)]
        if self.domains is not None and mailbox[1] not in self.domains:
            del names[1]
        found = next((self.table[name] for name in names if name in self.table), None)
        return None if found is None else [(one or mailbox[0], other or mailbox[1]) for one, other in found]

    def expand(self, mailbox: Mailbox) -> list[Mailbox]:
        """All that a mailbox stands for in the end, each once; one that leads back to itself is itself.

        :raises OverflowError: for too many of them, or too far away.
        """
        found: dict[Mailbox, Mailbox] = {}
        seen: set[Mailbox] = set()

        def visit(each: Mailbox, above: frozenset[Mailbox]) -> None:
            name = _folded(each)
            targets = None if name in above else self.targets(each)
            if targets is None:
                found.setdefault(name, each)
            elif name not in seen:
                seen.add(name)
                if len(above) == MOST_STEPS:
                    raise OverflowError
                for target in targets:
                    visit(target, above | {name})
            if len(found) > MOST_MAILBOXES:
                raise OverflowError

        visit(mailbox, frozenset())
        return list(found.values())


def _folded(mailbox: Mailbox) -> Mailbox:
    """The form in which it is compared."""
    return _folded_local_part(mailbox[0]), _folded_domain(mailbox[1])


def _folded_local_part(local_part: str) -> str:
    quoted = local_part.startswith('"')
    return (_PAIR.sub(r"\1", local_part[1:-1]) if quoted else local_part).lower()


def _folded_domain(domain: str) -> str:
    return canonical(domain) or domain.lower()


def parse_aliases(text: str, domains: Domains | None = None) -> Aliases:
    """Read ``name: target, target`` lines.

    A name is a local-part, an address, or ``@domain`` for all of it that has no alias of its own; a target
    is one of these, too. A line that begins with white space goes on with the one before it. Empty lines, and
    those whose first character is ``#``, say nothing.

    :raises ValueError: for what is wrong, with the number of its line.
    """
    table: dict[Name, tuple[Name, ...]] = {}
    for number, line in _logical_lines(text):
        try:
            name, targets = _parse_line(line)
            if name in table:
                raise ValueError("a second line for a name")
            table[name] = targets
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return Aliases(table, domains)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line with those that go on with it, and the number of the first."""
    began, whole = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace():
            if whole:
                yield began, whole
            began, whole = number, line.strip()
        elif whole:
            whole += f" {line.strip()}"
        else:
            raise ValueError(f"line {number}: it goes on with no line before it")
    if whole:
        yield began, whole


def _parse_line(line: str) -> tuple[Name, tuple[Name, ...]]:
    match = _ALIAS.fullmatch(line)
    if match is None or not _TARGETS.fullmatch(match[2]):
        raise ValueError("not a name, a colon and addresses")
    local_part, domain = _parse_name(match[1])
    words = [word.strip() for word in _TARGET.findall(match[2])]
    targets = tuple(_parse_name(word) for word in words if word)
    if not targets:
        raise ValueError("a name that stands for nobody")
    if local_part is not None and any(one is None for one, _ in targets):
        raise ValueError("a whole domain that one name stands for")
    return (
        None if local_part is None else _folded_local_part(local_part),
        None if domain is None else _folded_domain(domain),
    ), targets


def _parse_name(word: str) -> Name:
    for lead, kind in _ELSEWHERE:
        if word.lstrip('"').lower().startswith(lead):
            raise ValueError(f"{kind} gets no mail here: {word}")
    if word.startswith("@"):
        return None, _checked(f"x{word}", word)[1]
    if "@" not in _QUOTED.sub("", word):
        return _checked(f"{word}@x", word)[0], None
    return _checked(word, word)


def _checked(address: str, word: str) -> Mailbox:
    """A mailbox that could have come by RCPT; its domain in A-labels, which all may be given."""
    path = ForwardPath(address)
    try:
        AddRecipient(path)
    except ValueError:
        raise ValueError(f"not an address: {word}") from None
    return path.local_part, path.domain if path.domain.isascii() else _folded_domain(path.domain)
