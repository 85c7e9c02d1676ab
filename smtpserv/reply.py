"""Replies: the value, its wire form, and the one catalogue of what this server says.

Codes are those of RFC 5321 section 4.2, enhanced status codes those of RFC 3463 and the RFC 5248 registry.
"""

import re
from binascii import b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

#: Longest reply line in octets, code and CRLF included (RFC 5321 section 4.5.3.1.5).
MAX_LINE: Final = 512

_CODE = re.compile(r"[2-5][0-5][0-9]")
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_TEXT = re.compile(r"[\t -~]*")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply to one command.

    It is checked when it is made, so that whatever a processor hands over can be sent as it stands.

    :param code: three digits, the first from 2 to 5, the second from 0 to 5 (RFC 5321 section 4.2). After
        a 421 the connection is closed.
    :param text: printable ASCII; a line feed begins a further line of the reply.
    :param status: the enhanced status code (RFC 3463), of the same class as the code; left out, it is the
        class's general one (``2.0.0``, ``4.0.0``, ``5.0.0``); ``""`` sends none.
    :raises ValueError: for a code, status or text that could not be sent.
    """

    code: int
    text: str = ""
    status: str | None = None
    #: The first digit: 2 done, 3 go on, 4 failed for now, 5 failed for good.
    reply_class: int = field(init=False, repr=False, compare=False)
    #: Whether this is a positive completion (2yz).
    accepted: bool = field(init=False, repr=False, compare=False)
    #: The reply as it goes over the wire.
    octets: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.status is None:
            object.__setattr__(self, "status", _general_status(self.code))
        object.__setattr__(self, "octets", _render(self.code, self.status or "", self.text))
        object.__setattr__(self, "reply_class", self.code // 100)
        object.__setattr__(self, "accepted", self.code // 100 == 2)

    def __str__(self) -> str:
        return self.octets.decode("ascii").rstrip("\r\n")


@lru_cache(1024)
def _leads(code: int, status: str) -> tuple[str, str]:
    """What stands before the text of each line but the last, and of the last.

    :raises ValueError: for a code or status that is none.
    """
    if not _CODE.fullmatch(str(code)):
        raise ValueError(f"not a reply code: {code!r}")
    if status and not (_STATUS.fullmatch(status) and status[0] == str(code)[0]):
        raise ValueError(f"not an enhanced status for {code}: {status!r}")
    return (f"{code}-{status} ", f"{code} {status} ") if status else (f"{code}-", f"{code} ")


def sayable(text: str) -> str:
    """Any text as a reply may say it: escaped where it is not printable ASCII, cut where it is too long."""
    lines = [_UNSAYABLE.sub(lambda match: ascii(match[0])[1:-1], line) for line in text.split("\n")]
    return "\n".join([line[: MAX_LINE - 30] for line in lines[:10]])


_UNSAYABLE: Final = re.compile(r"[^ -~]")


def _general_status(code: int) -> str:
    return "" if code // 100 == 3 else f"{code // 100}.0.0"


def _render(code: int, status: str, text: str) -> bytes:
    more, last = _leads(code, status)
    if text.isascii() and text.isprintable() and len(last) + len(text) + 2 <= MAX_LINE:
        return f"{last}{text}\r\n".encode("ascii")  # as nearly all are
    lines = text.split("\n")
    for line in lines:
        if not (line.isascii() and (line.isprintable() or _TEXT.fullmatch(line))):
            raise ValueError(f"reply text is printable ASCII: {line!r}")
        if len(last) + len(line) + 2 > MAX_LINE:
            raise ValueError(f"reply line over {MAX_LINE} octets: {line[:40]!r}...")
    octets = "".join([f"{more}{line}\r\n" for line in lines[:-1]])
    return f"{octets}{last}{lines[-1]}\r\n".encode("ascii")


@dataclass(frozen=True, slots=True)
class Results:
    """One reply for each forward-path of the envelope, in its order (RFC 2033 section 4.2).

    Under LMTP each is sent. SMTP has room for one reply to all: see :meth:`combined`.
    """

    replies: tuple[Reply, ...]

    def __init__(self, replies: Sequence[Reply]) -> None:
        if not replies:
            raise ValueError("Results holds a reply for each recipient")
        object.__setattr__(self, "replies", tuple(replies))

    def combined(self) -> Reply:
        """The reply that loses nobody's mail: a transient failure before a permanent one before success."""
        return min(self.replies, key=lambda reply: _LOSES_LEAST[reply.reply_class])


_LOSES_LEAST: Final = {4: 0, 5: 1, 3: 2, 2: 3}


# --- the catalogue ---------------------------------------------------------------------------------------
# What each situation is answered with. Nobody else in the package writes a reply's text.


def greeting(hostname: str, protocol: str = "ESMTP") -> Reply:
    """The first thing said; the name comes first (RFC 5321 section 4.2)."""
    return Reply(220, f"{hostname} {protocol} smtpserv", "")


