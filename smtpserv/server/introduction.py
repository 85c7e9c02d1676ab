"""Who the client is: from its connection to its hello, TLS and AUTH, and what a proxy says of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from smtpserv import reply
from smtpserv.dialogue import state
from smtpserv.dialogue.command import Auth, Foreign, Hello, Override, Response
from smtpserv.dialogue.event import StartTLS
from smtpserv.dialogue.extension import Standing
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.error import SMTPError
from smtpserv.interfaces import IExchange
from smtpserv.message import NO_PARAMETERS, Peer, Session, TLSFacts
from smtpserv.network import UNKNOWN
from smtpserv.reply import Reply
from smtpserv.server.house import House
from smtpserv.server.inquiry import Inquiry
from smtpserv.server.panel import Question
from smtpserv.server.reception import checked, misfit


class Introduction:
    """What is known of a session's client, and how it comes to be known.

    :param session: what is known so far.
    :param start_over: called when the session begins anew, and with it whatever was under way ends.
    """

    __slots__ = (
        "session",
        "_house",
        "_dialogue",
        "_inquiry",
        "_start_over",
        "_exchange",
        "_mechanism",
        "_has_failed",
        "_is_trusted",
    )

    def __init__(
        self,
        house: House,
        session: Session,
        dialogue: ServerDialogue,
        inquiry: Inquiry,
        start_over: Callable[[], None],
    ) -> None:
        self.session = session
        self._house = house
        self._dialogue = dialogue
        self._inquiry = inquiry
        self._start_over = start_over
        self._exchange: IExchange | None = None
        self._mechanism = ""
        self._has_failed = False
        self._is_trusted = session.peer.host in house.trusted

    def greet(self) -> None:
        """The client is there: greet it, if it is welcome."""
        self._stand()
        self._admit(self.session, self._greeted)

    def _greeted(self, refusal: Reply | None) -> None:
        early = self._house.panel.early
        if refusal is None and early is not None and self._dialogue.buffered:
            self._inquiry.ask(lambda verdict: self._send(_unwelcome(verdict)), early, self.session)
        else:
            self._send(refusal)

    def _admit(self, session: Session, then: Callable[[Reply | None], None]) -> None:
        self.consult(lambda verdict: then(_unwelcome(verdict)), self._house.panel.connect, session)

    def consult(self, then: Callable[[Any], None], question: Question, *facts: object) -> None:
        """Ask, if there is somebody to ask."""
        if question is None:
            then(None)
        else:
            self._inquiry.ask(then, question, *facts)

    def hello(self, event: Hello) -> None:
        """EHLO, HELO or LHLO."""
        known = self.session
        session = Session(
            known.id,
            known.peer,
            event.verb,
            event.name,
            known.tls,
            known.identity,
            hostname=known.hostname,
        )

        def answer(answered: Any) -> None:
            refusal = verdict(answered)
            if refusal is None or refusal.accepted:
                self.session = session
                self._start_over()
                self._send(None)
            else:
                self._send(refusal)

        self.consult(answer, self._house.panel.hello, session)

    def start_tls(self, _: StartTLS) -> None:
        """STARTTLS: the protocol shakes hands when the reply is sent."""
        self._send(None)

    def secured(self, facts: TLSFacts | None) -> None:
        """Hands are shaken. What was said in clear, anybody may have said (RFC 3207 section 4.2)."""
        is_new = self._dialogue.state is state.CONNECTING
        if facts is not None:
            self._house.counts.tls[facts.version] += 1
        known = self.session
        self.session = Session(known.id, known.peer, tls=facts, hostname=known.hostname)
        self._start_over()
        self._dialogue.secured(self._stand())
        if is_new:
            self.greet()

    def authenticate(self, event: Auth) -> None:
        """AUTH: the first step of an exchange."""

        def begin() -> Any:
            authentication = self._house.authentication
            self._mechanism, self._has_failed = "other", False
            if authentication is None:
                raise SMTPError(reply.OUT_OF_ORDER)
            self._exchange = authentication.start(event.mechanism, self.session, self._failed)
            self._mechanism = event.mechanism.upper()
            return self._exchange.respond(event.initial)

        self._inquiry.ask(self._step, begin)

    def respond(self, event: Response) -> None:
        """The client's answer to a challenge."""
        assert self._exchange is not None, "a response follows a challenge"
        self._inquiry.ask(self._step, self._exchange.respond, event.octets)

    def _step(self, answer: Any) -> None:
        if isinstance(answer, bytes):
            self._dialogue.send(reply.challenge(answer))
            return
        self._exchange = None
        if isinstance(answer, str):
            self._house.counts.authentications[self._mechanism, 2] += 1
            self.session = replace(self.session, identity=answer)
            self._stand()
            self._send(None)
            return
        refusal = checked(answer) if isinstance(answer, Reply) else misfit(answer, "authentication")
        if not self._has_failed:
            self._house.counts.authentications[self._mechanism, refusal.reply_class] += 1
        self._send(refusal)

    def _failed(self, name: str) -> None:
        """Credentials are wrong: that is on record before the client hears it, for it may not wait."""
        self._has_failed = True
        self._house.counts.authentications[self._mechanism, 5] += 1
        self._house.panel.authentication_failed(self.session, name)

    def override(self, event: Override) -> None:
        """XCLIENT: a trusted peer speaks for somebody else from here on; XFORWARD: it tells of a client."""
        if event.verb == "XFORWARD":
            self.session = replace(self.session, forwarded={**self.session.forwarded, **event.attributes})
            self._send(None)
            return
        session = _overridden(self.session, event)

        def answer(refusal: Reply | None) -> None:
            if refusal is not None:
                self._send(reply.no_longer_welcome(refusal))
                return
            self.session = session
            self._stand()
            self._send(None)

        self._admit(session, answer)

    def message_ended(self) -> None:
        """What XFORWARD told was told of one message."""
        if self.session.forwarded:
            self.session = replace(self.session, forwarded=NO_PARAMETERS)

    def foreign(self, event: Foreign) -> None:
        """A verb from outside."""
        answering = self._house.foreigners[event.verb]
        self._inquiry.ask(lambda answer: self._send(verdict(answer)), answering, self.session, event.argument)

    def _stand(self) -> Standing:
        session, authentication = self.session, self._house.authentication
        standing = Standing(
            secure=session.tls is not None,
            authenticated=session.identity is not None,
            mechanisms=authentication.mechanisms(session) if authentication is not None else (),
            trusted=self._is_trusted,
        )
        self._dialogue.stand(standing)
        return standing

    def _send(self, answer: Reply | None) -> None:
        if answer is not None and not answer.accepted:
            self._house.refused(self.session, self._dialogue.owed, answer.code, answer.status)
        self._dialogue.send(answer)


def _overridden(session: Session, event: Override) -> Session:
    """The session as a trusted peer says it is."""
    attributes = event.attributes
    address = attributes.get("ADDR", session.peer.host) or UNKNOWN
    host = address[5:] if address[:5].upper() == "IPV6:" else address
    is_moved = bool({"ADDR", "PORT"} & set(attributes))
    return Session(
        session.id,
        Peer(host, int(attributes.get("PORT") or "0")) if is_moved else session.peer,
        hello_name=attributes.get("HELO") or "",
        tls=session.tls,
        identity=attributes.get("LOGIN") or None,
        forwarded=session.forwarded,
        hostname=session.hostname,
    )


def verdict(answer: Any) -> Reply | None:
    """What a policy answered: None or a Reply; anything else is its fault."""
    if answer is None:
        return None
    if isinstance(answer, Reply) and answer.reply_class != 3:
        return answer
    return misfit(answer, "a policy")


def _unwelcome(answer: Any) -> Reply | None:
    """What is said in place of a greeting, if anything."""
    refusal = verdict(answer)
    return None if refusal is None or refusal.accepted else reply.unwelcome(refusal)
