"""How long a mail server is waited for (RFC 5321 section 4.5.3.2)."""

from dataclasses import dataclass
from typing import Final

from smtpserv.dialogue import state

#: For the answer to QUIT, and what follows a 421; little hangs on it.
GOODBYE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds.

    :param connect: until the connection is made.
    :param opening: until it is ready for mail, in all: a client of ours waits, and another server may do it.
    :param greeting: until it greets.
    :param command: for the answer to MAIL, RCPT and whatever is not below.
    :param start: for the answer to DATA.
    :param block: until it takes more of the content, or a chunk; and for hands to be shaken.
    :param end: for the answer to a whole message; a client of ours waits no longer itself.
    """

    connect: float = 30.0
    opening: float = 60.0
    greeting: float = 300.0
    command: float = 300.0
    start: float = 120.0
    block: float = 180.0
    end: float = 600.0

    def of(self, verb: str) -> float:
        """For the answer to a verb; of none, for the server to take more octets."""
        return {
            state.GREETING: self.greeting,
            "DATA": self.start,
            "": self.block,
            "QUIT": GOODBYE,
            "BDAT": self.block,
            state.END_OF_DATA: self.end,
            state.LAST_CHUNK: self.end,
        }.get(verb, self.command)
