"""The directory that Mailman's REST API is: ``GET /domains`` and ``GET /lists/LIST@DOMAIN``."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.client import Agent, ResponseDone
from zope.interface import implementer

from smtpserv.domain import canonical
from smtpserv.error import StartError
from smtpserv.mailman.address import candidates
from smtpserv.mailman.cache import Answers, Lives
from smtpserv.mailman.directory import DirectoryAway, IListDirectory

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore

#: Questions under way; more wait. Mailman has two workers.
PARALLEL: Final = 4

#: Octets of an answer; a thousand domains are a quarter of it.
MAX_BODY: Final = 1 << 20

#: Seconds that connecting may take, and that a domain new to Mailman may be unknown here.
CONNECT: Final = 5.0
_DOMAINS_LIVE: Final = Lives(yes=30.0)

_VERSION: Final = "/3.1"


class Login(NamedTuple):
    """Mailman's ``admin_user`` and ``admin_pass``."""

    user: str
    password: str

    def __repr__(self) -> str:
        """Nothing of it is for a log."""
        return "Login(...)"


@implementer(IListDirectory)
class RestDirectory:
    """Asks for each list by its address, and keeps the answers.

    Of addresses in no domain of Mailman's nothing is asked. Since an address that leads elsewhere than to
    the API would say "not found" to everything, the domains have to be read before a list is believed not
    to be there.

    :param client: treq, or what looks like it.
    :param api: the API's URL, as :func:`read_api` gives it.
    """

    def __init__(self, client: Any, api: str, login: Login, clock: IReactorTime) -> None:
        self._client: Final = client
        self._api: Final = api
        self._login: Final = login
        self._turns: Final = DeferredSemaphore(PARALLEL)
        name = f"Mailman's REST API at {api}"
        self._hosts: Final = Answers(name, self._read_hosts, clock, _DOMAINS_LIVE)
        self._lists: Final = Answers(name, self._is_list, clock)

    async def knows(self, mailbox: str) -> bool:
        """Whether one of the lists is there that it may belong to."""
        if not candidates(mailbox):
            return False
        hosts = await self._hosts.find("domains")
        for each in candidates(mailbox, hosts):
            if await self._lists.find(each.list_name):
                return True
        return False

    async def _is_list(self, address: str) -> bool:
        status, _ = await self._get(f"lists/{quote(address, safe='@')}")
        if status not in (http.OK, http.NOT_FOUND):
            raise DirectoryAway(f"HTTP status {status}")
        return status == http.OK

    async def _read_hosts(self, path: str) -> Mapping[str, str]:
        status, body = await self._get(path)
        if status != http.OK:
            raise DirectoryAway(f"HTTP status {status}")
        hosts: dict[str, str] = {}
        for domain in json.loads(body).get("entries", ()):
            host = domain["mail_host"]
            for name in (host, domain["alias_domain"]):
                if (form := canonical(name or "")) is not None:
                    hosts.setdefault(form, host)
        return hosts

    async def _get(self, path: str) -> tuple[int, bytes]:
        """The status and the body; whoever gives up closes the connection."""
        async with self._turns:
            response = await self._client.get(
                f"{self._api}/{path}", auth=tuple(self._login), allow_redirects=False, unbuffered=True
            )
            body = _Body()
            response.deliverBody(body)
            return response.code, await body.complete


class _Body(Protocol):
    """The body of an answer; one that is too long is none."""

    transport: Any

    def __init__(self) -> None:
        #: All of it. Cancelling it closes the connection, for the server may never do so.
        self.complete: Final[Deferred[bytes]] = Deferred(lambda _: self._close())
        self._octets: Final = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Some of it."""
        if self.complete.called:
            return
        self._octets.extend(data)
        if len(self._octets) > MAX_BODY:
            self._close()
            self._end(Failure(DirectoryAway(f"an answer of more than {MAX_BODY} octets")))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end, which not every server tells in advance."""
        is_whole = reason.check(ResponseDone, http.PotentialDataLoss)
        self._end(bytes(self._octets) if is_whole else reason)

    def _close(self) -> None:
        """At once: ``loseConnection`` has TLS wait for the server to close as well."""
        self.transport.stopProducing()

    def _end(self, result: bytes | Failure) -> None:
        if not self.complete.called:
            self.complete.callback(result)


def read_api(written: str) -> str:
    """The URL that ``api=`` gives, with the version of the API if that is left out.

    :raises ValueError: for what is no such URL.
    """
    try:
        url = urlsplit(written)
        good = url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0)
    except ValueError:
        good = False
    if not good or "@" in url.netloc or url.query or url.fragment or not written.isprintable():
        raise ValueError("a URL such as http://localhost:8001/3.1, without a user in it")
    path = url.path.rstrip("/")
    return f"{url.scheme}://{url.netloc}{path}" + ("" if path.endswith(("/3.0", _VERSION)) else _VERSION)


def make_rest_directory(reactor: "IReactorCore", api: str, login: Login) -> RestDirectory:
    """The directory behind a URL that :func:`read_api` has read.

    :raises StartError: where treq is missing.
    """
    return RestDirectory(make_client(reactor), api, login, IReactorTime(reactor))


def make_client(reactor: "IReactorCore") -> Any:
    """What asks. Mailman closes after each answer, so no connection is kept.

    :raises StartError: where treq is missing.
    """
    try:
        from treq.client import HTTPClient
    except ImportError:
        raise StartError("api needs treq: pip install smtpserv[mailman]") from None
    return HTTPClient(Agent(reactor, connectTimeout=CONNECT))
