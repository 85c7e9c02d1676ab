"""The command line and the configuration file: what may be said, and what comes of it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NoReturn

from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from smtpserv import __version__
from smtpserv.error import StartError
from smtpserv.escape import escape_controls
from smtpserv.plugins import Directory, find_extensions, find_filters, find_policies, find_processors
from smtpserv.settings import SETTINGS, Setting, read_config

DEFAULT_LISTEN: Final = "tcp:8025:interface=127.0.0.1"


class Unstartable(SystemExit, Exception):
    """Ends the program with exit code 1, and without a traceback.

    It is an Exception as well, for which twistd removes its pid file and tells the process that waits for
    the daemon; SystemExit alone would leave that one waiting for ever.
    """

    def __init__(self, line: str) -> None:
        super().__init__(1)
        self._line: Final = line

    def __str__(self) -> str:
        return self._line


def fail(line: str) -> NoReturn:
    """End the start with one line on stderr."""
    line = escape_controls(" ".join(line.split()))
    print(f"smtpserv: {line}", file=sys.__stderr__, flush=True)
    raise Unstartable(line)


@dataclass(frozen=True, slots=True)
class Repeated:
    """An option that may be said several times; in a file, a text or a list of them."""

    name: str
    short: str | None
    unit: str
    help: str


REPEATED: Final = (
    Repeated("listen", "l", "ENDPOINT", f"speaks SMTP; may be repeated [{DEFAULT_LISTEN}]"),
    Repeated("lmtp", None, "ENDPOINT", "the same, speaking LMTP; may be repeated"),
    Repeated("policy", None, "NAME[:ARGS]", "who may connect, send and relay; may be repeated"),
    Repeated("filter", None, "NAME[:ARGS]", "changes or refuses messages, in turn; may be repeated"),
    Repeated("extension", None, "NAME[:ARGS]", "an ESMTP extension from outside; may be repeated"),
    Repeated("auth", None, "TYPE[:ARGS]", "offers AUTH, asks a twisted.cred checker; may be repeated"),
)

#: Options that are there or not: name and help.
SWITCHES: Final = (
    ("require-tls", "no mail before STARTTLS"),
    ("require-auth", "no mail before AUTH"),
    ("auth-without-tls", "AUTH in clear as well"),
)

#: The plug-ins that can be listed: what one is called, many are, and where they are found.
_LISTED: Final[tuple[tuple[str, str, Callable[[], Directory]], ...]] = (
    ("processor", "processors", find_processors),
    ("policy", "policies", find_policies),
    ("filter", "filters", find_filters),
    ("extension", "extensions", find_extensions),
)

_SYNOPSIS: Final = """\
Usage: twistd [-n] smtpserv [options]
       smtpserv [options]
Receives mail by SMTP and gives each message to a processor.
"""


def _flag(row: Setting | Repeated) -> str:
    return f"{f'-{row.short},' if row.short else '':4}--{row.name}={row.unit}"


class Options(UsageOptions):
    """The command line. After parsing, each setting's name holds its value, each repeated one's a list."""

    optParameters = [[each.name, each.short, None, each.help] for each in SETTINGS] + [
        ["config", None, None, "TOML file with the same names"]
    ]
    optFlags: ClassVar = [[name, None, help] for name, help in SWITCHES]

    def __init__(self) -> None:
        super().__init__()
        for each in REPEATED:
            self[each.name] = []

    def getSynopsis(self) -> str:
        """How ``--help`` begins."""
        return _SYNOPSIS

    def getUsage(self, width: int | None = None) -> str:
        """What ``--help`` goes on with: the options in the order of a session, each on a line."""
        rows = [
            *((_flag(each), each.help) for each in REPEATED[:2]),
            *((_flag(each), f"{each.help}{each.default and f' [{each.default}]'}") for each in SETTINGS),
            *((_flag(each), each.help) for each in REPEATED[2:]),
            *((f"    --{name}", help) for name, help in SWITCHES),
            ("    --config=FILE", "TOML with the same names; what the command line says wins"),
            *((f"    --help-{many}", f"every {one} found, one line each") for one, many, _ in _LISTED),
            *((f"    --help-{one}=NAME", "its arguments") for one, _, _ in _LISTED),
            ("    --version", "the version"),
            ("    --help", "this"),
        ]
        column = max(len(flag) for flag, _ in rows) + 2
        return "".join(f"  {flag:{column}}{text}\n" for flag, text in rows)

    def opt_version(self) -> NoReturn:
        """show the version"""
        print(f"smtpserv {__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        """Parse; whatever is wrong ends the start with a line that names it."""
        try:
            super().parseOptions(options)
        except (UsageError, StartError) as error:
            fail(str(error))

    def parseArgs(self, *rest: str) -> None:
        """Nothing but options is taken."""
        if rest:
            raise UsageError(f"unexpected argument: {rest[0]!r}")

    def postOptions(self) -> None:
        """Fill in what the command line left open, from the file and the defaults, and read every value."""
        path = self["config"]
        config = {} if path is None else dict(read_config(path))
        for repeated in REPEATED:
            in_file = _texts(path, repeated.name, config)
            self[repeated.name] = self[repeated.name] or in_file
        self["listen"] = self["listen"] or ([] if self["lmtp"] else [DEFAULT_LISTEN])
        for name, _ in SWITCHES:
            self[name] = bool(self[name]) or _switch(path, name, config)
        for each in SETTINGS:
            in_file = config.pop(each.name, each.default)
            said = self[each.name]
            self[each.name] = each.value(in_file, f"{path}: ") if said is None else each.value(said, "--")
        if config:
            raise StartError(f"{path}: unknown option {min(config)!r}")


def _texts(path: str, name: str, config: dict[str, Any]) -> list[str]:
    if name not in config:
        return []
    given = config.pop(name)
    texts = [given] if isinstance(given, str) else given
    if not (isinstance(texts, list) and texts and all(isinstance(each, str) for each in texts)):
        raise StartError(f"{path}: {name}: {given!r} is no text and no list of them")
    return texts


def _switch(path: str, name: str, config: dict[str, Any]) -> bool:
    given = config.pop(name, False)
    if not isinstance(given, bool):
        raise StartError(f"{path}: {name}: {given!r} is not true or false")
    return given


def _add_repeated(row: Repeated) -> None:
    def opt(self: Options, value: str) -> None:
        self[row.name].append(value)

    opt.__doc__ = row.help
    setattr(Options, f"opt_{row.name}", opt)
    if row.short:
        setattr(Options, f"opt_{row.short}", opt)


def _add_help(one: str, many: str, find: Callable[[], Directory]) -> None:
    def every(self: Options) -> NoReturn:
        directory = find()
        column = max([14, *map(len, directory)]) + 2
        for name in directory:
            try:
                print(f"{name:{column}}{directory.maker(name).help}")
            except StartError as error:
                print(f"{name:{column}}({error})")
        raise SystemExit(0)

    def single(self: Options, name: str) -> NoReturn:
        maker = find().maker(name)
        print(f"{maker.name}: {maker.help}")
        print(f"\n{maker.arguments}" if maker.arguments else "\nIt takes no arguments.")
        raise SystemExit(0)

    every.__doc__, single.__doc__ = f"list every {one} found, a line each", f"show the arguments of a {one}"
    setattr(Options, f"opt_help_{many}", every)
    setattr(Options, f"opt_help_{one}", single)


for _row in REPEATED:
    _add_repeated(_row)
for _words in _LISTED:
    _add_help(*_words)
