"""What a scripted upstream says at each step, and what it does in place of that."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from smtpserv.dialogue import state
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.reply import Reply
from smtpserv.testing.upstream.fault import Break, End, Faults

#: Says a reply; the usual one where None is given.
Say = Callable[[Reply | None], None]


class Voice:
    """Whatever goes to the client of one connection goes through here, past the faults.

    :param transport: of the connection; None before it is made and when it is gone.
    """

    def __init__(self, dialogue: ServerDialogue, faults: Faults) -> None:
        self.transport: Any = None
        self._dialogue: Final = dialogue
        self._faults: Final = faults
        self._held: Callable[[], None] | None = None

    @property
    def is_stalled(self) -> bool:
        """Whether nothing is said and nobody heard, until it goes on."""
        return self._held is not None

    def hold(self, going_on: Callable[[], None]) -> None:
        """Stall."""
        self._held = going_on

    def resume(self) -> None:
        """Go on where it stalled, if it did."""
        held, self._held = self._held, None
        if held is not None:
            held()

    def answer(self, step: str, say: Say | None = None, numbers: range = range(0)) -> None:
        """The step is reached: say what the script has for it, or the usual reply."""
        say = say or self.send
        fault = self._faults.at(step, numbers)
        if isinstance(fault, Break):
            self.fail(fault, partial(say, None))
        else:
            say(fault)

    def fail(self, fault: Break, going_on: Callable[[], None]) -> None:
        """Do what a fault says.

        :param going_on: what is done late, if it stalls and then goes on.
        """
        self.write(fault.octets)
        if fault.end is End.STALL:
            self.hold(going_on)
        else:
            self._dialogue.close()
            _ENDS[fault.end](self.transport, fault.octets)

    def send(self, answer: Reply | None) -> None:
        """Say what the dialogue makes of an answer that it owes."""
        self._dialogue.send(answer)
        self.write(self._dialogue.take_output())
        self.close_if_over()

    def interject(self, answer: Reply | None, usual: bytes = b"") -> None:
        """Say what the dialogue knows nothing of."""
        self.write(usual if answer is None else answer.octets)
        if answer is not None and answer.code == 421:
            self._dialogue.close()
        self.close_if_over()

    def write(self, octets: bytes) -> None:
        """Send it as it is."""
        if octets and self.transport is not None:
            self.transport.write(octets)

    def close_if_over(self) -> None:
        """Close when the last word was said."""
        if self._dialogue.state is state.CLOSED and self.transport is not None:
            self.transport.loseConnection()


@implementer(IPullProducer)
class _Endless:
    """Says the same as often as it is heard."""

    def __init__(self, transport: Any, octets: bytes) -> None:
        self._transport = transport
        self._octets = octets

    def resumeProducing(self) -> None:
        """Once more."""
        self._transport.write(self._octets)

    def stopProducing(self) -> None:
        """Nobody is there any more."""


def _repeat(transport: Any, octets: bytes) -> None:
    transport.registerProducer(_Endless(transport, octets), False)


_ENDS: Final[dict[End, Callable[[Any, bytes], None]]] = {
    End.CLOSE: lambda transport, _: transport.loseConnection(),
    End.RESET: lambda transport, _: transport.abortConnection(),
    End.REPEAT: _repeat,
}
