"""DKIM (RFC 6376) and ARC (RFC 8617): whether signatures hold. By dkimpy, which is given the header alone.

A sender may sign what he likes, so that what goes to the library is bounded: fields, signatures, white space
and keys.
"""

import base64
import re
from contextlib import suppress
from typing import Any, Final

import dkim  # type: ignore[import-untyped]
from dkim.util import InvalidTagValueList, parse_tag_value  # type: ignore[import-untyped]
from twisted.names import dns

from smtpserv.domain import canonical
from smtpserv.filters.body import Body
from smtpserv.filters.questions import Missing, Questions, Untold
from smtpserv.filters.results import Result
from smtpserv.header import Header

#: Signatures of a message, from above, and sets of ARC that are checked.
MOST_SIGNATURES: Final = 6
MOST_SETS: Final = 10

#: Octets and fields of a header, octets of a signature's field and of a key's record that are looked at. The
#: last allow RSA of 8192 bits; a longer key would take more time to use than the sender's to publish.
_MOST_HEADER: Final = 1 << 17
_MOST_FIELDS: Final = 1000
_MOST_FIELD: Final = 8192
_MOST_KEY: Final = 2048

_SIGNATURE: Final = "DKIM-Signature"
_ARC_FIELDS: Final = (b"arc-seal", b"arc-message-signature", b"arc-authentication-results")
_LONG_SPACE: Final = re.compile(rb"\s{100}")

#: SHA-1 is no proof any more (RFC 8301 section 3.1).
_ALGORITHMS: Final = (b"rsa-sha256", b"ed25519-sha256")


class _NoKey(Exception):
    """The domain publishes no key by that name."""


class _WrongBody(dkim.ValidationError):  # type: ignore[misc]
    """The body is not the one that was signed."""


class _Checked:
    """How dkimpy checks one signature: the body by our digest, the header by its own."""

    #: Set once the library has its own idea of a message.
    signed_body: Body

    def verify_sig(self, sig: Any, include_headers: Any, sig_header: Any, dnsfunc: Any) -> bool:
        """Whether it holds.

        :raises dkim.DKIMException: for one that can't.
        """
        if sig[b"a"] not in _ALGORITHMS:
            raise dkim.ParameterError("algorithm")
        if b"bh" in sig:
            relaxed = sig.get(b"c", b"").partition(b"/")[2] == b"relaxed"
            digest = self.signed_body.digest(relaxed, int(sig[b"l"]) if sig.get(b"l") else None)
            if base64.b64decode(re.sub(rb"\s+", b"", sig[b"bh"])) != digest:
                raise _WrongBody("body")
        signed = {tag: value for tag, value in sig.items() if tag != b"bh"}
        return bool(super().verify_sig(signed, include_headers, sig_header, dnsfunc))  # type: ignore[misc]


class _DKIM(_Checked, dkim.DKIM):  # type: ignore[misc]
    def verify_sig(self, sig: Any, include_headers: Any, sig_header: Any, dnsfunc: Any) -> bool:
        """What does not sign the author says nothing of him (RFC 6376 section 6.1.1)."""
        if b"from" not in include_headers:
            raise dkim.ParameterError("from")
        return super().verify_sig(sig, include_headers, sig_header, dnsfunc)


class _ARC(_Checked, dkim.ARC):  # type: ignore[misc]
    pass


class Signatures:
    """Those of one message.

    :param body: what they may have signed besides the header.
    """

    def __init__(self, header: Header, body: Body, questions: Questions) -> None:
        self._header: Final = header
        self._body: Final = body
        self._questions: Final = questions
        self.count: Final = min(len(header.named(_SIGNATURE)), MOST_SIGNATURES)

    def check(self, index: int) -> Result:
        """Whether the signature counted from 0 above holds. In a thread, by :meth:`Questions.settle`."""
        checker = self._prepared(_DKIM())
        try:
            if not self._is_bounded((_SIGNATURE.lower().encode("ascii"),)):
                raise dkim.MessageFormatError("size")
            value = "pass" if checker.verify(index, self._key) else "fail"
        except Missing:
            raise
        except Exception as error:
            value = _value_of(error)
        return Result("dkim", value, _properties(checker.signature_fields))

    def check_chain(self) -> Result:
        """Whether the chain of ARC sets holds. In a thread, by :meth:`Questions.settle`."""
        try:
            if not self._is_bounded(_ARC_FIELDS) or len(self._header.named("ARC-Seal")) > MOST_SETS:
                return Result("arc", "fail")
            self._ask_ahead()
            status = self._prepared(_ARC()).verify(self._key)[0]
        except Missing:
            raise
        except Exception as error:
            return Result("arc", "temperror" if isinstance(error, Untold) else "fail")
        return Result("arc", (status or b"fail").decode("ascii"))

    def _ask_ahead(self) -> None:
        """Ask for every key of the chain at first, for with each answer the check begins again."""
        for field in (*self._header.named("ARC-Seal"), *self._header.named("ARC-Message-Signature")):
            with suppress(InvalidTagValueList, KeyError, _NoKey, Untold):
                tags = parse_tag_value(field.value)
                self._key(tags[b"s"] + b"._domainkey." + tags[b"d"])

    def _prepared(self, checker: Any) -> Any:
        """One that has the message, which it would take apart line by line by itself."""
        parts = [each.octets.partition(b":") for each in self._header.fields if each.name]
        checker.headers = [[name, value.rstrip(b"\r\n") + b"\r\n"] for name, _, value in parts]
        checker.signed_body = self._body
        return checker

    def _is_bounded(self, names: tuple[bytes, ...]) -> bool:
        fields = [each for each in self._header.fields if each.name in names]
        return (
            self._header.size <= _MOST_HEADER
            and len(self._header.fields) <= _MOST_FIELDS
            and all(len(each.octets) <= _MOST_FIELD for each in fields)
            and not any(_LONG_SPACE.search(each.octets) for each in fields)
        )

    def _key(self, name: bytes, timeout: float = 0) -> bytes:
        """The record of a key, as dkimpy asks for it."""
        wanted = canonical(name.decode("ascii", "replace"))
        records = self._questions.records(dns.TXT, wanted) if wanted else ()
        record = b"".join(records[0].data) if records else b""
        if not record or len(record) > _MOST_KEY:
            raise _NoKey
        return record


def _value_of(error: Exception) -> str:
    """What a check that raised found (RFC 8601 section 2.7.1)."""
    return next(value for kind, value in _VALUES if isinstance(error, kind))


#: What the library did not expect, it can't have found good.
_VALUES: Final[tuple[tuple[Any, str], ...]] = (
    (Untold, "temperror"),
    (_WrongBody, "fail"),
    (dkim.DKIMException, "neutral"),
    (Exception, "permerror"),
)


def _properties(tags: dict[bytes, bytes]) -> tuple[tuple[str, str], ...]:
    """Which signature it was: its domain, selector, algorithm, and the begin of it (RFC 6008)."""
    told = ((tag, tags.get(tag.encode("ascii"), b"").decode("ascii", "replace")) for tag in "dsab")
    return tuple((f"header.{tag}", value[:8] if tag == "b" else value) for tag, value in told if value)
