"""``smtpserv`` and ``python -m smtpserv``: twistd in the foreground, with the log on stderr."""

import sys

from twisted.logger import ILogObserver, textFileLogObserver
from twisted.scripts import twistd


def log_to_stderr() -> ILogObserver:
    """Where the log of a server in the foreground goes; stdout is the processor's."""
    return textFileLogObserver(sys.__stderr__)


def main() -> None:
    """Run ``twistd -n smtpserv`` with the arguments of this command."""
    logger = f"{log_to_stderr.__module__}.{log_to_stderr.__name__}".replace("__main__", "smtpserv.__main__", 1)
    sys.argv[1:] = ["--nodaemon", "--pidfile=", f"--logger={logger}", "smtpserv", *sys.argv[1:]]
    twistd.run()


if __name__ == "__main__":
    main()
