"""What a peer sent, made harmless for a log or a terminal."""

import re
from typing import Final

#: Control characters but tab and line feed, line and paragraph separators, bidirectional controls.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def escape_controls(text: str) -> str:
    """The text, with an escape for each character that could move a cursor or pass for a line's end."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
