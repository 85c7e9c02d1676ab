"""RFC 5321 section 4.1.2 as regular expressions over octets, each under the grammar it renders.

With RFC 6531 section 3.3 in them: octets over 127 pass here and must then decode as UTF-8.
https://www.rfc-editor.org/rfc/rfc5321#section-4.1.2
"""

import ipaddress
import re
from typing import Final

#: Longest path, punctuation included (RFC 5321 section 4.5.3.1.3), and longest domain (4.5.3.1.2). The 64
#: octets of a local-part (4.5.3.1.1) are no limit here: VERP addresses of mailing lists go beyond them.
MAX_PATH: Final = 256
MAX_DOMAIN: Final = 255

# Let-dig = ALPHA / DIGIT ; sub-domain = Let-dig [Ldh-str] ; Domain = sub-domain *("." sub-domain)
# RFC 6531: sub-domain =/ U-label
_LET_DIG = rb"[A-Za-z0-9\x80-\xff]"
_SUB_DOMAIN = _LET_DIG + rb"++(?:-++" + _LET_DIG + rb"++)*+"
_DOMAIN = _SUB_DOMAIN + rb"(?:\." + _SUB_DOMAIN + rb")*+"

# address-literal = "[" ( IPv4-address-literal / IPv6-address-literal / General-address-literal ) "]"
# dcontent = %d33-90 / %d94-126 ; but no "@", so that the last one always stands before the domain;
# what is in it is checked by is_address_literal
_ADDRESS_LITERAL = rb"\[[!-?A-Z^-~]+\]"

# atext = ALPHA / DIGIT / "!#$%&'*+-/=?^_`{|}~" ; Dot-string = Atom *("." Atom)
# RFC 6531: atext =/ UTF8-non-ascii
_ATOM = rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\xff]++"
_DOT_STRING = _ATOM + rb"(?:\." + _ATOM + rb")*+"

# Quoted-string = DQUOTE *QcontentSMTP DQUOTE ; qtextSMTP = %d32-33 / %d35-91 / %d93-126
# quoted-pairSMTP = %d92 %d32-126 ; RFC 6531: qtextSMTP =/ UTF8-non-ascii
_QUOTED_STRING = rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"'

# Mailbox = Local-part "@" ( Domain / address-literal )
_MAILBOX = (
    rb"(?:" + _DOT_STRING + rb"|" + _QUOTED_STRING + rb")@(?:" + _DOMAIN + rb"|" + _ADDRESS_LITERAL + rb")"
)

# Mailbox, as most are: letters, digits, - and _, in ASCII, and of a length that any path may have
_USUAL_LABEL = r"[a-z0-9]++(?:-++[a-z0-9]++)*+"
USUAL_MAILBOX: Final = re.compile(
    r"(?!.{250})[a-z0-9_-]++(?:\.[a-z0-9_-]++)*+@" + _USUAL_LABEL + rf"(?:\.{_USUAL_LABEL})*+",
    re.IGNORECASE | re.ASCII,
)

# A-d-l = At-domain *( "," At-domain ) ; Path = "<" [ A-d-l ":" ] Mailbox ">"
# The source route must be accepted and should be ignored (RFC 5321 section 4.1.1.3, appendix C).
_ROUTE = rb"(?:@" + _DOMAIN + rb"(?:,@" + _DOMAIN + rb")*:)?"

# What follows a path: parameters behind spaces, taken apart by the caller.
_TAIL = rb"(?:[ ](.*))?"

# A space behind the colon is no part of the grammar; clients send it all the same.
# "MAIL FROM:" Reverse-path [SP Mail-parameters] ; Reverse-path = Path / "<>"
MAIL_ARGUMENT: Final = re.compile(
    rb"(?i:FROM):[ ]*<" + rb"(?:" + _ROUTE + rb"(" + _MAILBOX + rb"))?>" + _TAIL, re.DOTALL
)

# "RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path ) [SP Rcpt-parameters]
RCPT_ARGUMENT: Final = re.compile(
    rb"(?i:TO):[ ]*<" + rb"(?:" + _ROUTE + rb"(" + _MAILBOX + rb")|((?i:postmaster)))>" + _TAIL, re.DOTALL
)

# esmtp-param = esmtp-keyword ["=" esmtp-value] ; esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
# esmtp-value = 1*(%d33-60 / %d62-126) ; RFC 6531: esmtp-value =/ UTF8-non-ascii
PARAMETER: Final = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\xff]+))?")

# "AUTH" SP sasl-mech [SP initial-response] (RFC 4954 section 8); sasl-mech = 1*20(UPPER / DIGIT / "-" / "_")
# Whether the response is base64 is seen when it is decoded, and has a reply of its own.
AUTH_ARGUMENT: Final = re.compile(rb"([A-Za-z0-9_-]{1,20})(?: +([!-~]+))?")

# "BDAT" SP chunk-size [SP "LAST"] (RFC 3030 section 2)
BDAT_ARGUMENT: Final = re.compile(rb"([0-9]{1,20})( +LAST)?", re.IGNORECASE)

# EHLO's argument: Domain / address-literal. Underscores are no part of a domain; hosts have them still.
_HELLO_NAME = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|" + _ADDRESS_LITERAL)

# Standardized-tag ":" 1*dcontent, the General-address-literal
_GENERAL_LITERAL = re.compile(r"[A-Za-z0-9-]*[A-Za-z0-9]:.+")


def is_address_literal(literal: str) -> bool:
    """Whether it is a valid address literal, brackets included: ``[192.0.2.1]``, ``[IPv6:2001:db8::1]``."""
    inner = literal[1:-1]
    try:
        if inner[:5].upper() == "IPV6:":
            ipaddress.IPv6Address(inner[5:])
            return "%" not in inner
        if inner[:1].isdigit() and ":" not in inner:
            ipaddress.IPv4Address(inner)
            return True
    except ValueError:
        return False
    return _GENERAL_LITERAL.fullmatch(inner) is not None


def is_peer_address(text: str) -> bool:
    """Whether XCLIENT or XFORWARD may give it as an address: ``192.0.2.1``, ``IPv6:2001:db8::1``."""
    host = text[5:] if text[:5].upper() == "IPV6:" else text
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def is_port(text: str) -> bool:
    """Whether it is the number of a port."""
    return re.fullmatch("[0-9]{1,5}", text) is not None and int(text) < 65536


def is_hello_name(name: bytes) -> bool:
    """Whether EHLO or HELO may be given it: a domain name or an address literal, in ASCII."""
    if not _HELLO_NAME.fullmatch(name) or len(name) > MAX_DOMAIN:
        return False
    return not name.startswith(b"[") or is_address_literal(name.decode("ascii"))


def is_path_of_good_length(address: str) -> bool:
    """Whether the path keeps the limits of RFC 5321 section 4.5.3.1, and its literal, if any, is valid."""
    domain = address.rpartition("@")[2]
    if len(address.encode("utf-8")) + 2 > MAX_PATH or len(domain.encode("utf-8")) > MAX_DOMAIN:
        return False
    return not domain.startswith("[") or is_address_literal(domain)
