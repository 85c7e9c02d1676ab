"""Messages as they are in real life, and some that are not nice: the same ones for the same seed."""

import random
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from typing import Final

#: Without these some servers add their own.
_FIELDS: Final = b"Date: Sun, 22 Nov 2026 16:00:00 +0000\r\nFrom: Sender <sender@example.org>\r\n"
_WORDS: Final = ("the", "quick", "fox", "jumps", "over", "Grüße", "你好", "שלום", "🙂", "naïve", "it", "dog")
_ODDITIES: Final = (".", "..", ".a", "=20", "From", ">", "\t", "")


def messages(count: int, seed: int = 4) -> Iterator[bytes]:
    """So many, each a header and mostly a body, each ending in CRLF, with no CR or LF alone."""
    chance = random.Random(seed)
    for number in range(count):
        body = _BODIES[number % len(_BODIES)](chance)
        yield b"Message-ID: <%d@messages.example>\r\n" % number + _FIELDS + body


def _text(chance: random.Random, words: int = 200) -> str:
    lines = [
        chance.choices(_WORDS + _ODDITIES, k=chance.randrange(12))
        for _ in range(chance.randrange(1, words // 10))
    ]
    return "\r\n".join(map(" ".join, lines)) + "\r\n"


def _fields(message: EmailMessage, chance: random.Random) -> EmailMessage:
    message["To"] = ", ".join(f"recipient{i}@example.net" for i in range(chance.randrange(1, 9)))
    message["Subject"] = " ".join(chance.choices(_WORDS, k=chance.randrange(40)))
    return message


def _plain(chance: random.Random) -> bytes:
    message = _fields(EmailMessage(SMTP), chance)
    encodings = ["7bit", "8bit", "quoted-printable", "base64"]
    text = _text(chance).replace("\r\n", "\n")
    encoding = chance.choice(encodings)
    message.set_content(
        text.encode("ascii", "replace").decode() if encoding == "7bit" else text, cte=encoding
    )
    return message.as_bytes()


def _international(chance: random.Random) -> bytes:
    message = _fields(EmailMessage(SMTPUTF8), chance)
    message.set_content(_text(chance).replace("\r\n", "\n"), cte="8bit")
    return message.as_bytes()


def _multipart(chance: random.Random) -> bytes:
    message = _fields(EmailMessage(SMTP), chance)
    message.set_content(_text(chance).replace("\r\n", "\n"), cte="8bit")
    for name in range(chance.randrange(1, 4)):
        octets = chance.randbytes(chance.randrange(5000))
        message.add_attachment(octets, "application", "octet-stream", filename=f"{name}.bin")
    message.set_boundary(f"=_{chance.random()}")
    return message.as_bytes()


def _raw(chance: random.Random) -> bytes:
    """Any octets but CR, LF and NUL, in lines."""
    lines = [chance.randbytes(chance.randrange(300)) for _ in range(chance.randrange(40))]
    safe = [line.translate(None, b"\r\n\0") for line in lines]
    return b"Subject: raw\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + b"".join(
        line + b"\r\n" for line in safe
    )


def _dotted(chance: random.Random) -> bytes:
    lines = chance.choices([b"", b".", b"..", b".x", b" .", b"x.", b"." * 70], k=chance.randrange(200))
    return b"Subject: dots\r\n\r\n" + b"".join(line + b"\r\n" for line in lines)


def _long_lines(chance: random.Random) -> bytes:
    lines = [chance.choice([b"a", b".", b"=\xc3\xa9 "]) * chance.randrange(8000) for _ in range(3)]
    return b"Subject: long\r\n\r\n" + b"".join(line + b"\r\n" for line in lines)


def _large(chance: random.Random) -> bytes:
    line = b"0123456789abcdef" * 4 + b"\r\n"
    return b"Subject: large\r\n\r\n" + line * chance.randrange(200, 1200)


def _empty(chance: random.Random) -> bytes:
    return chance.choice([b"", b"\r\n", b"Subject: header only\r\n", b"\r\n\r\n\r\n"])


_BODIES: Final[tuple[Callable[[random.Random], bytes], ...]] = (
    *(_plain, _multipart, _raw, _dotted, _international, _plain, _multipart, _long_lines, _empty, _large),
)
