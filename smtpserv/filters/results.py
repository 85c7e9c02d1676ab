"""The Authentication-Results field (RFC 8601): ours, and those that only say they are."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from smtpserv.domain import canonical
from smtpserv.trace import fold

NAME: Final = "Authentication-Results"

#: Characters of a field that are read for whose it is, and of a value that are told.
_MOST_READ: Final = 2000
_MOST_TOLD: Final = 255

# token of RFC 2045 section 5.1
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+", re.ASCII)
_UNPRINTABLE: Final = re.compile(r"[^ -~]")

# CFWS and comments, which nest (RFC 5322 section 3.2.2); the words that may stand outside of them
_IN_COMMENT: Final = re.compile(r"[()]|\\.|[^()\\]+|\\", re.DOTALL)
_OUTSIDE: Final = re.compile(r'\s+|[();]|"(?:[^"\\]|\\.)*"|\\.|[^\s();"\\]+|.', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found.

    :param method: ``spf``, ``dkim``, ``arc``, ``dmarc`` or ``auth``.
    :param value: ``pass``, ``fail``, ``none`` and so on, as the method's registry names it.
    :param properties: what was checked, ``(ptype.property, value)``; values may be anything.
    """

    method: str
    value: str
    properties: tuple[tuple[str, str], ...] = ()

    def words(self) -> list[str]:
        """The words of the field that tell it."""
        return [
            f"{self.method}={self.value}",
            *(f"{name}={_value(value)}" for name, value in self.properties),
        ]


@dataclass(frozen=True, slots=True)
class Findings:
    """What all checks found, and whether the author's domain wants the message refused."""

    results: tuple[Result, ...]
    is_refused: bool


def field_value(hostname: str, results: Iterable[Result]) -> str:
    """The value of our field, folded.

    :param hostname: our name, the authserv-id.
    """
    clauses = [[_value(hostname)], *(result.words() for result in results)]
    clauses += [["none"]] if len(clauses) == 1 else []
    words = [word for clause in clauses for word in (*clause[:-1], f"{clause[-1]};")]
    words[-1] = words[-1].removesuffix(";")
    return fold([f"{NAME}:", *words]).removeprefix(f"{NAME}: ").removesuffix("\r\n")


def claims(value: str, hostname: str) -> bool:
    """Whether a field says that it is of this name, or hides whose it is (RFC 8601 section 5)."""
    name = _authserv_id(value)
    if name is None or name.casefold() == hostname.casefold():
        return True
    return canonical(hostname) is not None and canonical(name) == canonical(hostname)


# authres-payload = [ CFWS ] authserv-id [ CFWS authres-version ] ... ; authserv-id = value
def _authserv_id(text: str) -> str | None:
    position, depth, name = 0, 0, ""
    while position < min(len(text), _MOST_READ):
        match = (_IN_COMMENT if depth else _OUTSIDE).match(text, position)
        assert match is not None
        position, token = match.end(), match[0]
        if depth or token == "(":
            depth += {"(": 1, ")": -1}.get(token, 0)
        elif token == ";" or (token.isspace() and name):
            return name
        elif not token.isspace():
            name += re.sub(r"\\(.)", r"\1", token[1:-1] if token[0] == '"' else token)
    return name if position >= len(text) else None


def _value(text: str) -> str:
    """A value, quoted where it is no token (RFC 8601 section 2.2)."""
    text = _UNPRINTABLE.sub("?", text[:_MOST_TOLD])
    return text if _TOKEN.fullmatch(text) else '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
