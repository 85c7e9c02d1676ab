"""The ``mailman`` processor: mail for GNU Mailman's lists goes to Mailman, the rest on to another server.

A transaction goes one way. Which, its first recipient decides; one that goes another way is asked to come in
the client's next transaction, as well-behaved clients do at once.
"""

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Any, Final

from twisted.application.service import IService, MultiService
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from smtpserv import reply
from smtpserv.arguments import read_argument
from smtpserv.awaiting import as_deferred
from smtpserv.collecting import InThread
from smtpserv.domain import Domains
from smtpserv.error import SMTPError, StartError
from smtpserv.interfaces import (
    IExtensionSupport,
    IMessageSink,
    IRecipientDirectory,
    IRelayingProcessor,
    ISessionPolicy,
    ITransaction,
    ITransactionProcessor,
)
from smtpserv.mailman.configuration import read_place
from smtpserv.mailman.directory import IListDirectory
from smtpserv.mailman.folder import FolderDirectory, ListFolder, folder_beside
from smtpserv.mailman.probe import ProbeDirectory
from smtpserv.mailman.transport_map import TransportMap
from smtpserv.mailman.wrapper import Wrapper
from smtpserv.message import Envelope, ForwardPath, ReversePath, Session
from smtpserv.processors.lists import ListProxy, WrapperLists
from smtpserv.processors.proxy import ProxyProcessor, make_proxy
from smtpserv.relay.making import make_route, read_secret
from smtpserv.relay.probe import would_take
from smtpserv.relay.route import Route
from smtpserv.reply import Reply


@implementer(
    ITransactionProcessor, IRelayingProcessor, IRecipientDirectory, IExtensionSupport, ISessionPolicy
)
class MailmanProcessor(MultiService):
    """Sorts recipients.

    :param directory: knows whose mail is Mailman's.
    :param lists: hands it over.
    :param elsewhere: takes the rest.
    :param domains: those that have no mailboxes but lists; others are asked about all the same, if there are
        none here.
    """

    def __init__(
        self,
        directory: IListDirectory,
        lists: ITransactionProcessor,
        elsewhere: ProxyProcessor,
        domains: Domains,
    ) -> None:
        super().__init__()
        self.honours: Final = elsewhere.honours
        self._directory: Final = directory
        self._lists: Final = lists
        self._elsewhere: Final = elsewhere
        self._domains: Final = domains
        for each in (lists, elsewhere):
            if IService.providedBy(each):
                each.setServiceParent(self)

    def connect(self, session: Session) -> Reply | None:
        """Refuse ourselves: what was taken for another server, or for Mailman, would be this one."""
        for each in (self._elsewhere, self._lists):
            if isinstance(each, ProxyProcessor) and (answer := each.connect(session)) is not None:
                return answer
        return None

    def hello(self, session: Session) -> Reply | None:
        """The same, once the connection is surely known at its other end."""
        return self.connect(session)

    async def is_ours(self, forward_path: ForwardPath) -> bool:
        """Whether it is a list's, to whom anybody may write; or of a domain that is all ours."""
        return forward_path.domain in self._domains or await self._is_list(forward_path)

    def open(self, session: Session, reverse_path: ReversePath) -> "Sorting":
        """MAIL: where it goes is not known yet."""
        return Sorting(self, session, reverse_path)

    async def way_of(self, path: ForwardPath) -> ITransactionProcessor:
        """Who takes mail for a recipient.

        :raises SMTPError: 550 for who is nobody, 451 while that can't be known.
        """
        if await self._is_list(path):
            return self._lists
        if path.domain in self._domains and path.local_part.lower() != "postmaster":
            raise SMTPError(reply.NO_SUCH_LIST)
        return self._elsewhere

    async def _is_list(self, path: ForwardPath) -> bool:
        if not path.domain or (self._domains.names and path.domain not in self._domains):
            return False
        return await self._directory.knows(path.address)


