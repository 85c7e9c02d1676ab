"""The server's certificates: chosen by the name a client asks for, read again when their files change."""

import os
from collections.abc import Callable
from typing import Final

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocol, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from smtpserv.tls.context import blaming, make_context, server_name
from smtpserv.tls.pem import alternative_names, read_authorities, read_identity

_log = Logger()

#: Seconds between two looks at the files.
LOOK: Final = 1.0

#: In a folder, the file for clients that ask for no name we have; without it, the first one.
DEFAULT: Final = "default.pem"

#: Tells a file from a changed one: mtime in nanoseconds, size, inode; None where there is no file.
_Stamp = tuple[int, int, int] | None
_NEVER: Final = (0, 0, 0)


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """What ``startTLS`` and ``TLSMemoryBIOFactory`` make the server's connections from.

    When a handshake begins, at most once a second, files that changed are read again. One that is broken is
    logged, once, and what it held before stays in use. Connections that stand are not touched.

    :param path: a PEM file, or a folder of ``*.pem`` files; each holds a private key and its certificate
        chain, the server's own certificate first.
    :param client_ca: a PEM file of the authorities that clients' certificates are checked against; with it
        clients are asked for theirs, and are free to have none.
    :raises ValueError: in one line, when there is no certificate, or one of them is of no use.
    """

    def __init__(self, path: str, clock: IReactorTime, client_ca: str | None = None) -> None:
        self._path: Final = path
        self._clock: Final = clock
        self._client_ca: Final = client_ca
        self._authorities: list[x509.Certificate] = []
        self._authorities_stamp: _Stamp = _NEVER
        self._files: _Files = {}
        self._contexts: dict[str, SSL.Context] = {}
        self._looked = clock.seconds()
        for fault in self._look():
            raise ValueError(fault)

    def serverConnectionForTLS(self, protocol: IProtocol) -> SSL.Connection:
        """A connection about to shake hands, under the default certificate until the client names another."""
        now = self._clock.seconds()
        if now - self._looked >= LOOK:
            self._looked = now
            for fault in self._look():
                _log.error("TLS: {fault}; what was in use stays in use", fault=fault)
        return SSL.Connection(self._contexts[""])

    def _look(self) -> list[str]:
        """Read what has changed; what is wrong with it, a line each."""
        faults: list[str] = []
        renew = self._look_at_authorities(faults)
        files: _Files = {}
        for path in _paths(self._path):
            stamp = _stamp(path)
            before, certificate = self._files.get(path, (_NEVER, None))
            if renew or stamp != before:
                try:
                    certificate = _Certificate(path, self._authorities, self._choose)
                except ValueError as error:
                    faults.append(str(error))
            files[path] = stamp, certificate
        if not files and (self._files or not self._contexts):
            faults.append(f"{self._path}: no *.pem file is in this folder")
        if files != self._files:
            self._files = files
            self._contexts = _by_name(files) or self._contexts
        return faults

    def _look_at_authorities(self, faults: list[str]) -> bool:
        """Whether clients' certificates are to be checked against others than before."""
        stamp = _stamp(self._client_ca) if self._client_ca else _NEVER
        if self._client_ca is None or stamp == self._authorities_stamp:
            return False
        self._authorities_stamp = stamp
        try:
            self._authorities = read_authorities(self._client_ca)
        except ValueError as error:
            faults.append(str(error))
            return False
        return True

    def _choose(self, connection: SSL.Connection) -> None:
        """Go on with the certificate for the name that the client has said it wants, if it has."""
        name = server_name(connection).lower().rstrip(".")
        wildcard = f"*.{name.partition('.')[2]}"
        contexts = self._contexts
        connection.set_context(contexts.get(name) or contexts.get(wildcard) or contexts[""])


class _Certificate:
    """What one file gives: the DNS names it is chosen by, and the context connections are made from.

    :raises ValueError: in one line, for a file that is of no use.
    """

    def __init__(
        self, path: str, authorities: list[x509.Certificate], choose: Callable[[SSL.Connection], None]
    ) -> None:
        key, chain = read_identity(path)
        with blaming(path):
            self.names: Final = alternative_names(chain[0], x509.DNSName)
            self.context: Final = make_context(key, chain, authorities, choose)


#: By path; None for one that never was of any use.
_Files = dict[str, tuple[_Stamp, _Certificate | None]]


def _by_name(files: _Files) -> dict[str, SSL.Context]:
    """The contexts by DNS name, the default by the empty one; of two files with a name, the first has it."""
    contexts: dict[str, SSL.Context] = {}
    for path in sorted(files, key=lambda path: (os.path.basename(path) != DEFAULT, path)):
        certificate = files[path][1]
        if certificate is not None:
            for name in ("", *certificate.names):
                contexts.setdefault(name.lower(), certificate.context)
    return contexts


def _paths(path: str) -> list[str]:
    """The files in a folder, or the one file, whether it is there or not."""
    try:
        return sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(".pem"))
    except OSError:
        return [path]


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
