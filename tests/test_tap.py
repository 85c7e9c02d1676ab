"""The command line and the file as they become a service, and how a start that can't be ends."""

import gc
import io
import os
import re
import sys
from typing import Any, ClassVar

import twisted.internet
from twisted.application.service import IServiceMaker
from twisted.internet.defer import fail
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.static import Data
from zope.interface import implementer

from smtpserv import __version__, options, tap
from smtpserv.collecting import CollectingProcessor
from smtpserv.dialogue.terms import BareNewlines
from smtpserv.error import StartError
from smtpserv.interfaces import IMessageProcessor, IPages, IStreamingProcessor
from smtpserv.plugins import find_filters
from smtpserv.server.journal import GATHER
from smtpserv.server.limits import Limits
from smtpserv.settings import SETTINGS
from smtpserv.tap import DEFAULT_LISTEN, MailService, Options, make_limits, make_service, make_terms
from smtpserv.testing import RecordingProcessor
from tests.server_tools import PREAMBLE, Client, Reactor, captured_log, codes

#: Options whose value is a list of networks.
NETWORKS = ("relay-from", "trust-proxy", "trust-xclient")


class TapTestCase(SynchronousTestCase):
    """Has a command line, and catches what it says."""

    def setUp(self) -> None:
        self.stderr, self.stdout = io.StringIO(), io.StringIO()
        self.patch(sys, "__stderr__", self.stderr)
        self.patch(sys, "stdout", self.stdout)
        self.patch(sys, "path", list(sys.path))

    def parse(self, *arguments: str, config: str = "") -> Options:
        """The options of a command line, with a file of this text if there is one."""
        options = Options()
        options.parseOptions([*([f"--config={self.file(config)}"] if config else []), *arguments])
        return options

    def file(self, text: str) -> str:
        """A file of this text."""
        path: str = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def failure(self, *arguments: str, config: str = "") -> str:
        """The line with which the start ends, and nothing else."""
        error = self.assertRaises(SystemExit, self.parse, *arguments, config=config)
        return self.failed(error)

    def failed(self, error: SystemExit) -> str:
        """The line on stderr of a start that ended so."""
        self.assertEqual((error.code, self.stdout.getvalue()), (1, ""))
        line = self.stderr.getvalue()
        self.stderr.truncate(0)
        self.stderr.seek(0)
        self.assertTrue(re.fullmatch("smtpserv: [^\n]+\n", line), line)
        return line.removeprefix("smtpserv: ").removesuffix("\n")


