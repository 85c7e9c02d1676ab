"""Conversations as a mail admin reads them, and the ways a network may split them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from smtpserv.dialogue import state
from smtpserv.dialogue.event import EndOfData, Event
from smtpserv.dialogue.replies import whole_replies
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.dialogue.terms import BareNewlines, Terms
from smtpserv.network import Networks
from smtpserv.reply import Reply
from smtpserv.testing.memory import MemorySession, RecordingProcessor, memory_session


def at_every_split(octets: bytes) -> Iterator[list[bytes]]:
    """The octets whole, one at a time, and cut in two at each place."""
    yield [octets]
    yield [octets[i : i + 1] for i in range(len(octets))]
    for i in range(1, len(octets)):
        yield [octets[:i], octets[i:]]


class DialoguePair:
    """The server's dialogue, and a client that knows nothing but what is on the wire.

    The client moves the table by the replies it reads, the server by those it sends. After each exchange the
    two must be in the same state: the proof that the table knows no role.
    """

    def __init__(self, terms: Terms | None = None) -> None:
        self.server = ServerDialogue(terms or Terms(hostname="mx.example"))
        self.client_state = state.CONNECTING
        self.events: list[Event] = []
        self.server.send()
        self._hear(state.GREETING)

    def command(self, line: bytes, answer: Reply | None = None) -> Reply:
        """The client says a line, its CRLF left out; the server gives the answer if it is asked for one."""
        verb = line.partition(b" ")[0].decode("ascii").upper()
        return self._exchange(line + b"\r\n", verb, answer)

    def chunk(self, octets: bytes, last: bool = False, answer: Reply | None = None) -> Reply:
        """The client sends a chunk of content (RFC 3030)."""
        line = b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"")
        return self._exchange(line + octets, state.LAST_CHUNK if last else "BDAT", answer)

    def mail_data(self, octets: bytes, answer: Reply | None = None) -> Reply:
        """The client sends mail data, its end included."""
        return self._exchange(octets, state.END_OF_DATA, answer)

    def _exchange(self, octets: bytes, move: str, answer: Reply | None) -> Reply:
        self.server.receive(octets)
        while (event := self.server.next_event()) is not None:
            self.events.append(event)
            if self.server.owed is not None:
                refusal = event.refusal if isinstance(event, EndOfData) else None
                self.server.send(refusal or answer)
        return self._hear(move)

    def _hear(self, move: str) -> Reply:
        octets = self.server.take_output()
        replies = whole_replies(octets)
        assert [each.octets for each in replies] == [octets], f"one exchange, one reply, and not {octets!r}"
        self.client_state = state.next_state(self.client_state, move, replies[0].code)
        assert self.client_state is self.server.state, f"{self.client_state} is not {self.server.state}"
        return replies[0]


@dataclass
class Script:
    """What a client says, and what must come of it.

    :param spoken: all that the client sends.
    :param replies: pattern of all that the server sends.
    :param messages: the contents that reach the processor.
    :param envelopes: for each, ``<reverse-path> -> <forward-path> <forward-path>``.
    """

    spoken: bytes = b""
    replies: str = ""
    messages: list[bytes] = field(default_factory=list)
    envelopes: list[str] = field(default_factory=list)
    terms: dict[str, Any] = field(default_factory=dict)
    trusted: Networks = field(default_factory=Networks)

    def check(self, pieces: list[bytes]) -> MemorySession:
        """Run it in a new session, split as given.

        :raises AssertionError: where anything is not as written.
        """
        processor = RecordingProcessor()
        terms = Terms(**{"hostname": "mx.example", **self.terms})
        session = memory_session(processor, terms=terms, trusted=self.trusted)
        heard = session.hear() + b"".join(session.say(piece) for piece in pieces)
        assert re.fullmatch(self.replies, heard.decode("ascii")), f"split {pieces!r}\nheard {heard!r}"
        contents = [message.content.read() for message in processor.messages]
        assert contents == self.messages, f"split {pieces!r}\ncontents {contents!r}"
        envelopes = [
            f"{each.envelope.reverse_path} -> {' '.join(map(str, each.envelope.forward_paths))}"
            for each in processor.messages
        ]
        assert envelopes == self.envelopes, f"split {pieces!r}\nenvelopes {envelopes!r}"
        return session


def read_script(text: str) -> Script:
    """Read a script: a line each, by its first two characters.

    * ``C:`` what the client says, with CRLF behind it unless it ends in ``\\c``. ``\\r``, ``\\n``, ``\\0``,
      ``\\x9f`` and ``\\\\`` stand for an octet, ``{a*70}`` for seventy of them.
    * ``S:`` a line of a reply; ``...`` at its end stands for anything.
    * ``E:`` an envelope that reaches the processor, ``M:`` the lines of its content, with the same escapes.
    * ``T:`` a term of the server, ``max_size = 70000``, ``tls = yes``, ``honours = DSN,DELIVERBY``; or
      ``trusted = 192.0.2.0/24``, whose XCLIENT counts (the client is 192.0.2.1). ``#`` a comment.
    """
    script = Script()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            _LINES[line[:2]](script, line[2:].removeprefix(" "))
        except (KeyError, ValueError, IndexError) as error:
            raise ValueError(f"line {number} is none that a script may have: {line!r}") from error
    return script


def _said(script: Script, rest: str) -> None:
    script.spoken += _octets(rest)


def _answered(script: Script, rest: str) -> None:
    pattern = re.escape(rest.removesuffix("...")) + ("[^\r\n]*" if rest.endswith("...") else "")
    script.replies += pattern + "\r\n"


def _envelope(script: Script, rest: str) -> None:
    script.envelopes.append(rest)
    script.messages.append(b"")


def _content(script: Script, rest: str) -> None:
    script.messages[-1] += _octets(rest)


def _term(script: Script, rest: str) -> None:
    name, _, value = (part.strip() for part in rest.partition("="))
    if name == "trusted":
        script.trusted = Networks.parse(value)
    else:
        script.terms[name] = int(value) if value.isdigit() else _TERMS.get(name, _yes)(value)


def _yes(value: str) -> bool:
    if value != "yes":
        raise ValueError(f"yes, or a number: {value!r}")
    return True


_TERMS: Final[dict[str, Callable[[str], Any]]] = {
    "bare_newlines": BareNewlines,
    "honours": lambda value: frozenset(value.split(",")),
}


_LINES = {"C:": _said, "S:": _answered, "E:": _envelope, "M:": _content, "T:": _term}

_REPEAT = re.compile(rb"\{([^{}*]+)\*([0-9]+)\}")
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|(.))")
_ESCAPED = {b"r": b"\r", b"n": b"\n", b"0": b"\0", b"\\": b"\\"}


def _octets(text: str) -> bytes:
    """A written line as octets."""
    octets = _REPEAT.sub(lambda match: match[1] * int(match[2]), text.encode("utf-8"))
    end = b"\r\n"
    if re.search(rb"(?<!\\)(?:\\\\)*\\c$", octets):
        octets, end = octets[:-2], b""
    return (
        _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]) if match[1] else _ESCAPED[match[2]], octets)
        + end
    )
