"""What Mailman 3 is told; tests.integration.test_mailman gives it to a real one."""

from configparser import ConfigParser
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from smtpserv.error import StartError
from smtpserv.mailman.configuration import MailmanOptions, command, mailman_config


def settings(options: MailmanOptions) -> dict[str, str]:
    """The settings that the text has, which are all in one section."""
    parser = ConfigParser()
    parser.read_string(mailman_config(options))
    assert parser.sections() == ["mta"]
    return dict(parser["mta"])


class ConfigurationTests(SynchronousTestCase):
    """``smtpserv mailman-config``."""

    def test_asked(self) -> None:
        """Where smtpserv asks, Mailman writes nothing for a mail server."""
        options = MailmanOptions("192.0.2.1", 24, "mx.example.org", 25)
        self.assertEqual(
            settings(options),
            {
                "incoming": "mailman.mta.null.NullMTA",
                "configuration": "python:mailman.config.exim4",
                "lmtp_host": "192.0.2.1",
                "lmtp_port": "24",
                "outgoing": "mailman.mta.deliver.deliver",
                "smtp_host": "mx.example.org",
                "smtp_port": "25",
            },
        )
        self.assertIn("--processor=mailman:UPSTREAM:lmtp=192.0.2.1,24\n", mailman_config(options))

    def test_map(self) -> None:
        """Where it reads the map, Mailman writes one, of regular expressions."""
        options = MailmanOptions(lmtp_host="::1", map_config="/etc/mailman3/{x}.cfg")
        found = settings(options)
        self.assertEqual(found["incoming"], "mailman.mta.postfix.LMTP")
        self.assertEqual(found["configuration"], "/etc/mailman3/{x}.cfg")
        text = mailman_config(options)
        self.assertIn("transport_file_type: regex", text)
        self.assertIn("mailman:UPSTREAM:lmtp=\\:\\:1,8024:map=VAR_DIR/data/postfix_lmtp\n", text)

    def test_other_servers(self) -> None:
        """Who comes from another mail server reads what to take out there."""
        text = mailman_config(MailmanOptions())
        for server in ("Postfix", "Exim", "OpenSMTPD"):
            self.assertIn(server, text)
        self.assertLess(max(map(len, text.splitlines())), 112)

    def test_wrong(self) -> None:
        """What would be more than a value in mailman.cfg, or is no port, ends it."""
        wrong: list[dict[str, Any]] = [
            {"lmtp_host": "a\nincoming: x"},
            {"smtp_host": " a"},
            {"map_config": "/x\r"},
            {"map_config": "x.cfg"},
            {"lmtp_port": 0},
            {"smtp_port": 65536},
        ]
        for each in wrong:
            self.assertRaises(StartError, lambda each=each: MailmanOptions(**each))

    def test_command(self) -> None:
        """A place that is none is named with its option."""
        self.assertIn("lmtp_host: ::1\nlmtp_port: 24\n", command(["--lmtp=::1,24"]))
        for option in ("--lmtp", "--smtp"):
            for written in ("a", "a,", ",24", "a,b", "a,0", "a,65536", "a,0000065536", "a,²"):
                error = self.assertRaises(StartError, command, [f"{option}={written}"])
                self.assertEqual(str(error), f"{option}: {written!r} is not HOST,PORT")
