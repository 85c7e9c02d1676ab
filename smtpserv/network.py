"""Where a peer is: its IP address, the networks that hold it, and what it is counted by."""

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

#: Where IPv4 addresses stand that come over IPv6 sockets (RFC 4291 section 2.5.5.2).
_MAPPED: Final = IPv6Network("::ffff:0:0/96")

#: The word that stands for Unix sockets in a list of networks.
UNIX: Final = "unix"


#: Where a client is of whom a proxy can't tell: somewhere else, by no means here or with the proxy.
UNKNOWN: Final = "0.0.0.0"


@lru_cache(1024)
def ip_address(host: str) -> IPAddress | None:
    """The address of a peer, without a zone; one that is mapped into IPv6 is what it was in IPv4.

    :return: None for a Unix socket, which has none.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if address.version == 6 else None) or address


@lru_cache(4096)
def place_of(host: str) -> str:
    """What a peer is counted by: the address, or the /64 that one IPv6 customer has to himself."""
    address = ip_address(host)
    if address is None:
        return host
    return str(ipaddress.ip_network((address, 64 if address.version == 6 else 32), strict=False))


@lru_cache(4096)
def is_local(host: str) -> bool:
    """Whether the peer is on this machine: a loopback address or a Unix socket."""
    address = ip_address(host)
    return address is None or address.is_loopback


def is_public(host: str) -> bool:
    """Whether the peer's address is one of the Internet's: not loopback, private or link-local."""
    address = ip_address(host)
    return address is not None and address.is_global


@dataclass(frozen=True, slots=True)
class Networks:
    """A set of networks; ``host in networks`` says whether a peer is in one of them.

    :param unix: whether whoever comes by a Unix socket is in it too.
    """

    networks: tuple[IPNetwork, ...] = ()
    unix: bool = False

    def __contains__(self, host: str) -> bool:
        address = ip_address(host)
        if address is None:
            return self.unix
        return any(address in network for network in self.networks)

    @classmethod
    def parse(cls, written: str) -> "Networks":
        """Read a list such as ``192.0.2.0/24,2001:db8::/32,::1,unix``; nothing is no network.

        :raises ValueError: for what is no network, or is the whole Internet.
        """
        words = [word for part in written.split(",") if (word := part.strip())]
        networks = tuple(_network(word) for word in words if word != UNIX)
        if _are_everybody(networks):
            raise ValueError(f"a list of networks that leaves somebody out ({written})")
        return cls(networks, UNIX in words)


def _are_everybody(networks: tuple[IPNetwork, ...]) -> bool:
    """Whether all of IPv4 or of IPv6 is in them, in one or in several together."""
    of_four = ipaddress.collapse_addresses(each for each in networks if isinstance(each, IPv4Network))
    of_six = ipaddress.collapse_addresses(each for each in networks if isinstance(each, IPv6Network))
    return IPv4Network("0.0.0.0/0") in of_four or IPv6Network("::/0") in of_six


def _network(written: str) -> IPNetwork:
    """One network; of mapped addresses it is the IPv4 network.

    :raises ValueError: for what is none.
    """
    try:
        network = ipaddress.ip_network(written)
    except ValueError as error:
        raise ValueError(f"a list of networks such as 192.0.2.0/24,2001:db8::/32 ({error})") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None
        network = IPv4Network((mapped, network.prefixlen - _MAPPED.prefixlen))
    return network
