"""SPF (RFC 7208): whether a host may send mail of a domain. By pyspf, with answers that were asked for."""

import ipaddress
from typing import Any, Final

import spf  # type: ignore[import-untyped]
from twisted.names import dns

from smtpserv.domain import canonical
from smtpserv.filters.questions import Missing, Questions, Untold
from smtpserv.filters.results import Result
from smtpserv.message import Message
from smtpserv.network import ip_address

_KINDS: Final[dict[str, int]] = {
    "A": dns.A,
    "AAAA": dns.AAAA,
    "MX": dns.MX,
    "PTR": dns.PTR,
    "TXT": dns.TXT,
}


def _address(record: Any) -> str:
    return str(ipaddress.ip_address(record.address))


def _name(found: Any) -> str:
    octets: bytes = found.name
    return octets.decode("ascii", "replace")


#: What pyspf wants of each record.
_READ: Final[dict[str, Any]] = {
    "A": _address,
    "AAAA": _address,
    "MX": lambda record: (record.preference, _name(record.name)),
    "PTR": lambda record: _name(record.name),
    "TXT": lambda record: record.data,
}


class _Query(spf.query):  # type: ignore[misc]
    """One question for pyspf, which is told what the DNS says."""

    def __init__(self, questions: Questions, *facts: str) -> None:
        super().__init__(*facts)
        self._questions = questions

    def dns(self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False) -> list[Any]:
        """The records of a name, as pyspf has them; it lets no domain send us after too many that are not."""
        wanted = canonical(str(name))
        try:
            records = self._questions.records(_KINDS[qtype], wanted) if wanted else ()
        except Untold:
            raise spf.TempError("DNS") from None
        if not records and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError("too many names without records")
        return [_READ[qtype](record) for record in records]

    def get_explanation(self, spec: object) -> None:
        """What a domain would have us tell its senders is not told."""


def check_spf(message: Message, questions: Questions) -> Result:
    """Whether the client may send for the domain of the reverse-path; if that is null, for its own name."""
    session, path = message.session, message.envelope.reverse_path
    property, named = ("smtp.helo", session.hello_name) if path.is_null else ("smtp.mailfrom", path.domain)
    address, domain = ip_address(session.peer.host), canonical(named)
    if address is None or not domain:
        return Result("spf", "none", ((property, named),) if named else ())
    sender = "" if path.is_null else f"{path.local_part}@{domain}"
    hello = canonical(session.hello_name) or "unknown"
    query = _Query(questions, str(address), sender, domain if path.is_null else hello)
    return Result("spf", _found(query), ((property, domain),))


def _found(query: _Query) -> str:
    try:
        return str(query.check()[0])
    except Missing:
        raise
    except Exception:  # of a record that the library can't read
        return "permerror"
