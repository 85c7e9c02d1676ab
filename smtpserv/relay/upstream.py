"""A mail server behind us: where it is, how it is spoken to, and what it offered when it last was."""

import os
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from smtpserv import reply
from smtpserv.dialogue.command import Auth, Hello, Plain, Response
from smtpserv.dialogue.login import ClientMechanism, Credentials, LoginError, choose
from smtpserv.dialogue.wording import CANCEL
from smtpserv.escape import escape_controls
from smtpserv.message import Peer
from smtpserv.relay.client import SMTPClient
from smtpserv.relay.failure import Crowded, GivenUp, UpstreamFailed
from smtpserv.relay.patience import Patience
from smtpserv.reply import Reply
from smtpserv.tls.upstream import TLSMode, UpstreamTLS
from smtpserv.transport import direct_reactor

_log = Logger()

_STARTTLS: Final = Plain("STARTTLS")

#: The modes in which connections begin in clear, and get better.
_BY_STARTTLS: Final = frozenset({TLSMode.OPPORTUNISTIC, TLSMode.REQUIRED})


#: Seconds by which a name may take longer to be resolved and tried than one address.
_GRACE: Final = 5.0

_WHATEVER: Final = UpstreamTLS(TLSMode.OPPORTUNISTIC)


@dataclass(frozen=True, slots=True)
class Upstream:
    """One mail server.

    :param host: a name, an IP address, or the path of a Unix socket.
    :param lmtp: whether it speaks LMTP.
    :param credentials: who we are to it; None when it does not ask.
    """

    host: str
    port: int
    lmtp: bool = False
    tls: UpstreamTLS = _WHATEVER
    credentials: Credentials | None = None
    patience: Patience = field(default_factory=Patience)

    @property
    def tls_name(self) -> str:
        """The name that its certificate has to bear."""
        return "localhost" if self.host.startswith("/") else self.host

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, where nobody listens in between."""
        return self.host in ("localhost", "127.0.0.1", "::1") or self.host.startswith("/")

    def __str__(self) -> str:
        return self.host if self.host.startswith("/") else f"{self.host}:{self.port}"


class _HandshakeFailed(UpstreamFailed):
    """Another try without TLS may do."""


class Doorway:
    """Makes connections to one upstream, up to where MAIL may be said."""

    def __init__(self, reactor: Any, upstream: Upstream, hello_name: str) -> None:
        self.upstream: Final = upstream
        #: What we call ourselves.
        self.hello_name = hello_name
        #: What it offered when it was last spoken to; None before that.
        self.offers: Mapping[str, str] | None = None
        self._reactor: Final = reactor
        self._direct: Final = direct_reactor(reactor)
        tls = upstream.tls
        self._creator: Final = None if tls.mode is TLSMode.NONE else tls.creator(upstream.tls_name)
        #: Connections that are being made.
        self._opening: Final[dict[SMTPClient, float]] = {}

    async def connect(self) -> SMTPClient:
        """A new connection, that is ready for MAIL.

        :raises UpstreamFailed: with why there is none.
        """
        try:
            return await self._open(with_tls=True)
        except _HandshakeFailed as error:
            if self.upstream.tls.mode.is_verified:
                raise
            why = escape_controls(error.why)
            _log.warn("{name} can't shake hands, and is spoken to in clear: {why}", name=str(self), why=why)
            return await self._open(with_tls=False)

    @property
    def is_lmtp(self) -> bool:
        """Whether it speaks LMTP."""
        return self.upstream.lmtp

    def comes_from(self, peer: Peer) -> bool:
        """Whether one of those that are being made has its end of ours there."""
        return any(client.local == peer for client in self._opening)

    def sweep(self, now: float) -> None:
        """End what lasts too long; to be called every second or so."""
        for client, since in list(self._opening.items()):
            client.sweep(now)
            if now - since >= self.upstream.patience.opening:
                client.abort(UpstreamFailed(reply.UPSTREAM_SLOW, "it is not ready for mail"))

    def __str__(self) -> str:
        return str(self.upstream)

    async def _open(self, with_tls: bool) -> SMTPClient:
        client = SMTPClient(self.upstream.patience, self.upstream.lmtp)
        self._opening[client] = self._reactor.seconds()
        try:
            await self._dial(client)
            await self._introduce(client)
            if with_tls and self.upstream.tls.mode in _BY_STARTTLS:
                await self._secure(client)
            if self.upstream.credentials is not None:
                await self._log_in(client, self.upstream.credentials)
        except BaseException:
            client.abort()
            raise
        finally:
            del self._opening[client]
        client.is_verified = client.tls is not None and self.upstream.tls.mode.is_verified
        self.offers = client.offers
        return client

    async def _dial(self, client: SMTPClient) -> None:
        upstream = self.upstream
        try:
            connecting = _connected(self._endpoint().connect(_Once(client)))
            await connecting.addTimeout(upstream.patience.connect + _GRACE, self._reactor, _too_late)
        except CancelledError as error:
            raise GivenUp(str(error)) from None
        except Exception as error:
            raise UpstreamFailed(reply.UPSTREAM_DOWN, f"{upstream}: {error}") from error
        greeting = await client.greeted()
        if not greeting.accepted:
            kind = Crowded if greeting.reply_class == 4 else UpstreamFailed
            raise kind(reply.UPSTREAM_DOWN, greeting)

    def _endpoint(self) -> Any:
        host, port, patience = self.upstream.host, self.upstream.port, self.upstream.patience.connect
        if host.startswith("/"):
            return UNIXClientEndpoint(self._reactor, host, timeout=patience)
        endpoint = HostnameEndpoint(self._direct, host, port, timeout=patience)
        if self.upstream.tls.mode is TLSMode.IMPLICIT:
            assert self._creator is not None, "there is one but for no TLS"
            return wrapClientTLS(self._creator, endpoint)
        return endpoint

    async def _introduce(self, client: SMTPClient) -> None:
        answer = await client.say_hello(Hello("LHLO" if self.upstream.lmtp else "EHLO", self.hello_name))
        if not answer.accepted:
            raise UpstreamFailed(reply.UPSTREAM_DOWN, answer)

    async def _secure(self, client: SMTPClient) -> None:
        """Shake hands, if the server can."""
        answer = None
        if "STARTTLS" in client.dialogue.offers:
            answer = await client.ask(_STARTTLS)
        if answer is None or not answer.accepted:
            if self.upstream.tls.mode.is_verified:
                raise UpstreamFailed(reply.UPSTREAM_INSECURE, answer or "STARTTLS is not offered")
            return
        try:
            await client.secure(self._creator)
        except UpstreamFailed as error:
            raise _HandshakeFailed(reply.UPSTREAM_INSECURE, error.why) from None
        await self._introduce(client)

    async def _log_in(self, client: SMTPClient, credentials: Credentials) -> None:
        mechanism = choose(
            client.dialogue.offers.get("AUTH", "").split(),
            credentials,
            os.urandom(18).hex(),
            secure=self.upstream.is_local or (client.tls is not None and self.upstream.tls.mode.is_verified),
            channel_binding=client.tls.channel_binding if client.tls is not None else b"",
        )
        if mechanism is None:
            raise UpstreamFailed(reply.UPSTREAM_LOGIN, "it offers no mechanism that we may use")
        try:
            answer = await self._exchange(client, mechanism)
        except LoginError as error:
            raise UpstreamFailed(reply.UPSTREAM_LOGIN, error) from None
        if not answer.accepted:
            raise UpstreamFailed(reply.UPSTREAM_LOGIN, answer)

    async def _exchange(self, client: SMTPClient, mechanism: ClientMechanism) -> Reply:
        """AUTH, from the first word to the last.

        :raises LoginError: for a server that breaks the rules, or is not who it should be.
        """
        answer: Reply = await client.ask(Auth(mechanism.name, mechanism.initial))
        while answer.reply_class == 3:
            try:
                response = Response(await self._respond(mechanism, _unbase64(answer.text)))
            except LoginError:
                await client.ask(CANCEL)
                raise
            answer = await client.ask(response)
        if answer.accepted:
            mechanism.verify(answer.text)
        return answer

    def _respond(self, mechanism: ClientMechanism, challenge: bytes) -> "Deferred[bytes]":
        if mechanism.is_costly:
            return deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), mechanism.respond, challenge
            )
        return maybeDeferred(mechanism.respond, challenge)


def _connected(connecting: "Deferred[Any]") -> "Deferred[Any]":
    """The same, but given up it says so: one whose name is looked up would say that there is no such name."""

    def give_up(connected: "Deferred[Any]") -> None:
        connected.errback(CancelledError())
        connecting.cancel()

    connected: Deferred[Any] = Deferred(give_up)
    connecting.addBoth(lambda result: None if connected.called else connected.callback(result))
    return connected


class _Once(Factory):
    """Of one client."""

    noisy = False

    def __init__(self, client: SMTPClient) -> None:
        self._client: Final = client

    def buildProtocol(self, addr: Any) -> SMTPClient:
        return self._client


def _too_late(_: Any, timeout: float) -> Any:
    raise TimeoutError(f"no connection within {timeout:g} s")


def _unbase64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise LoginError("the server's challenge is not base64") from None
