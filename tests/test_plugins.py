"""The door through which processors enter: arguments, names, dotted paths, and what is refused there."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import quoteStringArgument
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from smtpserv import interfaces, plugins
from smtpserv.arguments import Arguments, parse_arguments, split_description
from smtpserv.error import StartError
from smtpserv.interfaces import (
    IAuthenticationObserver,
    IEarlyTalkerPolicy,
    IMessageObserver,
    IMessageProcessor,
    IMessageProcessorMaker,
    IPolicyMaker,
    IRecipientPolicy,
    ISenderPolicy,
    IStreamingProcessor,
)
from smtpserv.maker import POLICIES
from smtpserv.plugins import (
    Directory,
    PolicyMaker,
    ProcessorMaker,
    find_policies,
    find_processors,
    make_policy,
    make_processor,
)
from smtpserv.processors.debugging import DebuggingProcessor
from smtpserv.processors.discard import DiscardProcessor
from smtpserv.reply import Reply
from smtpserv.testing import RecordingProcessor
from tests.server_tools import Reactor

#: ``implementer`` as a stranger uses it: nobody checks its types.
stranger: Any = implementer
REACTOR = cast(Any, Reactor())


def parsed(arguments: str) -> Arguments:
    """What is behind a processor's name."""
    return parse_arguments(split_description(arguments))


class ArgumentTests(SynchronousTestCase):
    """``NAME:ARGS`` as in Twisted's endpoint strings."""

    def test_positional_and_named(self) -> None:
        """Positional arguments come first, then named ones."""
        self.assertEqual(parsed("a:b:c=d"), Arguments(("a", "b"), {"c": "d"}))

    def test_empty(self) -> None:
        """Nothing between colons is an empty argument."""
        self.assertEqual(parsed("a::b="), Arguments(("a", ""), {"b": ""}))
        self.assertEqual(parsed(":"), Arguments(("", ""), {}))

    def test_escapes(self) -> None:
        r"""``\:`` is a colon, ``\\`` a backslash, and an escaped equals sign makes no name."""
        self.assertEqual(parsed(r"a\:b:c=d\\e\:"), Arguments(("a:b",), {"c": "d\\e:"}))
        self.assertEqual(parsed(r"user\=x"), Arguments(("user=x",), {}))
        self.assertEqual(parsed("a\\"), Arguments(("a\\",), {}))

    def test_hyphens(self) -> None:
        """A hyphen in a name is the underscore that Python wants; in a value it stays."""
        self.assertEqual(parsed("password-file=/a-b"), Arguments((), {"password_file": "/a-b"}))

    def test_value_with_equals(self) -> None:
        """The first equals sign ends the name."""
        self.assertEqual(parsed("key=a=b"), Arguments((), {"key": "a=b"}))

    def test_twice(self) -> None:
        """A name given twice, in whichever spelling, is refused, and named."""
        for arguments in ("a-b=1:a-b=2", "a_b=1:a-b=2"):
            error = self.assertRaises(StartError, parsed, arguments)
            self.assertEqual(str(error), "argument 'a-b' is given twice")

    def test_positional_behind_named(self) -> None:
        """So is a positional argument behind a named one."""
        error = self.assertRaises(StartError, parsed, "a=1:b")
        self.assertEqual(str(error), "argument 'b' without a name comes behind named ones")

    @given(
        st.lists(st.text("a1:\\-_ \n\u20ac", max_size=8), min_size=1, max_size=4),
        st.dictionaries(
            st.text("az_", min_size=1, max_size=4).map("k".__add__), st.text("a=:\\-_ \n\u20ac", max_size=8)
        ),
    )
    @settings(max_examples=50, deadline=None, database=None)
    def test_round_trip(self, positional: list[str], named: dict[str, str]) -> None:
        """What Twisted quotes for an endpoint string comes out as it went in."""
        quoted = [quoteStringArgument(each) for each in positional]
        quoted += [f"{key}={quoteStringArgument(value)}" for key, value in named.items()]
        self.assertEqual(parsed(":".join(quoted)), Arguments(tuple(positional), named))


