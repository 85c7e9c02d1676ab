"""PROXY headers, whole, in pieces, and what only looks like one."""

import struct
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.message import Peer
from smtpserv.server.proxy_header import MAX_BLOCK, Proxied, ProxyError, ProxyHeader

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
INET = IPv4Address("192.0.2.1").packed + IPv4Address("192.0.2.2").packed + struct.pack("!HH", 56324, 25)
INET6 = IPv6Address("2001:db8::1").packed + IPv6Address("2001:db8::2").packed + struct.pack("!HH", 56324, 25)
UNIX = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")
SOMEBODY = Peer("0.0.0.0", 0)
CLIENT, CLIENT6 = Peer("192.0.2.1", 56324), Peer("2001:db8::1", 56324)


def block(command: int, family: int, octets: bytes) -> bytes:
    """A header of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(octets)) + octets


#: A type, a length and a value (2.2), and one whose length is a lie.
ADDITIONS = b"\x02\x00\x0amx.example" + b"\x04\xff\xff\x00"

GOOD: dict[bytes, Peer | None] = {
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\n": CLIENT,
    b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n": Peer("255.255.255.255", 65535),
    b"PROXY TCP4 192.0.2.1 192.0.2.2 0 0\r\n": Peer("192.0.2.1", 0),
    b"PROXY TCP6 2001:DB8::1 2001:db8::2 56324 25\r\n": CLIENT6,
    b"PROXY TCP6 ::ffff:192.0.2.1 ::1 56324 25\r\n": Peer("::ffff:192.0.2.1", 56324),
    b"PROXY TCP6 " + 2 * (b"ffff:" * 7 + b"ffff ") + b"65535 65535\r\n": Peer("ffff" + ":ffff" * 7, 65535),
    b"PROXY UNKNOWN\r\n": SOMEBODY,
    b"PROXY UNKNOWN " + 2 * (b"ffff:" * 7 + b"ffff ") + b"65535 65535\r\n": SOMEBODY,
    b"PROXY UNKNOWN \r\x00\xff\n rubbish\r\n": SOMEBODY,
    block(0x21, 0x11, INET): CLIENT,
    block(0x21, 0x21, INET6): CLIENT6,
    block(0x21, 0x11, INET + ADDITIONS): CLIENT,
    block(0x21, 0x21, INET6 + bytes(MAX_BLOCK - len(INET6))): CLIENT6,
    block(0x21, 0x31, UNIX): None,
    block(0x21, 0x00, b""): SOMEBODY,
    block(0x21, 0x00, ADDITIONS): SOMEBODY,
    block(0x20, 0x00, b""): None,
    block(0x20, 0x11, INET): None,
    block(0x20, 0xFF, ADDITIONS): None,
}

BAD: list[bytes] = [
    b"EHLO client.example\r\n",
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00",
    b"\r\nPROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\n",
    b" PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\n",
    b"proxy TCP4 192.0.2.1 192.0.2.2 56324 25\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP5 192.0.2.1 192.0.2.2 56324 25\r\n",
    b"PROXY tcp4 192.0.2.1 192.0.2.2 56324 25\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 56324 25\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY  TCP4 192.0.2.1 192.0.2.2 56324 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 25 \r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 25 26\r\n",
    b"PROXY TCP4 192.0.2.1\t192.0.2.2 56324 25\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.2 56324 25\r\n",
    b"PROXY TCP4 192.0.02.1 192.0.2.2 56324 25\r\n",
    b"PROXY TCP4 192.0.2 192.0.2.2 56324 25\r\n",
    b"PROXY TCP4 3221225985 192.0.2.2 56324 25\r\n",
    b"PROXY TCP4 localhost 192.0.2.2 56324 25\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 25\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 56324 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 2001:db8::2 56324 25\r\n",
    b"PROXY TCP6 2001:db8::1 2001:db8::g 56324 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 025 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 2_5 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 smtp\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 \xd9\xa2 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\nEHLO x\r\n",
    b"PROXY UNKNOWN" + b" " * 93 + b"\r\n",
    b"PROXY UNKNOWN" + b" " * 94,
    SIGNATURE[:-1] + b"\r" + bytes(16),
    block(0x11, 0x11, INET),
    block(0x31, 0x11, INET),
    block(0x22, 0x11, INET),
    block(0x2F, 0x11, INET),
    block(0x21, 0x12, INET),
    block(0x21, 0x22, INET6),
    block(0x21, 0x32, UNIX),
    block(0x21, 0x01, INET),
    block(0x21, 0x10, INET),
    block(0x21, 0x41, INET6),
    block(0x21, 0x11, INET[:-1]),
    block(0x21, 0x11, b""),
    block(0x21, 0x21, INET),
    block(0x21, 0x31, UNIX[:-1]),
    block(0x21, 0x11, bytes(MAX_BLOCK + 1))[:16],
    block(0x20, 0x00, bytes(0xFFFF))[:16],
]


def fed(pieces: list[bytes]) -> tuple[Peer | None, bytes] | None:
    """What came of the pieces, fed one by one, with all that was not needed behind it."""
    header = ProxyHeader()
    for number, piece in enumerate(pieces):
        proxied = header.receive(piece)
        if proxied is not None:
            return proxied.peer, proxied.rest + b"".join(pieces[number + 1 :])
    return None


class ProxyHeaderTests(SynchronousTestCase):
    """Whose connection it is."""

    def test_whole(self) -> None:
        """A header tells whose connection it is; nothing of what follows is lost."""
        for octets, peer in GOOD.items():
            for rest in (b"", b"EHLO x\r\n", octets):
                self.assertEqual(ProxyHeader().receive(octets + rest), Proxied(peer, rest), octets[:120])

    def test_split_anywhere(self) -> None:
        """It may come in two pieces, or an octet at a time."""
        for octets, peer in GOOD.items():
            if len(octets) < 300:
                for at in range(len(octets) + 1):
                    self.assertEqual(fed([octets[:at], octets[at:] + b"EHLO"]), (peer, b"EHLO"), octets)
            whole = octets + b"EHLO"
            self.assertEqual(fed([whole[at : at + 1] for at in range(len(whole))]), (peer, b"EHLO"))

    def test_cut(self) -> None:
        """Of a part of it nothing is known yet."""
        for octets in GOOD:
            for at in range(min(len(octets), 300)):
                self.assertIsNone(ProxyHeader().receive(octets[:at]), octets[:at])
            self.assertIsNone(ProxyHeader().receive(octets[:-1]))

    def test_bad(self) -> None:
        """What is none is refused, whole or an octet at a time, whatever follows."""
        for octets in BAD:
            for rest in (b"", b"EHLO x\r\n", bytes(1 << 17)):
                self.assertRaises(ProxyError, ProxyHeader().receive, octets + rest)
            self.assertRaises(ProxyError, fed, [octets[at : at + 1] for at in range(len(octets))])

    @given(st.binary(), st.data())
    def test_anything(self, octets: bytes, data: st.DataObject) -> None:
        """Whatever comes, and however it is cut, the outcome is the same."""
        octets = data.draw(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 1", SIGNATURE, *GOOD])) + octets
        cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=5)))
        bounds = [0, *cuts, len(octets)]
        pieces = [octets[start:end] for start, end in pairwise(bounds)]
        self.assertEqual(outcome(pieces), outcome([octets]))

    @given(st.sampled_from(list(GOOD)), st.data())
    def test_damaged(self, octets: bytes, data: st.DataObject) -> None:
        """One octet that is wrong gives another header, none yet, or an error of the one kind."""
        at = data.draw(st.integers(0, min(len(octets), 300) - 1))
        outcome([octets[:at] + bytes([data.draw(st.integers(0, 255))]) + octets[at + 1 :]])


def outcome(pieces: list[bytes]) -> object:
    """What came of the pieces, or that it was refused."""
    try:
        return fed(pieces)
    except ProxyError:
        return ProxyError
