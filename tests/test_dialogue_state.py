"""The table of states, proof-read against RFC 5321 and DESIGN section 5, which is copied out here by hand."""

from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue import state
from smtpserv.dialogue.state import (
    AUTH,
    BDAT,
    CLOSED,
    CONNECTED,
    CONNECTING,
    DATA,
    END_OF_DATA,
    GREETING,
    LAST_CHUNK,
    LOST,
    MAIL,
    RCPT,
    READY,
    REFUSED,
    RESPONSE,
    TLS,
    State,
    in_order,
    next_state,
)

STATES: Final = (CONNECTING, REFUSED, CONNECTED, READY, TLS, AUTH, MAIL, RCPT, DATA, BDAT, CLOSED)
VERBS: Final = (
    "EHLO",
    "HELO",
    "LHLO",
    "MAIL",
    "RCPT",
    "DATA",
    "RSET",
    "QUIT",
    "NOOP",
    "HELP",
    "VRFY",
    "EXPN",
    "STARTTLS",
    "AUTH",
    "BDAT",
    LAST_CHUNK,
    "XCLIENT",
    "XFORWARD",
    "FOO",
)
#: Moves that no command makes.
OTHERS: Final = (GREETING, END_OF_DATA, RESPONSE, LOST)
CODES: Final = (220, 250, 354, 450, 550)
GREETED: Final = (CONNECTED, READY, MAIL, RCPT, BDAT)

#: Every move there is: (from, verb, class of the reply) -> to.
MOVES: Final[dict[tuple[State, str, int], State]] = {
    (CONNECTING, GREETING, 2): CONNECTED,
    (CONNECTING, GREETING, 5): REFUSED,
    (READY, "MAIL", 2): MAIL,
    (MAIL, "RCPT", 2): RCPT,
    (RCPT, "RCPT", 2): RCPT,
    (RCPT, "DATA", 3): DATA,
    (DATA, END_OF_DATA, 2): READY,
    (DATA, END_OF_DATA, 4): READY,
    (DATA, END_OF_DATA, 5): READY,
    (READY, "STARTTLS", 2): TLS,
    (READY, "AUTH", 3): AUTH,
    (AUTH, RESPONSE, 3): AUTH,
    **{(AUTH, RESPONSE, each): READY for each in (2, 4, 5)},
    **{(start, "BDAT", each): BDAT for start in (RCPT, BDAT) for each in (2, 4, 5)},
    **{(start, LAST_CHUNK, each): READY for start in (RCPT, BDAT) for each in (2, 4, 5)},
    (CONNECTED, "XCLIENT", 2): CONNECTED,
    (READY, "XCLIENT", 2): CONNECTED,
    (BDAT, "RSET", 2): READY,
    **{(each, LOST, 5): CLOSED for each in GREETED},
    (MAIL, "RSET", 2): READY,
    (RCPT, "RSET", 2): READY,
    (REFUSED, "QUIT", 2): CLOSED,
    (REFUSED, LOST, 5): CLOSED,
    **{(each, verb, 2): READY for each in GREETED for verb in ("EHLO", "HELO", "LHLO")},
    **{(each, "QUIT", 2): CLOSED for each in GREETED},
}


class Table(SynchronousTestCase):
    """``next_state`` and ``in_order``."""

    def test_every_move(self) -> None:
        """A reply moves the session where the standard says; what is not listed leaves it as it is."""
        for start in STATES:
            for verb in (*VERBS, *OTHERS, ""):
                for code in CODES:
                    expected = MOVES.get((start, verb, code // 100), start)
                    self.assertIs(next_state(start, verb, code), expected, (start, verb, code))

    def test_every_code_of_a_class_moves_alike(self) -> None:
        """Only the first digit of a reply counts, but for 421."""
        for start in STATES:
            for verb in (*VERBS, *OTHERS):
                for code in set(range(200, 560)) - {421}:
                    alike = next_state(start, verb, code // 100 * 100)
                    self.assertIs(next_state(start, verb, code), alike)

    def test_421_closes_from_everywhere(self) -> None:
        """421 is the last thing said, whatever was going on."""
        for start in STATES:
            for verb in (*VERBS, *OTHERS, ""):
                self.assertIs(next_state(start, verb, 421), CLOSED)

    def test_nothing_leaves_closed(self) -> None:
        """A closed session stays closed."""
        self.assertEqual({next_state(CLOSED, verb, code) for verb in VERBS for code in CODES}, {CLOSED})

    def test_order(self) -> None:
        """MAIL needs EHLO, RCPT needs MAIL, DATA needs RCPT; the others may come at any time."""
        always = "EHLO HELO LHLO RSET QUIT NOOP HELP VRFY EXPN FOO"
        allowed = {
            CONNECTED: "XCLIENT XFORWARD",
            READY: "XCLIENT XFORWARD STARTTLS AUTH MAIL",
            MAIL: "RCPT",
            RCPT: f"RCPT DATA BDAT {LAST_CHUNK}",
            BDAT: f"BDAT {LAST_CHUNK}",
        }
        for start, verbs in allowed.items():
            found = [verb for verb in VERBS if in_order(start, verb)]
            expected = f"{always} {verbs}"
            self.assertEqual(sorted(" ".join(found).split()), sorted(expected.split()), start)

    def test_greeting_554_leaves_only_quit(self) -> None:
        """Who was told to go may say QUIT; all else is out of order (RFC 5321 section 3.1)."""
        self.assertEqual([verb for verb in VERBS if in_order(REFUSED, verb)], ["QUIT"])

    def test_mail_data_has_no_commands(self) -> None:
        """Within mail data or an exchange, before the greeting and behind the end no command is in order."""
        for start in (DATA, CONNECTING, TLS, AUTH, CLOSED):
            self.assertEqual([verb for verb in VERBS if in_order(start, verb)], [])

    def test_every_state_is_in_the_table(self) -> None:
        """No state is missing, none is unreachable, and each is printed by its name."""
        self.assertEqual(set(state.TABLE), set(STATES))
        self.assertEqual({CONNECTING, CLOSED} | set(MOVES.values()), set(STATES))
        self.assertEqual(
            " ".join(map(repr, STATES)),
            "<CONNECTING> <REFUSED> <CONNECTED> <READY> <TLS> <AUTH> <MAIL> <RCPT> <DATA> <BDAT> <CLOSED>",
        )
