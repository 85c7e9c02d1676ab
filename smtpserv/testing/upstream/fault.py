"""What goes wrong with a server: any reply at any step, or something in place of one."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from smtpserv.reply import Reply


class End(Enum):
    """What a server does when it has said all that it says."""

    STALL = "nothing more is said, until it is told to go on"
    CLOSE = "the connection is closed in good order (FIN)"
    RESET = "the connection is cut off (RST)"
    REPEAT = "it says the same again, without end"


@dataclass(frozen=True, slots=True)
class Break:
    """What a server does in place of a reply that it owes.

    :param octets: what it says; no reply, or not all of one.
    :param end: what it does then.
    """

    octets: bytes = b""
    end: End = End.STALL


CLOSE: Final = Break(end=End.CLOSE)
RESET: Final = Break(end=End.RESET)
STALL: Final = Break()
GARBAGE: Final = Break(b"\x16\x03\xff this is no reply\0\r\n")
HALF: Final = Break(b"250-half of a rep", End.CLOSE)
ENDLESS: Final = Break(b"250-there is more of it\r\n" * 100, End.REPEAT)

#: A Reply is said in place of the usual one.
Fault = Reply | Break

#: Where it happens: the verb of the command that is answered (``EHLO``, ``MAIL``, ``RSET``, ``BDAT`` ...), or
#: ``banner``, ``handshake`` (of TLS), ``content`` (while it comes) and ``end of data`` (all of it is there).
#: With a number, counted from 1: ``("RCPT", 2)`` is the second of a transaction, ``("content", 1000)`` is
#: when so many octets are there, ``("end of data", 2)`` is the reply for LMTP's second recipient.
Step = str | tuple[str, int]

#: A fault that holds each time the step is reached; or, in turn, what happens each time, None for nothing.
Plan = Fault | Iterable[Fault | None]


class Faults(dict[Step, Plan]):
    """What goes wrong and where; it may be changed at any time."""

    def at(self, step: str, numbers: range = range(0)) -> Fault | None:
        """What goes wrong now. To be called once each time a step is reached.

        :param numbers: those that it has got to.
        """
        for key in [key for key in self if key == step or (key[0] == step and key[1] in numbers)]:
            plan = self[key]
            if isinstance(plan, Reply | Break):
                return plan
            turns = self[key] = iter(plan)
            fault = next(turns, None)
            if fault is not None:
                return fault
        return None
