"""Policies that ask the DNS about a client's address: block lists (RFC 5782) and its reverse name.

What the DNS can't tell speaks for the client: a timeout or a server that failed lets it in.
"""

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.names import dns
from zope.interface import implementer

from smtpserv import reply
from smtpserv.arguments import read_argument
from smtpserv.domain import canonical
from smtpserv.interfaces import ISessionPolicy
from smtpserv.message import Session
from smtpserv.network import IPAddress, Networks, ip_address, is_public
from smtpserv.policy.lookup import Lookup, system_lookup
from smtpserv.reply import Reply

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore

#: Answers that say an address is listed (RFC 5782 section 2.1); but not those by which lists in wide use
#: say that they won't answer whoever asks.
_LISTED: Final = IPv4Network("127.0.0.0/8")
_NOT_ANSWERED: Final = IPv4Network("127.255.255.0/24")

#: Names of one address that are looked at; some have hundreds.
_MAX_NAMES: Final = 5


class _AboutAddresses:
    """Asked when a client connects.

    :param exempt: peers that are let in unasked, as those are whose address is not one of the Internet's.
    """

    def __init__(self, lookup: Lookup, exempt: Networks) -> None:
        self._lookup: Final = lookup
        self._exempt: Final = exempt

    def connect(self, session: Session) -> "Deferred[Reply | None] | None":
        """Ask about the address."""
        host = session.peer.host
        address = ip_address(host)
        if address is None or not is_public(host) or host in self._exempt:
            return None
        return Deferred.fromCoroutine(self._judge(address))

    def hello(self, session: Session) -> None:
        """The name a client gives itself proves nothing."""

    async def _judge(self, address: IPAddress) -> Reply | None:
        raise NotImplementedError


@implementer(ISessionPolicy)
class BlockLists(_AboutAddresses):
    """Refuses clients whose address stands in a DNS block list.

    :param zones: the lists, which are asked all at once.
    """

    def __init__(self, lookup: Lookup, zones: tuple[str, ...], exempt: Networks) -> None:
        super().__init__(lookup, exempt)
        self._zones: Final = zones

    async def _judge(self, address: IPAddress) -> Reply | None:
        name = _reversed(address)
        answers = await gatherResults([self._lookup.find(dns.A, f"{name}.{zone}") for zone in self._zones])
        for zone, records in zip(self._zones, answers, strict=True):
            if any(_is_listing(record) for record in records or ()):
                return reply.listed(zone)
        return None


@implementer(ISessionPolicy)
class ReverseNames(_AboutAddresses):
    """Refuses clients whose address has no name in the DNS that leads back to it (RFC 8601 section 2.7.3)."""

    async def _judge(self, address: IPAddress) -> Reply | None:
        pointers = await self._lookup.find(dns.PTR, address.reverse_pointer)
        if pointers is None:
            return None
        kind = dns.AAAA if address.version == 6 else dns.A
        names = filter(canonical, map(_name, pointers[:_MAX_NAMES]))
        answers = await gatherResults([self._lookup.find(kind, name) for name in names])
        found = {_address(record) for records in answers for record in records or ()}
        return None if None in answers or address in found else reply.NO_REVERSE_NAME


def _reversed(address: IPAddress) -> str:
    """``4.3.2.1``, or the nibbles of an IPv6 address (RFC 5782 sections 2.1 and 2.4)."""
    return address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


def _address(record: Any) -> IPv4Address | IPv6Address:
    return ipaddress.ip_address(record.address)


def _name(pointer: Any) -> str:
    """Whatever octets whoever owns the address put there; a name is ASCII."""
    octets: bytes = pointer.name.name
    return octets.decode("ascii", "replace")


def _is_listing(record: Any) -> bool:
    address = _address(record)
    return address in _LISTED and address not in _NOT_ANSWERED


def make_dnsbl(reactor: "IReactorCore", zone: str, exempt: str = "") -> BlockLists:
    """The policy of ``--policy=dnsbl:zone=ZONE,...``.

    :raises StartError: for a zone that is no domain name.
    """
    zones = read_argument("zone", _zones, zone)
    return BlockLists(system_lookup(reactor), zones, read_argument("exempt", Networks.parse, exempt))


def make_rdns(reactor: "IReactorCore", exempt: str = "") -> ReverseNames:
    """The policy of ``--policy=rdns``.

    :raises StartError: for networks that are none.
    """
    return ReverseNames(system_lookup(reactor), read_argument("exempt", Networks.parse, exempt))


def _zones(written: str) -> tuple[str, ...]:
    zones = tuple(canonical(part.strip()) for part in written.split(","))
    if None in zones:
        raise ValueError("a list of domain names such as dnsbl.example,bl.example")
    return tuple(filter(None, zones))
