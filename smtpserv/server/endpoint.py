"""Where the server listens: Twisted's endpoint strings, and what connections go through behind them.

``haproxy:`` is the PROXY header of a trusted proxy and ``tls:`` the TLS of its client; they stand in the
order in which they come: ``haproxy:tls:8465:path=/etc/ssl/mail.pem``. All else is Twisted's.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from smtpserv.error import StartError
from smtpserv.server.proxied import ProxiedFactory

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from smtpserv.tls import Certificates

#: Puts something between the connections and what a factory makes for them.
Layer = Callable[[IProtocolFactory], IProtocolFactory]

_FIELD: Final = re.compile(r"(?:^|:)((?:[^:\\]|\\.?)*)", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@implementer(IStreamServerEndpoint)
class LayeredEndpoint:
    """An endpoint whose connections go through some layers, the first one first."""

    def __init__(self, endpoint: IStreamServerEndpoint, layers: list[Layer]) -> None:
        self._endpoint: Final = endpoint
        self._layers: Final = layers

    def listen(self, protocolFactory: IProtocolFactory) -> "Deferred[IListeningPort]":
        """Listen, for a factory that meets connections behind the last layer."""
        for layer in reversed(self._layers):
            protocolFactory = layer(protocolFactory)
        listening: Deferred[IListeningPort] = self._endpoint.listen(protocolFactory)
        return listening


class Entrance:
    """Makes endpoints, and the certificates that they share.

    :param trusts: whose PROXY headers count, see :class:`ProxiedFactory`; None for nobody's.
    :param tls_path: of the certificates of ``tls:PORT``; empty for none.
    :param client_ca: of the authorities for clients' certificates; empty for none.
    """

    def __init__(
        self,
        reactor: Any,
        trusts: Callable[[str], bool] | None = None,
        tls_path: str = "",
        client_ca: str = "",
    ) -> None:
        self._reactor: Final = reactor
        self._trusts: Final = trusts
        self._tls_path: Final = tls_path
        self._client_ca: Final = client_ca
        self._certificates: Final[dict[str, Certificates]] = {}

    def certificates(self, path: str) -> "Certificates":
        """Those of a path, read and watched once however many listeners have them.

        :raises StartError: for what can't be used, and where pyOpenSSL is missing.
        """
        try:
            from smtpserv.tls import Certificates
        except ImportError as error:
            raise StartError(f"TLS needs pyOpenSSL: pip install 'Twisted[tls]' ({error})") from None
        if path not in self._certificates:
            try:
                self._certificates[path] = Certificates(path, self._reactor, self._client_ca or None)
            except ValueError as error:
                raise StartError(str(error)) from None
        return self._certificates[path]

    def endpoint(self, description: str, option: str = "listen") -> IStreamServerEndpoint:
        """The endpoint that ``--listen`` describes, or another option.

        :raises StartError: in one line, for one that can't be.
        """
        try:
            layers: list[Layer] = []
            transport = description
            for prefix, peel in _LAYERS.items():
                if transport.startswith(prefix):
                    layer, transport = peel(self, transport.removeprefix(prefix))
                    layers.append(layer)
            return LayeredEndpoint(serverFromString(self._reactor, transport), layers)
        except Exception as error:
            raise StartError(f"--{option}={description}: {error}") from error

    def _proxied(self, rest: str) -> tuple[Layer, str]:
        """``haproxy:`` and any endpoint. The header comes in clear: TLS is behind it, and not before."""
        trusts = self._trusts
        if trusts is None:
            raise StartError("haproxy: needs --trust-proxy")
        if rest.startswith("ssl:"):
            raise StartError("haproxy: goes with tls:, not with ssl:")
        return lambda factory: ProxiedFactory(factory, trusts, self._reactor), rest

    def _secured(self, rest: str) -> tuple[Layer, str]:
        """``PORT[:path=PATH]`` and what ``tcp:`` takes; or Twisted's ``PATH:PORT``, for IPv6 too."""
        fields = _FIELD.findall(rest)
        kind = "tcp"
        if not fields[0].isdigit():
            kind, fields[0] = "tcp6", f"path={fields[0]}"
        paths = [_ESCAPED.sub(r"\1", each[5:]) for each in fields if each.startswith("path=")]
        if not (self._tls_path or paths):
            raise StartError("tls: without path= needs --tls")
        certificates = self.certificates([self._tls_path, *paths][-1])
        others = [each for each in fields if not each.startswith("path=")]

        def layer(factory: IProtocolFactory) -> IProtocolFactory:
            from twisted.protocols.tls import TLSMemoryBIOFactory

            return TLSMemoryBIOFactory(certificates, False, factory, self._reactor)

        return layer, ":".join([kind, *others])


#: By the prefix of their description, in the order in which a connection goes through them.
_LAYERS: Final[Mapping[str, Callable[[Entrance, str], tuple[Layer, str]]]] = {
    "haproxy:": Entrance._proxied,
    "tls:": Entrance._secured,
}
