"""Who the client of a scripted upstream is: its hello, TLS and AUTH."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred

from smtpserv import reply
from smtpserv.dialogue import state
from smtpserv.dialogue.command import Auth, Hello, Override, Response
from smtpserv.dialogue.event import StartTLS
from smtpserv.dialogue.extension import Standing
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.error import SMTPError
from smtpserv.interfaces import IExchange
from smtpserv.message import Peer, Session, TLSFacts
from smtpserv.reply import Reply
from smtpserv.testing.upstream.role import Role
from smtpserv.testing.upstream.voice import Voice


class Introduction:
    """What is known of one client.

    :param go_on: called when an answer is there that took time.
    :param forget: called when what the client has said ahead in clear must not count.
    """

    def __init__(
        self,
        role: Role,
        dialogue: ServerDialogue,
        voice: Voice,
        *,
        go_on: Callable[[], None],
        forget: Callable[[], None],
    ) -> None:
        self.session = Session("upstream", Peer(""))
        self._role: Final = role
        self._dialogue: Final = dialogue
        self._voice: Final = voice
        self._go_on: Final = go_on
        self._forget: Final = forget
        self._exchange: IExchange | None = None
        self._dialogue.stand(self._standing)

    @property
    def _standing(self) -> Standing:
        asked = self._role.authentication
        return Standing(
            secure=self.session.tls is not None,
            authenticated=self.session.identity is not None,
            mechanisms=asked.mechanisms(self.session) if asked is not None else (),
            trusted=True,
        )

    def greet(self) -> None:
        """Somebody connected: shake hands if that comes first, and say who we are."""
        if self._role.is_implicit:
            self._shake_hands(partial(self._voice.answer, "banner"))
        else:
            self._voice.answer("banner")

    def hello(self, event: Hello) -> None:
        """EHLO, HELO or LHLO."""
        self.session = replace(self.session, greeting_verb=event.verb, hello_name=event.name)
        self._dialogue.stand(self._standing)
        self._voice.answer(event.verb)

    def override(self, event: Override) -> None:
        """XCLIENT or XFORWARD."""
        self._voice.answer(event.verb)

    def start_tls(self, _: StartTLS) -> None:
        """STARTTLS."""

        def say(answer: Reply | None) -> None:
            self._voice.send(answer)
            if self._dialogue.state is state.TLS:
                self._shake_hands(lambda: self._dialogue.secured(self._standing))

        self._voice.answer("STARTTLS", say)

    def _shake_hands(self, then: Callable[[], None]) -> None:
        def shake(_: Reply | None) -> None:
            self._forget()
            self._voice.transport.startTLS(self._role.tls)
            self.session = replace(self.session, tls=TLSFacts("", ""), identity=None)
            self._dialogue.stand(self._standing)
            then()

        self._voice.answer("handshake", shake)

    def authenticate(self, event: Auth) -> None:
        """AUTH."""
        asked = self._role.authentication
        assert asked is not None, "AUTH was offered"
        try:
            self._exchange = asked.start(event.mechanism, self.session, _ignore)
        except SMTPError as error:
            self._say(error.reply)
        else:
            self._respond(event.initial)

    def respond(self, event: Response) -> None:
        """What the client makes of a challenge."""
        self._respond(event.octets)

    def _respond(self, octets: bytes | None) -> None:
        self._voice.hold(_nothing)
        Deferred.fromCoroutine(self._ask(octets)).addCallback(self._answered)

    async def _ask(self, octets: bytes | None) -> Reply:
        assert self._exchange is not None, "a response follows AUTH"
        try:
            answer = await self._exchange.respond(octets)
        except SMTPError as error:
            return error.reply
        if isinstance(answer, bytes):
            return reply.challenge(answer)
        self.session = replace(self.session, identity=answer)
        return reply.AUTHENTICATED

    def _answered(self, usual: Reply) -> None:
        self._voice.resume()
        self._say(usual)
        self._go_on()

    def _say(self, usual: Reply) -> None:
        def say(answer: Reply | None) -> None:
            self._voice.send(answer or usual)
            self._dialogue.stand(self._standing)

        self._voice.answer("AUTH", say)


def _nothing() -> None:
    """Nothing is to be done."""


def _ignore(name: str) -> None:
    """Nobody wants to know whose credentials were wrong."""
