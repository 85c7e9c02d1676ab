"""The options that are one value each: a row for each, and where its value comes from.

What the command line says wins over the configuration file, and that over the default.
"""

import socket
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from smtpserv.dialogue.grammar import is_hello_name
from smtpserv.dialogue.terms import BareNewlines
from smtpserv.domain import Domains, canonical
from smtpserv.error import StartError
from smtpserv.network import Networks, ip_address


@dataclass(frozen=True, slots=True)
class Setting:
    """One option.

    :param read: makes the value of what was written; raises ValueError for what it can't be.
    :param default: as it would be written; empty for what ``help`` tells.
    :param unit: what stands for the value in the help.
    """

    name: str
    short: str | None
    default: str
    read: Callable[[str], Any]
    unit: str
    help: str

    def value(self, written: object, source: str) -> Any:
        """Read what was written.

        :raises StartError: that names the option and where it was written.
        """
        if isinstance(written, bool) or not isinstance(written, str | int | float):
            raise StartError(f"{source}{self.name}: {written!r} is not a text or number")
        try:
            return self.read(str(written))
        except ValueError as error:
            raise StartError(f"{source}{self.name}: {str(written)!r} is not {error}") from None


def number(least: int, most: int = 1 << 62) -> Callable[[str], int]:
    """Reads a whole number within bounds, both included."""

    def read(written: str) -> int:
        is_number = written.isascii() and written.isdigit() and len(written) < 19
        if not (is_number and least <= int(written) <= most):
            raise ValueError(f"a whole number from {least}" + (f" to {most}" if most < 1 << 62 else ""))
        return int(written)

    return read


def seconds(written: str) -> float:
    """Reads a time."""
    try:
        value = float(written)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise ValueError("a number of seconds over 0")
    return value


def hostname(written: str) -> str:
    """Reads a domain name or address literal; nothing is the machine's own name."""
    name = written or socket.gethostname()
    if is_hello_name(name.encode("utf-8")):
        return name
    if not written:
        return "localhost"
    raise ValueError("a domain name or address literal")


def host(written: str) -> str:
    """Reads where a server is; an IPv6 address may stand in brackets."""
    bare = written[1:-1] if written.startswith("[") and written.endswith("]") else written
    if bare.startswith("/") or ip_address(bare) is not None or canonical(bare) is not None:
        return bare
    raise ValueError("the name or address of a host, or the path of a socket")


def one_of(*choices: str) -> Callable[[str], str]:
    """Reads one of some words."""

    def read(written: str) -> str:
        if written not in choices:
            raise ValueError(" or ".join(choices))
        return written

    return read


def newlines(written: str) -> BareNewlines:
    """Reads what becomes of bare newlines."""
    return BareNewlines(one_of(*(each.value for each in BareNewlines))(written))


def text(written: str) -> str:
    """Reads any text."""
    return written


def per_address(written: str) -> int | None:
    """Reads a number for one address; nothing is 100, without a limit for loopback."""
    return number(1)(written) if written else None


SETTINGS: Final = (
    Setting("processor", "p", "debugging", text, "NAME[:ARGS]", "what happens to each message"),
    Setting("hostname", None, "", hostname, "NAME", "name in the greeting [the machine's]"),
    Setting("max-size", None, "33554432", number(1), "BYTES", "largest message, announced by SIZE"),
    Setting("max-recipients", None, "1000", number(100, 999999), "N", "per message, at least 100"),
    Setting("tls", None, "", text, "PATH", "PEM file, or folder of them chosen by SNI: offers STARTTLS"),
    Setting("tls-client-ca", None, "", text, "FILE", "PEM file of who may vouch for clients' certificates"),
    Setting(
        "trust-xclient", None, "", Networks.parse, "CIDR,...", "peers whose XCLIENT and XFORWARD count [none]"
    ),
    Setting("trust-proxy", None, "", Networks.parse, "CIDR,...", "peers whose PROXY header counts [none]"),
    Setting(
        "relay-from",
        None,
        "127.0.0.0/8,::1",
        Networks.parse,
        "CIDR,...",
        "who may relay without AUTH; unix too",
    ),
    Setting("relay-to", None, "", Domains.parse, "DOMAIN,...", "domains anyone may send to"),
    Setting("max-connections", None, "20000", number(1), "N", "open at once"),
    Setting(
        "max-connections-per-address",
        None,
        "",
        per_address,
        "N",
        "open at once from one address [100; unlimited from loopback]",
    ),
    Setting(
        "max-auth-failures",
        None,
        "",
        per_address,
        "N",
        "of one address in an hour [100; unlimited from loopback]",
    ),
    Setting("max-errors", None, "20", number(0), "N", "errors of syntax or order in a session, then 421"),
    Setting("max-commands", None, "1000", number(1), "N", "commands that bring no message forward, then 421"),
    Setting("idle-timeout", None, "300", seconds, "SECONDS", "a client may say nothing"),
    Setting("session-deadline", None, "3600", seconds, "SECONDS", "a session may last"),
    Setting("data-deadline", None, "1800", seconds, "SECONDS", "the data of one message may take"),
    Setting("min-data-rate", None, "500", number(0), "BYTES", "a second of mail data, once it took 30"),
    Setting("processing-deadline", None, "300", seconds, "SECONDS", "a processor may take to answer"),
    Setting("bare-newlines", None, "refuse", newlines, "HOW", "CR or LF alone: refuse, normalize or allow"),
    Setting("http", None, "", text, "ENDPOINT", "/metrics and /healthz, and a processor's pages"),
    Setting("log", None, "-", text, "FILE", "the mail log, a line for each message; - is stderr"),
    Setting("log-format", None, "text", one_of("text", "json"), "FORM", "of the mail log: text or json"),
)


def read_config(path: str) -> Mapping[str, Any]:
    """Read a TOML file.

    :raises StartError: for a file that can't be read or is not TOML.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise StartError(f"--config: cannot read {path or repr(path)}: {error.strerror}") from None
    except ValueError as error:
        raise StartError(f"--config: {path}: {error}") from None
