"""Questions to the DNS, by twisted.names: with a deadline, and answers kept as long as they live."""

from collections import OrderedDict
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime, IResolver
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.error import AuthoritativeDomainError, DNSNameError
from twisted.python.failure import Failure

#: Seconds after which a question is asked again, and after which there is no answer.
TRIES: Final = (2, 4)
DEADLINE: Final = 10.0

#: Answers kept; of more, those that came first are dropped. That there is nothing is kept for a while too.
MOST_ANSWERS: Final = 10_000
NOTHING_LIVES: Final = 60.0
#: Seconds that an answer is kept at most, whatever it says.
LONGEST_LIFE: Final = 86400.0

_METHODS: Final = {
    dns.A: "lookupAddress",
    dns.AAAA: "lookupIPV6Address",
    dns.MX: "lookupMailExchange",
    dns.PTR: "lookupPointer",
    dns.TXT: "lookupText",
}

#: The data of the records found; None when nobody could tell.
Records = tuple[Any, ...] | None


class Lookup:
    """Finds records by type and name.

    twisted.names' own cache is one that only its server fills, and it knows no bound.

    :param resolver: whom to ask.
    """

    def __init__(self, resolver: IResolver, clock: IReactorTime) -> None:
        self._resolver: Final = resolver
        self._clock: Final = clock
        self._kept: Final[OrderedDict[tuple[int, str], tuple[float, Records]]] = OrderedDict()

    def find(self, kind: int, name: str) -> "Deferred[Records]":
        """The data of the name's records of a type; never fails.

        Clients that ask the same share one question, in the resolver: so giving an answer up does not
        cancel it, or whoever connects twice and goes once would be let in.
        """
        kept = self._kept.get((kind, name))
        if kept is not None and kept[0] > self._clock.seconds():
            return succeed(kept[1])
        found: Deferred[Records] = Deferred()
        found.addTimeout(DEADLINE, self._clock).addErrback(lambda _: None)
        self._ask(kind, name).addCallback(lambda records: None if found.called else found.callback(records))
        return found

    def _ask(self, kind: int, name: str) -> "Deferred[Records]":
        try:
            asked: Deferred[Any] = getattr(self._resolver, _METHODS[kind])(name, TRIES)
        except Exception:  # of a name that can't be asked for, or no descriptor left
            return succeed(None)
        return asked.addCallback(self._read, kind, name).addErrback(self._failed, kind, name)

    def _read(self, answer: Any, kind: int, name: str) -> Records:
        records = [record for record in answer[0] if record.type == kind]
        life = min((record.ttl for record in answer[0]), default=NOTHING_LIVES)
        return self._keep(kind, name, min(life, LONGEST_LIFE), tuple(record.payload for record in records))

    def _failed(self, failure: Failure, kind: int, name: str) -> Records:
        if failure.check(DNSNameError, AuthoritativeDomainError):
            return self._keep(kind, name, NOTHING_LIVES, ())
        return None

    def _keep(self, kind: int, name: str, life: float, records: Records) -> Records:
        self._kept[kind, name] = (self._clock.seconds() + life, records)
        self._kept.move_to_end((kind, name))
        if len(self._kept) > MOST_ANSWERS:
            self._kept.popitem(last=False)
        return records


def system_lookup(reactor: Any) -> Lookup:
    """By the servers that the machine's ``/etc/resolv.conf`` names."""
    return Lookup(
        cast(IResolver, Resolver(resolv="/etc/resolv.conf", reactor=reactor)), cast(IReactorTime, reactor)
    )
