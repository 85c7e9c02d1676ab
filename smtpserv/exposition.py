"""What was counted, as Prometheus reads it; it is put together when somebody asks.

Names follow https://prometheus.io/docs/practices/naming/; the ``_total`` of a counter is added on the way.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from smtpserv.metrics import STAGES, Counts, Histogram

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

#: Values of a family's labels, and the number; those with equal values add up.
Sample = tuple[tuple[str, ...], int]

#: What became of something, by the class of its reply.
_OUTCOMES: Final = {2: "accepted", 4: "deferred", 5: "refused"}


def _connections(counts: Counts) -> Iterator[Sample]:
    for outcome, number in counts.connections.items():
        yield (outcome,), number


def _commands(counts: Counts) -> Iterator[Sample]:
    for (verb, code), number in counts.replies.items():
        # The greeting, a response and the end of data are no commands, nor is what a 421 answers that nobody
        # asked for.
        if verb[:1] != "(" and (verb or code != 421):
            yield (verb.partition(" ")[0] or "other",), number


def _replies(counts: Counts) -> Iterator[Sample]:
    for (_, code), number in counts.replies.items():
        yield (str(code // 100), str(code)), number


def _messages(counts: Counts) -> Iterator[Sample]:
    for digit, number in counts.messages.items():
        yield (_OUTCOMES[digit],), number


def _octets(counts: Counts) -> Iterator[Sample]:
    yield (), counts.octets


def _refusals(counts: Counts) -> Iterator[Sample]:
    for (verb, digit), number in counts.refusals.items():
        yield (STAGES.get(verb, "other"), _OUTCOMES[digit]), number
    for digit, number in counts.messages.items():
        if digit != 2:
            yield ("message", _OUTCOMES[digit]), number


def _policies(counts: Counts) -> Iterator[Sample]:
    for (policy, digit), number in counts.policies.items():
        yield (policy, _OUTCOMES[digit]), number


def _tls(counts: Counts) -> Iterator[Sample]:
    for version, number in counts.tls.items():
        yield (version,), number


def _authentications(counts: Counts) -> Iterator[Sample]:
    for (mechanism, digit), number in counts.authentications.items():
        yield (mechanism, _OUTCOMES[digit]), number


@dataclass(frozen=True, slots=True)
class Family:
    """Counters of one name."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Counts], Iterator[Sample]]


@dataclass(frozen=True, slots=True)
class Times:
    """A histogram."""

    name: str
    help: str
    read: Callable[[Counts], Histogram]


FAMILIES: Final = (
    Family(
        "connections", "Connections; refused are those there was no room for.", ("outcome",), _connections
    ),
    Family("commands", "Commands answered; other is what was none.", ("verb",), _commands),
    Family("replies", "Replies sent.", ("class", "code"), _replies),
    Family("messages", "Messages by what became of them.", ("outcome",), _messages),
    Family("content_bytes", "Content of these messages.", (), _octets),
    Family("refusals", "What policies, checkers and the processor refused.", ("stage", "outcome"), _refusals),
    Family("policy_refusals", "What each policy refused, by its class.", ("policy", "outcome"), _policies),
    Family("tls_sessions", "Sessions protected by TLS.", ("version",), _tls),
    Family("authentications", "AUTH attempts.", ("mechanism", "outcome"), _authentications),
)

TIMES: Final = (
    Times(
        "processing_seconds",
        "From the end of a message to the processor's answer.",
        lambda counts: counts.processing,
    ),
    Times(
        "reactor_stall_seconds", "How late the reactor came to what was due.", lambda counts: counts.stalls
    ),
)


class CountsCollector(Collector):
    """Reads the counts when it is asked to."""

    def __init__(self, counts: Counts) -> None:
        self._counts: Final = counts

    def collect(self) -> Iterator[Metric]:
        """Everything there is, with its name and help."""
        counts = self._counts
        yield GaugeMetricFamily("smtpserv_connections_open", "Connections open now.", counts.open)
        for row in FAMILIES:
            family = CounterMetricFamily(f"smtpserv_{row.name}", row.help, labels=row.labels)
            totals: Counter[tuple[str, ...]] = Counter()
            for labels, number in row.read(counts):
                totals[labels] += number
            for labels, total in sorted(totals.items()):
                family.add_metric(labels, total)
            yield family
        for each in TIMES:
            histogram = each.read(counts)
            buckets = [("+Inf" if le == float("inf") else str(le), n) for le, n in histogram.buckets()]
            yield HistogramMetricFamily(f"smtpserv_{each.name}", each.help, buckets, histogram.sum)


class Exposition:
    """The counts of a server, in a registry of their own.

    The facts of the process are left to others: to count its descriptors it would list them all.
    """

    def __init__(self, counts: Counts) -> None:
        self._registry: Final = CollectorRegistry()
        self._registry.register(CountsCollector(counts))

    def render(self) -> bytes:
        """All of it now, as :data:`CONTENT_TYPE`."""
        return generate_latest(self._registry)
