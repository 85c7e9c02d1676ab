"""SASLprep: one form for the many ways to write a name or password (RFC 4013, a profile of RFC 3454)."""

import stringprep
from typing import Final
from unicodedata import ucd_3_2_0

#: What must not be left (RFC 4013 section 2.3). Code points that Unicode 3.2 did not assign pass: what a
#: client presents is a query, in which they are allowed (section 2.5).
_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """The text as it is compared.

    :raises ValueError: for a character that names and passwords can't have, and for directions mixed; the
        error tells nothing of the text.
    """
    if text.isascii() and text.isprintable():
        return text
    prepared = ucd_3_2_0.normalize("NFKC", _mapped(text))
    if any(in_table(char) for char in prepared for in_table in _PROHIBITED):
        raise ValueError("a prohibited character")
    if any(map(stringprep.in_table_d1, prepared)) and not _runs_right_to_left(prepared):
        raise ValueError("directions mixed")
    return prepared


def _mapped(text: str) -> str:
    """Every space as a space, and nothing for what is commonly mapped to nothing (RFC 4013 section 2.1)."""
    kept = [char for char in text if not stringprep.in_table_b1(char)]
    return "".join([" " if stringprep.in_table_c12(char) else char for char in kept])


def _runs_right_to_left(text: str) -> bool:
    """The rule for text that has a right-to-left character (RFC 3454 section 6)."""
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return ends and not any(map(stringprep.in_table_d2, text))
