"""All that ``verify`` checks of a message, in the order in which one needs the other."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from publicsuffixlist import PublicSuffixList
from twisted.internet.defer import Deferred

from smtpserv.filters.alignment import Organization, author_domains, check_dmarc
from smtpserv.filters.body import Body
from smtpserv.filters.questions import Questions
from smtpserv.filters.results import Findings, Result
from smtpserv.filters.sender import check_spf
from smtpserv.filters.signature import Signatures
from smtpserv.header import Header
from smtpserv.message import Message

#: Organizational domains that are remembered.
_MOST_KNOWN: Final = 1000


def make_check() -> Callable[[Message, Header, Questions], "Deferred[Findings]"]:
    """One that knows the public suffixes, which takes it a moment to learn."""
    suffixes = PublicSuffixList()

    @lru_cache(_MOST_KNOWN)
    def organization(domain: str) -> str:
        return suffixes.privatesuffix(domain) or domain

    return lambda message, header, questions: Deferred.fromCoroutine(
        _check(message, header, questions, organization)
    )


async def _check(
    message: Message, header: Header, questions: Questions, organization: Organization
) -> Findings:
    signatures = Signatures(header, Body(message.content, header.size), questions)
    proved = [await questions.settle(check_spf, message, questions)]
    proved += [await questions.settle(signatures.check, index) for index in range(signatures.count)]
    if not signatures.count:
        proved.append(Result("dkim", "none"))
    chain = await questions.settle(signatures.check_chain)
    domains = author_domains(header)
    if domains is None:
        return Findings((*proved, chain, Result("dmarc", "permerror")), False)
    aligned = [
        await questions.settle(check_dmarc, domain, proved, organization, questions) for domain in domains
    ]
    results = (*proved, chain, *(each.result for each in aligned))
    return Findings(results, any(each.is_refused for each in aligned))
