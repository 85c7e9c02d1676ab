"""Keeps mail in Maildirs: two processors for smtpserv, as somebody else would write them.

``maildir`` enters by an entry point (setup.cfg), ``mailboxes`` by a Twisted plugin (twisted/plugins/).
"""

import itertools
import os
import socket
import time
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from smtpserv.error import Reject, StartError
from smtpserv.interfaces import IMessageProcessor, IRecipientPolicy
from smtpserv.message import ForwardPath, Message, ReversePath, Session
from smtpserv.plugins import ProcessorMaker

_deliveries = itertools.count()


class Maildir:
    """A folder with a file for each message (https://cr.yp.to/proto/maildir.html).

    A message is in one of two states. In ``tmp``: nobody was told that we have it, and a crash leaves there
    what may be deleted, since its client sends it again. In ``new``: whole and on disk, and ours.

    :param path: made if it is not there; its parent must be.
    :raises StartError: when it can't be made.
    """

    def __init__(self, path: Path) -> None:
        self._tmp: Final = path / "tmp"
        self._new: Final = path / "new"
        try:
            for folder in (path, self._tmp, self._new, path / "cur"):
                folder.mkdir(mode=0o700, exist_ok=True)
            _sync(path)
            _sync(path.parent)
        except OSError as error:
            raise StartError(f"{error.filename}: {error.strerror}") from None

    def deliver(self, message: Message) -> None:
        """Return when the message would survive a power cut. Blocks."""
        name = _unique_name()
        draft = self._tmp / name
        try:
            with open(draft, "xb", opener=partial(os.open, mode=0o600)) as file:
                file.write(trace_fields(message).encode("utf-8"))
                file.writelines(message.content.chunks())
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self._new / name)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync(self._new)


def trace_fields(message: Message) -> str:
    """What is put in front of a message at final delivery (RFC 5321 section 4.4)."""
    session = message.session
    return (
        f"Return-Path: {message.envelope.reverse_path}\r\n"
        f"Received: from {session.hello_name} ([{session.peer.host}])\r\n"
        f"\tby {socket.gethostname()} with {session.protocol} id {message.id};\r\n"
        f"\t{formatdate(localtime=True)}\r\n"
    )


def _unique_name() -> str:
    """A name that no other delivery has: none of it comes from the client."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{seconds}.M{nanoseconds // 1000}P{os.getpid()}Q{next(_deliveries)}.{socket.gethostname()}"


def _sync(folder: Path) -> None:
    """See that the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@implementer(IMessageProcessor)
class MaildirProcessor:
    """Stores each message in one Maildir, whoever it is for.

    :param folder: the Maildir.
    """

    def __init__(self, folder: str) -> None:
        self._maildir: Final = Maildir(Path(folder).absolute())

    def process_message(self, message: Message) -> "Deferred[None]":
        """Accepted when it is stored. A disk that fails raises: 4yz, and the client keeps the message."""
        return deferToThread(self._maildir.deliver, message)


@implementer(IMessageProcessor, IRecipientPolicy)
class MailboxesProcessor:
    """Stores each message in the Maildirs of its recipients: the part before the at-sign names the folder.

    :param folder: holds a folder for each user, looked for once, at start.
    """

    def __init__(self, folder: str) -> None:
        try:
            users = [path for path in Path(folder).absolute().iterdir() if path.is_dir()]
        except OSError as error:
            raise StartError(f"{folder}: {error.strerror}") from None
        self._maildirs: Final = {path.name.lower(): Maildir(path) for path in users}

    def check_recipient(self, session: Session, reverse_path: ReversePath, forward_path: ForwardPath) -> None:
        """Only those who have a mailbox. It is looked up, so that no address ever becomes a path."""
        if _user(forward_path) not in self._maildirs:
            raise Reject("No such mailbox here", 550, "5.1.1")

    def process_message(self, message: Message) -> "Deferred[None]":
        """Accepted when it is stored for all; if one fails, the client sends it to all again."""
        return deferToThread(self._deliver, message)

    def _deliver(self, message: Message) -> None:
        for user in {_user(path) for path in message.envelope.forward_paths}:
            self._maildirs[user].deliver(message)


def _user(path: ForwardPath) -> str:
    return path.local_part.lower()


maildir = ProcessorMaker(
    name="maildir",
    help="stores each message in a Maildir",
    arguments="FOLDER   the Maildir; made if it is not there",
    factory="smtpserv_maildir:MaildirProcessor",
)
