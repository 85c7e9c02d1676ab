"""``smtpserv`` and ``python -m smtpserv``: twistd in the foreground, with the log on stderr."""

import sys

from twisted.logger import ILogObserver, textFileLogObserver
from twisted.scripts import twistd


def log_to_stderr() -> ILogObserver:
    """Where the log of a server in the foreground goes; stdout is the processor's."""
    return textFileLogObserver(sys.__stderr__)


def main() -> None:
    """Run ``twistd -n smtpserv`` with the arguments of this command."""
    foreground = ["--nodaemon", "--pidfile=", "--logger=smtpserv.__main__.log_to_stderr"]
    sys.argv[1:] = [*foreground, "smtpserv", *sys.argv[1:]]
    twistd.run()


if __name__ == "__main__":
    main()
