"""A file of ``user:secret`` lines, read again when it changes."""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from smtpserv.dialogue.saslprep import saslprep
from smtpserv.error import StartError

Secret = TypeVar("Secret")

#: What tells one version of a file from another: time of change in nanoseconds, octets, inode.
_Stamp = tuple[int, int, int]


class UserFile(Generic[Secret]):
    """What a file says of each user. Blank lines and those that begin with ``#`` say nothing.

    It is used in threads: what was read is never changed, only replaced.

    :param parse: makes the secret of what stands behind the colon; its ValueErrors quote nothing of it.
    :raises StartError: for a file that can't be read, or a line that is broken, by its number.
    """

    def __init__(self, path: str, parse: Callable[[str], Secret]) -> None:
        self._path: Final = path
        self._parse: Final = parse
        self._read: tuple[_Stamp, Mapping[str, Secret]] | None = None
        self.secrets()

    def secrets(self) -> Mapping[str, Secret]:
        """The secret of each user by the prepared name. May block.

        :raises StartError: as above: nobody is let in by a file that is broken now.
        """
        try:
            with open(self._path, encoding="utf-8") as file:
                facts = os.fstat(file.fileno())
                stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
                if self._read is None or self._read[0] != stamp:
                    self._read = (stamp, MappingProxyType(self._parse_lines(file.read())))
                return self._read[1]
        except OSError as error:
            raise StartError(f"cannot read {self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise StartError(f"{self._path} is not UTF-8") from None

    def _parse_lines(self, text: str) -> dict[str, Secret]:
        secrets: dict[str, Secret] = {}
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip() and not line.startswith("#"):
                try:
                    self._parse_line(line.strip(), secrets)
                except ValueError as error:
                    raise StartError(f"{self._path}, line {number}: {error}") from None
        return secrets

    def _parse_line(self, line: str, secrets: dict[str, Secret]) -> None:
        name, colon, secret = line.partition(":")
        name = saslprep(name)
        if not (name and colon):
            raise ValueError("not a user, a colon and a hash")
        if name in secrets:
            raise ValueError("a second line for a user")
        secrets[name] = self._parse(secret)
