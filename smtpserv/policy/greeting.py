"""Makes clients wait for their greeting: a mail program does, a program that only spews mail does not."""

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from smtpserv import reply
from smtpserv.arguments import read_argument
from smtpserv.interfaces import IEarlyTalkerPolicy, ISessionPolicy
from smtpserv.message import Session
from smtpserv.network import Networks
from smtpserv.reply import Reply
from smtpserv.settings import seconds

#: Seconds of delay that no client minds; the least patient may wait 300 (RFC 5321 section 4.5.3.2.1).
MAX_DELAY: Final = 60.0


@implementer(ISessionPolicy, IEarlyTalkerPolicy)
class GreetingDelay:
    """Greets late, and refuses whoever speaks before (RFC 5321 section 3.1).

    :param delay: seconds.
    :param exempt: peers that are greeted at once.
    """

    def __init__(self, clock: IReactorTime, delay: float, exempt: Networks) -> None:
        self._clock: Final = clock
        self._delay: Final = delay
        self._exempt: Final = exempt

    def connect(self, session: Session) -> "Deferred[None] | None":
        """Let it wait; whoever gives it up cancels the Deferred, and the timer with it."""
        if session.peer.host in self._exempt:
            return None
        return deferLater(self._clock, self._delay, lambda: None)

    def spoke_early(self, session: Session) -> Reply | None:
        """It did not wait."""
        return None if session.peer.host in self._exempt else reply.SPOKE_EARLY

    def hello(self, session: Session) -> None:
        """It was polite by then."""


def make_greeting(clock: IReactorTime, delay: str = "5", exempt: str = "") -> GreetingDelay:
    """The policy of ``--policy=greeting:DELAY``.

    :raises StartError: for a delay or networks that are none.
    """
    networks = read_argument("exempt", Networks.parse, exempt)
    return GreetingDelay(clock, read_argument("delay", _delay, delay), networks)


def _delay(written: str) -> float:
    delay = seconds(written)
    if delay > MAX_DELAY:
        raise ValueError(f"a number of seconds up to {MAX_DELAY:g}")
    return delay
