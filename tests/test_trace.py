"""The Received field: correct, folded, and proof against what peers say."""

import os
import re
import time
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from email import message_from_bytes
from email.policy import SMTP
from email.utils import parsedate_to_datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.message import Envelope, ForwardPath, Peer, ReversePath, Session, TLSFacts
from smtpserv.testing import at_every_split
from smtpserv.trace import (
    MAX_HEADER,
    MAX_HOPS,
    MAX_OWN_HOPS,
    LoopWatch,
    address_literal,
    received_field,
)
from tests.fuzz import examples
from tests.fuzz.strategies import LITERALS, MAILBOXES, PLACES, WIDE_MAILBOXES, cut, domains

NOW = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=timezone(timedelta(hours=-9, minutes=-30)))
TLS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")


def envelope(*recipients: str, smtputf8: bool = False, id: str = "3f2a.1") -> Envelope:
    """An envelope for these."""
    parameters = {"SMTPUTF8": None} if smtputf8 else {}
    return Envelope(id, ReversePath("a@a.example", parameters), tuple(map(ForwardPath, recipients)))


def session(
    hello: str = "client.example", host: str = "192.0.2.1", verb: str = "EHLO", **facts: object
) -> Session:
    """A session of somebody."""
    return Session("3f2a", Peer(host, 2525), verb, hello, **facts)  # type: ignore[arg-type]


class ZoneTestCase(SynchronousTestCase):
    """Has a local zone of its own."""

    def setUp(self) -> None:
        before = os.environ.get("TZ")
        self.addCleanup(self.zone, before)
        self.zone("XXX-5:30")

    @staticmethod
    def zone(name: str | None) -> None:
        """Live there."""
        if name is None:
            os.environ.pop("TZ", None)
        else:
            os.environ["TZ"] = name
        time.tzset()

    def field(self, session: Session, envelope: Envelope, hostname: str = "mx.example") -> str:
        """The field's value on one line; where it may be folded there is one space."""
        octets = received_field(session, envelope, hostname, NOW.timestamp())
        self.assertTrue(octets.startswith(b"Received: from ") and octets.endswith(b"\r\n"))
        value = octets[len("Received: ") : -2].decode("utf-8").replace("\r\n\t", " ")
        self.assertNotIn("\r", value)
        self.assertNotIn("\n", value)
        return value


