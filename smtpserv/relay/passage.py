"""One mail transaction of a client, passed through: each stage asked at another server, and answered here."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpserv import reply
from smtpserv.awaiting import Promise, promised
from smtpserv.dialogue.command import Mail, Plain, Rcpt
from smtpserv.error import SMTPError
from smtpserv.escape import escape_controls
from smtpserv.interfaces import IMessageSink, ITransaction
from smtpserv.message import Envelope, ForwardPath, ReversePath, Session
from smtpserv.relay.failure import GivenUp, UpstreamFailed
from smtpserv.relay.forwarding import hello_as, introduction
from smtpserv.relay.parameters import pass_recipient, pass_sender
from smtpserv.relay.route import Lent, Route
from smtpserv.relay.verdict import all_passed_on, is_of_our_session, passed_on
from smtpserv.reply import Reply, Results
from smtpserv.trace import LoopWatch

_log = Logger()

_DATA: Final = Plain("DATA")
_RSET: Final = Plain("RSET")

#: Octets that our fields may add to a message, for its SIZE.
_TRACE: Final = 1024

#: Opens a passage on another connection.
Again = Callable[[], "Coroutine[Any, Any, Passage]"]


@dataclass(frozen=True, slots=True)
class Manner:
    """How messages are passed through.

    :param trace: makes the fields that go on top of a message.
    :param forward_client: whether the server is told who our client is, if it wants to hear that.
    :param answers_each: whether a server may answer for each recipient, which only LMTP has room for.
    :param is_final: whether messages have arrived where they are passed to, and take one recipient at a time.
    """

    trace: Callable[[Session, Envelope], bytes]
    forward_client: bool = False
    answers_each: bool = False
    is_final: bool = False

    def takes_one(self, session: Session) -> bool:
        """Whether a transaction of this client has one recipient only."""
        return self.is_final or (self.answers_each and session.greeting_verb != "LHLO")


def open_passage(
    route: Route, session: Session, reverse_path: ReversePath, manner: Manner
) -> "Promise[Passage] | Deferred[Passage]":
    """MAIL: passed on, and accepted; it fails with the server's refusal, or what stands for an answer.

    A connection that had been kept may have been kept too long: then a fresh one is tried.
    """

    lent = route.take_kept()
    if lent is None:
        return Deferred.fromCoroutine(_open_new(route, session, reverse_path, manner))
    return _open_on(lent, route, session, reverse_path, manner)


async def _open_new(
    route: Route, session: Session, reverse_path: ReversePath, manner: Manner, fresh: bool = False
) -> "Passage":
    return await _open_on(await route.take(fresh), route, session, reverse_path, manner)


def _open_on(
    lent: Lent, route: Route, session: Session, reverse_path: ReversePath, manner: Manner
) -> "Promise[Passage]":
    again = partial(_open_new, route, session, reverse_path, manner, fresh=True) if lent.is_reused else None
    return Passage(lent, session, reverse_path, manner).mail(reverse_path, again)


@implementer(ITransaction)
class Passage:
    """The transaction, as far as the envelope goes.

    :param lent: given back when it is over, whatever becomes of it.
    """

    def __init__(self, lent: Lent, session: Session, reverse_path: ReversePath, manner: Manner) -> None:
        #: What MAIL was answered.
        self.answer: Reply | None = None
        self._lent = lent
        self._client = lent.client
        self._session = session
        self._reverse_path = reverse_path
        self._accepted: list[ForwardPath] = []
        self._manner = manner

    def mail(self, reverse_path: ReversePath, again: Again | None = None) -> "Promise[Passage]":
        """Say MAIL; if it is not accepted, it is over.

        :param again: what is done if the connection turns out to be of no use.
        :return: this, or a failure with the answer.
        """
        use = partial(self._opened, reverse_path), partial(self._over, again)
        try:
            if not self._manner.forward_client:
                return self._client.ask(self._mail(reverse_path), *use)
            asked = Deferred.fromCoroutine(self._ask_introduced(reverse_path))
        except Exception:
            asked = fail()
        return promised(asked, *use)

    def add_recipient(self, forward_path: ForwardPath) -> "Reply | Promise[Reply]":
        """RCPT: passed on."""
        if self._accepted and self._manner.takes_one(self._session):
            return reply.ONE_AT_A_TIME
        return self._ask_recipient(forward_path)

    def begin(self, envelope: Envelope) -> "ChunkFlow | Promise[Flow] | Deferred[Flow | ChunkFlow]":
        """DATA: passed on; or begin with chunks, where the content can't go otherwise."""
        if len(envelope.forward_paths) > 1 and self._manner.takes_one(self._session):
            raise SMTPError(reply.ONE_AT_A_TIME)
        is_same = envelope.reverse_path is self._reverse_path or envelope.reverse_path == self._reverse_path
        if not is_same or list(envelope.forward_paths) != self._accepted:
            return Deferred.fromCoroutine(self._begin_again(envelope))
        return self._begin(envelope)

    def abort(self) -> None:
        """Reset it, and give the connection back."""
        self._lent.give_back()

    async def _ask_introduced(self, reverse_path: ReversePath) -> Reply:
        """Say who our client is first; a server that does not believe it has its mail from us.

        :raises SMTPError: for a client that the server does not greet.
        """
        client = self._client
        said = introduction(self._session, client.offers)
        if said is not None:
            answer: Reply = await client.ask(said)
            if said.verb == "XCLIENT" and answer.accepted:
                self._lent.spend()  # it is this client's from now on
                answer = await client.say_hello(hello_as(self._session, client.hello))
                if not answer.accepted:
                    raise SMTPError(passed_on(answer))
        answer = await client.ask(self._mail(reverse_path))
        return answer

    def _mail(self, reverse_path: ReversePath) -> Mail:
        """MAIL, as what the server offers now allows it."""
        if "AUTH" in reverse_path.parameters and self._session.identity is None:
            # Whoever says it may not be believed (RFC 4954 section 5).
            reverse_path = ReversePath(reverse_path.address, {**reverse_path.parameters, "AUTH": "<>"})
        if reverse_path.parameters:
            reverse_path = pass_sender(reverse_path, self._client.offers, _TRACE, self._manner.is_final)
        return Mail(reverse_path)

    def _opened(self, reverse_path: ReversePath, answer: Reply) -> "Passage":
        if not answer.accepted:
            if is_of_our_session(answer):
                self._lent.spend()
            raise SMTPError(passed_on(answer))
        self.answer = passed_on(answer)
        self._reverse_path, self._accepted = reverse_path, []
        return self

    def _over(self, again: Again | None, failure: Failure) -> Any:
        self.abort()
        if again is None or self._client.is_usable or failure.check(GivenUp):
            return failure
        return Deferred.fromCoroutine(again())

    def _ask_recipient(self, path: ForwardPath) -> Promise[Reply]:
        self._see_whether_it_is_open()
        passed = path
        if path.parameters:
            passed = pass_recipient(path, self._client.offers, self._manner.is_final)
        return self._client.ask(Rcpt(passed), partial(self._note, path))

    def _note(self, path: ForwardPath, answer: Reply) -> Reply:
        if answer.accepted:
            self._accepted.append(path)
        return passed_on(answer)

    def _see_whether_it_is_open(self) -> None:
        """If not, the connection may be another's by now."""
        if self._lent.is_back:
            raise UpstreamFailed(reply.UPSTREAM_LOST, "the transaction is over")

    async def _begin_again(self, envelope: Envelope) -> "Flow | ChunkFlow":
        """Filters made the envelope another than was asked about: ask about that one."""
        self._see_whether_it_is_open()
        await self._start_over()
        await self.mail(envelope.reverse_path)
        try:
            answers = [await self._ask_recipient(path) for path in envelope.forward_paths]
            worst = Results(answers).combined()
            if not worst.accepted:
                raise SMTPError(worst)
        except BaseException:
            self.abort()
            raise
        flow = self._begin(envelope)
        return flow if isinstance(flow, ChunkFlow) else await flow

    async def _start_over(self) -> None:
        answer: Reply = await self._client.ask(_RSET)
        if answer.code == 421:
            raise SMTPError(passed_on(answer))
        if not answer.accepted:
            self._client.abort()  # what it remembers would be part of the next envelope
            raise UpstreamFailed(reply.UPSTREAM_CONFUSED, f"RSET was refused: {answer}")

    def _begin(self, envelope: Envelope) -> "ChunkFlow | Promise[Flow]":
        self._see_whether_it_is_open()
        if envelope.reverse_path.parameters and envelope.body == "BINARYMIME":
            return ChunkFlow(self._lent, *self._above(envelope))
        return self._client.ask(_DATA, partial(self._may_send, envelope))

    def _may_send(self, envelope: Envelope, answer: Reply) -> "Flow":
        if answer.reply_class != 3:
            raise SMTPError(passed_on(answer))
        return Flow(self._lent, *self._above(envelope))

    def _above(self, envelope: Envelope) -> tuple[bytes, LoopWatch, str]:
        session = self._session
        return self._manner.trace(session, envelope), LoopWatch(session.hostname), envelope.id


