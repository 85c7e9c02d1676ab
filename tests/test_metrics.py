"""What is counted, and what Prometheus reads of it."""

from collections.abc import Iterable, Mapping
from itertools import pairwise, product
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.exposition import Exposition
from smtpserv.metrics import BEAT, STALLS, Counts, Histogram, Pulse

#: Seconds by which a clock that stands still is late: none, but for how floats add up.
NO_TIME: Final = 1e-6


def families(counts: Counts) -> Iterable[Metric]:
    """What a scraper reads."""
    return text_string_to_metric_families(Exposition(counts).render().decode("utf-8"))


def values(counts: Counts, name: str) -> Mapping[tuple[str, ...], float]:
    """The value of each sample of this name, by the values of its labels in the order of their names."""
    return {
        tuple(each.labels[label] for label in sorted(each.labels)): each.value
        for family in families(counts)
        for each in family.samples
        if each.name == f"smtpserv_{name}"
    }


class HistogramTests(SynchronousTestCase):
    """Times, by how long they were."""

    def test_bounds(self) -> None:
        """A time on a bound is within it; one over all of them is in the last bucket."""
        times = Histogram((0.1, 1.0))
        for seconds in (0.0, 0.1, 0.2, 1.0, 5.0):
            times.observe(seconds)
        self.assertEqual(times.buckets(), [(0.1, 2), (1.0, 4), (float("inf"), 5)])
        self.assertAlmostEqual(times.sum, 6.3)

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.lists(st.floats(0, 1e6)))
    def test_any(self, seconds: list[float]) -> None:
        """Each bucket holds all that took no longer."""
        times = Histogram(STALLS)
        for each in seconds:
            times.observe(each)
        for bound, number in times.buckets():
            self.assertEqual(number, sum(each <= bound for each in seconds))


