"""What the DNS says of a client's address: block lists and reverse names."""

from typing import Any, cast

from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.interfaces import IResolver
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpserv import reply
from smtpserv.error import StartError
from smtpserv.interfaces import ISessionPolicy
from smtpserv.message import Peer, Session
from smtpserv.network import Networks
from smtpserv.policy import lookup
from smtpserv.policy.dns import BlockLists, ReverseNames, make_dnsbl
from smtpserv.policy.lookup import DEADLINE, Lookup
from smtpserv.reply import Reply
from smtpserv.testing import RecordingProcessor, memory_session
from tests.server_tools import Reactor, codes

#: A reverse name of each of the addresses that are asked about.
V4, V6 = "1.2.3.4", "2600::1"
V4_POINTER = "4.3.2.1.in-addr.arpa"
V6_NIBBLES = "1." + "0." * 27 + "0.0.6.2"


def a(*addresses: str, ttl: int = 100) -> Any:
    """An answer of addresses."""
    kinds: dict[bool, Any] = {True: dns.Record_AAAA, False: dns.Record_A}
    return answer(*[kinds[":" in address](address, ttl) for address in addresses])


def ptr(*names: str | bytes, ttl: int = 100) -> Any:
    """An answer of names."""
    records: list[Any] = [dns.Record_PTR("x", ttl) for _ in names]
    for record, name in zip(records, names, strict=True):
        record.name.name = name if isinstance(name, bytes) else name.encode("ascii")
    return answer(*records)


def answer(*records: Any) -> Any:
    """An answer of records of any type."""
    return [dns.RRHeader(b"x", record.TYPE, ttl=record.ttl, payload=record) for record in records], [], []


