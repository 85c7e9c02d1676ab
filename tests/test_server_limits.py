"""What a server bears: clients that say nothing, go on for ever, or send mail data drop by drop."""

from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.error import Reject
from smtpserv.network import is_local
from smtpserv.server.limits import GRACE, PER_ADDRESS, Deadlines, Limits
from smtpserv.testing import MemorySession, RecordingProcessor, memory_session
from tests.server_tools import (
    CONTENT,
    ENVELOPE,
    HELLO,
    PREAMBLE,
    TRANSACTION,
    Later,
    Policy,
    Processor,
    Sink,
    always,
    codes,
)

#: Only the limit that a test is about.
NO_LIMITS = {
    "idle_timeout": 1e9,
    "session_deadline": 1e9,
    "data_deadline": 1e9,
    "min_data_rate": 0.0,
    "processing_deadline": 1e9,
}


def only(**limits: float) -> Limits:
    """These limits and no others."""
    return Limits(**{**NO_LIMITS, **limits})  # type: ignore[arg-type]


def session_with(**limits: float) -> MemorySession:
    """A session that was greeted, under these limits and no others."""
    session = memory_session(RecordingProcessor(), limits=only(**limits))
    session.hear()
    return session


class IdleTests(SynchronousTestCase):
    """A client that says nothing."""

    def test_at_every_state(self) -> None:
        """At the timeout and not before, wherever it stopped, it is told 421 4.4.2 and closed."""
        for octets in (
            b"",
            HELLO,
            HELLO + ENVELOPE,
            PREAMBLE,
            PREAMBLE + CONTENT,
            HELLO + TRANSACTION,
            b"EHLO",
        ):
            session = session_with(idle_timeout=300.0)
            session.say(octets)
            self.assertEqual(session.advance(299.0), b"", octets)
            self.assertEqual(codes(session.advance(1.0)), ["421 4.4.2"], octets)
            self.assertTrue(session.ended)

    def test_any_octet_counts(self) -> None:
        """Whatever a client sends, even half a command, gives it another time."""
        session = session_with(idle_timeout=300.0)
        for octet in b"NOOP":
            self.assertEqual(session.advance(299.0), b"")
            session.say(bytes([octet]))
        self.assertEqual(session.advance(299.0), b"")

    def test_waiting_for_us_does_not_count(self) -> None:
        """While a policy or processor takes its time, the client has nothing to say."""
        for octets, choices in ((HELLO + ENVELOPE, "sender"), (b"", "connect")):
            later = Later()
            policy = Policy(**{choices: later})
            session = memory_session(RecordingProcessor(), policies=[policy], limits=only(idle_timeout=300.0))
            session.say(octets)
            self.assertEqual(session.advance(1000.0), b"")
            later.fire()
            session.hear()
            self.assertEqual(session.advance(299.0), b"")
            self.assertEqual(codes(session.advance(1.0)), ["421 4.4.2"])


class SessionDeadlineTests(SynchronousTestCase):
    """A session that goes on and on."""

    def test_busy_client(self) -> None:
        """A client that is never idle is cut off all the same, and told to connect again."""
        session = session_with(session_deadline=3600.0)
        for _ in range(36):
            self.assertEqual(session.advance(99.0), b"")
            session.say(b"NOOP\r\n")
        self.assertEqual(codes(session.advance(36.0)), ["421 4.4.2"])
        self.assertTrue(session.ended)

    def test_message_under_way_is_taken(self) -> None:
        """Mail data that began in time is received to its end; then it is over."""
        session = session_with(session_deadline=100.0)
        session.say(PREAMBLE)
        self.assertEqual(session.advance(150.0), b"")
        self.assertEqual(codes(session.say(CONTENT + b".\r\n")), ["250 2.6.0"])
        self.assertEqual(codes(session.advance(1.0)), ["421 4.4.2"])

    def test_processor_at_work_is_waited_for(self) -> None:
        """A message that is being processed is answered first."""
        later = Later()
        session = memory_session(Processor(later), limits=only(session_deadline=100.0))
        session.say(PREAMBLE + CONTENT + b".\r\n")
        self.assertEqual(session.advance(150.0), b"")
        later.fire()
        self.assertEqual(codes(session.hear()), ["250 2.6.0"])
        self.assertEqual(codes(session.advance(1.0)), ["421 4.4.2"])