def unwelcome(refusal: Reply) -> Reply:
    """A refusal in place of the greeting: 554 for good, 421 for now (RFC 5321 sections 3.1 and 4.3.2)."""
    return Reply(554 if refusal.reply_class == 5 else 421, refusal.text, refusal.status)


def no_longer_welcome(refusal: Reply) -> Reply:
    """A refusal of whom a proxy speaks for: what it says next must not be heard as the proxy's own."""
    return Reply(421, refusal.text, "4.7.0")


def hello(hostname: str, keywords: Sequence[str] = ()) -> Reply:
    """The answer to HELO or EHLO: our name, then one extension keyword a line (RFC 5321 section 4.1.1.1)."""
    return Reply(250, "\n".join((hostname, *keywords)), "")


def accepted(message_id: str) -> Reply:
    """The message is ours now; its id helps both sides find it in their logs."""
    return Reply(250, f"Ok, {message_id}", "2.6.0")


def challenge(octets: bytes) -> Reply:
    """A step of a SASL exchange (RFC 4954 section 4)."""
    return Reply(334, b2a_base64(octets, newline=False).decode("ascii"), "")


def received(octets: int) -> Reply:
    """A chunk that was not the last (RFC 3030 section 2)."""
    return Reply(250, f"{octets} octets received", "2.0.0")


def unknown_parameter(keyword: str) -> Reply:
    """A MAIL or RCPT parameter of no extension that was announced (RFC 5321 section 4.1.1.11)."""
    return Reply(555, f"Parameter {keyword} not recognized", "5.5.4")


def listed(zone: str) -> Reply:
    """The client's address stands in a DNS block list (RFC 5782)."""
    return Reply(550, f"Your address is listed by {zone}", "5.7.1")


def closing(hostname: str) -> Reply:
    """The answer to QUIT."""
    return Reply(221, f"{hostname} closing connection", "2.0.0")


OK: Final = Reply(250, "Ok", "2.0.0")
SENDER_OK: Final = Reply(250, "Sender ok", "2.1.0")
RECIPIENT_OK: Final = Reply(250, "Recipient ok", "2.1.5")
READY_FOR_TLS: Final = Reply(220, "Ready to start TLS", "2.0.0")
AUTHENTICATED: Final = Reply(235, "Authentication succeeded", "2.7.0")
START_MAIL_INPUT: Final = Reply(354, "End data with <CRLF>.<CRLF>", "")
HELP: Final = Reply(214, "Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT", "2.0.0")
CANNOT_VERIFY: Final = Reply(252, "Cannot verify, but will accept mail and try", "2.1.5")

TOO_MANY_CONNECTIONS: Final = Reply(421, "Too many connections, try again later", "4.7.0")
SHUTTING_DOWN: Final = Reply(421, "Shutting down, try again later", "4.3.2")
FILTER_SHUTS_DOWN: Final = Reply(421, "Service unavailable, try again later", "4.7.0")
IDLE_TOO_LONG: Final = Reply(421, "Idle for too long", "4.4.2")
SESSION_TOO_LONG: Final = Reply(421, "Session lasted too long, connect again", "4.4.2")
DATA_TOO_SLOW: Final = Reply(421, "Mail data came too slowly", "4.4.2")
TOO_MANY_ERRORS: Final = Reply(421, "Too many errors", "4.7.0")
NOT_A_WEB_SERVER: Final = Reply(421, "This is a mail server", "4.7.0")
TOO_MANY_AUTHENTICATIONS: Final = Reply(421, "Too many failed authentications", "4.7.0")
TOO_MANY_COMMANDS: Final = Reply(421, "Too many commands without mail", "4.7.0")

TOO_OFTEN: Final = Reply(450, "Too much in too short a time, try again later", "4.7.0")

# What there is to say for a mail server behind us (RFC 3463 section 3.5): never that it failed for good.
UPSTREAM_DOWN: Final = Reply(451, "The next mail server does not answer, try again later", "4.4.1")
UPSTREAM_LOST: Final = Reply(451, "The connection to the next mail server was lost, try again later", "4.4.2")
UPSTREAM_SLOW: Final = Reply(451, "The next mail server took too long, try again later", "4.4.2")
UPSTREAM_BUSY: Final = Reply(451, "Too many connections to the next mail server, try again later", "4.4.5")
UPSTREAM_CONFUSED: Final = Reply(
    451, "The next mail server said what makes no sense, try again later", "4.5.0"
)
UPSTREAM_INSECURE: Final = Reply(451, "The next mail server could not be trusted, try again later", "4.7.5")
UPSTREAM_LOGIN: Final = Reply(451, "The next mail server did not let us in, try again later", "4.7.0")
ONE_ROUTE: Final = Reply(452, "This one goes another way, send it separately", "4.5.3")
DIVIDED: Final = Reply(451, "This recipient is several, who go different ways", "4.3.5")
ONE_AT_A_TIME: Final = Reply(452, "One recipient at a time, send the others separately", "4.5.3")
FILTER_UNAVAILABLE: Final = Reply(451, "Service unavailable, try again later", "4.7.1")