def directory(*names: str, points: tuple[EntryPoint, ...] = ()) -> Directory:
    """One of makers that make nothing."""
    return Directory([ProcessorMaker(name, "", "", "nosuch.module:Name") for name in names], points)


class DirectoryTests(SynchronousTestCase):
    """Processors by name."""

    def test_names(self) -> None:
        """They are listed in order, and found."""
        found = directory("proxy", "debugging", "discard")
        self.assertEqual(
            (list(found), "proxy" in found, "x" in found), (["debugging", "discard", "proxy"], True, False)
        )
        self.assertEqual(found.maker("proxy").name, "proxy")

    def test_misspelt(self) -> None:
        """A misspelt name is told the nearest ones."""
        found = directory("proxy", "debugging", "discard", "mailman")
        for name, near in (("debuging", "debugging"), ("Discard", "discard"), ("mailmann", "mailman")):
            error = self.assertRaises(StartError, found.maker, name)
            self.assertEqual(str(error), f"no processor is called {name!r}; did you mean {near}?")

    def test_nothing_near(self) -> None:
        """A name that is like none is told them all."""
        error = self.assertRaises(StartError, directory("b", "a").maker, "xyzzy")
        self.assertEqual(str(error), "no processor is called 'xyzzy'; there are: a, b")

    def test_two_of_a_name(self) -> None:
        """Two of one name, plugins or entry points, are refused: nobody could tell which is meant."""
        point = EntryPoint("one", "package:Name", plugins.GROUP)
        for plugin, points in ((["one", "one"], ()), (["one"], (point,)), ([], (point, point))):
            error = self.assertRaises(StartError, directory, *plugin, points=points)
            self.assertEqual(str(error), "two processors are called 'one'")

    def test_no_name(self) -> None:
        """A plug-in without a name is refused in a line: nobody could ask for it."""

        @stranger(IMessageProcessorMaker)
        class Nameless:
            pass

        error = self.assertRaises(StartError, Directory, [cast(Any, Nameless())], [])
        self.assertRegex(str(error), r"^a plug-in for --processor has no name: <.*Nameless object.*>$")

    def test_missing(self) -> None:
        """One that lacks something else is refused when it is wanted, and told what."""

        @stranger(IMessageProcessorMaker)
        class Helpless:
            name = "helpless"
            arguments = ""

            def make_processor(self, reactor: object, positional: object, named: object) -> None:
                """Make nothing."""

        found = Directory([cast(Any, Helpless())], [])
        self.assertEqual(list(found), ["helpless"])
        message = str(self.assertRaises(StartError, found.maker, "helpless"))
        self.assertTrue(message.startswith("processor 'helpless' is no IMessageProcessorMaker: "), message)
        self.assertIn(".help attribute was not provided", message)


class ModuleTestCase(SynchronousTestCase):
    """Has a module of a stranger, ``stranger.processors``, and one without a dot, ``stranger``."""

    def setUp(self) -> None:
        self.module: Any = ModuleType("stranger.processors")
        modules = {"stranger": ModuleType("stranger"), "stranger.processors": self.module}
        for name, module in modules.items():
            module.__spec__ = cast(Any, object())
            sys.modules[name] = module
            self.addCleanup(sys.modules.pop, name)
        cast(Any, sys.modules["stranger"]).Recorder = RecordingProcessor

    def make(self, description: str) -> Any:
        """The processor of a description, with no plugin but one."""
        found = Directory(
            [ProcessorMaker("discard", "", "", "smtpserv.processors.discard:DiscardProcessor")], []
        )
        return make_processor(description, REACTOR, found)

    def refused(self, description: str) -> str:
        """Why it is refused."""
        message = str(self.assertRaises(StartError, self.make, description))
        self.assertNotIn("\n", message)
        return message


