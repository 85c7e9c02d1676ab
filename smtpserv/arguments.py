"""Descriptions of plug-ins: ``NAME:one:two:key=value``, as in Twisted's endpoint strings."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from smtpserv.error import StartError

_FIELD: Final = re.compile(r"(?:^|:)((?:[^:\\]|\\.?)*)", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_NAMED: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)=(.*)", re.DOTALL)

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Arguments:
    """What follows the name, as in Twisted's endpoint strings: ``one:two:key=value``, ``\\:`` for a colon."""

    positional: tuple[str, ...]
    named: dict[str, str]


def parse_arguments(fields: Iterable[str]) -> Arguments:
    """Tell positional arguments from named ones; hyphens in names become underscores.

    :param fields: the parts between the colons, still escaped.
    :raises StartError: for a name that is given twice, or a positional argument behind a named one.
    """
    positional: list[str] = []
    named: dict[str, str] = {}
    for part in fields:
        match = _NAMED.fullmatch(part)
        if match is None and named:
            raise StartError(f"argument {part!r} without a name comes behind named ones")
        if match is None:
            positional.append(_unescape(part))
            continue
        key = match[1].replace("-", "_")
        if key in named:
            raise StartError(f"argument {match[1]!r} is given twice")
        named[key] = _unescape(match[2])
    return Arguments(tuple(positional), named)


def split_description(description: str) -> list[str]:
    """Cut at the colons that no backslash stands before; the parts stay escaped."""
    return _FIELD.findall(description)


def _unescape(part: str) -> str:
    return _ESCAPED.sub(r"\1", part)


def read_argument(name: str, read: Callable[[str], _Value], written: str) -> _Value:
    """The value of an argument.

    :param read: makes the value of what was written; raises ValueError that says what it is not.
    :raises StartError: that names the argument.
    """
    try:
        return read(written)
    except ValueError as error:
        raise StartError(f"{name.replace('_', '-')}: {written!r} is not {error}") from None
