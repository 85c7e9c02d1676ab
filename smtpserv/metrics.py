"""What the server counts.

Whoever sees something happen adds to a plain number here, in the reactor's thread: a message of 90 us has no
time for more. What the numbers are called elsewhere, :mod:`smtpserv.exposition` knows.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, product
from typing import Final

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds between two looks at how late the reactor is.
BEAT: Final = 0.25

#: Bounds of buckets, in seconds: from what a processor in memory takes to the deadline of all of them.
PROCESSING: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)

#: The same, from what a reactor's timers are always late by to where clients notice.
STALLS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: At which stage before the message somebody is asked, by the verb that is owed a reply.
STAGES: Final = {
    "(greeting)": "connect",
    "XCLIENT": "connect",
    "HELO": "hello",
    "EHLO": "hello",
    "LHLO": "hello",
    "AUTH": "authentication",
    "(response)": "authentication",
    "MAIL": "sender",
    "RCPT": "recipient",
}


class Histogram:
    """How often something took how long.

    :param bounds: of the buckets, in seconds, rising. A time on a bound is within it.
    """

    __slots__ = ("sum", "_bounds", "_numbers")

    def __init__(self, bounds: Sequence[float]) -> None:
        #: Seconds in all.
        self.sum = 0.0
        self._bounds = tuple(bounds)
        self._numbers = [0] * (len(bounds) + 1)

    def observe(self, seconds: float) -> None:
        """It took so long."""
        self._numbers[bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[float, int]]:
        """Each bound, the last one infinite, and how often it took no longer."""
        return list(zip((*self._bounds, float("inf")), accumulate(self._numbers), strict=True))


class Counts:
    """All there is to count, since the start; what is sure to come is there at zero.

    A class is the first digit of a reply's code. Keys are of a bounded number: nothing that a peer may choose
    freely becomes one. (A ``Counter`` would take twice the time.)
    """

    __slots__ = (
        "open",
        "connections",
        "replies",
        "messages",
        "octets",
        "refusals",
        "policies",
        "tls",
        "authentications",
        "processing",
        "stalls",
    )

    def __init__(self) -> None:
        #: Connections open now, those without room not counted.
        self.open = 0
        #: Connections: ``accepted``, or ``refused`` because there was no room.
        self.connections: defaultdict[str, int] = defaultdict(int, accepted=0, refused=0)
        #: By the verb they answer, empty where none was understood, in brackets what is no command; and code.
        self.replies: defaultdict[tuple[str, int], int] = defaultdict(int)
        #: By class of the last reply.
        self.messages: defaultdict[int, int] = defaultdict(int, {2: 0, 4: 0, 5: 0})
        #: Of the content of these messages.
        self.octets = 0
        #: What was refused before a message was there, by the verb that was owed a reply, and class.
        self.refusals: defaultdict[tuple[str, int], int] = defaultdict(
            int, dict.fromkeys(product(STAGES, (4, 5)), 0)
        )
        #: The same by the class of the policy that refused, and class of the reply.
        self.policies: defaultdict[tuple[str, int], int] = defaultdict(int)
        #: Sessions by version of TLS, as OpenSSL names it.
        self.tls: defaultdict[str, int] = defaultdict(int)
        #: Attempts by mechanism, ``other`` for one that is not offered, and class.
        self.authentications: defaultdict[tuple[str, int], int] = defaultdict(int)
        #: From the end of the data to the processor's answer.
        self.processing = Histogram(PROCESSING)
        #: How late the reactor came to what was due.
        self.stalls = Histogram(STALLS)


class Pulse(Service):
    """Feels how late the reactor is, as long as it runs.

    It beats on its own calls and no ``LoopingCall``, which tells nobody when it was due.
    """

    def __init__(self, clock: IReactorTime, stalls: Histogram) -> None:
        self._clock: Final = clock
        self._stalls: Final = stalls
        self._next: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin to beat."""
        super().startService()
        self._wait()

    def stopService(self) -> None:
        """Beat no more."""
        super().stopService()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _wait(self) -> None:
        self._next = self._clock.callLater(BEAT, self._beat, self._clock.seconds() + BEAT)

    def _beat(self, due: float) -> None:
        self._stalls.observe(max(0.0, self._clock.seconds() - due))
        self._wait()
