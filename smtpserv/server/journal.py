"""The mail log: one line for each message and each session, written once a reactor turn.

``twisted.logger`` would cost a third of a small message; it is kept for life-cycle, refusals and errors.
"""

import json
import time
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime

Value = str | int | float | None


class Render(Protocol):
    """Makes a line, without its end, of an event's name and fields."""

    def __call__(self, event: str, fields: dict[str, Value]) -> str: ...


def render_text(event: str, fields: dict[str, Value]) -> str:
    """``2026-11-22T16:00:00Z message id=... size=1024``; strings are quoted where they need it."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return " ".join([stamp, event, *(f"{key}={_word(value)}" for key, value in fields.items())])


def render_json(event: str, fields: dict[str, Value]) -> str:
    """One JSON object, in ASCII."""
    return json.dumps({"time": round(time.time(), 3), "event": event, **fields})


def _word(value: Value) -> str:
    """Nothing that a peer sent can end the line, forge a field or move the terminal's cursor."""
    if isinstance(value, str) and not (value.isascii() and value.isprintable() and value and not set(value) & _SPECIAL):
        return json.dumps(value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


_SPECIAL: Final = frozenset(' ="\\')


class Journal:
    """Gathers lines and writes them together.

    :param write: takes the text of one or more lines.
    """

    def __init__(self, clock: IReactorTime, write: Callable[[str], object], render: Render = render_text) -> None:
        self._clock: Final = clock
        self._write: Final = write
        self._render: Final = render
        self._lines: list[str] = []

    def record(self, event: str, **fields: Value) -> None:
        """Note something that happened; it is written at the end of this turn of the reactor."""
        if not self._lines:
            self._clock.callLater(0, self.flush)
        self._lines.append(self._render(event, fields))

    def flush(self) -> None:
        """Write what is gathered."""
        lines, self._lines = self._lines, []
        if lines:
            self._write("\n".join(lines) + "\n")
