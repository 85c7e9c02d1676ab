"""How much a client may do in a time, by its address and by who it is."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpserv import reply
from smtpserv.error import StartError
from smtpserv.interfaces import (
    IAuthenticationObserver,
    IMessageObserver,
    IRecipientPolicy,
    ISenderPolicy,
    ISessionPolicy,
)
from smtpserv.message import Envelope, ForwardPath, Peer, ReversePath, Session
from smtpserv.policy.limits import LIMITS, Buckets, Rate, Rates, make_rates
from smtpserv.testing import RecordingProcessor, memory_session
from tests.fuzz import examples
from tests.server_tools import HELLO, codes

SENDER = ReversePath("a@a.example")
RECIPIENT = ForwardPath("b@b.example")
ENVELOPE = Envelope("s.1", SENDER, (RECIPIENT,))


class RateTests(SynchronousTestCase):
    """Rates as an operator writes them."""

    def test_written(self) -> None:
        """A number and a period."""
        for written, rate in {"1/s": Rate(1, 1), "5/min": Rate(5, 60), "100/h": Rate(100, 3600)}.items():
            self.assertEqual(Rate.parse(written), rate)
        self.assertEqual(Rate.parse("1000000000/d"), Rate(10**9, 86400))

    def test_wrong(self) -> None:
        """Anything else is none."""
        for written in (
            "",
            "100",
            "0/h",
            "-1/h",
            "1.5/h",
            "1/m",
            "1/H",
            "1 / h",
            "/h",
            "\u0661/h",
            "1" * 16 + "/h",
        ):
            self.assertRaises(ValueError, Rate.parse, written)


class BucketTests(SynchronousTestCase):
    """Token buckets."""

    def taken(self, buckets: Buckets, now: float, key: str = "a") -> int:
        """How many can be taken one by one."""
        count = 0
        while buckets.has_token(key, now):
            buckets.take(key, 1, now)
            count += 1
        return count

    def test_burst(self) -> None:
        """All may be taken at once, and then they come back one by one."""
        buckets = Buckets(Rate(6, 60.0))
        self.assertEqual(self.taken(buckets, 0.0), 6)
        self.assertEqual(self.taken(buckets, 4.0), 0)
        self.assertEqual(self.taken(buckets, 10.0), 1)
        self.assertEqual(self.taken(buckets, 35.0), 2)
        self.assertEqual(self.taken(buckets, 1000.0), 6)

    def test_keys(self) -> None:
        """Each key has its own."""
        buckets = Buckets(Rate(2, 1.0))
        self.assertEqual([self.taken(buckets, 0.0, key) for key in "aba"], [2, 2, 0])

    def test_debt(self) -> None:
        """What took more than there was waits the longer."""
        buckets = Buckets(Rate(10, 10.0))
        buckets.take("a", 25, 0.0)
        self.assertEqual([self.taken(buckets, now) for now in (15.0, 16.0, 16.4, 17.0)], [0, 1, 0, 1])

    def test_full_ones_are_forgotten(self) -> None:
        """A bucket that is full again takes no memory."""
        buckets = Buckets(Rate(1, 10.0))
        for number in range(1000):
            buckets.take(f"{number}", 1, float(number))
        self.assertLessEqual(len(buckets), 11)

    def test_most(self) -> None:
        """Of too many the one used longest ago is dropped."""
        buckets = Buckets(Rate(1, 10.0), most=3)
        for key in "abacd":
            buckets.take(key, 1, 0.0)
        self.assertEqual([buckets.has_token(key, 0.0) for key in "abcd"], [False, True, False, False])
        for number in range(100):
            buckets.take(f"{number}", 1, 0.0)
        self.assertEqual(len(buckets), 3)

    @given(
        st.integers(1, 10**6),
        st.sampled_from([1.0, 60.0, 3600.0, 86400.0]),
        st.floats(0, 2e9),
        st.lists(st.floats(0, 1), max_size=20),
    )
    @examples(100)
    def test_never_more_than_the_rate(
        self, number: int, period: float, start: float, waits: list[float]
    ) -> None:
        """Whatever the waiting, no more is taken than a bucketful and what came since."""
        buckets, now, count = Buckets(Rate(number, period)), start, 0
        for wait in waits:
            now += wait * period / number
            if buckets.has_token("a", now):
                buckets.take("a", 1, now)
                count += 1
        self.assertLessEqual(count, number + (now - start) * number / period + 1)


class RatesTests(SynchronousTestCase):
    """The policy."""

    def setUp(self) -> None:
        self.clock = Clock()

    def rates(self, **limits: str) -> Rates:
        """A policy with these limits."""
        return make_rates(self.clock, **limits)

    def session(self, host: str = "192.0.2.1", identity: str | None = None) -> Session:
        """A session from somewhere."""
        return Session("s", Peer(host), "EHLO", "client.example", identity=identity)

    def senders(self, rates: Rates, *sessions: Session) -> list[bool]:
        """Whether each session may send, in turn."""
        return [rates.check_sender(session, SENDER) is None for session in sessions]

    def test_honours_the_interfaces(self) -> None:
        """It is a policy at each stage, and watches."""
        for interface in (
            ISessionPolicy,
            ISenderPolicy,
            IRecipientPolicy,
            IMessageObserver,
            IAuthenticationObserver,
        ):
            self.assertTrue(verifyObject(interface, self.rates(messages="1/h")))

    def test_each_stage(self) -> None:
        """Each stage has its limit, and no other's; the hour over, it begins anew."""
        stages: dict[str, Any] = {
            "sessions": lambda rates, session: rates.connect(session),
            "messages": lambda rates, session: rates.check_sender(session, SENDER),
            "recipients": lambda rates, session: rates.check_recipient(session, SENDER, RECIPIENT),
        }
        for limit in stages:
            for stage, ask in stages.items():
                rates = self.rates(**{limit: "2/h"})
                answers = [ask(rates, self.session()) for _ in range(3)]
                self.assertEqual(answers, [None, None, reply.TOO_OFTEN if stage == limit else None])
                self.clock.advance(3600)
                self.assertIsNone(ask(rates, self.session()))

    def test_refused_is_not_counted(self) -> None:
        """Who goes on asking does not wait the longer; nor is a part of what is refused taken."""
        rates = self.rates(messages="1/h", identity_messages="3/h")
        user = self.session(identity="user")
        self.assertEqual(self.senders(rates, *[user] * 100), [True] + [False] * 99)
        self.clock.advance(3600)
        self.assertEqual(self.senders(rates, user), [True])
        elsewhere = [self.session(f"192.0.2.{last}", "user") for last in range(10, 15)]
        self.assertEqual(self.senders(rates, *elsewhere), [True, True, False, False, False])

    def test_by_address(self) -> None:
        """An IPv4 address counts, mapped or not; of IPv6 the /64 does; who it says it is does not."""
        rates = self.rates(messages="1/h")
        hosts = [
            "192.0.2.1",
            "::ffff:192.0.2.1",
            "192.0.2.2",
            "2001:db8::1",
            "2001:db8::ffff:1",
            "2001:db8:0:1::",
        ]
        asked = self.senders(rates, *[self.session(host, identity=host) for host in hosts])
        self.assertEqual(asked, [True, False, True, True, False, True])

    def test_by_identity(self) -> None:
        """An identity counts wherever it comes from; who has none is not counted."""
        rates = self.rates(identity_messages="1/h", identity_recipients="2/h")
        user, other = self.session("192.0.2.1", "user"), self.session("192.0.2.2", "user")
        self.assertEqual(
            self.senders(rates, user, other, self.session("192.0.2.1", "x")), [True, False, True]
        )
        self.assertEqual(self.senders(rates, *[self.session()] * 9), [True] * 9)
        asked = [rates.check_recipient(each, SENDER, RECIPIENT) for each in (user, other, user)]
        self.assertEqual(asked, [None, None, reply.TOO_OFTEN])

    def test_octets(self) -> None:
        """Octets count against the next message, whatever became of the one that brought them."""
        rates = self.rates(octets="1000/min", identity_octets="2000/min")
        user = self.session(identity="user")
        for size, answer in ((999, reply.OK), (1, reply.LOCAL_ERROR)):
            self.assertEqual(self.senders(rates, user), [True])
            rates.message_ended(user, ENVELOPE, size, answer)
        self.assertEqual(self.senders(rates, user, self.session("192.0.2.2", "user")), [False, True])
        rates.message_ended(self.session("192.0.2.2", "user"), ENVELOPE, 1000, reply.OK)
        self.assertEqual(self.senders(rates, self.session("192.0.2.3", "user")), [False])
        self.clock.advance(60)
        self.assertEqual(self.senders(rates, user), [True])

    def test_authentication_failures(self) -> None:
        """Guessing passwords shuts an address out, and what was guessed at can't send for a while."""
        rates = self.rates(auth_failures="2/h", identity_auth_failures="3/h")
        for host in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            self.assertIsNone(rates.connect(self.session(host)))
            rates.authentication_failed(self.session(host), "user")
        answers = [rates.connect(self.session(host)) for host in ("192.0.2.1", "192.0.2.2")]
        self.assertEqual(answers, [reply.TOO_OFTEN, None])
        senders = [self.session("192.0.2.3", name) for name in ("user", "other")]
        self.assertEqual(self.senders(rates, *senders, self.session("192.0.2.1")), [False, True, True])
        self.clock.advance(1800)
        self.assertIsNone(rates.connect(self.session("192.0.2.1")))

    def test_long_names(self) -> None:
        """Of a name of any length no more is kept than tells it from others."""
        rates = self.rates(identity_auth_failures="1/h")
        rates.authentication_failed(self.session(), "x" * 10**6)
        self.assertEqual(self.senders(rates, self.session(identity="x" * 255)), [False])

    def test_exempt(self) -> None:
        """Exempt addresses are not counted; identities are, wherever they come from."""
        rates = self.rates(exempt="127.0.0.0/8,unix", messages="1/h", identity_messages="1/h")
        for host in ("127.0.0.1", "", "::ffff:127.0.0.9"):
            self.assertEqual(self.senders(rates, *[self.session(host)] * 3), [True] * 3)
        self.assertEqual(self.senders(rates, *[self.session("127.0.0.1", "user")] * 2), [True, False])

    def test_wrong_arguments(self) -> None:
        """A wrong argument is named, and so are the limits there are."""
        for arguments, words in (
            ({}, LIMITS),
            ({"mesages": "1/h"}, ("'mesages'", *LIMITS)),
            ({"auth_failures": "1/x"}, ("auth-failures", "'1/x'", "100/h")),
            ({"messages": "1/h", "exempt": "x"}, ("exempt", "'x'")),
        ):
            error = self.assertRaises(StartError, make_rates, self.clock, **arguments)
            for word in words:
                self.assertIn(word.replace("_", "-"), str(error))

    def test_in_a_session(self) -> None:
        """A client hears 450 4.7.0 and may go on; one that connects too often hears 421 4.7.0."""
        rates = self.rates(sessions="1/h", messages="1/h", recipients="1/h")
        session = memory_session(RecordingProcessor(), policies=[rates])
        session.say(HELLO)
        heard = session.say(
            b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<c@b.example>\r\nRSET\r\nMAIL FROM:<>\r\n"
        )
        self.assertEqual(codes(heard), ["250 2.1.0", "250 2.1.5", "450 4.7.0", "250 2.0.0", "450 4.7.0"])
        self.assertEqual(codes(memory_session(RecordingProcessor(), policies=[rates]).hear()), ["421 4.7.0"])
