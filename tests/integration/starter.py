"""Starts ``smtpserv`` many times over, each in a process of its own that has imported everything already.

Reads command lines from stdin as JSON, a list of lists; writes ``[exit code, stderr]`` for each, as JSON. A
start that has not failed after a while is ended, and its exit code is null.
"""

import json
import os
import signal
import sys
import tempfile
import time
import traceback

import smtpserv.tap  # noqa: F401  (twistd would import it by name, once for each start)
from smtpserv.__main__ import main

#: Seconds in which a start that is going to fail has failed.
SOON = 15.0


def start(arguments: list[str]) -> tuple[int | None, str]:
    """One start: how it ended, and what it said."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            os.dup2(said.fileno(), 2)
            os._exit(run(arguments))
        code = wait(child)
        said.seek(0)
        return code, said.read().decode("utf-8", "replace")


def run(arguments: list[str]) -> int:
    """In the child: what the interpreter would do with the command; the exit code."""
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()
    return 0


def wait(child: int) -> int | None:
    """The child's exit code, None for one that had to be ended."""
    deadline = time.monotonic() + SOON
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)


if __name__ == "__main__":
    json.dump([start(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