class Resolver:
    """Answers what it was told, an exception by failing; of any other name it says that there is none.

    As twisted.names' own it raises for what can't be a name.
    """

    def __init__(self, answers: dict[str, Any] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[str] = []

    def _look(self, name: str, timeout: object = None) -> "Deferred[Any]":
        name.encode("idna")
        self.asked.append(name)
        found = self.answers.get(name, DNSNameError())
        if isinstance(found, Deferred):
            return found
        return fail(found) if isinstance(found, Exception) else succeed(found)

    lookupAddress = lookupIPV6Address = lookupPointer = _look


class PolicyTestCase(SynchronousTestCase):
    """Has a resolver that needs no network."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.resolver = Resolver()
        self.lookup = Lookup(cast(IResolver, self.resolver), self.clock)

    def verdict(self, policy: Any, host: str) -> Reply | None:
        """What a client hears."""
        verdict = policy.connect(Session("s", Peer(host)))
        return cast(Reply | None, self.successResultOf(verdict) if verdict is not None else None)

    def never_asked(self, policy: Any) -> None:
        """Nobody is asked about addresses that are none of the Internet's."""
        for host in (
            "127.0.0.1",
            "::1",
            "10.1.2.3",
            "::ffff:192.168.1.1",
            "172.16.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "fe80::1%eth0",
            "fd00::1",
            "0.0.0.0",
            "",
            "/run/x",
        ):
            self.assertIsNone(policy.connect(Session("s", Peer(host))), host)
        self.assertEqual(self.resolver.asked, [])


class BlockListTests(PolicyTestCase):
    """Block lists."""

    def policy(self, exempt: str = "") -> BlockLists:
        """Two lists."""
        return BlockLists(self.lookup, ("bl.example", "x.example"), Networks.parse(exempt))

    def test_honours_the_interface(self) -> None:
        """It is a policy about connections."""
        self.assertTrue(verifyObject(ISessionPolicy, self.policy()))

    def test_names(self) -> None:
        """The octets or nibbles are asked for backwards, in each list; a mapped address as what it is."""
        self.verdict(self.policy(), V4)
        self.verdict(self.policy(), V6)
        names = [
            f"{address}.{zone}" for address in ("4.3.2.1", V6_NIBBLES) for zone in ("bl.example", "x.example")
        ]
        self.assertEqual(self.resolver.asked, names)
        self.verdict(self.policy(), f"::ffff:{V4}")
        self.assertEqual(self.resolver.asked, names)

    def test_listed(self) -> None:
        """One list that has the address is enough, and is named."""
        for host, name in ((V4, "4.3.2.1"), (V6, V6_NIBBLES)):
            self.resolver.answers = {f"{name}.x.example": a("127.0.0.2")}
            self.assertEqual(self.verdict(self.policy(), host), reply.listed("x.example"))

    def test_answers(self) -> None:
        """Only what is in 127.0.0.0/8 says that it is listed, and not what says that nobody will tell."""
        for address, listed in {
            "127.0.0.1": True,
            "127.0.0.2": True,
            "127.255.0.1": True,
            "127.255.255.254": False,
            "128.0.0.2": False,
            "192.0.2.1": False,
        }.items():
            self.setUp()
            self.resolver.answers = {"4.3.2.1.bl.example": a("192.0.2.7", address)}
            self.assertIs(self.verdict(self.policy(), V4) is not None, listed, address)

    def test_nobody_can_tell(self) -> None:
        """When a list does not answer, the client is let in; unless another has it."""
        for error in (DNSServerError(), TimeoutError(), OSError("no servers"), ValueError()):
            self.setUp()
            self.resolver.answers = {"4.3.2.1.bl.example": error}
            self.assertIsNone(self.verdict(self.policy(), V4))
            self.resolver.answers["4.3.2.1.x.example"] = a("127.0.0.2")
            self.clock.advance(lookup.NOTHING_LIVES)
            self.assertIsNotNone(self.verdict(self.policy(), V4))

    def test_never_asked(self) -> None:
        """Private addresses and exempt ones are never asked about."""
        self.never_asked(self.policy())
        self.assertIsNone(self.policy("1.2.0.0/16").connect(Session("s", Peer(V4))))
        self.assertEqual(self.resolver.asked, [])

    def test_arguments(self) -> None:
        """Zones are domain names."""
        make_dnsbl(cast(Any, Reactor()), "bl.example, x.example")
        for zone in ("", "bl..example", "bl.example,"):
            error = self.assertRaises(StartError, make_dnsbl, cast(Any, Reactor()), zone)
            self.assertIn(f"zone: {zone!r} is not", str(error))

    def test_in_a_session(self) -> None:
        """The client hears 554 5.7.1 in place of the greeting, when the answer comes."""
        later: Deferred[Any] = Deferred()
        self.resolver.answers = {"4.3.2.1.bl.example": later}
        session = memory_session(RecordingProcessor(), peer=Peer(V4, 25), policies=[self.policy()])
        self.assertEqual(session.hear(), b"")
        later.callback(a("127.0.0.2"))
        self.assertEqual(codes(session.hear()), ["554 5.7.1"])


class ReverseNameTests(PolicyTestCase):
    """Reverse names."""

    def check(self, host: str, expected: Reply | None, answers: dict[str, Any]) -> None:
        """With these answers the client hears this."""
        self.setUp()
        self.resolver.answers = answers
        policy = ReverseNames(self.lookup, Networks())
        self.assertTrue(verifyObject(ISessionPolicy, policy))
        self.assertEqual(self.verdict(policy, host), expected, answers)

    def test_leads_back(self) -> None:
        """A name that has the address among its own lets it in, be it one of several."""
        self.check(V4, None, {V4_POINTER: ptr("a.example"), "a.example": a("192.0.2.1", V4)})
        self.check(V4, None, {V4_POINTER: ptr("b.example", "a.example"), "a.example": a(V4)})
        self.check(V6, None, {f"{V6_NIBBLES}.ip6.arpa": ptr("a.example"), "a.example": a("2600:0::0:1")})

    def test_does_not(self) -> None:
        """No name, or one that leads elsewhere or nowhere, does not; nor does one that is none."""
        for answers in (
            {},
            {V4_POINTER: answer()},
            {V4_POINTER: ptr("a.example")},
            {V4_POINTER: ptr("a.example"), "a.example": answer()},
            {V4_POINTER: ptr("a.example"), "a.example": a("192.0.2.1")},
            {V4_POINTER: ptr(b"a\xff..\r\n")},
            {V4_POINTER: ptr(b"\xff")},
            {V4_POINTER: ptr("")},
            {V4_POINTER: ptr(*[f"{number}.example" for number in range(9)]), "8.example": a(V4)},
        ):
            self.check(V4, reply.NO_REVERSE_NAME, answers)

    def test_nobody_can_tell(self) -> None:
        """When the DNS does not answer, the client is let in."""
        for error in (DNSServerError(), TimeoutError()):
            self.check(V4, None, {V4_POINTER: error})
            self.check(V4, None, {V4_POINTER: ptr("a.example", "b.example"), "a.example": error})

    def test_canonical_name(self) -> None:
        """A pointer, or an address, may stand behind another name (RFC 2317)."""
        alias = dns.Record_CNAME("4.0-7.3.2.1.in-addr.arpa", 100)
        pointer = dns.Record_PTR("a.example", 100)
        address = answer(alias, dns.Record_A(V4, 100))
        self.check(V4, None, {V4_POINTER: answer(alias, pointer), "a.example": address})

    def test_never_asked(self) -> None:
        """Private addresses are never asked about."""
        self.never_asked(ReverseNames(self.lookup, Networks()))


class LookupTests(PolicyTestCase):
    """Questions, and answers that are kept."""

    def find(self, name: str = "a.example") -> Any:
        """The answer, which is there."""
        return self.successResultOf(self.lookup.find(dns.A, name))

    def test_kept(self) -> None:
        """An answer is kept as long as its shortest record lives; and so is that there is none."""
        for found, life in (
            (a("192.0.2.1", ttl=30), 30),
            (answer(dns.Record_CNAME("x", 5), dns.Record_A("192.0.2.1", 30)), 5),
            (a("192.0.2.1", ttl=2**31 - 1), lookup.LONGEST_LIFE),
            (DNSNameError(), lookup.NOTHING_LIVES),
            (answer(), lookup.NOTHING_LIVES),
        ):
            self.setUp()
            self.resolver.answers["a.example"] = found
            first = self.find()
            self.clock.advance(life - 0.5)
            self.assertEqual((self.find(), len(self.resolver.asked)), (first, 1))
            self.clock.advance(0.5)
            self.assertEqual((self.find(), len(self.resolver.asked)), (first, 2))

    def test_failure_is_not_kept(self) -> None:
        """Who did not answer is asked again."""
        self.resolver.answers["a.example"] = DNSServerError()
        self.assertEqual([self.find(), self.find(), len(self.resolver.asked)], [None, None, 2])

    def test_most(self) -> None:
        """Of too many answers the oldest is dropped."""
        self.patch(lookup, "MOST_ANSWERS", 3)
        for number in (0, 1, 2, 3, 3, 1, 0):
            self.find(f"{number}.example")
        self.assertEqual(self.resolver.asked, [f"{number}.example" for number in (0, 1, 2, 3, 0)])

    def test_deadline(self) -> None:
        """A question that nobody answers has an end, and what comes after it is kept all the same."""
        later: Deferred[Any] = Deferred()
        self.resolver.answers["a.example"] = later
        found = self.lookup.find(dns.A, "a.example")
        self.clock.advance(DEADLINE - 0.1)
        self.assertNoResult(found)
        self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(found))
        later.callback(a("192.0.2.1"))
        self.assertEqual(len(self.find()), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_given_up(self) -> None:
        """Who gives a question up does not end it for the others."""
        later: Deferred[Any] = Deferred()
        self.resolver.answers["a.example"] = later
        found = self.lookup.find(dns.A, "a.example")
        found.cancel()
        self.assertIsNone(self.successResultOf(found))
        self.assertEqual((later.called, self.clock.getDelayedCalls()), (False, []))
        later.callback(a("192.0.2.1"))

    def test_resolver_that_raises(self) -> None:
        """A resolver that can't even ask is one that does not answer."""
        broken: Any = object()
        self.assertIsNone(self.successResultOf(Lookup(broken, self.clock).find(dns.A, "a.example")))
