"""What becomes of MAIL's and RCPT's parameters where the next server may not know them.

None is ever sent that the server did not offer. Those that only help are left out then; without those that
promise something the recipient is refused.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from smtpserv import reply
from smtpserv.error import SMTPError
from smtpserv.message import NO_PARAMETERS, ForwardPath, Parameters, ReversePath
from smtpserv.reply import Reply

#: What a server announced: keyword in capitals -> what stood behind it.
Offers = Mapping[str, str]

#: The extension that each parameter belongs to; those that are not here bear its name.
_EXTENSIONS: Final = {
    "BODY": "8BITMIME",
    "RET": "DSN",
    "ENVID": "DSN",
    "NOTIFY": "DSN",
    "ORCPT": "DSN",
    "BY": "DELIVERBY",
    "HOLDFOR": "FUTURERELEASE",
    "HOLDUNTIL": "FUTURERELEASE",
}


def _unknown(keyword: str) -> Callable[[str | None], Reply | None]:
    return lambda _: reply.unknown_parameter(keyword)


#: What there is against a message whose parameter can't be passed on; None leaves the parameter out.
#: 8-bit content goes as it is to a server without 8BITMIME: nearly all are clean, and none could bounce it.
#: Without DSN a sender that asked for news of success would wait in vain (RFC 3461 section 5.2.2).
_WITHOUT: Final[Mapping[str, Callable[[str | None], Reply | None]]] = {
    "BODY": lambda value: reply.CANNOT_CONVERT if (value or "").upper() == "BINARYMIME" else None,
    "SMTPUTF8": lambda _: reply.CANNOT_PASS_UTF8,
    "REQUIRETLS": lambda _: reply.CANNOT_REQUIRE_TLS,
    "NOTIFY": lambda value: reply.unknown_parameter("NOTIFY") if "SUCCESS" in (value or "").upper() else None,
    "BY": _unknown("BY"),
    "HOLDFOR": _unknown("HOLDFOR"),
    "HOLDUNTIL": _unknown("HOLDUNTIL"),
}


#: What is kept by having arrived: who asked for news of success has them in the reply to the message.
_KEPT_AT_THE_END: Final = frozenset({"NOTIFY", "BY", "REQUIRETLS"})


def pass_sender(path: ReversePath, offers: Offers, more: int = 0, is_final: bool = False) -> ReversePath:
    """The reverse-path as the next server may be told it.

    :param more: octets that we add to the message.
    :param is_final: whether the message has arrived there: nothing that was promised is broken behind it.
    :raises SMTPError: with why it can't be.
    """
    parameters = dict(_passed(path.parameters, offers, is_final))
    size = parameters.get("SIZE")
    if size:
        parameters["SIZE"] = str(int(size) + more)
    return ReversePath(path.address, MappingProxyType(parameters))


def pass_recipient(path: ForwardPath, offers: Offers, is_final: bool = False) -> ForwardPath:
    """The same for a forward-path."""
    return ForwardPath(path.address, _passed(path.parameters, offers, is_final))


def _passed(parameters: Parameters, offers: Offers, is_final: bool) -> Parameters:
    passed = {}
    for keyword, value in parameters.items():
        if _is_offered(keyword, value, offers):
            passed[keyword] = value
        elif keyword in _WITHOUT and not (is_final and keyword in _KEPT_AT_THE_END):
            refusal = _WITHOUT[keyword](value)
            if refusal is not None:
                raise SMTPError(refusal)
    return MappingProxyType(passed) if passed else NO_PARAMETERS


def _is_offered(keyword: str, value: str | None, offers: Offers) -> bool:
    if keyword == "BODY" and (value or "").upper() == "BINARYMIME":
        return "BINARYMIME" in offers and "CHUNKING" in offers
    return _EXTENSIONS.get(keyword, keyword) in offers
