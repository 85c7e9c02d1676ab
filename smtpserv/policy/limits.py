"""How much a client may do in a time: token buckets by address and by identity."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from smtpserv import reply
from smtpserv.arguments import read_argument
from smtpserv.error import StartError
from smtpserv.interfaces import (
    IAuthenticationObserver,
    IMessageObserver,
    IRecipientPolicy,
    ISenderPolicy,
    ISessionPolicy,
)
from smtpserv.message import Envelope, ForwardPath, ReversePath, Session
from smtpserv.network import Networks, place_of
from smtpserv.reply import Reply

#: Buckets of one limit that are kept; of more, those that were used longest ago count as full.
MOST_BUCKETS: Final = 100_000

#: Characters of an identity or name that tell it from others.
_MAX_NAME: Final = 255

_PERIODS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_RATE: Final = re.compile(rf"([1-9][0-9]{{0,14}})/({'|'.join(_PERIODS)})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in a period of so many seconds; all of them may come at once."""

    number: int
    period: float

    @classmethod
    def parse(cls, written: str) -> "Rate":
        """Read ``100/h``; the periods are s, min, h and d.

        :raises ValueError: for anything else.
        """
        match = _RATE.fullmatch(written)
        if match is None:
            raise ValueError("a rate such as 100/h: a number, and s, min, h or d")
        return cls(int(match[1]), _PERIODS[match[2]])


class Buckets:
    """A token bucket for each key, full at first, and forgotten when it is full again.

    Of each only the time is kept at which it will be full, so that filling it takes no work.
    """

    __slots__ = ("_period", "_step", "_most", "_full_at")

    def __init__(self, rate: Rate, most: int = MOST_BUCKETS) -> None:
        self._period: Final = rate.period
        self._step: Final = rate.period / rate.number
        self._most: Final = most
        # The one used longest ago comes first.
        self._full_at: Final[OrderedDict[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def has_token(self, key: str, now: float) -> bool:
        """Whether one may be taken."""
        # Half a step is far more than rounding can add up to, and far less than a token.
        return self._full_at.get(key, now) - now < self._period - self._step / 2

    def take(self, key: str, number: int, now: float) -> None:
        """Take so many, which may be more than there are: then it is the longer empty."""
        self._full_at[key] = max(self._full_at.get(key, now), now) + number * self._step
        self._full_at.move_to_end(key)
        for _ in range(2):  # one came at most, so that they get fewer
            oldest, full_at = next(iter(self._full_at.items()))
            if oldest == key or (full_at > now and len(self) <= self._most):
                break
            del self._full_at[oldest]


#: What each stage takes out of which buckets; where it takes nothing, they must not be empty all the same.
_CONNECT: Final = {"sessions": 1, "auth_failures": 0}
_SENDER: Final = {
    "messages": 1,
    "octets": 0,
    "identity_messages": 1,
    "identity_octets": 0,
    "identity_auth_failures": 0,
}
_RECIPIENT: Final = {"recipients": 1, "identity_recipients": 1}

#: Every limit there is; those of an identity begin with a word that says so, the others are an address's.
LIMITS: Final = (*_CONNECT, *_SENDER, *_RECIPIENT)
_IDENTITY: Final = "identity_"


@implementer(ISessionPolicy, ISenderPolicy, IRecipientPolicy, IMessageObserver, IAuthenticationObserver)
class Rates:
    """Refuses for now what comes too often; nothing is taken for what is refused.

    The octets of a message are known at its end, and count against the next one. Failures to be somebody
    keep whoever is from sending for a while, which a stranger can bring about: that limit is for few users.

    :param limits: rates by name, one of :data:`LIMITS` each.
    :param exempt: peers whose address is not counted; their identities are.
    """

    def __init__(self, clock: IReactorTime, limits: Mapping[str, Rate], exempt: Networks) -> None:
        self._clock: Final = clock
        self._buckets: Final = {name: Buckets(rate) for name, rate in limits.items()}
        self._exempt: Final = exempt

    def connect(self, session: Session) -> Reply | None:
        """Count a session, if its address has had enough neither of sessions nor of wrong passwords."""
        return self._ask(session, _CONNECT)

    def hello(self, session: Session) -> None:
        """It was counted when it connected."""

    def check_sender(self, session: Session, reverse_path: ReversePath) -> Reply | None:
        """Count a message, accepted or not."""
        return self._ask(session, _SENDER)

    def check_recipient(
        self, session: Session, reverse_path: ReversePath, forward_path: ForwardPath
    ) -> Reply | None:
        """Count a recipient, accepted or not."""
        return self._ask(session, _RECIPIENT)

    def message_ended(self, session: Session, envelope: Envelope, size: int, answer: Reply) -> None:
        """Count what came, accepted or not."""
        self._take(session, session.identity, {"octets": size, "identity_octets": size})

    def authentication_failed(self, session: Session, name: str) -> None:
        """Count it for the address, and for whom it wanted to be."""
        self._take(session, name, {"auth_failures": 1, "identity_auth_failures": 1})

    def _ask(self, session: Session, wanted: Mapping[str, int]) -> Reply | None:
        now = self._clock.seconds()
        asked = self._keys(session, session.identity, wanted)
        if not all(self._buckets[name].has_token(key, now) for name, key in asked.items()):
            return reply.TOO_OFTEN
        self._take(session, session.identity, wanted)
        return None

    def _take(self, session: Session, identity: str | None, wanted: Mapping[str, int]) -> None:
        now = self._clock.seconds()
        for name, key in self._keys(session, identity, wanted).items():
            if wanted[name]:
                self._buckets[name].take(key, wanted[name], now)

    def _keys(self, session: Session, identity: str | None, wanted: Mapping[str, int]) -> dict[str, str]:
        """The key of each limit that is in force for the session."""
        host = session.peer.host
        place = None if host in self._exempt else place_of(host)
        keys = {name: identity if name.startswith(_IDENTITY) else place for name in wanted}
        return {
            name: key[:_MAX_NAME] for name, key in keys.items() if key is not None and name in self._buckets
        }


def make_rates(clock: IReactorTime, exempt: str = "", **limits: str) -> Rates:
    """The policy of ``--policy=rates:messages=100/h:...``.

    :raises StartError: for a limit that there is not, or a rate that is none.
    """
    unknown = sorted(set(limits) - set(LIMITS))
    if unknown or not limits:
        known = ", ".join(LIMITS).replace("_", "-")
        raise StartError(
            f"{f'no limit is called {unknown[0]!r}' if unknown else 'no limit'}; there are: {known}"
        )
    rates = {name: read_argument(name, Rate.parse, written) for name, written in limits.items()}
    return Rates(clock, rates, read_argument("exempt", Networks.parse, exempt))