@implementer(IMessageProcessor)
class Configured(RecordingProcessor):
    """A processor with arguments."""

    def __init__(self, host: str, port: str = "25", password_file: str = "") -> None:
        super().__init__()
        self.configuration = (host, port, password_file)


class DottedPathTests(ModuleTestCase):
    """``package.module:Name`` to a class, an instance or a factory."""

    def test_class(self) -> None:
        """A class is made, with the arguments."""
        self.module.Configured = Configured
        made = self.make("stranger.processors:Configured:mx.example:password-file=/x")
        self.assertEqual(made.configuration, ("mx.example", "25", "/x"))

    def test_instance(self) -> None:
        """An instance is taken as it is, and takes no arguments."""
        self.module.instance = RecordingProcessor()
        self.assertIs(self.make("stranger.processors:instance"), self.module.instance)
        self.assertIn("takes no arguments", self.refused("stranger.processors:instance:x"))

    def test_callable_instance(self) -> None:
        """An instance is taken as it is, even when it can be called for a purpose of its own."""

        class Callable(RecordingProcessor):
            def __call__(self) -> object:
                raise AssertionError("nobody should")

        self.module.instance = Callable()
        self.assertIs(self.make("stranger.processors:instance"), self.module.instance)

    def test_factory(self) -> None:
        """A factory is called, with the arguments."""
        self.module.make = lambda host, *, port: Configured(host, port)
        made = self.make(r"stranger.processors:make:2001\:db8\:\:1:port=2525")
        self.assertEqual(made.configuration[:2], ("2001:db8::1", "2525"))

    def test_name_within_a_name(self) -> None:
        """What a module has may have it in turn: a class method that makes it, for one."""

        class Family:
            make = Configured

        self.module.Family = Family
        made = self.make("stranger.processors:Family.make:mx.example")
        self.assertEqual(made.configuration[0], "mx.example")
        absent = "stranger.processors:Family.x"
        self.assertIn(f"cannot load {absent}", self.refused(absent))

    def test_module_without_a_dot(self) -> None:
        """A module need not be in a package."""
        self.assertIsInstance(self.make("stranger:Recorder"), RecordingProcessor)

    def test_wrong_arguments(self) -> None:
        """Arguments that the factory does not take are named, and the processor with them."""
        self.module.Configured = Configured
        cases = {
            "": "'host'",
            ":a:b:c:d": "too many positional",
            ":a:colour=red": "'colour'",
            ":a:host=b": "'host'",
        }
        for arguments, named in cases.items():
            message = self.refused(f"stranger.processors:Configured{arguments}")
            self.assertTrue(message.startswith("--processor=stranger.processors:Configured: "), message)
            self.assertIn(named, message)

    def test_factory_refuses(self) -> None:
        """What a factory has against its arguments is told."""

        def make(port: str) -> object:
            raise StartError("port is no number")

        self.module.make = make
        self.assertEqual(
            self.refused("stranger.processors:make:x"),
            "--processor=stranger.processors:make: port is no number",
        )

    def test_not_there(self) -> None:
        """A module or name that is not there is named."""
        for path in (
            "nosuch.module:Name",
            "stranger.processors:Nosuch",
            "stranger.nosuch:Name",
            "stranger.processors:",
        ):
            self.assertIn(f"cannot load {path}", self.refused(path))

    def test_no_name(self) -> None:
        """A path without a name is told what there is, as any other name."""
        self.assertIn("'stranger.processors'", self.refused("stranger.processors"))

    def test_relative(self) -> None:
        """A path that begins with a dot leads nowhere, and is refused in a line."""
        for path in (".processors:Name", "..x:Name"):
            self.assertIn(path, self.refused(path))

    def test_module_that_breaks(self) -> None:
        """A module that can't be imported, for whatever reason, is named in a line."""

        class Breaks:
            def find_spec(self, name: str, *_: object) -> Any:
                if name == "stranger.broken":
                    raise SyntaxError("invalid syntax")
                if name == "stranger.script":
                    sys.exit(0)

        finder = Breaks()
        sys.meta_path.insert(0, cast(Any, finder))
        self.addCleanup(sys.meta_path.remove, cast(Any, finder))
        sys.modules["stranger"].__path__ = []
        self.assertIn("cannot load stranger.broken:Name", self.refused("stranger.broken:Name"))
        message = self.refused("stranger.script:Name")
        self.assertIn("cannot load stranger.script:Name: it ends the program", message)