class _Sink:
    """The content on its way.

    :param lent: given back when it is through.
    :param head: goes before it.
    :param name: names the message in the log.
    """

    def __init__(self, lent: Lent, head: bytes, watch: LoopWatch, name: str) -> None:
        self._lent: Final = lent
        self._client: Final = lent.client
        self._head = head
        self._watch: Final = watch
        self._name: Final = name

    def abort(self) -> None:
        """Cut the connection, so that nobody delivers what is not complete."""
        self._client.abort()
        self._lent.give_back()

    def _checked(self, octets: bytes) -> bytes:
        """What is to be sent for the next octets.

        :raises SMTPError: for a message that goes in circles.
        """
        if self._watch.is_loop(octets):
            raise SMTPError(reply.MAIL_LOOP)
        if self._head:
            octets, self._head = self._head + octets, b""
        return octets

    def finish(self) -> Promise[Reply | Results]:
        """The end: the server's verdict is ours. Until it is known, nobody knows."""
        try:
            if self._watch.ended():
                self._client.abort()
                raise SMTPError(reply.MAIL_LOOP)
            rest, self._head = self._head, b""
            return self._end(rest)
        except BaseException:
            self._lent.give_back()
            raise

    def _over(self, answer: Reply | Results) -> Reply | Results:
        self._lent.give_back()
        return all_passed_on(answer)

    def _in_doubt(self, failure: Failure) -> Failure:
        self._lent.give_back()
        why = failure.value.why if isinstance(failure.value, UpstreamFailed) else str(failure.value)
        _log.error("{id} is in doubt, it may come twice: {why}", id=self._name, why=escape_controls(why))
        return failure

    def _end(self, rest: bytes) -> Promise[Reply | Results]:
        """Send what is left, and the end."""
        raise NotImplementedError


@implementer(IMessageSink)
class Flow(_Sink):
    """Mail data, by DATA."""

    def write(self, octets: bytes) -> "Deferred[None] | None":
        """Send it on; a Deferred while the server takes no more."""
        return self._client.write(self._checked(octets))

    def _end(self, rest: bytes) -> Promise[Reply | Results]:
        if rest:
            self._client.write(rest)
        return self._client.end(self._over, self._in_doubt)


@implementer(IMessageSink)
class ChunkFlow(_Sink):
    """Content that DATA could not carry, by BDAT (RFC 3030)."""

    def write(self, octets: bytes) -> Promise[None]:
        """Send it on; done when the server has it."""
        return self._client.write_chunk(self._checked(octets), then=_see_whether_it_came)

    def _end(self, rest: bytes) -> Promise[Reply | Results]:
        return self._client.write_chunk(rest, True, self._over, self._in_doubt)


def _see_whether_it_came(answer: Reply | Results) -> None:
    if isinstance(answer, Reply) and not answer.accepted:
        raise SMTPError(passed_on(answer))
