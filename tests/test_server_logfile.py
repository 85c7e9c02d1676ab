"""Where the mail log goes, and that it comes back when its place was taken away."""

import shutil
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from smtpserv.error import StartError
from smtpserv.server import logfile
from smtpserv.server.logfile import RotatedLog, open_log


class RotatedLogTests(SynchronousTestCase):
    """A file that is moved away, or can't be had for a while."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "mail.log"
        self.patch(logfile, "LOOK", 0.0)

    def test_rotated(self) -> None:
        """What was written before stays with the old file, the rest goes to the new one."""
        log = RotatedLog(str(self.path))
        log.write("one\n")
        self.path.rename(self.folder / "old.log")
        log.write("two\n")
        self.assertEqual((self.folder / "old.log").read_text(), "one\n")
        self.assertEqual(self.path.read_text(), "two\n")

    def test_comes_back(self) -> None:
        """While there is no place for it mail goes on, which is said; then it is written again."""
        log = RotatedLog(str(self.path))
        log.write("one\n")
        shutil.rmtree(self.folder)
        log.write("two\n")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.folder.mkdir()
        log.write("three\n")
        self.assertEqual(self.path.read_text(), "three\n")

    def test_cannot_be_opened(self) -> None:
        """At start it is an error that names the file."""
        error = self.assertRaises(StartError, open_log, "/nowhere/mail.log")
        self.assertEqual(str(error), "--log=/nowhere/mail.log: No such file or directory")
