"""What the two processors promise, without a server: ``python -m twisted.trial test_maildir``."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from smtpserv.error import StartError
from smtpserv.testing import MessageProcessorContract, make_message, memory_session
from smtpserv_maildir import MailboxesProcessor, Maildir, MaildirProcessor, trace_fields

HELLO = b"EHLO client.example\r\nMAIL FROM:<a@a.example>\r\n"


class MaildirContract(MessageProcessorContract, TestCase):
    """The ``maildir`` processor stands what every processor must."""

    def make_processor(self) -> MaildirProcessor:
        """In a new folder."""
        return MaildirProcessor(self.mktemp())


class MaildirTests(SynchronousTestCase):
    """What becomes of a message in a Maildir."""

    def setUp(self) -> None:
        """Make one."""
        self.path = Path(self.mktemp()).absolute()
        self.maildir = Maildir(self.path)

    def test_keeps_every_octet(self) -> None:
        """Behind the trace fields stands what was sent, octet for octet, readable by its owner alone."""
        message = make_message(b"Subject: caf\xc3\xa9\r\n\r\n.\r\n\xff\0")
        self.maildir.deliver(message)
        (file,) = (self.path / "new").iterdir()
        sent = message.content.read()
        self.assertEqual(file.read_bytes()[-len(sent) :], sent)
        self.assertTrue(
            file.read_bytes().startswith(b"Return-Path: <a@a.example>\r\nReceived: from client.example")
        )
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)

    def test_trace_fields_are_a_header(self) -> None:
        """Each line begins a field or goes on with one, and ends in CRLF."""
        *lines, last = trace_fields(make_message(reverse_path="")).split("\r\n")
        self.assertEqual((lines[0], last), ("Return-Path: <>", ""))
        self.assertEqual([line[:1] for line in lines[2:]], ["\t", "\t"])

    def test_names_do_not_collide(self) -> None:
        """The same message may come many times in the same moment."""
        for _ in range(50):
            self.maildir.deliver(make_message())
        self.assertEqual(len(list((self.path / "new").iterdir())), 50)

    def test_leaves_nothing_of_a_failure(self) -> None:
        """When the disk fails, the error is told, and nothing half-written stays."""
        self.patch(os, "fsync", _no_space)
        self.assertRaises(OSError, self.maildir.deliver, make_message())
        self.assertEqual([list((self.path / each).iterdir()) for each in ("tmp", "new")], [[], []])

    def test_says_why_it_cannot_be_made(self) -> None:
        """A folder that can't be made ends the start with a line that names it."""
        path = self.path / "missing" / "maildir"
        error = self.assertRaises(StartError, Maildir, path)
        self.assertEqual(str(error), f"{path}: No such file or directory")


def _no_space(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class MailboxesTests(TestCase):
    """The ``mailboxes`` processor: a Maildir for each user."""

    def setUp(self) -> None:
        """Make two users."""
        self.folder = Path(self.mktemp()).absolute()
        for user in ("Alice", "bob"):
            (self.folder / user).mkdir(parents=True)
        self.processor = MailboxesProcessor(str(self.folder))

    def replies(self, *recipients: bytes) -> list[bytes]:
        """What RCPT is answered with, for each recipient."""
        session = memory_session(self.processor)
        session.say(HELLO)
        return [session.say(b"RCPT TO:<%s>\r\n" % each) for each in recipients]

    def test_knows_its_users(self) -> None:
        """Users are accepted, in capitals or not; anyone else is refused before the message is sent."""
        known, also, stranger = self.replies(b"alice@a.example", b"BOB@a.example", b"carol@a.example")
        self.assertEqual([known[:3], also[:3]], [b"250", b"250"])
        self.assertEqual(stranger, b"550 5.1.1 No such mailbox here\r\n")

    def test_an_address_is_no_path(self) -> None:
        """An address never leads out of the folder."""
        replies = self.replies(
            *(b'"%s"@a.example' % name for name in (b"", b".", b"..", b"../Alice", b"/etc"))
        )
        self.assertEqual({reply[:3] for reply in replies}, {b"550"})

    def test_stores_once_for_each_user(self) -> "Deferred[Any]":
        """A user who is named twice gets the message once."""
        message = make_message(forward_paths=["alice@a.example", "bob@a.example", "Alice@a.example"])

        def check(_: None) -> None:
            stored = [len(list((self.folder / user / "new").iterdir())) for user in ("Alice", "bob")]
            self.assertEqual(stored, [1, 1])

        return self.processor.process_message(message).addCallback(check)

    def test_says_that_its_folder_is_missing(self) -> None:
        """A folder that is not there ends the start with a line that names it."""
        error = self.assertRaises(StartError, MailboxesProcessor, "/nowhere/at/all")
        self.assertEqual(str(error), "/nowhere/at/all: No such file or directory")