class ReceivedTests(ZoneTestCase):
    """What it says."""

    def test_whole(self) -> None:
        """The field as a reader sees it."""
        octets = received_field(session(tls=TLS), envelope("b@b.example"), "mx.example", NOW.timestamp())
        self.assertEqual(
            octets.decode().split("\r\n"),
            [
                "Received: from client.example ([192.0.2.1]) by mx.example with ESMTPS (using",
                "\tTLSv1.3 with cipher TLS_AES_256_GCM_SHA384)",
                "\tid <3f2a.1@mx.example> for <b@b.example>;",
                "\tWed, 04 Mar 2026 20:06:07 +0530",
                "",
            ],
        )

    def test_lines(self) -> None:
        """No line is longer than 78 characters while it could be folded; the longest that fits is not."""
        for length, count in ((20, 1), (47, 1), (48, 2), (70, 2), (71, 2), (100, 2)):
            octets = received_field(
                session(), envelope(f"{'b' * (length - 2)}@b"), "mx.example", NOW.timestamp()
            )
            lines = octets.decode().split("\r\n")[1:-2]
            self.assertTrue(all(len(line) <= 78 or " " not in line for line in lines), lines)
            self.assertEqual(len(lines), count, lines)

    def test_from(self) -> None:
        """What the client calls itself, if that is a name; and where it is, if that is an address."""
        cases = {
            ("client.example", "192.0.2.1"): "client.example ([192.0.2.1])",
            ("client", "::ffff:192.0.2.1"): "client ([192.0.2.1])",
            ("client.example", "fe80::1%eth0"): "client.example ([IPv6:fe80::1])",
            ("[192.0.2.9]", "192.0.2.1"): "[192.0.2.9] ([192.0.2.1])",
            ("[IPv6:2001:db8::9]", "2001:db8::1"): "[IPv6:2001:db8::9] ([IPv6:2001:db8::1])",
            ("client.example", ""): "client.example",
            ("[192.0.2.9]", ""): "[192.0.2.9] ([192.0.2.9])",
            ("", "192.0.2.1"): "[192.0.2.1] ([192.0.2.1])",
            ("", "/run/x"): "localhost",
            ("a_b", "192.0.2.1"): "[192.0.2.1] ([192.0.2.1]) (EHLO a_b)",
            ("a_b", ""): "localhost (EHLO a_b)",
            ("[x:(]", "192.0.2.1"): "[192.0.2.1] ([192.0.2.1]) (EHLO ?x:??)",
            ("[192.0.2.256]", "192.0.2.1"): "[192.0.2.1] ([192.0.2.1]) (EHLO ?192.0.2.256?)",
            ("a..b", "192.0.2.1"): "[192.0.2.1] ([192.0.2.1]) (EHLO a..b)",
            ("a)\r\nX: y", "192.0.2.1"): "[192.0.2.1] ([192.0.2.1]) (EHLO a???X:?y)",
            ("\u00e4.example", "192.0.2.1"): "[192.0.2.1] ([192.0.2.1]) (EHLO ?.example)",
        }
        for (hello, host), expected in cases.items():
            value = self.field(session(hello, host), envelope("b@b.example", smtputf8=True))
            self.assertEqual(value.partition(" by ")[0], f"from {expected}")

    def test_by(self) -> None:
        """Our own name; an address literal is told twice, as the grammar has it."""
        for hostname, expected in {
            "mx.example": "mx.example",
            "[192.0.2.5]": "[192.0.2.5] ([192.0.2.5])",
            "mx_1.example": "mx_1.example",
        }.items():
            value = self.field(session(), envelope("b@b.example"), hostname)
            self.assertEqual(value.partition(" by ")[2].partition(" with ")[0], expected)

    def test_with(self) -> None:
        """The names of RFC 3848 and RFC 6531."""
        names = {
            ("HELO", None, None, False): "SMTP",
            ("EHLO", None, None, False): "ESMTP",
            ("EHLO", None, "user", False): "ESMTPA",
            ("EHLO", TLS, None, False): "ESMTPS",
            ("EHLO", TLS, "user", False): "ESMTPSA",
            ("LHLO", None, None, False): "LMTP",
            ("LHLO", TLS, "user", False): "LMTPSA",
            ("EHLO", None, None, True): "UTF8SMTP",
            ("EHLO", None, "user", True): "UTF8SMTPA",
            ("EHLO", TLS, None, True): "UTF8SMTPS",
            ("EHLO", TLS, "user", True): "UTF8SMTPSA",
            ("LHLO", None, None, True): "UTF8LMTP",
            ("LHLO", None, "user", True): "UTF8LMTPA",
            ("LHLO", TLS, None, True): "UTF8LMTPS",
            ("LHLO", TLS, "user", True): "UTF8LMTPSA",
        }
        for (verb, tls, identity, smtputf8), name in names.items():
            spoken = session(verb=verb, tls=tls, identity=identity)
            self.assertIn(f" with {name} ", self.field(spoken, envelope("b@b.example", smtputf8=smtputf8)))

    def test_who_authenticated_is_not_told(self) -> None:
        """That somebody authenticated is told, and not who."""
        self.assertNotIn("secret", self.field(session(identity="secret"), envelope("b@b.example")))

    def test_tls(self) -> None:
        """What protected the connection is a comment; what is odd in it is disarmed."""
        for tls, told in {
            TLS: "(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)",
            TLSFacts("TLSv1.3", ""): "(using TLSv1.3)",
            TLSFacts("x)\r\n", "("): "(using x??? with cipher ?)",
        }.items():
            self.assertIn(f" with ESMTPS {told} id ", self.field(session(tls=tls), envelope("b@b.example")))

    def test_id(self) -> None:
        """The id of the message as our reply tells it, in a form that the grammar has."""
        for id, told in {
            "3f2a.1": "<3f2a.1@mx.example>",
            "3f2a": "3f2a",
            "a b>": "<a?b?@mx.example>",
        }.items():
            self.assertIn(f" id {told} for ", self.field(session(), envelope("b@b.example", id=id)))
        self.assertIn(
            " id <3f2a.1@[192.0.2.5]> ", self.field(session(), envelope("b@b.example"), "[192.0.2.5]")
        )

    def test_for(self) -> None:
        """A recipient is told only if there is no other; and only if a field can say it."""
        told = {
            ("b@b.example",): "<b@b.example>",
            ('"b (c; d\\" "@b.example',): '<"b (c; d\\" "@b.example>',
            ("b@[IPv6:2001:db8::1]",): "<b@[IPv6:2001:db8::1]>",
            ("b@b.example", "c@b.example"): None,
            ("b@b.example", "b@b.example"): None,
            (): None,
            ("postmaster",): None,
            ("\u00e4@b.example",): None,
            ("b@b.example> ; x",): None,
            ("b@b.example\r\nX: y",): None,
            ("@c.example:b@b.example",): None,
            ("b\u2028@b.example",): None,
            ("",): None,
        }
        for recipients, expected in told.items():
            value = self.field(session(), envelope(*recipients))
            clause = f" for {expected}" if expected else ""
            self.assertTrue(
                value.endswith(f" id <3f2a.1@mx.example>{clause}; Wed, 04 Mar 2026 20:06:07 +0530")
            )
        value = self.field(session(), envelope("\u00e4@b.example", smtputf8=True))
        self.assertIn(" for <\u00e4@b.example>; ", value)

    def test_date(self) -> None:
        """The time in the local zone, with its offset, wherever it was measured; also in UTC."""
        self.assertIn("; Wed, 04 Mar 2026 20:06:07 +0530", self.field(session(), envelope("b@b.example")))
        self.zone("UTC0")
        self.assertIn("; Wed, 04 Mar 2026 14:36:07 +0000", self.field(session(), envelope("b@b.example")))

    def test_address_literal(self) -> None:
        """A peer's address as RFC 5321 writes it."""
        for host, literal in {
            "192.0.2.1": "[192.0.2.1]",
            "2001:DB8::1": "[IPv6:2001:db8::1]",
            "": None,
        }.items():
            self.assertEqual(address_literal(host), literal)


