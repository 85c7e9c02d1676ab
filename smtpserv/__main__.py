"""``smtpserv`` and ``python -m smtpserv``: twistd in the foreground, with the log on stderr.

And the commands that are no server: ``smtpserv mailman-config``.
"""

import sys
from typing import Final

from twisted.logger import FileLogObserver, ILogObserver, LogEvent, formatEventAsClassicLogText
from twisted.python.reflect import namedAny
from twisted.python.usage import UsageError
from twisted.scripts import twistd

from smtpserv.error import StartError
from smtpserv.escape import escape_controls


def log_to_stderr() -> ILogObserver:
    """Where the log of a server in the foreground goes, escaped; stdout is the processor's."""

    def form(event: LogEvent) -> str | None:
        text = formatEventAsClassicLogText(event)
        return text and escape_controls(text)

    return FileLogObserver(sys.__stderr__ or sys.stderr, form)


#: Commands that print something and end, and what makes it of their arguments.
COMMANDS: Final = {"mailman-config": "smtpserv.mailman.configuration.command"}


def main() -> None:
    """Run ``twistd -n smtpserv`` with the arguments of this command; or another one."""
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        run(sys.argv[1], sys.argv[2:])
        return
    foreground = ["--nodaemon", "--pidfile=", "--logger=smtpserv.__main__.log_to_stderr"]
    sys.argv[1:] = [*foreground, "smtpserv", *sys.argv[1:]]
    twistd.run()


def run(name: str, arguments: list[str]) -> None:
    """Print what a command makes; what is wrong with its arguments is one line on stderr, and exit code 1."""
    try:
        print(namedAny(COMMANDS[name])(arguments), end="")
    except (StartError, UsageError) as error:
        sys.exit(f"smtpserv {name}: {escape_controls(str(error))}")


if __name__ == "__main__":
    main()