class ExpositionTests(SynchronousTestCase):
    """The text that a scraper reads."""

    def setUp(self) -> None:
        self.counts = Counts()

    def test_described(self) -> None:
        """Every name has a help and a type, once, and says whose it is."""
        lines = Exposition(self.counts).render().decode("utf-8").splitlines()
        for word in ("HELP", "TYPE"):
            described = [line.split()[2] for line in lines if line.startswith(f"# {word} ")]
            self.assertEqual(len(set(described)), len(described))
            for family in families(self.counts):
                total = "_total" * (family.type == "counter")
                self.assertIn(f"{family.name}{total}", described)
        for family in families(self.counts):
            self.assertTrue(family.documentation)
            self.assertIn(family.type, ("counter", "gauge", "histogram"))
            self.assertTrue(family.name.startswith("smtpserv_"), family.name)

    def test_zero(self) -> None:
        """What is sure to come is there from the start, so that its first step is seen as one."""
        self.assertEqual(
            values(self.counts, "messages_total"), {("accepted",): 0, ("deferred",): 0, ("refused",): 0}
        )
        self.assertEqual(values(self.counts, "connections_total"), {("accepted",): 0, ("refused",): 0})
        stages = ("connect", "hello", "authentication", "sender", "recipient", "message")
        self.assertEqual(
            values(self.counts, "refusals_total"),
            dict.fromkeys(product(("deferred", "refused"), stages), 0),
        )

    def test_connections(self) -> None:
        """Those that are open, those that were, and those there was no room for."""
        self.counts.open = 2
        self.counts.connections.update(accepted=5, refused=1)
        self.assertEqual(values(self.counts, "connections_open"), {(): 2})
        self.assertEqual(values(self.counts, "connections_total"), {("accepted",): 5, ("refused",): 1})

    def test_replies(self) -> None:
        """By code and class, whatever they answered."""
        self.counts.replies.update({("MAIL", 250): 3, ("RCPT", 250): 4, ("RCPT", 550): 1, ("", 421): 1})
        self.assertEqual(
            values(self.counts, "replies_total"), {("2", "250"): 7, ("4", "421"): 1, ("5", "550"): 1}
        )

    def test_commands(self) -> None:
        """By verb, however they were answered; what was no command is one verb."""
        self.counts.replies.update({("RCPT", 250): 4, ("RCPT", 550): 1, ("", 500): 2, ("", 501): 1})
        self.assertEqual(values(self.counts, "commands_total"), {("RCPT",): 5, ("other",): 3})

    def test_no_commands(self) -> None:
        """Replies that answer no command count none."""
        self.counts.replies.update(
            {("(greeting)", 220): 1, ("(end of data)", 250): 1, ("(response)", 235): 1, ("", 421): 1}
        )
        self.assertEqual(values(self.counts, "commands_total"), {})
        self.counts.replies.update({("AUTH", 334): 1, ("BDAT", 250): 3, ("BDAT LAST", 250): 1})
        self.assertEqual(values(self.counts, "commands_total"), {("AUTH",): 1, ("BDAT",): 4})

    def test_messages(self) -> None:
        """By outcome, and with them their octets; those that were not accepted are refusals as well."""
        self.counts.messages.update({2: 7, 4: 2, 5: 1})
        self.counts.octets = 1 << 40
        self.assertEqual(
            values(self.counts, "messages_total"), {("accepted",): 7, ("deferred",): 2, ("refused",): 1}
        )
        self.assertEqual(values(self.counts, "content_bytes_total"), {(): 1 << 40})
        refusals = values(self.counts, "refusals_total")
        self.assertEqual((refusals["deferred", "message"], refusals["refused", "message"]), (2, 1))

    def test_refusals(self) -> None:
        """By stage: two ways to say hello are one; a verb of an extension has none of its own."""
        self.counts.refusals.update(
            {("EHLO", 5): 1, ("HELO", 5): 1, ("MAIL", 4): 3, ("XFOO", 5): 1, ("AUTH", 5): 1}
        )
        refusals = values(self.counts, "refusals_total")
        self.assertEqual(refusals["refused", "hello"], 2)
        self.assertEqual(refusals["deferred", "sender"], 3)
        self.assertEqual((refusals["refused", "other"], refusals["refused", "authentication"]), (1, 1))

    def test_policies(self) -> None:
        """And by the policy that refused."""
        self.counts.policies.update({("Rates", 4): 2, ("BlockLists", 5): 1})
        self.assertEqual(
            values(self.counts, "policy_refusals_total"),
            {("deferred", "Rates"): 2, ("refused", "BlockLists"): 1},
        )

    def test_protection(self) -> None:
        """TLS by version, AUTH by mechanism and outcome."""
        self.counts.tls["TLSv1.3"] += 1
        self.counts.authentications.update({("PLAIN", 2): 2, ("PLAIN", 5): 1, ("other", 5): 1})
        self.assertEqual(values(self.counts, "tls_sessions_total"), {("TLSv1.3",): 1})
        self.assertEqual(
            values(self.counts, "authentications_total"),
            {("PLAIN", "accepted"): 2, ("PLAIN", "refused"): 1, ("other", "refused"): 1},
        )

    def test_times(self) -> None:
        """A histogram is cumulated, and its last bucket holds all."""
        for seconds in (0.0002, 0.02, 1000.0):
            self.counts.processing.observe(seconds)
        buckets = values(self.counts, "processing_seconds_bucket")
        self.assertEqual((buckets["0.0001",], buckets["0.0005",], buckets["+Inf",]), (0, 1, 3))
        self.assertEqual(values(self.counts, "processing_seconds_count"), {(): 3})
        self.assertAlmostEqual(values(self.counts, "processing_seconds_sum")[()], 1000.0202)

    def test_own(self) -> None:
        """Two servers in one process do not count each other's mail."""
        other = Counts()
        other.messages[2] += 1
        self.assertEqual(values(self.counts, "messages_total")["accepted",], 0)
        self.assertEqual(values(other, "messages_total")["accepted",], 1)


class PulseTests(SynchronousTestCase):
    """How late the reactor is."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.stalls = Histogram((NO_TIME, 1.0, 10.0))
        self.pulse = Pulse(self.clock, self.stalls)

    def numbers(self) -> list[int]:
        """How often it was not late, late by a second at most, by ten, and by more."""
        cumulated = [0] + [number for _, number in self.stalls.buckets()]
        return [after - before for before, after in pairwise(cumulated)]

    def test_on_time(self) -> None:
        """A reactor that does what is due when it is due is never late."""
        self.pulse.startService()
        self.clock.pump([BEAT] * 40)
        self.assertEqual(self.numbers(), [40, 0, 0, 0])
        self.assertAlmostEqual(self.stalls.sum, 0.0)

    def test_late(self) -> None:
        """One that was busy is late by what it took longer, and the next beat is on time again."""
        self.pulse.startService()
        self.clock.advance(BEAT + 0.5)
        self.clock.advance(BEAT)
        self.clock.advance(BEAT + 5.0)
        self.assertEqual(self.numbers(), [1, 1, 1, 0])
        self.assertAlmostEqual(self.stalls.sum, 5.5)

    def test_stopped(self) -> None:
        """Nothing is left of it when it has stopped, and it may be started again."""
        for _ in range(2):
            self.pulse.startService()
            self.clock.advance(BEAT)
            self.pulse.stopService()
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(BEAT)
        self.assertEqual(self.numbers(), [2, 0, 0, 0])

    def test_stopped_first(self) -> None:
        """Stopping what was not started is no error."""
        self.pulse.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