#: Names that a client may give itself, and some that it may not.
ODD = st.text('()<>;\\"\r\n\t\0\x7f\x85 [].,a@:\u00e4\u2028\u202e\U0001f4e7')
NAMES = st.one_of(domains(), LITERALS, ODD, st.just("x" * 300))
HOSTS = st.ip_addresses().map(str) | st.sampled_from(["", "/run/x", "fe80::1%\r\n"])
RECIPIENTS = st.one_of(MAILBOXES, WIDE_MAILBOXES, ODD)

_STAMP = re.compile(
    r"from \S+( \(\[[0-9A-Za-z:.]+\]\))?( \([A-Z]+ [\w.:?-]+\))? by \S+ with [A-Z0-9]+( \(using [^()]+\))? "
    r"id \S+( for <.+>)?; \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0530",
    re.ASCII | re.DOTALL,
)


class HostileTests(ZoneTestCase):
    """Whatever a peer says."""

    @given(
        NAMES,
        HOSTS,
        st.lists(RECIPIENTS, max_size=2),
        st.booleans(),
        st.none() | st.builds(TLSFacts, NAMES, NAMES),
    )
    @examples(300)
    def test_one_field(
        self, hello: str, host: str, recipients: list[str], smtputf8: bool, tls: TLSFacts | None
    ) -> None:
        """It stays one field of its form, ASCII unless asked otherwise, with its date at its end."""
        made = envelope(*recipients, smtputf8=smtputf8)
        octets = received_field(session(hello, host, tls=tls), made, "mx.example", NOW.timestamp())
        self.assertTrue(smtputf8 or octets.isascii())
        message = message_from_bytes(octets + b"Subject: x\r\n\r\nbody", policy=SMTP)
        self.assertEqual((message.keys(), message.defects), (["Received", "Subject"], []))
        value = self.field(session(hello, host, tls=tls), made)
        self.assertTrue(_STAMP.fullmatch(value), value)
        self.assertEqual(parsedate_to_datetime(value.rpartition(";")[2]), NOW.replace(microsecond=0))

    @given(domains(), LITERALS | domains(), MAILBOXES)
    @examples(100)
    def test_lines(self, hello: str, hostname: str, recipient: str) -> None:
        """No line is longer than 78 where it could have been folded, and none over 998 anyhow."""
        octets = received_field(session(hello, tls=TLS), envelope(recipient), hostname, NOW.timestamp())
        for line in octets.decode().split("\r\n"):
            self.assertTrue(len(line) <= 78 or " " not in line.strip() or line.startswith('\t<"'), line)
            self.assertLess(len(line), 998)


HOP = b"Received: from a.example by b.example;\r\n\tWed, 4 Mar 2026 20:06:07 +0530\r\n"
OWN = b"Received: from a.example\r\n\tby mx.example; Wed, 4 Mar 2026 20:06:07 +0530\r\n"
BODY = b"\r\nbody\r\n"


def is_loop(pieces: Iterable[bytes], hostname: str = "mx.example") -> bool:
    """What a watch says of a message, at whatever piece or at its end."""
    watch = LoopWatch(hostname)
    found = [watch.is_loop(piece) for piece in pieces]
    found.append(watch.ended())
    assert sum(found) < 2, "it is told once"
    return any(found)


