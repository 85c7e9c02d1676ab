"""Where a peer is: addresses in all their spellings, and sets of networks."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.network import Networks, is_local, is_public, place_of
from tests.fuzz import examples


class PlaceTests(SynchronousTestCase):
    """What a peer is counted by."""

    def test_places(self) -> None:
        """An IPv4 address is a place, mapped or not; of IPv6 the /64 is; a Unix socket is its path."""
        places = {
            "192.0.2.1": "192.0.2.1/32",
            "::ffff:192.0.2.1": "192.0.2.1/32",
            "2001:db8::1": "2001:db8::/64",
            "2001:db8:0:0:ffff::1": "2001:db8::/64",
            "fe80::1%eth0": "fe80::/64",
            "": "",
            "/run/mail.sock": "/run/mail.sock",
        }
        self.assertEqual({host: place_of(host) for host in places}, places)

    def test_kinds(self) -> None:
        """Loopback and Unix sockets are local; neither they nor private addresses are public."""
        kinds = {
            "127.0.0.1": (True, False),
            "::ffff:127.0.0.1": (True, False),
            "::1": (True, False),
            "": (True, False),
            "10.1.2.3": (False, False),
            "fe80::1%eth0": (False, False),
            "100.64.0.1": (False, False),
            "1.2.3.4": (False, True),
            "2600::1": (False, True),
        }
        self.assertEqual({host: (is_local(host), is_public(host)) for host in kinds}, kinds)


class NetworksTests(SynchronousTestCase):
    """Lists of networks."""

    def test_members(self) -> None:
        """An address is in a list if it is in one of its networks, however either is spelt."""
        networks = Networks.parse("192.0.2.0/24, 2001:db8::/32,::ffff:10.0.0.0/104,::1")
        for host in (
            "192.0.2.0",
            "192.0.2.255",
            "::ffff:192.0.2.7",
            "::FFFF:C000:0207",
            "2001:db8:ffff::1",
            "2001:DB8::1%eth0",
            "10.9.8.7",
            "::ffff:10.9.8.7",
            "::1",
        ):
            self.assertIn(host, networks)
        for host in ("192.0.3.0", "2001:db9::1", "11.0.0.0", "127.0.0.1", "::192.0.2.7", "", "x", "192.0.2"):
            self.assertNotIn(host, networks)

    def test_ipv6_holds_no_mapped(self) -> None:
        """A network of IPv6 that is wide enough for mapped addresses does not let all of IPv4 in."""
        self.assertNotIn("192.0.2.1", Networks.parse("::/1"))
        self.assertNotIn("::ffff:192.0.2.1", Networks.parse("::/1"))

    def test_unix(self) -> None:
        """Unix sockets are in it only if it says so."""
        for host in ("", "/run/mail.sock"):
            self.assertIn(host, Networks.parse("unix"))
            self.assertNotIn(host, Networks.parse("127.0.0.0/8"))
        self.assertNotIn("127.0.0.1", Networks.parse("unix"))

    def test_nothing(self) -> None:
        """An empty list holds nobody."""
        self.assertEqual(Networks.parse(" , "), Networks())
        self.assertNotIn("127.0.0.1", Networks())

    def test_wrong(self) -> None:
        """What is no network is named, and so is a network that is everybody."""
        for written in (
            "x",
            "192.0.2.1/24",
            "192.0.2.0/33",
            "Unix",
            "1.2.3",
            "0.0.0.0/0",
            "::/0",
            "::ffff:0:0/96",
        ):
            error = self.assertRaises(ValueError, Networks.parse, f"::1,{written}")
            self.assertIn(written, str(error))

    def test_everybody(self) -> None:
        """Networks that leave nobody out together are refused as one that does alone."""
        for written in ("0.0.0.0/1,128.0.0.0/1", "::/1,::1,8000::/2,c000::/2", "::ffff:0:0/97,128.0.0.0/1"):
            error = self.assertRaises(ValueError, Networks.parse, f"192.0.2.1,{written}")
            self.assertIn("leaves somebody out", str(error))
        self.assertIn("200.0.0.1", Networks.parse("128.0.0.0/1,::/1"))

    @given(st.ip_addresses(v=4), st.integers(1, 32))
    @examples(100)
    def test_mapped(self, address: object, length: int) -> None:
        """An IPv4 peer is in the same networks whether it comes mapped or not."""
        networks = Networks.parse("192.0.2.0/24,128.0.0.0/1,10.0.0.0/8")
        self.assertEqual(str(address) in networks, f"::ffff:{address}" in networks)