class DataTests(SynchronousTestCase):
    """Mail data that does not end."""

    def test_deadline(self) -> None:
        """Mail data that takes too long is given up, however fast it comes."""
        session = session_with(data_deadline=1800.0)
        session.say(PREAMBLE)
        for _ in range(17):
            session.say(CONTENT * 100)
            self.assertEqual(session.advance(100.0), b"")
        session.say(CONTENT * 100)
        self.assertEqual(codes(session.advance(100.0)), ["421 4.4.2"])

    def test_deadline_is_each_messages(self) -> None:
        """The next message has a time of its own."""
        session = session_with(data_deadline=100.0)
        for _ in range(3):
            session.say(PREAMBLE)
            self.assertEqual(session.advance(90.0), b"")
            session.say(b".\r\n")
        self.assertEqual(session.advance(1000.0), b"")

    def test_too_slow(self) -> None:
        """After the first half minute, what comes more slowly than it must is given up."""
        session = session_with(min_data_rate=500.0)
        session.say(PREAMBLE)
        self.assertEqual(session.advance(GRACE - 1), b"")
        self.assertEqual(codes(session.advance(1.0)), ["421 4.4.2"])
        self.assertTrue(session.ended)

    def test_fast_enough(self) -> None:
        """What comes at just the rate is taken, and at less is not."""
        for rate, heard in ((500, []), (499, ["421 4.4.2"])):
            session = session_with(min_data_rate=500.0)
            session.say(PREAMBLE)
            for _ in range(60):
                session.say(b"x" * (rate - 2) + b"\r\n")
                answer = session.advance(1.0)
                if answer:
                    break
            self.assertEqual(codes(answer), heard)

    def test_rate_is_of_mail_data(self) -> None:
        """Commands are not mail data: a client may type them as slowly as it likes."""
        session = session_with(min_data_rate=500.0)
        session.say(HELLO)
        self.assertEqual(session.advance(1000.0), b"")

    def test_slow_sink_is_not_the_clients_fault(self) -> None:
        """While the sink makes it wait, neither its rate nor its deadline suffers."""
        later = Later()
        session = memory_session(Sink(write=later), limits=only(min_data_rate=500.0, data_deadline=100.0))
        session.say(PREAMBLE)
        session.say(b"x" * 20000 + b"\r\n")
        self.assertEqual(session.advance(1000.0), b"")
        later.fire()
        self.assertEqual(session.advance(GRACE + 5), b"")
        self.assertEqual(codes(session.advance(60.0)), ["421 4.4.2"])

    def test_slow_begin_is_not_the_clients_fault(self) -> None:
        """Nor is the time before it was told to send."""
        later = Later()
        sink = Sink(begin=later)
        session = memory_session(sink, limits=only(min_data_rate=500.0, data_deadline=100.0))
        session.say(PREAMBLE)
        session.advance(1000.0)
        later.fire(sink)
        session.hear()
        self.assertEqual(session.advance(GRACE - 1), b"")
        self.assertEqual(codes(session.advance(1.0)), ["421 4.4.2"])

    def test_refused_data_is_no_data(self) -> None:
        """A client that was refused at DATA sends none: it is not too slow when it thinks for a minute."""
        session = memory_session(Sink(begin=always(Reject("no"))), limits=only(min_data_rate=500.0))
        self.assertEqual(codes(session.say(PREAMBLE))[-1], "550 5.7.1")
        self.assertEqual(session.advance(60.0), b"")

    def test_refused_data_has_no_deadline(self) -> None:
        """Nor has it overrun the deadline of mail data."""
        session = memory_session(Sink(begin=always(Reject("no"))), limits=only(data_deadline=100.0))
        session.say(PREAMBLE)
        self.assertEqual(session.advance(200.0), b"")

    def test_refused_data_does_not_prolong_the_session(self) -> None:
        """A session whose DATA was refused still ends at its deadline, and is told so."""
        session = memory_session(Sink(begin=always(Reject("no"))), limits=only(session_deadline=100.0))
        session.say(PREAMBLE)
        self.assertEqual(session.advance(100.0), reply.SESSION_TOO_LONG.octets)


