"""Open files: each connection is one, and what it brings may be others."""

import resource
from contextlib import suppress
from typing import Any, Final

from twisted.logger import Logger

_log = Logger()

#: Files that are open whatever the clients do: ports, logs, the reactor's own.
RESERVE: Final = 64

#: Files of one connection at most: its socket, the content of a message, a connection to an upstream.
EACH: Final = 3


def make_room(connections: int, system: Any = resource) -> int:
    """Have the system let as many files be open as that many connections need, or as it will.

    Who connects when no file can be opened is cut off without a word; so no more are taken than there can be
    sockets. What else they need then, a file for content or a connection to an upstream, may not be had: that
    is a 452 or 451.

    :param system: the module ``resource``, or what stands for it.
    :return: how many there may be at once.
    """
    soft, hard = system.getrlimit(system.RLIMIT_NOFILE)
    wanted = RESERVE + EACH * connections
    limit = wanted if hard == system.RLIM_INFINITY else min(wanted, hard)
    if soft != system.RLIM_INFINITY and soft < limit:
        with suppress(ValueError, OSError):
            system.setrlimit(system.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    if soft == system.RLIM_INFINITY or connections + RESERVE <= soft:
        return connections
    room: int = max(1, soft - RESERVE)
    _log.info("Room for {room} connections: no more than {limit} files may be open", room=room, limit=soft)
    return room
