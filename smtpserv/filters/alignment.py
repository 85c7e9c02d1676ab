"""DMARC (RFC 7489): whether the author's domain stands behind a message, and what it wants done otherwise."""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from email.utils import getaddresses
from typing import Final

from twisted.names import dns

from smtpserv.domain import canonical
from smtpserv.filters.questions import Questions, Untold
from smtpserv.filters.results import Result
from smtpserv.header import Header

#: Authors' domains that are looked at, and characters of the fields that name them.
MOST_DOMAINS: Final = 5
_MOST_FROM: Final = 8192

# dmarc-version = %x76 *WSP "=" *WSP %x44 %x4d %x41 %x52 %x43 %x31 ; comes first (RFC 7489 section 6.3)
_VERSION: Final = re.compile(r"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|$)")
_POLICIES: Final = ("none", "quarantine", "reject")

#: The organizational domain of a domain, by the list of public suffixes (RFC 7489 section 3.2).
Organization = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Alignment:
    """What was found for one author's domain.

    :param is_refused: whether the domain wants the message rejected, without a but.
    """

    result: Result
    is_refused: bool = False


def author_domains(header: Header) -> list[str] | None:
    """The domains of all From fields, each once.

    :return: None when there is none, or too many, or one that is no domain: DMARC can't be applied then.
    """
    fields = [each.text for each in header.named("From")]
    if sum(map(len, fields)) > _MOST_FROM:
        return None
    found = [address.rpartition("@")[2] if "@" in address else "" for _, address in getaddresses(fields)]
    domains = list(dict.fromkeys(map(canonical, found)))
    known = [domain for domain in domains if domain]
    return known if len(known) == len(domains) and 0 < len(known) <= MOST_DOMAINS else None


def check_dmarc(
    domain: str, results: Iterable[Result], organization: Organization, questions: Questions
) -> Alignment:
    """Whether one of the results passed for the author's domain. For a check, in its thread.

    :param results: of SPF and DKIM; where one of them could not tell, this can't tell either that it failed.
    """
    told = (("header.from", domain),)
    results = list(results)
    try:
        own = _tags(domain, questions)
        of_parent = not own and organization(domain) != domain
        tags = _tags(organization(domain), questions) if of_parent else own
    except Untold:
        return Alignment(Result("dmarc", "temperror", told))
    policy = tags.get("sp", tags.get("p", "")) if of_parent else tags.get("p", "")
    if policy not in _POLICIES:
        return Alignment(Result("dmarc", "none", told))
    if any(_is_aligned(domain, result, tags, organization) for result in results):
        return Alignment(Result("dmarc", "pass", told))
    if any(result.value == "temperror" for result in results):
        return Alignment(Result("dmarc", "temperror", told))
    is_meant = tags.get("pct", "100") == "100" and tags.get("t") != "y"
    failed = Result("dmarc", "fail", (*told, ("policy.dmarc", policy)))
    return Alignment(failed, policy == "reject" and is_meant)


def _tags(domain: str, questions: Questions) -> dict[str, str]:
    """The record of a domain; empty where there is none, or more than one (RFC 7489 section 6.6.3)."""
    records = questions.records(dns.TXT, f"_dmarc.{domain}")
    texts = [b"".join(record.data).decode("ascii", "replace") for record in records]
    found = [text for text in texts if _VERSION.match(text)]
    if len(found) != 1:
        return {}
    pairs = (part.partition("=") for part in found[0].split(";"))
    return {tag.strip().lower(): value.strip().lower() for tag, _, value in pairs}


_PROVED: Final[dict[str, tuple[Collection[str], str]]] = {
    "spf": (("smtp.mailfrom", "smtp.helo"), "aspf"),
    "dkim": (("header.d",), "adkim"),
}


def _is_aligned(domain: str, result: Result, tags: dict[str, str], organization: Organization) -> bool:
    """Whether a result speaks for the domain, or in relaxed mode for its organization (section 3.1)."""
    if result.value != "pass":
        return False
    properties, mode = _PROVED[result.method]
    names = (canonical(value) for property, value in result.properties if property in properties)
    proved = next(names, None)
    if not proved:
        return False
    is_strict = tags.get(mode) == "s"
    return proved == domain if is_strict else organization(proved) == organization(domain)