class DeadlinesTests(SynchronousTestCase):
    """The times of one session, as they are seen from one look to the next."""

    def test_what_changed_has_just_changed(self) -> None:
        """A client that said something since the last look, or was waited for, has its time from this one."""
        deadlines = Deadlines(only(idle_timeout=10.0), 0.0)
        deadlines.octets += 1
        self.assertIsNone(deadlines.overdue(50.0))
        self.assertIsNone(deadlines.overdue(59.9))
        deadlines.waiting(60.0)
        self.assertIsNone(deadlines.overdue(100.0))
        self.assertIsNone(deadlines.overdue(109.9))
        self.assertEqual(deadlines.overdue(110.0), reply.IDLE_TOO_LONG)

    def test_wait_within_data(self) -> None:
        """While we take our time with mail data, the client's does not pass; between two waits it does."""
        deadlines = Deadlines(only(data_deadline=10.0), 0.0)
        deadlines.data_begins(0.0)
        for now in (1.0, 2.0, 3.0):
            deadlines.waiting(now)
        self.assertIsNone(deadlines.overdue(7.0))
        deadlines.waiting(9.0)
        self.assertIsNone(deadlines.overdue(14.9))
        self.assertEqual(deadlines.overdue(15.0), reply.DATA_TOO_SLOW)

    def test_first_reason_is_told(self) -> None:
        """Each limit has its reply; idle comes before all."""
        deadlines = Deadlines(only(idle_timeout=10.0, session_deadline=10.0), 0.0)
        self.assertIsNone(deadlines.overdue(9.9))
        self.assertEqual(deadlines.overdue(10.0), reply.IDLE_TOO_LONG)
        deadlines.octets += 1
        self.assertEqual(deadlines.overdue(10.0), reply.SESSION_TOO_LONG)

    def test_all_are_421(self) -> None:
        """What a client is told when its time is over closes the connection."""
        for told in (reply.IDLE_TOO_LONG, reply.SESSION_TOO_LONG, reply.DATA_TOO_SLOW):
            self.assertEqual((told.code, told.status), (421, "4.4.2"))


class AddressTests(SynchronousTestCase):
    """How many connections an address may have."""

    def test_local(self) -> None:
        """Loopback and Unix sockets are this machine, everything else is not."""
        here = ["127.0.0.1", "127.255.0.9", "::1", "", "/run/mail.sock", "::1%lo"]
        away = ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1%eth0", "::", "0.0.0.0"]
        self.assertEqual([is_local(host) for host in here + away], [True] * len(here) + [False] * len(away))

    def test_local_by_a_mapped_address(self) -> None:
        """Loopback is loopback on an IPv6 socket that takes IPv4 as well."""
        self.assertTrue(is_local("::ffff:127.0.0.1"))
        self.assertFalse(is_local("::ffff:192.0.2.1"))

    def test_default(self) -> None:
        """A hundred from one address; this machine as many as there are in all."""
        limits = Limits(max_connections=5000)
        self.assertEqual(
            (limits.connections_from("192.0.2.1"), limits.connections_from("127.0.0.1")), (PER_ADDRESS, 5000)
        )

    def test_given(self) -> None:
        """What the operator says holds for everybody."""
        limits = Limits(max_connections_per_address=3)
        self.assertEqual((limits.connections_from("192.0.2.1"), limits.connections_from("127.0.0.1")), (3, 3))