class InterfaceTests(ModuleTestCase):
    """What does not honour the interface is refused at the start, and told what is missing."""

    def check(self, made: object, *words: str) -> None:
        """It is refused, with these words."""
        self.module.made = made
        message = self.refused("stranger.processors:made")
        self.assertTrue(message.startswith("--processor=stranger.processors:made "), message)
        for word in words:
            self.assertIn(word, message)

    def test_not_declared(self) -> None:
        """An object that does not say it is one."""

        class Undeclared:
            def process_message(self, message: object) -> None:
                """Take it."""

        self.check(Undeclared, "IMessageProcessor", "Does not declaratively implement")

    def test_missing_method(self) -> None:
        """One without its method."""

        @stranger(IMessageProcessor)
        class Missing:
            pass

        self.check(Missing, "IMessageProcessor", "process_message(message) attribute was not provided")

    def test_wrong_signature(self) -> None:
        """One whose method takes something else."""

        @stranger(IMessageProcessor)
        class Wrong:
            def process_message(self) -> None:
                """Take nothing."""

        self.check(Wrong, "process_message", "doesn't allow enough arguments")

    def test_too_many_arguments(self) -> None:
        """One whose method wants more."""

        @stranger(IMessageProcessor)
        class Wrong:
            def process_message(self, peer: str, sender: str, message: object) -> None:
                """As smtpd had it."""

        self.check(Wrong, "process_message", "requires too many arguments")

    def test_streaming(self) -> None:
        """A streaming one is held to its own interface."""

        @stranger(IStreamingProcessor)
        class Missing:
            pass

        self.check(Missing, "IStreamingProcessor", "begin(session, envelope) attribute was not provided")

    def test_policy(self) -> None:
        """A processor that says it is a policy, and is not, is refused as well."""

        @stranger(IMessageProcessor, ISenderPolicy)
        class NoPolicy(RecordingProcessor):
            pass

        self.check(NoPolicy, "check_sender")

    def test_nothing(self) -> None:
        """A factory that makes nothing."""
        self.check(lambda: None, "IMessageProcessor")

    def test_class_instead_of_an_instance(self) -> None:
        """A factory that gives a class where an object is wanted."""
        self.check(lambda: RecordingProcessor, "IMessageProcessor")


class FakePoint(EntryPoint):
    """An entry point whose object is at hand."""

    def load(self) -> Any:
        found = LOADED[self.value]
        if isinstance(found, Exception):
            raise found
        return found


LOADED: dict[str, Any] = {}


