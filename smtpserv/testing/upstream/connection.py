"""One connection of a scripted upstream: the real dialogue, fed so that it can be stopped at any step."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from smtpserv.dialogue import state
from smtpserv.dialogue.command import Auth, Hello, Mail, Override, Rcpt, Response
from smtpserv.dialogue.event import (
    Content,
    ContentRefused,
    Data,
    EndOfData,
    Event,
    Pause,
    Reset,
    StartTLS,
)
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.message import Session
from smtpserv.testing.upstream.fault import Break, Fault
from smtpserv.testing.upstream.introduction import Introduction
from smtpserv.testing.upstream.reception import Reception
from smtpserv.testing.upstream.role import Role
from smtpserv.testing.upstream.voice import Voice


class UpstreamConnection(Protocol):
    """One connection. Its dialogue is given no more at a time than it answers with one reply."""

    transport: Any

    def __init__(self, role: Role) -> None:
        self._commands: Final = role.commands
        self._dialogue: Final = ServerDialogue(role.terms)
        self._voice: Final = Voice(self._dialogue, role.faults)
        self._input: Final = bytearray()
        self._client: Final = Introduction(
            role, self._dialogue, self._voice, go_on=self._go_on, forget=self._input.clear
        )
        self._reception: Final = Reception(role, self._dialogue, self._voice)
        #: Octets of a chunk that are still to come (RFC 3030).
        self._chunk = 0
        self._verb = ""

    @property
    def session(self) -> Session:
        """What is known of the client: its hello name, identity, and whether TLS is there."""
        return self._client.session

    @property
    def is_open(self) -> bool:
        """Whether it is there still."""
        return self._voice.transport is not None

    def connectionMade(self) -> None:
        """Greet the client."""
        self._voice.transport = self.transport
        self._client.greet()

    def dataReceived(self, data: bytes) -> None:
        """Hear the client, as far as nothing is in the way."""
        self._input.extend(data)
        self._advance()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The client is gone, or we are."""
        self._dialogue.close()
        self._voice.transport = None

    def interrupt(self, fault: Fault) -> None:
        """Do this now, whether or not anything was asked."""
        if not self.is_open:
            return
        if isinstance(fault, Break):
            self._voice.fail(fault, _nothing)
        else:
            self._voice.interject(fault)

    def resume(self) -> None:
        """Go on where it stalled."""
        if self.is_open and self._voice.is_stalled:
            self._voice.resume()
            self._go_on()

    def _go_on(self) -> None:
        self._listen()
        self._advance()

    def _advance(self) -> None:
        while not (self._voice.is_stalled or self._dialogue.state.is_deaf):
            piece = self._next_piece()
            if not piece:
                break
            self._dialogue.receive(piece)
            self._listen()

    def _listen(self) -> None:
        """Do what there is to do about what the dialogue was given; some of it it has answered itself."""
        while not self._voice.is_stalled and (event := self._dialogue.next_event()) is not None:
            react = _REACTIONS.get(type(event))
            if react is not None:
                react(self._reception, event)
            else:
                _INTRODUCTIONS[type(event)](self._client, event)
        if output := self._dialogue.take_output():
            self._voice.answer(self._verb, partial(self._voice.interject, usual=output))

    def _next_piece(self) -> bytes:
        """A command line, octets of a chunk, or mail data up to where it may end; empty if more is needed."""
        octets = self._input
        if self._dialogue.state is state.DATA:
            end = octets.find(b".\r\n") + 3
            if end < 3:
                end = len(octets) - len(_unfinished(octets))
        elif self._chunk:
            end = min(self._chunk, len(octets))
            self._chunk -= end
        else:
            end = octets.find(b"\r\n") + 2
            if end < 2:
                return b""
            self._note(bytes(octets[: end - 2]))
        piece = bytes(octets[:end])
        del octets[:end]
        return piece

    def _note(self, line: bytes) -> None:
        self._commands.append(line)
        words = line.decode("ascii", "replace").upper().split()
        self._verb = words[0] if words else ""
        if self._verb == "BDAT" and len(words) > 1 and words[1].isdecimal():
            self._chunk = int(words[1])


def _nothing() -> None:
    """Nothing is to be done."""


def _unfinished(octets: bytearray) -> bytes:
    """What of mail data may be the beginning of its end's last three octets."""
    return next((each for each in (b".\r", b".") if octets.endswith(each)), b"")


_REACTIONS: Final[Mapping[type[Event], Callable[[Reception, Any], None]]] = {
    Mail: Reception.mail,
    Rcpt: Reception.rcpt,
    Data: Reception.data,
    Content: Reception.content,
    ContentRefused: Reception.leave,
    Reset: Reception.leave,
    EndOfData: Reception.end_of_data,
}
_INTRODUCTIONS: Final[Mapping[type[Event], Callable[[Introduction, Any], None]]] = {
    Hello: Introduction.hello,
    Override: Introduction.override,
    StartTLS: Introduction.start_tls,
    Auth: Introduction.authenticate,
    Response: Introduction.respond,
    Pause: lambda *_: None,
}