INSUFFICIENT_STORAGE: Final = Reply(452, "Insufficient system storage", "4.3.1")
TOO_MANY_RECIPIENTS: Final = Reply(452, "Too many recipients", "4.5.3")
LIST_TOO_LONG: Final = Reply(450, "This address leads to too many others", "4.2.4")
LOCAL_ERROR: Final = Reply(451, "Local error in processing", "4.3.0")
PROCESSING_TOO_LONG: Final = Reply(451, "Processing took too long", "4.4.5")

DIRECTORY_AWAY: Final = Reply(451, "Cannot tell now whether this is a mailing list, try again later", "4.4.3")
LISTS_DEFERRED: Final = Reply(451, "The list server could not take the message, try again later", "4.3.0")
LISTS_MISCONFIGURED: Final = Reply(451, "The list server is not set up for this server", "4.3.5")
LISTS_REFUSED: Final = Reply(554, "The list server refused the message", "5.3.0")

# RFC 4954 sections 4 and 6
BAD_RESPONSE: Final = Reply(501, "Malformed authentication response", "5.5.2")
AUTHENTICATION_CANCELLED: Final = Reply(501, "Authentication cancelled", "5.7.0")
BAD_BASE64: Final = Reply(501, "Base64 expected", "5.5.2")
BAD_CHUNK_SIZE: Final = Reply(501, "Chunk size expected", "5.5.4")
RESPONSE_TOO_LONG: Final = Reply(500, "Authentication exchange line too long", "5.5.6")
NEEDS_TLS: Final = Reply(530, "Must issue a STARTTLS command first", "5.7.0")
NEEDS_AUTHENTICATION: Final = Reply(530, "Authentication required", "5.7.0")
NOT_TRUSTED: Final = Reply(550, "Not for you", "5.7.0")
NO_INITIAL_RESPONSE: Final = Reply(501, "This mechanism has no initial response", "5.7.0")
UNKNOWN_MECHANISM: Final = Reply(504, "Authentication mechanism not offered", "5.5.4")
WRONG_CREDENTIALS: Final = Reply(535, "Authentication credentials invalid", "5.7.8")
MECHANISM_NEEDS_TLS: Final = Reply(538, "Encryption required for this mechanism", "5.7.11")
TLS_UNAVAILABLE: Final = Reply(454, "TLS not available", "4.7.0")
AUTHENTICATION_FAILED: Final = Reply(454, "Temporary authentication failure", "4.7.0")

LINE_TOO_LONG: Final = Reply(500, "Line too long", "5.5.2")
UNKNOWN_COMMAND: Final = Reply(500, "Command not recognized", "5.5.2")
NOT_IMPLEMENTED: Final = Reply(502, "Command not implemented", "5.5.1")
OUT_OF_ORDER: Final = Reply(503, "Bad sequence of commands", "5.5.1")
NO_VALID_RECIPIENTS: Final = Reply(554, "No valid recipients", "5.5.1")
BAD_ARGUMENT: Final = Reply(501, "Syntax error in arguments", "5.5.4")
BAD_HELLO_NAME: Final = Reply(501, "Domain name or address literal expected", "5.5.4")
BAD_PARAMETER: Final = Reply(501, "Syntax error in parameters", "5.5.4")
BAD_REVERSE_PATH: Final = Reply(501, "Syntax error in reverse-path", "5.1.7")
BAD_FORWARD_PATH: Final = Reply(501, "Syntax error in forward-path", "5.1.3")
NEEDS_SMTPUTF8: Final = Reply(553, "Non-ASCII address needs SMTPUTF8", "5.6.7")
MESSAGE_TOO_BIG: Final = Reply(552, "Message exceeds the size limit", "5.3.4")
RELAY_DENIED: Final = Reply(550, "Relaying denied", "5.7.1")
REFUSED_BY_FILTER: Final = Reply(550, "Message refused", "5.7.1")
QUARANTINED: Final = Reply(550, "Message refused, as it is not trusted", "5.7.1")
NO_REVERSE_NAME: Final = Reply(550, "Your address has no name that leads back to it", "5.7.25")
SPOKE_EARLY: Final = Reply(554, "You spoke before the greeting", "5.5.0")
NO_SUCH_LIST: Final = Reply(550, "There is no such mailing list", "5.1.1")
MAIL_LOOP: Final = Reply(554, "The message has come in a loop", "5.4.6")
CANNOT_CONVERT: Final = Reply(554, "The next mail server takes no binary content", "5.6.3")
CANNOT_PASS_UTF8: Final = Reply(550, "The next mail server knows no SMTPUTF8", "5.6.9")
CANNOT_REQUIRE_TLS: Final = Reply(
    550, "The next mail server can't be reached as REQUIRETLS demands", "5.7.30"
)
HEADER_TOO_LONG: Final = Reply(554, "Message header is too long", "5.6.0")
DMARC_REFUSED: Final = Reply(550, "Refused by the DMARC policy of the author's domain", "5.7.26")
BARE_NEWLINE: Final = Reply(550, "Bare CR or LF in mail data; lines end in CRLF", "5.6.0")