class EntryPointTests(ModuleTestCase):
    """Packages that name their processors by entry points."""

    def point(self, found: object) -> Directory:
        """A directory with an entry point to something."""
        LOADED["stranger.processors:found"] = self.module.found = found
        self.addCleanup(LOADED.clear)
        return Directory([], [FakePoint("stranger", "stranger.processors:found", plugins.GROUP)])

    def test_maker(self) -> None:
        """An entry point may name a maker."""
        maker = ProcessorMaker("stranger", "a stranger", "", "stranger:Recorder")
        self.assertIs(self.point(maker).maker("stranger"), maker)

    def test_class(self) -> None:
        """It may name a processor's class; the class's docstring is the help."""
        found = self.point(Configured)
        maker = found.maker("stranger")
        self.assertEqual(maker.help, "A processor with arguments.")
        self.assertEqual(maker.arguments, "host=\nport=   [25]\npassword-file=")
        made = make_processor("stranger:mx.example", REACTOR, found)
        self.assertEqual(cast(Configured, made).configuration[0], "mx.example")

    def test_instance(self) -> None:
        """It may name a processor itself, which takes no arguments."""
        found = self.point(RecordingProcessor())
        self.assertEqual(found.maker("stranger").arguments, "")
        self.assertIs(make_processor("stranger", REACTOR, found), self.module.found)

    def test_any_number(self) -> None:
        """Of a factory that takes any number of arguments, that is told."""
        maker = self.point(lambda *hosts, **more: None).maker("stranger")
        self.assertEqual(maker.arguments, "hosts ...\nmore=...")
        self.assertEqual(self.point(int).maker("stranger").arguments, "")

    def test_extras(self) -> None:
        """What it needs besides, in brackets, is no part of the path."""
        self.point(Configured)
        point = FakePoint("stranger", "stranger.processors:found [more]", plugins.GROUP)
        LOADED[point.value] = Configured
        made = make_processor("stranger:mx.example", REACTOR, Directory([], [point]))
        self.assertEqual(cast(Configured, made).configuration[0], "mx.example")

    def test_broken(self) -> None:
        """A broken one is an error only when it is wanted, whatever broke it, and is named."""
        for broken in (
            ImportError("no module named x"),
            SyntaxError("invalid syntax"),
            ZeroDivisionError("oops"),
        ):
            found = self.point(broken)
            self.assertEqual(list(found), ["stranger"])
            message = str(self.assertRaises(StartError, found.maker, "stranger"))
            self.assertIn("cannot load processor 'stranger' (stranger.processors:found)", message)

    def test_not_loaded_before(self) -> None:
        """Looking through the names loads nothing."""
        found = self.point(AssertionError("nobody wants it"))
        self.assertTrue("stranger" in found and list(found))


@implementer(IRecipientPolicy)
class Nobody:
    """Refuses a recipient."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def check_recipient(self, session: object, reverse_path: object, forward_path: object) -> Reply | None:
        """Refuse them all."""
        return Reply(550, self.name)


class PolicyTests(ModuleTestCase):
    """Policies enter by the same door, with names of their own."""

    def policy(self, description: str, *points: EntryPoint) -> Any:
        """The policy of a description."""
        return make_policy(description, REACTOR, Directory([], points, POLICIES))

    def refused(self, description: str) -> str:
        """Why it is refused."""
        return str(self.assertRaises(StartError, self.policy, description))

    def test_dotted_path(self) -> None:
        """A class, an instance or a factory, with its arguments."""
        self.module.Nobody, self.module.nobody = Nobody, Nobody()
        self.assertEqual(self.policy("stranger.processors:Nobody:name=x").name, "x")
        self.assertIs(self.policy("stranger.processors:nobody"), self.module.nobody)
        self.assertIn(
            "--policy=stranger.processors:Nobody: ", self.refused("stranger.processors:Nobody:colour=red")
        )

    def test_entry_point(self) -> None:
        """A package names its policies in a group of their own, by a maker or by what is made."""
        for found in (Nobody, PolicyMaker("x", "", "", "stranger.processors:found")):
            self.module.found = Nobody
            LOADED["stranger.processors:found"] = found
            self.addCleanup(LOADED.clear)
            point = FakePoint("nobody", "stranger.processors:found", POLICIES.group)
            self.assertEqual(self.policy("nobody:x", point).name, "x")

    def test_no_policy(self) -> None:
        """What provides no interface of a policy is refused, and told which there are."""

        @stranger(IMessageObserver)
        class OnlyWatches:
            def message_ended(self, session: object, envelope: object, size: int, answer: object) -> None:
                """Watch."""

        for made in (RecordingProcessor, object, lambda: None, lambda: Nobody, OnlyWatches):
            self.module.made = made
            message = self.refused("stranger.processors:made")
            self.assertTrue(message.startswith("--policy=stranger.processors:made is no ISessionPolicy or "))
            self.assertIn("IRecipientPolicy", message)

    def test_missing_method(self) -> None:
        """Each interface it says it provides it is held to, the observers' too."""

        for interface, missing in (
            (IMessageObserver, "message_ended"),
            (IAuthenticationObserver, "authentication_failed"),
            (ISenderPolicy, "check_sender"),
            (IEarlyTalkerPolicy, "spoke_early"),
        ):

            @stranger(interface)
            class Half(Nobody):
                pass

            self.module.Half = Half
            message = self.refused("stranger.processors:Half")
            self.assertIn(f"is no {interface.__name__}: ", message)
            self.assertIn(missing, message)

    def test_misspelt(self) -> None:
        """A name that no policy has is told the nearest ones, and processors are none."""
        found = Directory([PolicyMaker("rates", "", "", "x:y")], [], POLICIES)
        error = self.assertRaises(StartError, make_policy, "rate", REACTOR, found)
        self.assertEqual(str(error), "no policy is called 'rate'; did you mean rates?")
        point = EntryPoint("rates", "x:y", POLICIES.group)
        error = self.assertRaises(StartError, Directory, [found.maker("rates")], [point], POLICIES)
        self.assertEqual(str(error), "two policies are called 'rates'")

    def test_installed(self) -> None:
        """The policies that come with the package are found, with a line of help each."""
        self.patch(plugins, "entry_points", lambda group: ())
        directory = find_policies()
        for name in BUILT_IN:
            maker = directory.maker(name)
            self.assertTrue(verifyObject(IPolicyMaker, maker))
            self.assertEqual((maker.name, maker.help.count("\n"), bool(maker.help)), (name, 0, True))
        self.assertFalse(set(directory) & set(find_processors()))

    def test_installed_are_made(self) -> None:
        """They are made, and are the policies they say they are."""
        self.patch(plugins, "entry_points", lambda group: ())
        for description in BUILT_IN.values():
            self.assertIsNotNone(make_policy(description, cast(Any, Reactor()), find_policies()))
        error = self.assertRaises(StartError, make_policy, "rates:messages=1/m", REACTOR, find_policies())
        self.assertIn("--policy=rates: messages: '1/m' is not a rate", str(error))


