"""What ``--http`` serves: ``/metrics``, ``/healthz``, and the pages that a processor offers."""

import ipaddress
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.web import http
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from smtpserv.error import StartError
from smtpserv.metrics import Counts

#: Seconds a client may say nothing: more than the minute after which many a scraper comes again.
IDLE: Final = 90.0

#: Octets of a request's body; what is served here takes none.
MAX_BODY: Final = 65536

TEXT: Final = "text/plain; charset=utf-8"

_HEADERS: Final[Mapping[bytes, bytes]] = {
    b"Server": b"smtpserv",
    b"Cache-Control": b"no-store",
    b"Content-Security-Policy": b"default-src 'none'; frame-ancestors 'none'",
    b"X-Content-Type-Options": b"nosniff",
}

#: What a page says now: status, type and text.
Answer = tuple[int, str, bytes]

NOT_FOUND: Final[Answer] = (http.NOT_FOUND, TEXT, b"not found\n")
NOT_OURS: Final[Answer] = (421, TEXT, b"not a name of this server\n")
NOT_ALLOWED: Final[Answer] = (http.NOT_ALLOWED, TEXT, b"only GET and HEAD\n")


class Page(Resource):
    """A page that can be read and nothing else; what is not below it is not found."""

    def __init__(self, read: Callable[[], Answer]) -> None:
        super().__init__()
        self._read: Final = read

    def render(self, request: Request) -> bytes:
        """Answer any request; one for the head alone as if it were for the whole."""
        allowed = request.method in (b"GET", b"HEAD")
        status, kind, text = self._read() if allowed else NOT_ALLOWED
        request.setResponseCode(status)
        request.setHeader(b"Content-Type", kind.encode("ascii"))
        if not allowed:
            request.setHeader(b"Allow", b"GET, HEAD")
        if request.method != b"HEAD":
            return text
        request.setHeader(b"Content-Length", b"%d" % len(text))
        return b""

    def getChild(self, path: bytes, request: Request) -> IResource:
        """No page has this name."""
        return NO_PAGE


NO_PAGE: Final = Page(lambda: NOT_FOUND)
ELSEWHERE: Final = Page(lambda: NOT_OURS)


class Root(Page):
    """Where all pages hang.

    A processor's pages are only for those who ask for one of our names: by another, another site gave a
    browser our address, to read in its place what is here.

    :param pages: of the processor, by the first part of their path. A page may set other headers than those
        that all have.
    :param more: ours, which anybody may read.
    :param names: ours, besides all addresses.
    """

    def __init__(
        self, pages: Mapping[str, IResource], more: Mapping[str, IResource], names: Collection[str]
    ) -> None:
        super().__init__(lambda: NOT_FOUND)
        for name, page in {**pages, **more}.items():
            self.putChild(name.encode("ascii"), page)
        self._guarded: Final = {name.encode("ascii") for name in pages if name not in more}
        self._names: Final = {name.lower() for name in names}

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        """The page of a name, and what stands at the head of every answer."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        if path in self._guarded and not self._is_for_us(request):
            return ELSEWHERE
        page: IResource = super().getChildWithDefault(path, request)
        return page

    def _is_for_us(self, request: Request) -> bool:
        """By the name that was asked for, and that of the page it was asked from, if that is told."""
        asked, origin = request.getHeader(b"host") or b"", request.getHeader(b"origin")
        return self._is_ours(b"//" + asked) and (origin is None or self._is_ours(origin))

    def _is_ours(self, url: bytes) -> bool:
        try:
            host = urlsplit(url.decode("ascii")).hostname or ""
        except ValueError:
            return False
        if host in self._names:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True


class BoundedRequest(Request):
    """A request whose body may not fill the disk."""

    def handleContentChunk(self, data: bytes) -> None:
        """Take a part of the body; one that is too big ends the connection."""
        channel: Any = self.channel
        assert self.content is not None, "the head is complete"
        if self.content.tell() + len(data) > MAX_BODY:
            channel.transport.abortConnection()
        else:
            super().handleContentChunk(data)


class WebSite(Site):
    """Serves the pages, and keeps no log of who reads them."""

    noisy = False

    def startFactory(self) -> None:
        """Without a log nobody needs the clock that Twisted would start here for its lines."""


def make_site(
    counts: Counts,
    is_draining: Callable[[], bool],
    clock: IReactorTime,
    pages: Mapping[str, IResource] | None = None,
    hostname: str = "localhost",
) -> IProtocolFactory:
    """What serves the web.

    :param is_draining: whether the server only finishes what is under way.
    :param clock: on which clients time out.
    :param pages: of the processor, by the first part of their path.
    :param hostname: by which these may be asked for.
    :raises StartError: where prometheus_client is missing.
    """
    try:
        from smtpserv.exposition import CONTENT_TYPE, Exposition
    except ImportError as error:
        needed = "--http needs prometheus_client: pip install 'smtpserv[metrics]'"
        raise StartError(f"{needed} ({error})") from None
    exposition = Exposition(counts)

    def metrics() -> Answer:
        return http.OK, CONTENT_TYPE, exposition.render()

    def health() -> Answer:
        if is_draining():
            return http.SERVICE_UNAVAILABLE, TEXT, b"shutting down\n"
        return http.OK, TEXT, b"ok\n"

    ours = {"metrics": Page(metrics), "healthz": Page(health)}
    root = Root(pages or {}, ours, ("localhost", hostname))
    site: IProtocolFactory = WebSite(root, requestFactory=BoundedRequest, timeout=IDLE, reactor=clock)
    return site