class CommandLineTests(TapTestCase):
    """What the command line says."""

    def test_nothing(self) -> None:
        """With no option at all the defaults hold."""
        options = self.parse()
        expected = {"processor": "debugging", "listen": [DEFAULT_LISTEN], "max-size": 33554432, "log": "-"}
        self.assertEqual({name: options[name] for name in expected}, expected)
        self.assertEqual({each.name for each in SETTINGS} - set(options), set())

    def test_every_option(self) -> None:
        """Every option is taken, by its name and the letter it has."""
        written = {
            "hostname": "mx.example",
            "bare-newlines": "allow",
            "log-format": "json",
            "log": "/x",
            "processor": "a",
            **dict.fromkeys(NETWORKS, "192.0.2.0/24"),
        }
        for each in SETTINGS:
            value = written.get(each.name, "200")
            options = self.parse(f"--{each.name}={value}")
            self.assertEqual(options[each.name], each.read(value))
        self.assertEqual(self.parse("-p", "discard")["processor"], "discard")

    def test_listen_repeated(self) -> None:
        """``--listen`` may be repeated, and then the default is not listened on."""
        options = self.parse("--listen=tcp:25", "-l", "unix:/run/x")
        self.assertEqual(options["listen"], ["tcp:25", "unix:/run/x"])

    def test_wrong_values(self) -> None:
        """A wrong value ends the start with a line that names the option, and exit code 1."""
        self.assertEqual(self.failure("--max-size=x"), "--max-size: 'x' is not a whole number from 1")
        self.assertEqual(self.failure("--log-format=xml"), "--log-format: 'xml' is not text or json")
        for each in SETTINGS:
            if each.name not in ("processor", "http", "log", "tls", "tls-client-ca"):
                self.assertIn(f"--{each.name}: ", self.failure(f"--{each.name}=!"))

    def test_unknown(self) -> None:
        """So does an option that there is not, and one without its value."""
        self.assertIn("nosuch", self.failure("--nosuch=1"))
        self.assertIn("max-size", self.failure("--max-size"))

    def test_more(self) -> None:
        """So does what is no option."""
        self.assertEqual(self.failure("localhost:25"), "unexpected argument: 'localhost:25'")

    def test_help(self) -> None:
        """``--help`` names every option, with its default, in lines of at most a hundred characters."""
        error = self.assertRaises(SystemExit, self.parse, "--help")
        text = self.stdout.getvalue()
        self.assertIn(error.code, (0, None))
        names = [each.name for each in SETTINGS]
        for name in [*names, "listen", "config", "help-processors", "help-processor", "version"]:
            self.assertIn(f"--{name}", text)
        flat = " ".join(text.split())
        for each in SETTINGS:
            self.assertIn(each.help.split()[0], flat)
            self.assertIn(f"[{each.default}]" if each.default else each.name, flat)
        self.assertIn(f"[{DEFAULT_LISTEN}]", text.replace("\n", "").replace(" ", ""))
        self.assertLessEqual(max(map(len, text.splitlines())), 100)
        self.assertTrue(text.startswith("Usage: twistd [-n] smtpserv [options]\n"), text[:100])
        self.assertEqual(text.count("Usage"), 1)

    def test_version(self) -> None:
        """``--version`` says the version, and that is all."""
        error = self.assertRaises(SystemExit, self.parse, "--version")
        self.assertEqual((error.code, self.stdout.getvalue()), (0, f"smtpserv {__version__}\n"))

    def test_help_processors(self) -> None:
        """``--help-processors`` has a line for each."""
        error = self.assertRaises(SystemExit, self.parse, "--help-processors")
        lines = self.stdout.getvalue().splitlines()
        self.assertEqual(error.code, 0)
        names = [line.split()[0] for line in lines]
        self.assertTrue({"debugging", "discard"} <= set(names))
        self.assertTrue(all(len(line.split()) > 2 for line in lines))

    def test_help_in_columns(self) -> None:
        """Names stand apart from what is said of them, however long they are."""
        self.assertRaises(SystemExit, self.parse, "--help-filters")
        lines = self.stdout.getvalue().splitlines()
        self.assertEqual([line.split("  ")[0] for line in lines], list(find_filters()))
        self.assertEqual(len({len(line) - len(line.split(maxsplit=1)[1]) for line in lines}), 1)

    def test_help_processor(self) -> None:
        """``--help-processor=NAME`` shows its arguments, or that there are none."""
        self.assertRaises(SystemExit, self.parse, "--help-processor=debugging")
        self.assertIn("format=text", self.stdout.getvalue())
        self.assertRaises(SystemExit, self.parse, "--help-processor=discard")
        self.assertIn("It takes no arguments.", self.stdout.getvalue())

    def test_help_of_a_misspelt_processor(self) -> None:
        """A misspelt one is told the nearest."""
        message = self.failure("--help-processor=discrad")
        self.assertEqual(message, "no processor is called 'discrad'; did you mean discard?")