@implementer(ITransaction)
class Sorting:
    """One transaction, until it is known where it goes, and then there."""

    answer = None

    def __init__(self, processor: MailmanProcessor, session: Session, reverse_path: ReversePath) -> None:
        self._processor: Final = processor
        self._session: Final = session
        self._reverse_path: Final = reverse_path
        self._way: ITransactionProcessor | None = None
        self._transaction: ITransaction | None = None
        self._recipients: Final[list[ForwardPath]] = []

    async def add_recipient(self, forward_path: ForwardPath) -> Reply | None:
        """RCPT: the first that is accepted decides."""
        way = await self._processor.way_of(forward_path)
        if self._way is not way or self._transaction is None:
            if self._recipients:
                return reply.ONE_ROUTE
            self.abort()
            opened: Any = way.open(self._session, self._reverse_path)
            self._transaction = await as_deferred(opened) if isinstance(opened, Awaitable) else opened
            self._way = way
        answer: Any = self._transaction.add_recipient(forward_path)
        if isinstance(answer, Awaitable):
            answer = await as_deferred(answer)
        if answer is None or answer.accepted:
            self._recipients.append(forward_path)
        return answer  # type: ignore[no-any-return]

    async def begin(self, envelope: Envelope) -> IMessageSink:
        """DATA, there. Where filters brought recipients that go another way, the message has to wait."""
        for path in envelope.forward_paths:
            if path not in self._recipients and await self._processor.way_of(path) is not self._way:
                raise SMTPError(reply.ONE_ROUTE)
        assert self._transaction is not None, "a message has recipients"
        sink: Any = self._transaction.begin(envelope)
        return await as_deferred(sink) if isinstance(sink, Awaitable) else sink  # type: ignore[no-any-return]

    def abort(self) -> None:
        """Give it up where it is."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.abort()


def make_mailman(reactor: Any, host: str = "localhost", port: str = "", **named: str) -> MailmanProcessor:
    """The processor of ``--processor=mailman:HOST:PORT:...``.

    :param named: ``lmtp``, ``api``, ``api_user``, ``api_password_file``, ``map``, ``domains``, ``wrapper``,
        ``lists``, and what :func:`smtpserv.processors.proxy.make_proxy` takes.
    :raises StartError: for what is wrong with them.
    """
    own = {name: named.pop(name) for name in _OWN & named.keys()}
    elsewhere = make_proxy(reactor, host, port, **named)
    domains = read_argument("domains", Domains.parse, own.get("domains", ""))
    _see_whether_they_fit(own, domains)
    in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    if "wrapper" in own:
        folder = ListFolder(own.get("lists") or folder_beside(own["wrapper"]))
        wrapped = WrapperLists(reactor, Wrapper(reactor, own["wrapper"], in_thread), folder, in_thread)
        return MailmanProcessor(FolderDirectory(folder), wrapped, elsewhere, domains)
    host, number = read_argument("lmtp", read_place, own.get("lmtp", "127.0.0.1,8024"))
    route = make_route(reactor, host, str(number), tls="none", lmtp="yes")
    lists = ListProxy(reactor, route, is_final=True)
    return MailmanProcessor(_directory(reactor, route, own, in_thread), lists, elsewhere, domains)


def _see_whether_they_fit(own: Mapping[str, str], domains: Domains) -> None:
    """No argument is passed over.

    :raises StartError: for one that means nothing beside the others, or without one that is missing.
    """
    for name, other in _PARTS.items():
        if name in own and other not in own:
            raise StartError(f"{name.replace('_', '-')}: {other}= is missing")
    foreign = sorted(own.keys() & _MAILMAN_3)
    if "wrapper" in own and foreign:
        raise StartError(f"wrapper: Mailman 2 has no {foreign[0].replace('_', '-')}=")
    if "wrapper" in own and not domains.names:
        raise StartError("wrapper: domains= is missing; Mailman 2 would take everybody's mail for its lists'")
    if "api" in own and "map" in own:
        raise StartError("map: api= tells which lists there are")


def _directory(reactor: Any, route: Route, own: Mapping[str, str], in_thread: InThread) -> IListDirectory:
    """Who is asked about lists: what the operator named, or Mailman's LMTP server itself."""
    if "api" in own:
        from smtpserv.mailman.rest import Login, make_rest_directory, read_api

        api = read_argument("api", read_api, own["api"])
        path = own.get("api_password_file", "")
        if not path:
            raise StartError("api: api-password-file= is missing")
        login = Login(own.get("api_user", "restadmin"), read_secret("api-password-file", path))
        return make_rest_directory(reactor, api, login)
    if "map" in own:
        return TransportMap(own["map"], in_thread)
    return ProbeDirectory(partial(would_take, route), reactor)


#: What says more of another argument.
_PARTS: Final = {"api_user": "api", "api_password_file": "api", "lists": "wrapper"}

_MAILMAN_3: Final = frozenset({"lmtp", "api", "api_user", "api_password_file", "map"})
_OWN: Final = _MAILMAN_3 | {"domains", "wrapper", "lists"}
