"""Where a milter is: a client endpoint of Twisted's, or as milters and the servers that use them write it."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.internet.endpoints import quoteStringArgument

from smtpserv.arguments import parse_arguments, split_description
from smtpserv.error import StartError

_PORT_AT_HOST: Final = re.compile(r"([0-9]+)@(.+)")


def read_endpoint(where: Sequence[str], more: Mapping[str, str]) -> str:
    """The description of an endpoint, for Twisted.

    :param where: its parts: ``tcp``, a host and a port, or ``unix`` and a path. Or as Postfix has it,
        ``inet:HOST:PORT`` and ``unix:PATH``, or as milters do, ``inet:PORT@HOST`` and ``local:PATH``. One
        part with escaped colons is the same.
    :param more: its named arguments.
    :raises StartError: where nothing is said.
    """
    if len(where) == 1 and ":" in where[0]:
        inner = parse_arguments(split_description(where[0]))
        where, more = inner.positional, {**inner.named, **more}
    if not where:
        raise StartError("where is the milter? tcp:HOST:PORT or unix:PATH")
    kind, *parts = where
    kind, parts = _KINDS.get(kind, lambda parts: (kind, parts))(parts)
    named = [f"{name}={quoteStringArgument(value)}" for name, value in more.items()]
    return ":".join([kind, *map(quoteStringArgument, parts), *named])


def _inet(parts: list[str]) -> tuple[str, list[str]]:
    match = _PORT_AT_HOST.fullmatch(":".join(parts))
    return "tcp", [match[2].strip("[]"), match[1]] if match else parts


_KINDS: Final[dict[str, Callable[[list[str]], tuple[str, list[str]]]]] = {
    "inet": _inet,
    "inet6": _inet,
    "local": lambda parts: ("unix", parts),
}
