"""The service extensions this server knows, one row each."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from smtpserv import reply
from smtpserv.dialogue import command
from smtpserv.dialogue.extension import Check, Extension, Standing

# xtext = *( xchar / hexchar ), which decodes to printable ASCII (RFC 3461 section 4)
# Its digits are capitals, whatever else may be in any case.
_XTEXT = r"(?-i:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))"
# utf-8-addr-unitext and utf-8-addr-xtext (RFC 6533 section 3), which name no control character
_HEXPOINT = (
    "[2-6A-F][0-9A-F]|7[0-9A-E]|[1-9A-F][0-9A-F]{2}|(?!D[89A-F])[1-9A-F][0-9A-F]{3}|[1-9A-F][0-9A-F]{4}"
)
_UNITEXT = rf"(?-i:[!-*,-<>-\[\]-~]|\\x\{{(?:{_HEXPOINT}|10[0-9A-F]{{4}})\}}|[^\x00-\x7f])"
_NOTIFY = "SUCCESS|FAILURE|DELAY"
_DATE_TIME = re.compile(
    r"[0-9]{4}(?:-[0-9]{2}){2}T[0-9]{2}(?::[0-9]{2}){2}(?:Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


def _absent(value: str | None) -> bool:
    return value is None


def _matches(pattern: str) -> Check:
    compiled = re.compile(pattern, re.IGNORECASE | re.ASCII)
    return lambda value: value is not None and compiled.fullmatch(value) is not None


def _notify(value: str | None) -> bool:
    """``NEVER``, or some of the others, each once (RFC 3461 section 4.1)."""
    words = (value or "").upper().split(",")
    return words == ["NEVER"] or (
        len(set(words)) == len(words) and {"SUCCESS", "FAILURE", "DELAY"} >= set(words)
    )


def _date_time(value: str | None) -> bool:
    """A moment there is, as RFC 3339 writes it."""
    try:
        return _DATE_TIME.fullmatch(value or "") is not None and bool(datetime.fromisoformat(value or ""))
    except ValueError:
        return False


def _honoured(keyword: str) -> Callable[[Any, Standing], bool]:
    """Offered if the processor says that it does what the extension promises."""
    return lambda terms, standing: keyword in terms.honours


def _mechanisms(terms: Any, standing: Standing) -> str:
    return " ".join(standing.mechanisms)


EXTENSIONS: Final = (
    Extension("PIPELINING"),  # RFC 2920
    Extension(  # RFC 1870
        "SIZE",
        argument=lambda terms, _: str(terms.max_size),
        mail={"SIZE": _matches("[0-9]{1,20}")},
        allowance=26,
    ),
    Extension("8BITMIME", mail={"BODY": _matches("7BIT|8BITMIME")}),  # RFC 6152
    Extension("SMTPUTF8", mail={"SMTPUTF8": _absent}, allowance=10),  # RFC 6531
    Extension("ENHANCEDSTATUSCODES"),  # RFC 2034
    Extension("LIMITS", argument=lambda terms, _: f"RCPTMAX={terms.max_recipients}"),  # RFC 9422
    Extension("CHUNKING", verbs={"BDAT": command.parse_bdat}),  # RFC 3030 section 2
    Extension(  # RFC 3030 section 3
        "BINARYMIME",
        offered=_honoured("BINARYMIME"),
        mail={"BODY": _matches("7BIT|8BITMIME|BINARYMIME")},
        allowance=16,
    ),
    Extension(  # RFC 3207
        "STARTTLS",
        offered=lambda terms, standing: terms.tls and not standing.secure,
        verbs={"STARTTLS": command.parse_starttls},
    ),
    Extension(  # RFC 4954; the allowance makes room for a line of 12288 octets
        "AUTH",
        argument=_mechanisms,
        offered=lambda terms, standing: terms.auth and bool(standing.mechanisms),
        mail={"AUTH": _matches(rf"<>|{_XTEXT}{{1,500}}")},
        verbs={"AUTH": command.parse_auth},
        allowance=8192,
    ),
    Extension(  # RFC 3461
        "DSN",
        offered=_honoured("DSN"),
        mail={"RET": _matches("FULL|HDRS"), "ENVID": _matches(rf"(?=.{{1,100}}\Z){_XTEXT}+")},
        rcpt={
            "NOTIFY": _notify,
            "ORCPT": _matches(rf"(?=.{{1,500}}\Z)(?:utf-8;{_UNITEXT}+|(?!utf-8;)[A-Z0-9-]+;{_XTEXT}+)"),
        },
        allowance=700,
    ),
    Extension(  # RFC 8689
        "REQUIRETLS",
        offered=lambda terms, standing: standing.secure and "REQUIRETLS" in terms.honours,
        mail={"REQUIRETLS": _absent},
        allowance=11,
    ),
    Extension(  # RFC 2852
        "DELIVERBY",
        offered=_honoured("DELIVERBY"),
        mail={"BY": _matches(r"[+-]?[0-9]{1,9};NT?|\+?(?=0*[1-9])[0-9]{1,9};RT?")},
        allowance=17,
    ),
    Extension(  # RFC 4865; how long is too long is for the processor to say
        "FUTURERELEASE",
        argument=lambda *_: "999999999 9999-12-31T23:59:59Z",
        offered=_honoured("FUTURERELEASE"),
        mail={"HOLDFOR": _matches("[1-9][0-9]{0,8}"), "HOLDUNTIL": _date_time},
        one_of=frozenset({"HOLDFOR", "HOLDUNTIL"}),
        allowance=34,
    ),
    Extension(  # RFC 6710
        "MT-PRIORITY",
        offered=_honoured("MT-PRIORITY"),
        mail={"MT-PRIORITY": _matches("-?[1-9]|0")},
        allowance=15,
    ),
    Extension(  # http://www.postfix.org/XCLIENT_README.html
        "XCLIENT",
        argument=lambda *_: " ".join(sorted(command.XCLIENT_ATTRIBUTES)),
        offered=lambda terms, standing: standing.trusted,
        verbs={"XCLIENT": command.parse_xclient},
        withheld=reply.NOT_TRUSTED,
    ),
    Extension(  # http://www.postfix.org/XFORWARD_README.html
        "XFORWARD",
        argument=lambda *_: " ".join(sorted(command.XFORWARD_ATTRIBUTES)),
        offered=lambda terms, standing: standing.trusted,
        verbs={"XFORWARD": command.parse_xforward},
        withheld=reply.NOT_TRUSTED,
    ),
)
