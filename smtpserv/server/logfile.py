"""Where the mail log goes: a file that may be rotated, stderr, or a daemon's log."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from logging.handlers import WatchedFileHandler
from typing import Final, TextIO

from twisted.logger import Logger

from smtpserv.error import StartError

_log = Logger()

#: Seconds between two looks whether the file is still the one of its name.
LOOK: Final = 1.0


def open_log(path: str) -> Callable[[str], object]:
    """What writes lines to the mail log.

    :param path: a file, or ``-`` for stderr.
    :raises StartError: when it can't be opened.
    """
    if path == "-":
        return StandardLog().write
    try:
        return RotatedLog(path).write
    except OSError as error:
        raise StartError(f"--log={path}: {error.strerror}") from None
    except ValueError as error:
        raise StartError(f"--log={path}: {error}") from None


class RotatedLog:
    """A file to which lines are added; when it was moved away, one of its name is opened anew.

    While there is no place for it mail goes on without its lines, and it is looked for at each :data:`LOOK`.
    """

    def __init__(self, path: str) -> None:
        self._handler = WatchedFileHandler(path, encoding="utf-8")
        self._looked = time.monotonic()

    def write(self, text: str) -> None:
        """Add whole lines."""
        now = time.monotonic()
        try:
            if now - self._looked >= LOOK:
                self._looked = now
                self._reopen()
            if self._handler.stream is not None:
                self._handler.stream.write(text)
                self._handler.stream.flush()
        except OSError:
            _log.failure("The mail log can't be written")

    def _reopen(self) -> None:
        """The handler itself gives up a file that it once could not open."""
        if self._handler.stream is None:
            self._handler = WatchedFileHandler(self._handler.baseFilename, encoding="utf-8")
        else:
            self._handler.reopenIfNeeded()


class StandardLog:
    """Stderr; but a daemon's goes nowhere, and there the mail log is a part of twistd's."""

    @cached_property
    def _stderr(self) -> TextIO | None:
        """Looked at when the first line comes: by then a daemon is one."""
        nowhere = sys.__stderr__ is None or os.path.samestat(os.fstat(2), os.stat(os.devnull))
        return None if nowhere else sys.__stderr__

    def write(self, text: str) -> None:
        """Write whole lines."""
        if self._stderr is not None:
            with suppress(OSError):  # nobody reads it any more
                self._stderr.write(text)
            return
        for line in text.splitlines():
            _log.info("{line}", line=line)
