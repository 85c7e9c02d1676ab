"""What a client may ask for at a moment: by the order of things, and by what it was offered."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from smtpserv import reply
from smtpserv.dialogue import state
from smtpserv.dialogue.command import Auth, Bdat, Command, Foreign, Mail, Override, Plain, Rcpt
from smtpserv.dialogue.extension import Standing, check_parameters
from smtpserv.dialogue.state import State
from smtpserv.dialogue.terms import Terms
from smtpserv.dialogue.transaction import Transaction
from smtpserv.error import SMTPError
from smtpserv.message import Parameters, ReversePath
from smtpserv.reply import Reply

#: What a client may say before it has done what is required of it (RFC 3207 section 4, RFC 4954 section 6).
_WITHOUT_TLS: Final = frozenset({"EHLO", "HELO", "LHLO", "NOOP", "QUIT", "STARTTLS", state.LOST})
_WITHOUT_AUTH: Final = _WITHOUT_TLS | {"AUTH", "RSET", "HELP", "XCLIENT", "XFORWARD"}

#: The commands that send content.
_CONTENT: Final = frozenset({"DATA", "BDAT", state.LAST_CHUNK})

_STRANGER: Final = Standing()


class Manners:
    """What is in force in a session: what its client has come to, and what it was offered."""

    __slots__ = ("_terms", "_standing", "_bar", "_offer")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.withdraw()
        self.stand(_STRANGER)

    def stand(self, standing: Standing) -> None:
        """The client has come to something else; what is offered changes with the next hello."""
        self._standing = standing
        #: What there is against all commands but some.
        self._bar: tuple[Reply, frozenset[str]] | None = None
        if self._terms.require_auth and not standing.authenticated:
            self._bar = reply.NEEDS_AUTHENTICATION, _WITHOUT_AUTH
        if self._terms.require_tls and not standing.secure:
            self._bar = reply.NEEDS_TLS, _WITHOUT_TLS

    def answer(self, verb: str) -> Reply:
        """The answer to a hello: what it would put in force."""
        return self._terms.offer(verb, self._standing).answer

    def offer(self, verb: str) -> None:
        """The hello was accepted, and what it offered is in force."""
        self._offer = self._terms.offer(verb, self._standing)

    def withdraw(self) -> None:
        """No extension is in force."""
        self._offer = self._terms.plain_offer

    def checked(self, command: Command, now: State, transaction: Transaction) -> Command:
        """See whether the command may come now and asks for nothing but what is offered.

        A BDAT is looked at when its octets come: see :meth:`against`.

        :return: the command, as far as it may be believed.
        :raises SMTPError: with the reply.
        """
        kind = type(command)
        if (self._bar is not None or command.verb not in now.moves) and kind is not Bdat:
            refusal = self.against(command, now, transaction)
            if refusal is not None:
                raise SMTPError(refusal)
        check = _CHECKS.get(kind)
        return command if check is None else check(self, command, transaction) or command

    def against(self, command: Command, now: State, transaction: Transaction) -> Reply | None:
        """What there is against a command at this moment, whatever it asks for."""
        verb = command.verb
        if self._bar is not None and verb not in self._bar[1]:
            return self._bar[0]
        if not state.in_order(now, verb):
            all_refused = now is state.MAIL and transaction.attempts and verb in _CONTENT
            # Under LMTP it is 503 either way (RFC 2033 section 4.2).
            return reply.NO_VALID_RECIPIENTS if all_refused and not self._terms.lmtp else reply.OUT_OF_ORDER
        if type(command) is Bdat and "BDAT" not in self._offer.verbs:
            return reply.OUT_OF_ORDER
        return None

    def _mail(self, command: Mail, _: Transaction) -> Mail | None:
        path = command.reverse_path
        if path.parameters:
            check_parameters(path.parameters, self._offer.mail, self._offer.one_of)
            if (path.size or 0) > self._terms.max_size:
                raise SMTPError(reply.MESSAGE_TOO_BIG)
            _see_whether_it_may_be_wide(path.parameters, path)
        if not path.address.isascii() and not path.smtputf8:
            raise SMTPError(reply.NEEDS_SMTPUTF8)
        if "AUTH" not in path.parameters or self._standing.authenticated:
            return None
        # A stranger knows nobody who submitted it (RFC 4954 section 5).
        return Mail(replace(path, parameters=MappingProxyType({**path.parameters, "AUTH": "<>"})))

    def _rcpt(self, command: Rcpt, transaction: Transaction) -> None:
        path = command.forward_path
        transaction.attempts += 1
        if transaction.attempts > self._terms.max_recipients:
            raise SMTPError(reply.TOO_MANY_RECIPIENTS)
        if path.parameters:
            check_parameters(path.parameters, self._offer.rcpt)
            _see_whether_it_may_be_wide(path.parameters, transaction.reverse_path)
        if not path.address.isascii() and not transaction.reverse_path.smtputf8:
            raise SMTPError(reply.NEEDS_SMTPUTF8)

    def _auth(self, command: Auth, _: Transaction) -> None:
        if self._terms.auth and not self._standing.secure and self._offer is not self._terms.plain_offer:
            if "AUTH" not in self._offer.verbs:
                raise SMTPError(reply.MECHANISM_NEEDS_TLS)
        self._extension(command, _)
        if self._standing.authenticated:
            raise SMTPError(reply.OUT_OF_ORDER)

    def _plain(self, command: Plain, transaction: Transaction) -> None:
        path = transaction.reverse_path
        if command.verb == "DATA" and path.parameters and path.body == "BINARYMIME":
            raise SMTPError(reply.OUT_OF_ORDER)
        self._extension(command, transaction)

    def _extension(self, command: Command, _: Transaction) -> None:
        withheld = self._terms.withheld.get(command.verb)
        if withheld is not None and command.verb not in self._offer.verbs:
            raise SMTPError(withheld)


def _see_whether_it_may_be_wide(parameters: Parameters, reverse_path: ReversePath) -> None:
    """Values are ASCII where SMTPUTF8 was not asked for (RFC 6533 section 3)."""
    if not reverse_path.smtputf8 and not all((value or "").isascii() for value in parameters.values()):
        raise SMTPError(reply.BAD_PARAMETER)


#: Each gives another command in place of one that may be believed only in part.
_CHECKS: Final[Mapping[type[Command], Callable[[Manners, Any, Transaction], Command | None]]] = {
    Mail: Manners._mail,
    Rcpt: Manners._rcpt,
    Auth: Manners._auth,
    Override: Manners._extension,
    Foreign: Manners._extension,
    Plain: Manners._plain,
}
