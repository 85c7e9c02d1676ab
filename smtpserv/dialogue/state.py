"""The states of a session, and the one table by which they change.

As in the diagrams of RFC 821 section 4.4, the next state hangs on the state, the verb, and the class of the
reply. The table knows no role: a server moves by the replies it sends, a client by those it receives, and so
they cannot disagree. Nothing else in the package keeps a state of the dialogue.
"""

from collections.abc import Mapping
from typing import Final


class State:
    """A state of the session; each is one object, compared by identity.

    :ivar moves: its row of the table.
    """

    __slots__ = ("name", "moves")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.moves: Mapping[str, Mapping[int, State]] = {}

    def __repr__(self) -> str:
        return f"<{self.name}>"


CONNECTING: Final = State("CONNECTING")  # the greeting has not been said
REFUSED: Final = State("REFUSED")  # greeted with a 554: QUIT alone is of use (RFC 5321 section 3.1)
CONNECTED: Final = State("CONNECTED")  # no EHLO or HELO yet
READY: Final = State("READY")  # between transactions
MAIL: Final = State("MAIL")  # a reverse-path, no forward-path
RCPT: Final = State("RCPT")  # at least one forward-path
DATA: Final = State("DATA")  # 354 said: octets are mail data
CLOSED: Final = State("CLOSED")  # nothing more is read

#: Two moves of the dialogue that no command makes: the greeting, and the end of mail data.
GREETING: Final = "(greeting)"
END_OF_DATA: Final = "(end of data)"

_HELLO: Final = {verb: {2: READY} for verb in ("EHLO", "HELO", "LHLO")}
_QUIT: Final = {"QUIT": {2: CLOSED}}
_ALWAYS: Final = _HELLO | _QUIT

TABLE: Final[Mapping[State, Mapping[str, Mapping[int, State]]]] = {
    CONNECTING: {GREETING: {2: CONNECTED, 5: REFUSED}},
    REFUSED: _QUIT,
    CONNECTED: _ALWAYS | {"RSET": {}},
    READY: _ALWAYS | {"RSET": {}, "MAIL": {2: MAIL}},
    MAIL: _ALWAYS | {"RSET": {2: READY}, "RCPT": {2: RCPT}},
    RCPT: _ALWAYS | {"RSET": {2: READY}, "RCPT": {2: RCPT}, "DATA": {3: DATA}},
    DATA: {END_OF_DATA: {2: READY, 4: READY, 5: READY}},
    CLOSED: {},
}

for _state, _row in TABLE.items():
    _state.moves = _row

#: The verbs that have a place in the order of things; all others may come at any time after the greeting.
ORDERED: Final = frozenset(verb for row in TABLE.values() for verb in row)


def in_order(state: State, verb: str) -> bool:
    """Whether the command may come now; if not, it is answered with 503 and changes nothing."""
    return verb in state.moves or (verb not in ORDERED and state is not REFUSED)


def next_state(state: State, verb: str, code: int) -> State:
    """Where a reply to the verb leads. What the table does not list leaves the state as it is; 421 closes."""
    if code == 421:
        return CLOSED
    row = state.moves.get(verb)
    return row.get(code // 100, state) if row else state
