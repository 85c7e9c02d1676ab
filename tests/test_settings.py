"""Options: how each is read, from the command line, from the file, and when nothing was said."""

import os
import socket
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from smtpserv import settings
from smtpserv.dialogue.terms import BareNewlines
from smtpserv.domain import Domains
from smtpserv.error import StartError
from smtpserv.network import Networks
from smtpserv.settings import SETTINGS, read_config

BY_NAME = {each.name: each for each in SETTINGS}

#: For each option: what may be written, and what it is then.
GOOD: dict[str, list[tuple[object, Any]]] = {
    "processor": [("debugging", "debugging"), ("a.b:C:x=1", "a.b:C:x=1")],
    "hostname": [("mx.example", "mx.example"), ("[192.0.2.1]", "[192.0.2.1]"), ("[IPv6:::1]", "[IPv6:::1]")],
    "max-size": [("70000", 70000), (70000, 70000)],
    "max-recipients": [("100", 100), (999999, 999999)],
    "max-connections": [("1", 1), (5, 5)],
    "max-connections-per-address": [("", None), ("1", 1), (5, 5)],
    "max-auth-failures": [("", None), ("1", 1), (5, 5)],
    "relay-from": [
        ("", Networks()),
        ("127.0.0.0/8,::1", Networks((IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")))),
        ("unix", Networks(unix=True)),
    ],
    "relay-to": [("", Domains()), ("A.example, b.example", Domains(frozenset({"a.example", "b.example"})))],
    "tls": [("", ""), ("/etc/mail.pem", "/etc/mail.pem")],
    "tls-client-ca": [("", ""), ("/etc/ca.pem", "/etc/ca.pem")],
    "trust-proxy": [("", Networks()), ("::1", Networks((IPv6Network("::1/128"),)))],
    "trust-xclient": [("", Networks()), ("::1", Networks((IPv6Network("::1/128"),)))],
    "max-errors": [("0", 0), (5, 5)],
    "max-commands": [("1", 1)],
    "idle-timeout": [("0.5", 0.5), (300, 300.0), (1.5, 1.5), ("1e3", 1000.0)],
    "session-deadline": [("3600", 3600.0)],
    "data-deadline": [("1800", 1800.0)],
    "min-data-rate": [("0", 0), (500, 500)],
    "processing-deadline": [("300", 300.0)],
    "bare-newlines": [(each.value, each) for each in BareNewlines],
    "http": [("", ""), ("tcp:8080", "tcp:8080")],
    "log": [("-", "-"), ("/var/log/mail.log", "/var/log/mail.log")],
    "log-format": [("text", "text"), ("json", "json")],
}

NO_NUMBER: list[object] = [
    "",
    "x",
    "-1",
    "1.5",
    "1 ",
    " 1",
    "+1",
    "1_000",
    "0x10",
    "\N{ARABIC-INDIC DIGIT ONE}",
    1.5,
    -1,
]
NO_TIME: list[object] = ["", "x", "0", "-1", "nan", "inf", "1e9", 0, -0.5]

#: For each option: what may not.
BAD: dict[str, list[object]] = {
    "hostname": [
        "-mx",
        "a b",
        "mx..",
        "[192.0.2]",
        "[IPv6:x]",
        "\N{LATIN SMALL LETTER U WITH DIAERESIS}.example",
        "a" * 300,
    ],
    "max-size": [*NO_NUMBER, "0"],
    "max-recipients": [*NO_NUMBER, "99", "1000000"],
    "max-connections": [*NO_NUMBER, 0],
    "max-connections-per-address": [*NO_NUMBER[1:], 0],
    "max-auth-failures": [*NO_NUMBER[1:], 0],
    "relay-from": ["x", "192.0.2.1/24", "0.0.0.0/0", "::/0", "*"],
    "relay-to": ["*", "a..b", "[192.0.2.1]"],
    "max-errors": NO_NUMBER,
    "max-commands": [*NO_NUMBER, 0],
    "idle-timeout": NO_TIME,
    "session-deadline": NO_TIME,
    "data-deadline": NO_TIME,
    "min-data-rate": NO_NUMBER,
    "processing-deadline": NO_TIME,
    "bare-newlines": ["", "Refuse", "yes"],
    "log-format": ["", "xml", "JSON"],
}


class SettingTests(SynchronousTestCase):
    """One value each."""

    def test_table_is_whole(self) -> None:
        """Each option is in the tables of this test."""
        self.assertEqual(set(GOOD), set(BY_NAME))

    def test_good(self) -> None:
        """What may be written is read, from text or from TOML's own types."""
        for name, cases in GOOD.items():
            for written, value in cases:
                read = BY_NAME[name].value(written, "--")
                self.assertEqual((read, type(read)), (value, type(value)), (name, written))

    def test_bad(self) -> None:
        """What may not is refused in a line that names the option and what was written."""
        for name, cases in BAD.items():
            for written in cases:
                error = self.assertRaises(StartError, BY_NAME[name].value, written, "--")
                self.assertTrue(str(error).startswith(f"--{name}: {str(written)!r} is not "), str(error))
                self.assertNotIn("\n", str(error))

    def test_wrong_types(self) -> None:
        """True, lists and tables of a TOML file are no value of any option."""
        for each in SETTINGS:
            for written in (True, False, [], ["x"], {}, {"a": 1}, None):
                error = self.assertRaises(StartError, each.value, written, "x.toml: ")
                self.assertTrue(str(error).startswith(f"x.toml: {each.name}: "))

    def test_messages_say_what_is_wanted(self) -> None:
        """A refusal says what would do."""
        cases = {
            "max-recipients": "a whole number from 100 to 999999",
            "max-errors": "a whole number from 0",
            "idle-timeout": "a number of seconds over 0",
            "log-format": "text or json",
            "bare-newlines": "refuse or normalize or allow",
            "hostname": "a domain name or address literal",
        }
        for name, wanted in cases.items():
            error = self.assertRaises(StartError, BY_NAME[name].value, "-", "--")
            self.assertEqual(str(error), f"--{name}: '-' is not {wanted}")

    def test_defaults_are_good(self) -> None:
        """Each default is something that may be written, and the contract's."""
        read = {each.name: each.value(each.default, "") for each in SETTINGS}
        expected = {
            "processor": "debugging",
            "max-size": 33554432,
            "max-recipients": 1000,
            "idle-timeout": 300.0,
        }
        self.assertEqual({name: read[name] for name in expected}, expected)

    def test_enormous_number(self) -> None:
        """A number of thousands of digits is refused in words about numbers."""
        error = self.assertRaises(StartError, BY_NAME["max-size"].value, "9" * 5000, "--")
        self.assertIn("a whole number from", str(error))


class HostnameTests(SynchronousTestCase):
    """The name in the greeting, when nothing was said."""

    def test_machines_own(self) -> None:
        """It is the machine's own; where that is no name that may be said, localhost."""
        cases = {
            "mx1": "mx1",
            "mx1.example": "mx1.example",
            "not a name": "localhost",
            "": "localhost",
            "m\xfc": "localhost",
        }
        for machine, expected in cases.items():
            self.patch(socket, "gethostname", lambda machine=machine: machine)
            self.assertEqual(settings.hostname(""), expected)


class ConfigTests(SynchronousTestCase):
    """The file."""

    def write(self, text: str | bytes) -> str:
        """A file of this text."""
        path: str = self.mktemp()
        with open(path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        return path

    def test_read(self) -> None:
        """TOML is read, with comments and types."""
        path = self.write(
            '# mine\nprocessor = "discard"\nmax-size = 70_000\nlisten = ["tcp:25", "tcp:587"]\n'
        )
        self.assertEqual(
            read_config(path), {"processor": "discard", "max-size": 70000, "listen": ["tcp:25", "tcp:587"]}
        )

    def test_unreadable(self) -> None:
        """A file that is not there, a folder, and one that may not be read are named, with the reason."""
        self.assertEqual(
            str(self.assertRaises(StartError, read_config, "/nosuch/x.toml")),
            "--config: cannot read /nosuch/x.toml: No such file or directory",
        )
        folder = self.mktemp()
        os.mkdir(folder)
        self.assertIn(
            f"--config: cannot read {folder}: ", str(self.assertRaises(StartError, read_config, folder))
        )

    def test_not_toml(self) -> None:
        """What is not TOML is named in one line, with the place."""
        for text in ("processor = \n", "a = 1\na = 2\n", "[x\n", b"a = '\xff'\n", b"\0"):
            path = self.write(text)
            message = str(self.assertRaises(StartError, read_config, path))
            self.assertTrue(message.startswith(f"--config: {path}: "), message)
            self.assertNotIn("\n", message)
