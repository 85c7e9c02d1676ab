"""An ESMTP extension that somebody else wrote drops in: the package under ``examples/extension``."""

import sys
from configparser import ConfigParser
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.error import StartError
from smtpserv.maker import EXTENSIONS
from smtpserv.plugins import Directory, make_extension
from smtpserv.tap import Options, answers_of, make_terms
from smtpserv.testing import RecordingProcessor, memory_session
from tests.server_tools import CONTENT, HELLO, codes

FOLDER = Path(__file__).parent.parent / "examples" / "extension"


class ExampleTests(SynchronousTestCase):
    """It is found by its entry point, and works."""

    def setUp(self) -> None:
        self.patch(sys, "path", [*sys.path, str(FOLDER)])
        config = ConfigParser()
        config.read(FOLDER / "setup.cfg")
        group = "smtpserv.extensions"
        named = [line.split(" = ") for line in config["options.entry_points"][group].split("\n") if line]
        points = [EntryPoint(name, value, group) for name, value in named]
        self.directory = Directory([], points, EXTENSIONS)
        self.options = Options()
        self.options.parseOptions([])

    def make(self, description: str = "labels:urgent:bulk") -> Any:
        """What ``--extension`` would make."""
        return make_extension(description, Clock(), self.directory)  # type: ignore[arg-type]

    def test_works(self) -> None:
        """Its keyword is announced, its verb answered, its parameter checked and on the envelope."""
        processor, extension = RecordingProcessor(), self.make()
        terms = make_terms(self.options, processor, [extension])
        client = memory_session(processor, terms=terms, foreigners=answers_of([extension]))
        self.assertIn(b"XLABEL urgent bulk\r\n", client.say(HELLO))
        self.assertEqual(client.say(b"xlabels\r\n"), b"250 2.0.0 urgent bulk\r\n")
        self.assertEqual(codes(client.say(b"MAIL FROM:<a@a.example> XLABEL=odd\r\n")), ["501 5.5.4"])
        self.assertEqual(codes(client.say(b"MAIL FROM:<a@a.example> XLABEL\r\n")), ["501 5.5.4"])
        client.say(b"MAIL FROM:<a@a.example> XLABEL=bulk\r\nRCPT TO:<b@b.example>\r\n")
        client.say(b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT)
        self.assertEqual(processor.messages[0].envelope.reverse_path.parameters["XLABEL"], "bulk")
        self.assertEqual(codes(client.say(b"HELO x\r\nXLABELS\r\n")), ["250", "503 5.5.1"])

    def test_bad_arguments(self) -> None:
        """It says what its arguments must be."""
        for description in ("labels", "labels:No"):
            error = self.assertRaises(StartError, self.make, description)
            self.assertIn("labels are words", str(error))

    def test_in_the_way(self) -> None:
        """Words that are another's, or can't be said, end the start."""
        for name, value, fault in (
            ("keyword", "SIZE", "'SIZE' is taken"),
            ("keyword", "x y", "'x y' can't be said"),
            ("argument", "a\r\nb", r"'a\r\nb' can't be said"),
            ("argument", "a" * 500, f"{'a' * 500!r} can't be said"),
            ("verbs", ("LHLO",), "'LHLO' is taken"),
            ("verbs", ("MAIL",), "'MAIL' is taken"),
            ("mail", {"BODY": bool}, "'BODY' is taken"),
        ):
            extension = self.make()
            setattr(extension, name, value)
            error = self.assertRaises(StartError, make_terms, self.options, None, [extension])
            self.assertEqual(str(error), f"--extension: {fault}")
        both = [self.make(), self.make()]
        self.assertRaises(StartError, make_terms, self.options, None, both)
