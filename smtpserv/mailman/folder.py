"""The directory of Mailman 2: a folder for each list, which its MTA recipes look at as well."""

import os
from pathlib import Path
from typing import Final

from zope.interface import implementer

from smtpserv.error import StartError
from smtpserv.mailman.address import ListAddress, mailman2_candidates
from smtpserv.mailman.directory import DirectoryAway, IListDirectory

#: What is in the folder of every list.
CONFIGURATION: Final = "config.pck"


class ListFolder:
    """Knows the lists that have a folder here.

    :raises StartError: where this is no folder, or nobody lets us look into it.
    """

    def __init__(self, path: str) -> None:
        if not os.path.isdir(path):
            raise StartError(f"{path} is no folder of lists")
        if not os.access(path, os.X_OK):
            raise StartError(f"cannot look into {path}: Permission denied")
        self._path: Final = path

    def find(self, mailbox: str) -> ListAddress | None:
        """The list that a mailbox belongs to, and what for; None if to none.

        :raises DirectoryAway: when that can't be seen.
        """
        return next(filter(self._is_list, mailman2_candidates(mailbox)), None)

    def _is_list(self, address: ListAddress) -> bool:
        try:
            os.stat(os.path.join(self._path, address.list_name, CONFIGURATION))
        except (FileNotFoundError, NotADirectoryError):
            # Without the folder of all lists there is no telling; it may be about to be mounted.
            if not os.path.isdir(self._path):
                raise DirectoryAway(f"{self._path} is gone") from None
            return False
        except OSError as error:
            raise DirectoryAway(f"cannot look into {self._path}: {error.strerror}") from None
        return True


def folder_beside(wrapper: str) -> str:
    """Where Mailman 2 has its lists when its wrapper is ``PREFIX/mail/mailman``."""
    return str(Path(wrapper).absolute().parent.parent / "lists")


@implementer(IListDirectory)
class FolderDirectory:
    """The folder as a directory."""

    def __init__(self, folder: ListFolder) -> None:
        self._folder: Final = folder

    async def knows(self, mailbox: str) -> bool:
        """Whether the mailbox is a list's."""
        return self._folder.find(mailbox) is not None
