"""``smtpserv`` and ``python -m smtpserv``: twistd in the foreground, with the log on stderr."""

import sys

from twisted.logger import FileLogObserver, ILogObserver, LogEvent, formatEventAsClassicLogText
from twisted.scripts import twistd

from smtpserv.escape import escape_controls


def log_to_stderr() -> ILogObserver:
    """Where the log of a server in the foreground goes, escaped; stdout is the processor's."""

    def form(event: LogEvent) -> str | None:
        text = formatEventAsClassicLogText(event)
        return text and escape_controls(text)

    return FileLogObserver(sys.__stderr__ or sys.stderr, form)


def main() -> None:
    """Run ``twistd -n smtpserv`` with the arguments of this command."""
    foreground = ["--nodaemon", "--pidfile=", "--logger=smtpserv.__main__.log_to_stderr"]
    sys.argv[1:] = [*foreground, "smtpserv", *sys.argv[1:]]
    twistd.run()


if __name__ == "__main__":
    main()
