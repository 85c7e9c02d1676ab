"""Signatures by dkimpy, which is given the header alone: the body by our own digest, which never holds it."""

import base64
from collections.abc import Sequence
from typing import Any, Final

import dkim  # type: ignore[import-untyped]

from smtpserv.edit import InsertField
from smtpserv.filters.body import Body
from smtpserv.filters.signing_key import KeyFile
from smtpserv.header import Header
from smtpserv.message import Message

#: The fields that are signed where nothing else is said (RFC 6376 section 5.4.1), and those never to be
#: signed, since servers on the way change them.
FIELDS: Final = tuple(sorted(name.decode("ascii") for name in dkim.DKIM.SHOULD))
NEVER: Final = frozenset(name.decode("ascii") for name in dkim.DKIM.SHOULD_NOT)

_RELAXED: Final = (b"relaxed", b"relaxed")


class Signer:
    """Signs for any domain by one key.

    :param fields: names of the header fields that are signed, in lower case; From is one of them.
    """

    def __init__(self, selector: str, key_file: KeyFile, fields: Sequence[str]) -> None:
        self._selector: Final = selector.encode("ascii")
        self._key_file: Final = key_file
        self._fields: Final = fields

    def sign(self, message: Message, header: Header, domain: str) -> InsertField:
        """The field that signs a message. In a thread, for it reads all of it.

        :param header: of the message; each of its lines is a field.
        """
        key = self._key_file.key()
        signer = _HeaderSigner(header, Body(message.content, header.size).digest(relaxed=True))
        field: bytes = signer.sign(
            self._selector,
            domain.encode("ascii"),
            key.octets,
            signature_algorithm=key.algorithm,
            canonicalize=_RELAXED,
            include_headers=self._signed(header),
        )
        name, _, value = field.decode("ascii").removesuffix("\r\n").partition(": ")
        return InsertField(name, value)

    def _signed(self, header: Header) -> list[bytes]:
        """Every field of each name; and one From more than there is, so that none can be put before it."""
        names = [name for name in self._fields for _ in header.named(name)]
        return [name.encode("ascii") for name in [*names, "from"]]


class _HeaderSigner(dkim.DKIM):  # type: ignore[misc]
    """dkimpy's, for a message of which it has the header and a digest."""

    def __init__(self, header: Header, body_digest: bytes) -> None:
        super().__init__()
        parts = [each.octets.partition(b":") for each in header.fields]
        self.headers = [(name, value.rstrip(b"\r\n") + b"\r\n") for name, _, value in parts]
        self.body = b""
        self._body_hash: Final = base64.b64encode(body_digest)

    def gen_header(self, fields: list[tuple[bytes, bytes]], *facts: Any) -> Any:
        """The field's value, with the true hash of the body in place of that of none."""
        fields = [(tag, self._body_hash if tag == b"bh" else value) for tag, value in fields]
        return super().gen_header(fields, *facts)