class LoopWatchTests(SynchronousTestCase):
    """Messages that go in circles."""

    def test_no_header(self) -> None:
        """What stands in a body that no header goes before is none of its fields, in one piece or in two."""
        octets = b"\r\n" + b"Received: from a by mx.example\r\n" * (MAX_HOPS + 1) + b"\r\nbody\r\n"
        for pieces in ([octets], [octets[:1], octets[1:]], [octets[:2], octets[2:]]):
            watch = LoopWatch("mx.example")
            self.assertFalse(any(watch.is_loop(piece) for piece in pieces) or watch.ended(), pieces[0][:4])

    def test_hops(self) -> None:
        """So many fields may a message have, whoever wrote them, and no more."""
        for hops, loop in ((0, False), (1, False), (MAX_HOPS, False), (MAX_HOPS + 1, True)):
            for rest in (BODY, b"Subject: x\r\n" + BODY, b"Subject: x\r\n", b""):
                self.assertIs(is_loop([HOP * hops + rest]), loop, (hops, rest))

    def test_own_hops(self) -> None:
        """So many of them may be ours: mailing lists send us a message again."""
        for hops, loop in ((MAX_OWN_HOPS, False), (MAX_OWN_HOPS + 1, True)):
            self.assertIs(is_loop([OWN * hops + HOP + BODY]), loop)
            self.assertIs(is_loop([OWN.upper() * hops + BODY]), loop)
            self.assertIs(is_loop([OWN * hops + BODY], "MX.example"), loop)

    def test_own_field(self) -> None:
        """What we write ourselves is known to be ours, by whatever name."""
        for hostname in ("mx.example", "[192.0.2.5]"):
            field = received_field(session(tls=TLS), envelope("b@b.example"), hostname, NOW.timestamp())
            for other, loop in ((hostname, True), ("example", False), ("mx.example.org", False)):
                self.assertIs(is_loop([field * (MAX_OWN_HOPS + 1) + BODY], other), loop, (hostname, other))

    def test_names_like_ours(self) -> None:
        """A longer name is another's."""
        for name in (b"mx.example.org", b"mx.example-1", b"a.mx.example", b"mxxexample"):
            self.assertFalse(is_loop([OWN.replace(b"mx.example", name) * (MAX_OWN_HOPS + 1) + BODY]), name)

    def test_any_form(self) -> None:
        """The field's name counts in any case, and with what the obsolete grammar has before its colon."""
        for field in (b"RECEIVED: x\r\n", b"received:\r\n x\r\n", b"Received : x\r\n", b"Received\t:x\r\n"):
            self.assertTrue(is_loop([field * (MAX_HOPS + 1) + BODY]), field)
        for field in (b"X-Received: x\r\n", b"Received-SPF: x\r\n", b"Subject: x\r\n Received: x\r\n"):
            self.assertFalse(is_loop([field * (MAX_HOPS + 1) + BODY]), field)

    def test_header_only(self) -> None:
        """What stands in the body is of no interest; a message may have no header."""
        self.assertFalse(is_loop([b"Subject: x\r\n\r\n" + HOP * (MAX_HOPS + 1)]))
        self.assertFalse(is_loop([b"\r\n" + HOP * (MAX_HOPS + 1)]))

    def test_every_split(self) -> None:
        """It does not matter how the message comes."""
        for message, loop in (
            (OWN * (MAX_OWN_HOPS + 1) + BODY, True),
            (OWN * MAX_OWN_HOPS + BODY + OWN, False),
        ):
            for pieces in at_every_split(message):
                self.assertIs(is_loop(pieces), loop)

    def test_endless_header(self) -> None:
        """Of a header without an end so much is looked at, however it comes, and not kept any longer."""
        for padding, loop in ((MAX_HEADER // 2, True), (MAX_HEADER, False)):
            message = b"X: " + b"x" * padding + b"\r\n" + HOP * (MAX_HOPS + 1) + b"Y: " + b"y" * MAX_HEADER
            for tail in (b"", b"\r\n" + BODY):
                whole = message + tail
                for size in (len(whole), 1000, MAX_HEADER - 3):
                    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
                    self.assertIs(is_loop(pieces), loop, (padding, size))

    @examples(60)
    @given(
        st.lists(
            st.sampled_from(
                [HOP, OWN, b"\r\n", b"\r", b"\n", b" ", b"Received:", b"by mx.example", b"X: y\r\n"]
            ),
            max_size=30,
        ).map(b"".join),
        st.integers(0, 12),
        PLACES,
    )
    def test_splits(self, rest: bytes, hops: int, places: list[float]) -> None:
        """Nor for any other message."""
        message = OWN * hops + rest
        self.assertEqual(is_loop(cut(message, places)), is_loop([message]))
        self.assertEqual(is_loop([bytes([octet]) for octet in message]), is_loop([message]))