#: The policies that come with the package.
BUILT_IN = {
    "rates": "rates:messages=100/h",
    "dnsbl": "dnsbl:zone=bl.example",
    "rdns": "rdns",
    "greeting": "greeting:2",
}


class InstalledTests(SynchronousTestCase):
    """The processors that come with the package enter by the same door."""

    def setUp(self) -> None:
        self.patch(plugins, "entry_points", lambda group: ())
        self.directory = find_processors()

    def test_found(self) -> None:
        """They are found, with a line of help each, and are what the interface says."""
        self.assertTrue({"debugging", "discard"} <= set(self.directory))
        for name in ("debugging", "discard"):
            maker = self.directory.maker(name)
            self.assertTrue(verifyObject(IMessageProcessorMaker, maker))
            self.assertEqual((maker.name, maker.help.count("\n"), bool(maker.help)), (name, 0, True))

    def test_made(self) -> None:
        """They are made."""
        for name, kind in (("debugging", DebuggingProcessor), ("discard", DiscardProcessor)):
            self.assertIsInstance(make_processor(name, REACTOR, self.directory), kind)

    def test_argument(self) -> None:
        """Their arguments are read, and wrong ones are named."""
        for format in ("text", "json"):
            make_processor(f"debugging:format={format}", REACTOR, self.directory)
        for description, named in (
            ("debugging:format=xml", "xml"),
            ("discard:x", "discard"),
            ("debugging:colour=1", "colour"),
        ):
            error = self.assertRaises(StartError, make_processor, description, REACTOR, self.directory)
            self.assertIn(named, str(error))

    def test_interfaces_have_docstrings(self) -> None:
        """Each method of each public interface says what it promises."""
        for name, interface in vars(interfaces).items():
            if name.startswith("I") and hasattr(interface, "namesAndDescriptions") and name != "Interface":
                for method, description in interface.namesAndDescriptions():
                    self.assertTrue(description.getDoc(), f"{name}.{method}")
