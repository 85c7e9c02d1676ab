"""The states of a session, and the one table by which they change.

As in the diagrams of RFC 821 section 4.4, the next state hangs on the state, the verb, and the class of the
reply. The table knows no role: a server moves by the replies it sends, a client by those it receives, and so
they cannot disagree. Nothing else in the package keeps a state of the dialogue.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final


class State:
    """A state of the session; each is one object, compared by identity.

    :ivar moves: its row of the table.
    :ivar is_deaf: whether nothing is read in it.
    :ivar is_within: whether a transaction is under way in it.
    """

    __slots__ = ("name", "moves", "is_deaf", "is_within")

    def __init__(self, name: str, is_deaf: bool = False, is_within: bool = False) -> None:
        self.name: Final = name
        self.is_deaf: Final = is_deaf
        self.is_within: Final = is_within
        self.moves: Mapping[str, Mapping[int, State]] = {}

    def __repr__(self) -> str:
        return f"<{self.name}>"


CONNECTING: Final = State("CONNECTING")  # the greeting has not been said
REFUSED: Final = State("REFUSED")  # greeted with a 554: QUIT alone is of use (RFC 5321 section 3.1)
CONNECTED: Final = State("CONNECTED")  # no EHLO or HELO yet
READY: Final = State("READY")  # between transactions
TLS: Final = State("TLS", is_deaf=True)  # STARTTLS accepted: hands are shaken, and nothing is read
AUTH: Final = State("AUTH")  # a challenge was sent: the next line is the client's response
MAIL: Final = State("MAIL", is_within=True)  # a reverse-path, no forward-path
RCPT: Final = State("RCPT", is_within=True)  # at least one forward-path
DATA: Final = State("DATA", is_within=True)  # 354 said: octets are mail data
BDAT: Final = State("BDAT", is_within=True)  # not the last chunk came: only more may (RFC 3030)
CLOSED: Final = State("CLOSED", is_deaf=True)  # nothing more is read

#: Moves of the dialogue that no command makes: the greeting, the end of mail data, an answer to a challenge,
#: and a chunk of unknown size; and the BDAT that is the last.
GREETING: Final = "(greeting)"
END_OF_DATA: Final = "(end of data)"
RESPONSE: Final = "(response)"
LOST: Final = "(lost)"  # nobody knows where the next command begins
LAST_CHUNK: Final = "BDAT LAST"

_HELLO: Final = {verb: {2: READY} for verb in ("EHLO", "HELO", "LHLO")}
_QUIT: Final = {"QUIT": {2: CLOSED}}
_ALWAYS: Final = _HELLO | _QUIT | {LOST: {5: CLOSED}}
_OUTSIDE: Final = _ALWAYS | {"RSET": {}, "XCLIENT": {2: CONNECTED}, "XFORWARD": {}}
_INSIDE: Final = _ALWAYS | {"RSET": {2: READY}}
_END: Final = {2: READY, 4: READY, 5: READY}
_CHUNKS: Final = {"BDAT": {2: BDAT, 4: BDAT, 5: BDAT}, LAST_CHUNK: _END}

TABLE: Final[Mapping[State, Mapping[str, Mapping[int, State]]]] = {
    CONNECTING: {GREETING: {2: CONNECTED, 5: REFUSED}},
    REFUSED: _QUIT | {LOST: {5: CLOSED}},
    CONNECTED: _OUTSIDE,
    READY: _OUTSIDE | {"MAIL": {2: MAIL}, "STARTTLS": {2: TLS}, "AUTH": {3: AUTH, 2: READY}},
    TLS: {},
    AUTH: {RESPONSE: {3: AUTH, 2: READY, 4: READY, 5: READY}},
    MAIL: _INSIDE | {"RCPT": {2: RCPT}},
    RCPT: _INSIDE | {"RCPT": {2: RCPT}, "DATA": {3: DATA}} | _CHUNKS,
    DATA: {END_OF_DATA: _END},
    BDAT: _INSIDE | _CHUNKS,
    CLOSED: {},
}

for _state, _row in TABLE.items():
    _state.moves = _row

#: The verbs that have a place in the order of things; all others may come wherever commands do.
ORDERED: Final = frozenset(verb for row in TABLE.values() for verb in row)

#: Where a line is no command, or none but what is in the state's row.
_WITHOUT_COMMANDS: Final = frozenset({CONNECTING, REFUSED, TLS, AUTH, DATA, CLOSED})


def in_order(state: State, verb: str) -> bool:
    """Whether the command may come now; if not, it is answered with 503 and changes nothing."""
    return verb in state.moves or (verb not in ORDERED and state not in _WITHOUT_COMMANDS)


@lru_cache(4096)
def next_state(state: State, verb: str, code: int) -> State:
    """Where a reply to the verb leads. What the table does not list leaves the state as it is; 421 closes."""
    if code == 421:
        return CLOSED
    row = state.moves.get(verb)
    return state if row is None else row.get(code // 100, state)
