"""Where everything is put together: the options, and the service they describe."""

import gc
import os
import sys
from functools import partial
from typing import Any, Final, NoReturn

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from smtpserv import __version__
from smtpserv.dialogue.terms import Terms
from smtpserv.error import StartError
from smtpserv.escape import escape_controls
from smtpserv.interfaces import IMessageProcessor, IStreamingProcessor
from smtpserv.plugins import find_processors, make_processor
from smtpserv.server.content import CollectingProcessor
from smtpserv.server.factory import SMTPServerFactory
from smtpserv.server.house import House
from smtpserv.server.journal import Journal, render_json, render_text
from smtpserv.server.limits import Limits
from smtpserv.server.listening import Listener
from smtpserv.server.logfile import open_log
from smtpserv.server.panel import seat
from smtpserv.settings import SETTINGS, Setting, read_config

DEFAULT_LISTEN: Final = "tcp:8025:interface=127.0.0.1"

#: Seconds that messages under way are given when the server stops.
DRAIN: Final = 30.0

_log = Logger()


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


_SYNOPSIS: Final = """\
Usage: twistd [-n] smtpserv [options]
       smtpserv [options]
Receives mail by SMTP and gives each message to a processor.
"""


def _flag(setting: Setting) -> str:
    return f"{f'-{setting.short},' if setting.short else '':4}--{setting.name}={setting.unit}"


class Options(UsageOptions):
    """The command line. After parsing, each setting's name holds its value, and ``listen`` the endpoints."""

    optParameters = [[each.name, each.short, None, each.help] for each in SETTINGS] + [
        ["config", None, None, "TOML file with the same names"]
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    def getUsage(self, width: int | None = None) -> str:
        """What ``--help`` prints: the options in the order of a session, each on a line."""
        rows = [
            ("-l, --listen=ENDPOINT", f"speaks SMTP; may be repeated [{DEFAULT_LISTEN}]"),
            *((_flag(each), f"{each.help}{each.default and f' [{each.default}]'}") for each in SETTINGS),
            ("    --config=FILE", "TOML with the same names; what the command line says wins"),
            ("    --help-processors", "every processor found, one line each"),
            ("    --help-processor=NAME", "its arguments"),
            ("    --version", "the version"),
            ("    --help", "this"),
        ]
        column = max(len(flag) for flag, _ in rows) + 2
        return "\n".join([_SYNOPSIS, *(f"  {flag:{column}}{text}" for flag, text in rows), ""])

    def opt_listen(self, endpoint: str) -> None:
        """Twisted server endpoint that speaks SMTP; may be repeated [tcp:8025:interface=127.0.0.1]"""
        self["listen"].append(endpoint)

    opt_l = opt_listen

    def opt_help_processors(self) -> NoReturn:
        """list every processor found, a line each"""
        directory = find_processors()
        for name in directory:
            try:
                print(f"{name:16}{directory.maker(name).help}")
            except StartError as error:
                print(f"{name:16}({error})")
        raise SystemExit(0)

    def opt_help_processor(self, name: str) -> NoReturn:
        """show the arguments of a processor"""
        maker = find_processors().maker(name)
        print(f"{maker.name}: {maker.help}")
        print(f"\n{maker.arguments}" if maker.arguments else "\nIt takes no arguments.")
        raise SystemExit(0)

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
        config = dict(read_config(self["config"])) if self["config"] else {}
        listen = config.pop("listen", [DEFAULT_LISTEN])
        listen = [listen] if isinstance(listen, str) else listen
        if not (isinstance(listen, list) and listen and all(isinstance(each, str) for each in listen)):
            raise StartError(f"{self['config']}: listen: {listen!r} is no endpoint and no list of them")
        self["listen"] = self["listen"] or listen
        for each in SETTINGS:
            written, source = config.pop(each.name, each.default), f"{self['config']}: "
            if self[each.name] is not None:
                written, source = self[each.name], "--"
            self[each.name] = each.value(written, source)
        if config:
            raise StartError(f"{self['config']}: unknown option {min(config)!r}")


class MailService(MultiService):
    """The listeners and their sessions, from the first port bound to the last message finished."""

    def __init__(self, factory: SMTPServerFactory, listeners: list[Listener]) -> None:
        super().__init__()
        self._factory: Final = factory
        for listener in listeners:
            listener.setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Bind; a port that can't be had ends the start."""
        try:
            super().privilegedStartService()
        except StartError as error:
            fail(str(error))

    def startService(self) -> None:
        """What is in memory by now stays: spare the garbage collector the walk."""
        super().startService()
        gc.collect()
        gc.freeze()

    async def _see_out(self) -> None:
        await super().stopService()
        await self._factory.drain(DRAIN)
        self._factory.house.journal.flush()

    def stopService(self) -> "Deferred[None]":
        """Take no more connections, and wait for the messages under way."""
        return Deferred.fromCoroutine(self._see_out())


def makeService(options: Options) -> MailService:
    """The whole server, as the options describe it. Only here is the global reactor named."""
    from twisted.internet import reactor

    # A processor that lies in the folder where the operator stands is found, but hides no installed module.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return make_service(reactor, options)
    except StartError as error:
        fail(str(error))


def make_service(reactor: Any, options: Options) -> MailService:
    """The parts in the order of the message.

    :raises StartError: for what can't be put together.
    """
    limits = make_limits(options)
    processor = make_processor(options["processor"], reactor, find_processors())
    house = House(
        clock=reactor,
        terms=make_terms(options),
        limits=limits,
        panel=seat([processor]),
        processor=as_streaming(processor, reactor, limits),
        journal=Journal(reactor, open_log(options["log"]), _FORMATS[options["log-format"]]),
    )
    factory = SMTPServerFactory(house)
    listeners = [Listener(each, endpoint(reactor, each), factory) for each in options["listen"]]
    _log.info("smtpserv {version}, processor {name}", version=__version__, name=options["processor"])
    return MailService(factory, listeners)


_FORMATS: Final = {"text": render_text, "json": render_json}


def as_streaming(processor: object, reactor: Any, limits: Limits) -> IStreamingProcessor:
    """The processor as the engine uses it; one of whole messages gets a sink that collects."""
    streaming = IStreamingProcessor(processor, None)
    if streaming is not None:
        return streaming
    in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    return CollectingProcessor(IMessageProcessor(processor), in_thread, limits.memory_limit)


def endpoint(reactor: Any, description: object) -> IStreamServerEndpoint:
    """The endpoint of a description.

    :raises StartError: for one that Twisted does not understand.
    """
    try:
        found: IStreamServerEndpoint = serverFromString(reactor, description)
    except Exception as error:
        raise StartError(f"--listen={description}: {error}") from error
    return found


def make_terms(options: Options) -> Terms:
    """What the server offers its clients."""
    return Terms(
        hostname=options["hostname"],
        max_size=options["max-size"],
        max_recipients=options["max-recipients"],
        max_errors=options["max-errors"],
        max_commands=options["max-commands"],
        bare_newlines=options["bare-newlines"],
    )


def make_limits(options: Options) -> Limits:
    """What the server bears."""
    return Limits(
        max_connections=options["max-connections"],
        max_connections_per_address=options["max-connections-per-address"],
        idle_timeout=options["idle-timeout"],
        session_deadline=options["session-deadline"],
        data_deadline=options["data-deadline"],
        min_data_rate=options["min-data-rate"],
        processing_deadline=options["processing-deadline"],
    )