class ConfigTests(TapTestCase):
    """What the file says."""

    def test_every_option(self) -> None:
        """Every option may be in the file, by the same name."""
        written = {
            "hostname": '"mx.example"',
            "bare-newlines": '"allow"',
            "log-format": '"json"',
            "log": '"/x"',
            **dict.fromkeys(NETWORKS, '"192.0.2.0/24"'),
        }
        written["processor"] = '"discard"'
        lines = "".join(f"{each.name} = {written.get(each.name, 200)}\n" for each in SETTINGS)
        options = self.parse(config=lines)
        for each in SETTINGS:
            self.assertEqual(
                options[each.name], each.read(written.get(each.name, "200").strip('"')), each.name
            )

    def test_command_line_wins(self) -> None:
        """What the command line says wins over the file, and the file over the default."""
        config = 'processor = "discard"\nmax-size = 70000\nlisten = "tcp:2525"\n'
        options = self.parse("--max-size=80000", "--listen=tcp:25", config=config)
        self.assertEqual(
            [options[name] for name in ("processor", "max-size", "listen")], ["discard", 80000, ["tcp:25"]]
        )

    def test_listen(self) -> None:
        """``listen`` is a text or a list of texts."""
        self.assertEqual(self.parse(config='listen = "tcp:25"\n')["listen"], ["tcp:25"])
        self.assertEqual(self.parse(config='listen = ["tcp:25", "tcp:26"]\n')["listen"], ["tcp:25", "tcp:26"])

    def test_listen_of_a_wrong_type(self) -> None:
        """Anything else is refused in a line that names it, and the file."""
        for value in ("25", "true", "2.5", "[25]", "[true]", "{a = 1}", "[]", '["tcp:25", 26]', "1979-05-27"):
            self.assertIn("listen", self.failure(config=f"listen = {value}\n"), value)

    def test_unknown(self) -> None:
        """A name that is no option is refused, and named with the file."""
        message = self.failure(config="max-sise = 1\n")
        self.assertTrue(message.endswith(": unknown option 'max-sise'"), message)
        self.assertIn("unknown option 'smtpserv'", self.failure(config="[smtpserv]\nmax-size = 70000\n"))

    def test_wrong_values(self) -> None:
        """A wrong value is named with the file it is in, and one of the command line without."""
        for value in ('"x"', "true", "[1]", "-1", "1979-05-27", "1.5"):
            message = self.failure(config=f"max-size = {value}\n")
            self.assertRegex(message, r"^\S+: max-size: .* is not ")
        self.assertTrue(
            self.failure("--max-size=x", config="max-size = 70000\n").startswith("--max-size: 'x'")
        )

    def test_unreadable(self) -> None:
        """A file that can't be read ends the start."""
        message = self.failure("--config=/nosuch/x.toml")
        self.assertEqual(message, "--config: cannot read /nosuch/x.toml: No such file or directory")
        self.assertIn("--config: ", self.failure(config="x\n"))
        self.assertEqual(self.failure("--config="), "--config: cannot read '': No such file or directory")


class FailTests(TapTestCase):
    """How a start that can't be ends."""

    def test_one_line(self) -> None:
        """One line on stderr, exit code 1."""
        self.assertEqual(self.failed(self.assertRaises(SystemExit, options.fail, "no")), "no")

    def test_one_line_of_several(self) -> None:
        """What somebody else says in several lines is one line as well, and moves no cursor."""
        line = self.failed(self.assertRaises(SystemExit, options.fail, "one\ntwo\x1b[2J"))
        self.assertTrue(line.isprintable())

    def test_processor(self) -> None:
        """A processor that can't be made is told so by makeService."""
        self.patch_reactor()
        error = self.assertRaises(SystemExit, tap.makeService, self.parse("--processor=debuging"))
        self.assertEqual(self.failed(error), "no processor is called 'debuging'; did you mean debugging?")

    def patch_reactor(self) -> None:
        """The global reactor is one that only remembers, and the system is left alone."""
        names: dict[str, Any] = vars(twisted.internet)
        before = {name: names[name] for name in ("reactor",) if name in names}
        names["reactor"] = Reactor()
        self.patch(tap, "make_room", int)
        self.addCleanup(names.update, before)
        self.addCleanup(names.pop, "reactor")


