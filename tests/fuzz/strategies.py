"""What clients say, well-formed and not, for hypothesis to draw from."""

from functools import reduce
from itertools import pairwise
from typing import Final

from hypothesis import strategies as st

_LET_DIG: Final = "abcXYZ019"
_ATEXT: Final = _LET_DIG + "!#$%&'*+-/=?^_`{|}~"
_NON_ASCII: Final = "äß甲\U0001f4e7"


def cut(octets: bytes, places: list[float]) -> list[bytes]:
    """The octets cut at places that are fractions of their length."""
    ends = sorted({int(place * len(octets)) for place in places} | {len(octets)})
    return [octets[start:end] for start, end in pairwise([0, *ends])]


#: Where the network cuts what is sent.
PLACES: Final = st.lists(st.floats(0, 1, exclude_max=True), max_size=12)


def _dotted(part: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    return st.lists(part, min_size=1, max_size=most).map(".".join)


def domains(letters: str = _LET_DIG) -> st.SearchStrategy[str]:
    """``Domain`` of RFC 5321 section 4.1.2."""
    label = st.builds(
        lambda head, middle, tail: head + (middle + tail if tail else ""),
        st.sampled_from(letters),
        st.text(letters + "-", max_size=8),
        st.sampled_from(["", *letters]),
    )
    return _dotted(label, 4)


def local_parts(letters: str = "") -> st.SearchStrategy[str]:
    """``Local-part``: a Dot-string or a Quoted-string."""
    quoted = st.one_of(
        st.text(
            " !" + "".join(map(chr, range(35, 92))) + "".join(map(chr, range(93, 127))) + letters, max_size=8
        ),
        st.integers(32, 126).map(lambda octet: "\\" + chr(octet)),
    )
    return st.one_of(
        _dotted(st.text(_ATEXT + letters, min_size=1, max_size=8), 3),
        st.lists(quoted, max_size=3).map(lambda parts: f'"{"".join(parts)}"'),
    )


#: Address literals whose address is one.
LITERALS: Final = st.one_of(
    st.ip_addresses(v=4).map(lambda address: f"[{address}]"),
    st.ip_addresses(v=6).map(lambda address: f"[IPv6:{address}]"),
    st.ip_addresses(v=6).map(lambda address: f"[ipv6:{address.exploded}]"),
    st.ip_addresses(v=4).map(lambda address: f"[IPv6:::ffff:{address}]"),
)

#: ``Mailbox``, in ASCII.
MAILBOXES: Final = st.builds("{}@{}".format, local_parts(), domains() | LITERALS)

#: ``Local-part`` as RFC 6531 extends it.
WIDE_LOCAL_PARTS: Final = local_parts(_NON_ASCII)

#: ``Mailbox`` as RFC 6531 extends it.
WIDE_MAILBOXES: Final = st.builds("{}@{}".format, WIDE_LOCAL_PARTS, domains(_LET_DIG + _NON_ASCII) | LITERALS)

#: ``A-d-l ":"``, or nothing.
ROUTES: Final = st.lists(domains(), max_size=3).map(
    lambda names: ",".join(f"@{name}" for name in names) + ":" if names else ""
)

_PARAMETERS: Final = st.sampled_from(
    [
        "",
        "",
        "",
        "",
        " SIZE=10",
        " size=0",
        " SIZE=99999999999",
        " BODY=8BITMIME",
        " SMTPUTF8",
        " X=1",
        " SIZE=",
        " ",
        " BODY=BINARYMIME",
        " RET=HDRS ENVID=a+2Bb",
        " ENVID=a+2b",
        " NOTIFY=NEVER",
        " ORCPT=rfc822;a+2Bb",
        " BY=1;R",
        " HOLDFOR=1",
    ]
)

_MAIL: Final = st.builds("MAIL FROM:<{}{}>{}".format, ROUTES, MAILBOXES, _PARAMETERS) | st.just(
    "MAIL FROM:<>"
)
_WIDE_MAIL: Final = st.builds("MAIL FROM:<{}> SMTPUTF8".format, WIDE_MAILBOXES)
_RCPT: Final = st.builds("RCPT TO:<{}{}>{}".format, ROUTES, MAILBOXES | WIDE_MAILBOXES, _PARAMETERS)
_HELLO: Final = st.builds("{} {}".format, st.sampled_from(["EHLO", "HELO", "ehlo"]), domains() | LITERALS)
_PLAIN: Final = st.sampled_from(
    [
        "DATA",
        "DATA",
        "DATA",
        "data",
        "RSET",
        "NOOP",
        "NOOP x",
        "HELP",
        "VRFY x",
        "EXPN x",
        "QUIT x",
        "",
        "FOO",
        ".",
        "LHLO x",
        "STARTTLS",
        "STARTTLS x",
        "AUTH PLAIN",
        "AUTH PLAIN AHUAcA==",
        "XCLIENT NAME=x",
        "XFORWARD ADDR=[UNAVAILABLE]",
    ]
)

#: One command of the grammar, in octets, without its CRLF.
COMMANDS: Final = st.one_of(_HELLO, _MAIL, _WIDE_MAIL, _RCPT, _RCPT, _PLAIN).map(str.encode)

#: Content with whole CRLFs and many dots.
WHOLE_CONTENTS: Final = st.lists(
    st.sampled_from([b"\r\n", b"\r\n", b".", b".", b"..", b"a", b"\0", b"\xff", b"text"]), max_size=30
).map(b"".join)

#: Content that may hold any octet, CR, LF and dots above all.
CONTENTS: Final = st.one_of(
    WHOLE_CONTENTS,
    st.binary(max_size=60),
    st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"a"]), max_size=40).map(b"".join),
)

