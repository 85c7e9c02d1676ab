"""Makes a route of what an operator wrote: ``HOST,HOST:PORT:key=value``."""

import os
import stat
from collections.abc import Callable, Mapping
from typing import Any, Final

from smtpserv.arguments import read_argument
from smtpserv.dialogue.login import Credentials
from smtpserv.error import StartError
from smtpserv.relay.patience import Patience
from smtpserv.relay.pool import Pool, PoolLimits
from smtpserv.relay.route import Route
from smtpserv.relay.upstream import Doorway, Upstream
from smtpserv.settings import host as read_host
from smtpserv.settings import hostname, number, one_of, seconds
from smtpserv.tls.upstream import TLSMode, UpstreamTLS

_YES_OR_NO: Final = one_of("yes", "no")

#: The arguments that say how long a server is waited for, and the phases they are of.
_PATIENCE: Final = {
    "connect_timeout": "connect",
    "opening_timeout": "opening",
    "greeting_timeout": "greeting",
    "command_timeout": "command",
    "data_timeout": "start",
    "block_timeout": "block",
    "end_timeout": "end",
}
_LIMITS: Final[Mapping[str, tuple[str, Callable[[str], float]]]] = {
    "connections": ("connections", number(1, 100000)),
    "uses": ("uses", number(1)),
    "idle": ("idle", seconds),
}


def yes(name: str, written: str) -> bool:
    """The value of an argument that is ``yes`` or ``no``."""
    return read_argument(name, _YES_OR_NO, written) == "yes"


def make_route(
    reactor: Any,
    host: str = "localhost",
    port: str = "",
    tls: str = "",
    trust_roots: str = "",
    certificate: str = "",
    tls_name: str = "",
    user: str = "",
    password_file: str = "",
    token_file: str = "",
    lmtp: str = "no",
    **named: str,
) -> Route:
    """The route that arguments describe.

    :param named: connections, uses, idle, and the timeouts.
    :raises StartError: for what is wrong with them.
    """
    mode = read_argument("tls", one_of(*(each.value for each in TLSMode)), tls or _usual_mode(user))
    security = UpstreamTLS.read(
        TLSMode(mode), trust_roots=trust_roots, certificate=certificate, server_name=tls_name
    )
    credentials = _credentials(user, password_file, token_file)
    default = "465" if security.mode is TLSMode.IMPLICIT else "25"
    patience, limits = _numbers(named)
    pools = []
    for each in _hosts(host, security.mode):
        upstream = Upstream(
            host=each,
            port=read_argument("port", number(1, 65535), port or default),
            lmtp=yes("lmtp", lmtp),
            tls=security,
            credentials=credentials,
            patience=patience,
        )
        pools.append(Pool(reactor, Doorway(reactor, upstream, hostname("")), limits))
    return Route(pools)


def _hosts(written: str, mode: TLSMode) -> list[str]:
    hosts = [read_argument("host", read_host, part.strip()) for part in written.split(",") if part.strip()]
    if not hosts:
        raise StartError("host: no server is named")
    for each in hosts:
        if each.startswith("/") and mode is TLSMode.IMPLICIT:
            raise StartError(f"tls: there is no implicit TLS on a Unix socket, {each}")
    return hosts


def _usual_mode(user: str) -> str:
    mode = TLSMode.REQUIRED if user else TLSMode.OPPORTUNISTIC
    return mode.value


def _numbers(named: Mapping[str, str]) -> tuple[Patience, PoolLimits]:
    unknown = named.keys() - _PATIENCE.keys() - _LIMITS.keys()
    if unknown:
        raise StartError(f"unknown argument {min(unknown).replace('_', '-')!r}")
    patience = {
        _PATIENCE[name]: read_argument(name, seconds, named[name]) for name in _PATIENCE if name in named
    }
    limits: dict[str, Any] = {
        field: read_argument(name, read, named[name])
        for name, (field, read) in _LIMITS.items()
        if name in named
    }
    return Patience(**patience), PoolLimits(**limits)


def _credentials(user: str, password_file: str, token_file: str) -> Credentials | None:
    if not user:
        if password_file or token_file:
            raise StartError("password-file and token-file need user=")
        return None
    if not (password_file or token_file):
        raise StartError("user: password-file= or token-file= is missing")
    try:
        return Credentials(
            user,
            read_secret("password-file", password_file) if password_file else "",
            read_secret("token-file", token_file) if token_file else None,
        )
    except ValueError as error:
        raise StartError(str(error)) from None


def read_secret(name: str, path: str) -> str:
    """The first line of a file that not everybody may read.

    :raises StartError: for a file that is none such.
    """
    try:
        with open(path, encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o007:
                raise StartError(f"{name}: {path} can be read by everybody; chmod it to 600")
            secret = file.readline(4096).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(
            f"{name}: cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}"
        ) from None
    if not secret:
        raise StartError(f"{name}: {path} is empty")
    return secret