class ServiceTests(TapTestCase):
    """The service, on a reactor that only remembers."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = Reactor()
        self.addCleanup(gc.unfreeze)

    def make(self, *arguments: str) -> MailService:
        """The service of a command line."""
        return make_service(self.reactor, self.parse("--processor=discard", *arguments))

    def refused(self, *arguments: str) -> str:
        """Why it can't be made."""
        return str(self.assertRaises(StartError, self.make, *arguments))

    def start(self, service: MailService) -> None:
        """As twistd does."""
        service.privilegedStartService()
        service.startService()

    def test_listens(self) -> None:
        """It listens on every endpoint, with one factory."""
        self.start(self.make("--listen=tcp:25", "--listen=unix:/run/smtp.sock"))
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [25])
        self.assertEqual([server[0] for server in self.reactor.unixServers], ["/run/smtp.sock"])
        self.assertIs(self.reactor.tcpServers[0][1], self.reactor.unixServers[0][1])

    def test_loopback_by_default(self) -> None:
        """Where nothing is said it listens on loopback only."""
        self.start(self.make())
        self.assertEqual(self.reactor.tcpServers[0][0::3], (8025, "127.0.0.1"))

    def test_receives(self) -> None:
        """What connects is greeted with the name it was given, and may send mail."""
        self.start(self.make("--hostname=mx.example"))
        client = Client(self.reactor.tcpServers[0][1], Any)  # type: ignore[arg-type]
        self.assertEqual(client.hear(), b"220 mx.example ESMTP smtpserv\r\n")
        self.assertEqual(codes(client.say(PREAMBLE + b".\r\n"))[-1], "250 2.6.0")

    def test_says_what_it_is(self) -> None:
        """The log says with which processor, and where it listens."""
        log = captured_log(self)
        self.start(self.make())
        said = [event for event in log if event.get("log_namespace", "").startswith("smtpserv")]
        self.assertEqual(len(said), 2)
        self.assertIn("discard", str(said[0]))

    def test_stops(self) -> None:
        """Stopping closes the port first, then sees the sessions out, and writes what the log has left."""
        written: list[str] = []
        self.patch(sys, "__stderr__", Written(written))
        service = self.make()
        self.start(service)
        client = Client(self.reactor.tcpServers[0][1], Any)  # type: ignore[arg-type]
        client.say(PREAMBLE)
        client.hear()
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.assertEqual(codes(client.say(b".\r\n")), ["250 2.6.0", "421 4.3.2"])
        self.successResultOf(stopped)
        self.assertIn(" message id=", "".join(written))
        self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.getTime() > 1], [])

    def test_port_taken(self) -> None:
        """A port that is taken ends the start with a line that names it."""
        taken = CannotListenError("127.0.0.1", 8025, OSError(98, "Address already in use"))
        self.patch(TCP4ServerEndpoint, "listen", lambda *_: fail(taken))
        error = self.assertRaises(SystemExit, self.make("--listen=tcp:25").privilegedStartService)
        self.assertIn("--listen=tcp:25: ", self.failed(error))

    def test_wrong_endpoints(self) -> None:
        """An endpoint that Twisted does not understand is named."""
        for description in ("", "25", "tcp", "tcp:x", "tcp:25:colour=red", "nosuch:25", "unix"):
            message = self.refused(f"--listen={description}")
            self.assertTrue(message.startswith(f"--listen={description}: "), message)
            self.assertNotIn("\n", message)

    def test_pages(self) -> None:
        """``--http`` serves the pages of the processor beside its own."""

        @implementer(IMessageProcessor, IPages)
        class WithPages:
            pages: ClassVar = {"inbox": Data(b"mail", "text/html")}

            def process_message(self, message: object) -> None:
                """Take it."""

        self.patch(tap, "make_processor", lambda *_: WithPages())
        self.start(self.make("--http=tcp:8080"))
        site: Any = next(server[1] for server in self.reactor.tcpServers if server[0] == 8080)
        self.addCleanup(site.doStop)
        self.assertEqual(sorted(site.resource.children), [b"healthz", b"inbox", b"metrics"])
        for pages in (None, ["inbox"], {"b\u00fcro": Data(b"mail", "text/html")}, {1: None}):
            WithPages.pages = pages  # type: ignore[assignment]
            refusal = self.refused("--http=tcp:8080")
            self.assertTrue(refusal.startswith("--processor: its pages can't be served: "), refusal)

    def test_options_that_need_others(self) -> None:
        """What would be of no use without another option is refused in a line that names both."""
        for option, other in (
            ("--require-tls", "--tls"),
            ("--require-auth", "--auth"),
            ("--auth=certificate", "--tls-client-ca"),
            ("--tls-client-ca=ca.pem", "--tls"),
        ):
            self.assertEqual(self.refused(option), f"{option.partition('=ca')[0]} needs {other}")

    def test_log_file(self) -> None:
        """The log goes to a file if one is named, added to what is there, in the form that was asked for."""
        path = self.file("before\n")
        self.start(self.make(f"--log={path}", "--log-format=json"))
        Client(self.reactor.tcpServers[0][1], Any).say(PREAMBLE + b".\r\n")  # type: ignore[arg-type]
        self.reactor.advance(GATHER)
        with open(path, encoding="utf-8") as file:
            first, second = file
        self.assertEqual((first, '"event": "message"' in second), ("before\n", True))

    def test_log_file_that_cannot_be(self) -> None:
        """A log that can't be opened is named, with the reason."""
        folder = self.mktemp()
        os.mkdir(folder)
        self.assertEqual(self.refused("--log=/nosuch/log"), "--log=/nosuch/log: No such file or directory")
        self.assertEqual(self.refused(f"--log={folder}"), f"--log={folder}: Is a directory")

    def test_misspelt_processor(self) -> None:
        """A misspelt processor ends the start."""
        self.assertIn("did you mean discard?", self.refused("--processor=discrad"))

    def test_terms_and_limits(self) -> None:
        """Each option reaches the part that keeps it."""
        options = self.parse(
            "--hostname=mx.example",
            "--max-size=70000",
            "--max-recipients=101",
            "--max-errors=2",
            "--max-commands=3",
            "--bare-newlines=normalize",
            "--max-connections=4",
            "--max-connections-per-address=5",
            "--idle-timeout=6",
            "--session-deadline=7",
            "--data-deadline=8",
            "--min-data-rate=9",
            "--processing-deadline=10",
        )
        terms = make_terms(options, RecordingProcessor())
        self.assertEqual((terms.hostname, terms.max_size, terms.max_recipients), ("mx.example", 70000, 101))
        self.assertEqual((terms.max_errors, terms.max_commands), (2, 3))
        self.assertIs(terms.bare_newlines, BareNewlines.NORMALIZE)
        self.assertEqual(make_limits(options), Limits(4, 5, 6.0, 7.0, 8.0, 9, 10.0))

    def test_streaming_as_it_is(self) -> None:
        """A streaming processor is used as it is; one of whole messages gets a sink that collects."""
        streaming = tap.as_streaming(RecordingProcessor(), self.reactor, Limits())
        self.assertIsInstance(streaming, CollectingProcessor)
        self.assertTrue(IStreamingProcessor.providedBy(streaming))
        self.assertIs(tap.as_streaming(streaming, self.reactor, Limits()), streaming)


class Written(io.StringIO):
    """A file that is looked at even when it is closed."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def write(self, text: str) -> int:
        self._lines.append(text)
        return len(text)


class TwistdTests(SynchronousTestCase):
    """What twistd finds."""

    def test_plugin(self) -> None:
        """twistd lists smtpserv, and finds its options and its service in this module."""
        (found,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "smtpserv"]
        self.assertIs(found.options, Options)
        self.assertIs(found.makeService, tap.makeService)