#: A transaction that goes through, its content stuffed by the simplest rule there is.
_TRANSACTIONS: Final = st.builds(
    lambda mail, rcpts, content: b"".join(
        [mail, b"\r\n", *(rcpt + b"\r\n" for rcpt in rcpts), b"DATA\r\n", content, b"\r\n.\r\n"]
    ),
    _MAIL.map(str.encode),
    st.lists(_RCPT.map(str.encode), min_size=1, max_size=3),
    CONTENTS,
)


def _chunk(octets: bytes, last: bool, surplus: int = 0) -> bytes:
    return b"BDAT %d%s\r\n%s" % (len(octets) + surplus, b" LAST" if last else b"", octets)


#: Content in chunks; the size of one is wrong now and then.
CHUNKED: Final = st.builds(
    lambda parts, last, surplus: b"".join(_chunk(part, False) for part in parts)
    + _chunk(last, True, surplus),
    st.lists(CONTENTS, max_size=3),
    CONTENTS,
    st.sampled_from([0, 0, 0, 0, 1, 7, 1 << 50]),
)

#: A transaction with chunks, out of order now and then.
_CHUNKED_TRANSACTIONS: Final = st.builds(
    lambda parts, chunks: b"".join([*(part + b"\r\n" for part in parts), chunks]),
    st.tuples(_MAIL.map(str.encode), _RCPT.map(str.encode)) | st.lists(COMMANDS, max_size=2),
    CHUNKED,
)


def _mutated(octets: bytes, changes: list[tuple[float, bytes, int]]) -> bytes:
    def change(octets: bytes, how: tuple[float, bytes, int]) -> bytes:
        place, put, taken = how
        start = int(place * len(octets))
        return octets[:start] + put + octets[start + taken :]

    return reduce(change, changes, octets)


_CHANGES: Final = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(
            [b"", b"\r", b"\n", b"\r\n", b".", b"\0", b" ", b"<", b">", b"@", b'"', b"\xff", b"x" * 90]
        ),
        st.integers(0, 3),
    ),
    max_size=4,
)

#: What a client may send in a session, sense and nonsense, from its EHLO on.
CONVERSATIONS: Final = st.builds(
    _mutated,
    st.lists(
        COMMANDS.map(lambda command: command + b"\r\n") | _TRANSACTIONS | _CHUNKED_TRANSACTIONS, max_size=8
    ).map(lambda parts: b"EHLO client.example\r\n" + b"".join(parts)),
    _CHANGES | st.just([]),
)

#: Anything: a conversation, its pieces in disorder, line noise.
NOISE: Final = st.one_of(
    CONVERSATIONS,
    st.lists(
        st.sampled_from(
            [
                b"\r",
                b"\n",
                b"\r\n",
                b".",
                b"\r\n.\r\n",
                b"MAIL FROM:<a@b>",
                b"RCPT TO:<a@b>",
                b"DATA",
                b"EHLO x",
            ]
            + [
                b"BDAT 5",
                b"BDAT 3 LAST",
                b"STARTTLS",
                b"AUTH PLAIN",
                b"RSET",
                b"QUIT",
                b"NOOP",
                b" ",
                b"\0",
                b"\xff",
                b"<",
                b">",
                b"x" * 300,
            ]
        )
        | st.binary(max_size=20),
        max_size=40,
    ).map(b"".join),
    st.binary(max_size=300),
)
