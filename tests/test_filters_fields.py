"""``add-header`` and ``received``, and the door through which filters enter."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpserv import plugins
from smtpserv.edit import changed
from smtpserv.error import StartError
from smtpserv.filters.fields import AddHeader, Received
from smtpserv.interfaces import IHeaderFilter, IMessageFilterMaker
from smtpserv.maker import FILTERS
from smtpserv.plugins import Directory, FilterMaker, find_filters, make_filter
from smtpserv.testing.memory import RecordingProcessor, make_message
from tests.filter_tools import Filter, RecipientFilter
from tests.server_tools import Reactor

REACTOR = cast(Any, Reactor())


def made(description: str) -> Any:
    """One of the filters that come with the package."""
    return make_filter(description, REACTOR, find_filters(), "mx.example")


class InstalledCase(SynchronousTestCase):
    """Finds what comes with the package alone."""

    def setUp(self) -> None:
        self.patch(plugins, "entry_points", lambda group: ())

    def filtered(self, filter: Any, content: bytes = b"Subject: x\r\n\r\n") -> bytes:
        """The content behind a filter."""
        message = make_message(content)
        return changed(message, filter.filter_message(message)).content.read()


class FieldTests(InstalledCase):
    """A field for every message."""

    def test_add_header(self) -> None:
        """It stands below the others; a colon in the value is escaped as in every description."""
        filter = made("add-header:X-Seen:by mx\\: yes")
        self.assertIsInstance(filter, AddHeader)
        self.assertEqual(self.filtered(filter), b"Subject: x\r\nX-Seen: by mx: yes\r\n\r\n")

    def test_no_header(self) -> None:
        """What is no field ends the start."""
        for description in ("a b:c", "a", "a:b:c", ":b", "a:b\r\nc\\: d", "a:b\nc", "a:\0"):
            error = self.assertRaises(StartError, made, f"add-header:{description}")
            self.assertTrue(str(error).startswith("--filter=add-header: "), error)

    def test_received(self) -> None:
        """It stands above the others, and tells our name and the time."""
        clock = Clock()
        clock.advance(1_000_000_000)
        octets = self.filtered(Received("mx.example", cast(Any, clock)))
        self.assertTrue(
            octets.startswith(b"Received: from client.example ([192.0.2.1]) by mx.example with ESMTP")
        )
        self.assertIn(b" 2001 ", octets)
        self.assertTrue(octets.endswith(b"\r\nSubject: x\r\n\r\n"))
        self.assertIsInstance(made("received"), Received)


class DoorTests(InstalledCase):
    """``--filter=NAME[:ARGS]``."""

    def setUp(self) -> None:
        super().setUp()
        self.module: Any = ModuleType("stranger.filters")
        self.patch(sys, "modules", sys.modules | {"stranger.filters": self.module})

    def test_found(self) -> None:
        """Those that come with the package have a line of help each."""
        directory = find_filters()
        self.assertLessEqual({"add-header", "received"}, set(directory))
        for name in directory:
            maker = directory.maker(name)
            self.assertTrue(verifyObject(IMessageFilterMaker, maker))
            self.assertEqual((maker.name, maker.help.count("\n"), bool(maker.help)), (name, 0, True))

    def test_dotted_path(self) -> None:
        """A class or an instance in any module."""
        self.module.Filter, self.module.one = Filter, Filter()
        self.assertEqual(next(made("stranger.filters:Filter:x")._decisions), "x")
        self.assertIs(made("stranger.filters:one"), self.module.one)

    def test_entry_point(self) -> None:
        """A package names its own in a group."""
        self.module.Filter = Filter
        point = EntryPoint("mine", "stranger.filters:Filter", FILTERS.group)
        directory = Directory([], [point], FILTERS)
        self.assertIsInstance(make_filter("mine", REACTOR, directory, "mx.example"), Filter)

    def test_own_name(self) -> None:
        """A factory that wants them is given the reactor and our name before its arguments."""
        self.module.make = lambda *facts: Filter(*facts)
        maker = FilterMaker("x", "", "", "stranger.filters:make", True, True)
        filter: Any = make_filter("x:1", REACTOR, Directory([maker], [], FILTERS), "mx.example")
        self.assertEqual(list(filter._decisions), [REACTOR, "mx.example", "1"])

    def test_no_filter(self) -> None:
        """What filters nothing is refused, and so is a name that no filter has."""
        self.module.wrong = RecordingProcessor()
        for description, line in (
            (
                "stranger.filters:wrong",
                "--filter=stranger.filters:wrong is no IMessageFilter or IRecipientFilter: ",
            ),
            ("add-heade:x", "no filter is called 'add-heade'; did you mean add-header?"),
            ("received:x", "--filter=received: received: too many positional arguments"),
        ):
            self.assertIn(line, str(self.assertRaises(StartError, made, description)))

    def test_interface(self) -> None:
        """They honour the interface, and let the body go past."""
        for description in ("add-header:a:b", "received"):
            self.assertTrue(verifyObject(IHeaderFilter, made(description)))

    def test_recipients(self) -> None:
        """One of recipients is a filter, too; it is held to its interface."""
        self.module.one, self.module.broken = RecipientFilter(), RecipientFilter()
        self.module.broken.filter_recipient = None
        self.assertIs(made("stranger.filters:one"), self.module.one)
        error = self.assertRaises(StartError, made, "stranger.filters:broken")
        self.assertIn("is no IRecipientFilter: ", str(error))
