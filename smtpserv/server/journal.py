"""The mail log: one line for each message and each session; those of a moment are written together.

``twisted.logger`` would cost a third of a small message; it is kept for life-cycle, refusals and errors.
"""

import json
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

Value = str | int | float | None

#: An event's name and its fields.
Entry = tuple[str, dict[str, Value]]

#: Makes the lines of entries that happened at one time (seconds since the epoch).
Render = Callable[[float, Sequence[Entry]], str]


def render_text(now: float, entries: Sequence[Entry]) -> str:
    """``2026-11-22T16:00:00Z message id=... size=1024``; strings are quoted where they need it."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    lines = []
    for event, fields in entries:
        values = fields.values()
        line = _form(event, tuple(fields), tuple(map(type, values))) % (stamp, *values)
        if not _is_plain(line, len(values)):
            line = " ".join([stamp, event, *[f"{name}={_word(value)}" for name, value in fields.items()]])
        lines.append(f"{line}\n")
    return "".join(lines)


@lru_cache
def _form(event: str, names: tuple[str, ...], kinds: tuple[type, ...]) -> str:
    """The line of an event, with room for the time and for the value of each field."""
    rooms = [f"{name}={'%.3f' if kind is float else '%s'}" for name, kind in zip(names, kinds, strict=True)]
    return " ".join(["%s", event, *rooms])


def _is_plain(line: str, fields: int) -> bool:
    """Whether no value ends the line, forges a field, moves the terminal's cursor, or is none at all."""
    return (
        line.count(" ") == fields + 1
        and line.count("=") == fields
        and line.isascii()
        and line.isprintable()
        and not ('"' in line or "\\" in line or "= " in line or line[-1] == "=")
    )


def render_json(now: float, entries: Sequence[Entry]) -> str:
    """One JSON object a line, in ASCII."""
    return "".join(
        [json.dumps({"time": round(now, 3), "event": event, **fields}) + "\n" for event, fields in entries]
    )


#: Seconds for which entries gather: each write costs a third of what a small message does.
GATHER: Final = 0.02

#: Words that neither end the line, nor forge a field, nor move the terminal's cursor.
_is_plain_word: Final = re.compile(r"[!#-<>-\[\]-~]+").fullmatch


def _word(value: Value) -> str:
    if isinstance(value, str):
        return value if _is_plain_word(value) else json.dumps(value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


class Journal:
    """Gathers entries and writes them together.

    :param write: takes the text of one or more lines.
    """

    def __init__(
        self, clock: IReactorTime, write: Callable[[str], object], render: Render = render_text
    ) -> None:
        self._clock: Final = clock
        self._write: Final = write
        self._render: Final = render
        self._entries: list[Entry] = []
        self._flushing: IDelayedCall | None = None

    def record(self, event: str, **fields: Value) -> None:
        """Note something that happened; it is written within :data:`GATHER` seconds."""
        self._entries.append((event, fields))
        if self._flushing is None:
            self._flushing = self._clock.callLater(GATHER, self.flush)

    def flush(self) -> None:
        """Write what is gathered."""
        flushing, self._flushing = self._flushing, None
        if flushing is not None and flushing.active():
            flushing.cancel()
        entries, self._entries = self._entries, []
        if entries:
            self._write(self._render(time.time(), entries))
