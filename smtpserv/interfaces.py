"""Every public interface. One is required, of one method; each of the others adds what its name says.

What answers a client may return its answer, or a Deferred or awaitable of it (``async def`` works), or raise
:class:`smtpserv.error.Reject` or :class:`smtpserv.error.Defer`. Any other exception is answered with
451 4.3.0, or 452 4.3.1 when disk, memory or descriptors ran out; its text goes to the log and never to the
peer. All are called in the reactor's thread and must not block it: what may goes to
``twisted.internet.threads``. A Deferred is the answer to one call, and is never given for another.

An ``async def`` awaits Deferreds. What is asyncio's it awaits as
``Deferred.fromFuture(asyncio.ensure_future(x))``, under twistd's ``--reactor=asyncio``. The docstrings here
are the contract.
"""

# Interface methods take no self, and have no body but their contract.
# mypy: disable-error-code="empty-body"

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

from smtpserv.edit import Edit
from smtpserv.message import Envelope, ForwardPath, Message, ReversePath, Session
from smtpserv.reply import Reply, Results

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore
    from twisted.web.resource import IResource

#: What a policy answers: a failure refuses; None agrees in the usual words, a 2yz in its own (but for connect
#: and hello). Agreeing speaks for nobody else: the other policies are asked as well.
Verdict = Reply | None | Awaitable[Reply | None]

#: What becomes of a message: None is accepted, a Reply is sent, Results hold one for each recipient.
Outcome = Reply | Results | None | Awaitable[Reply | Results | None]


#: What a filter decides: None lets the message be, edits change it, a Reply ends it here.
Decision = Sequence[Edit] | Reply | None | Awaitable[Sequence[Edit] | Reply | None]


#: What a filter makes of a recipient: None lets it be, paths stand for it, a Reply refuses it.
Rewriting = Sequence[ForwardPath] | Reply | None | Awaitable[Sequence[ForwardPath] | Reply | None]


class IMessageProcessor(Interface):
    """What happens to a message: the one interface that a processor must provide."""

    def process_message(message: Message) -> Outcome:
        """Take, refuse or defer one whole message.

        Called once for each message, after the final dot. The client waits for the answer, and a 2yz is the
        promise that the message will not be lost: give it when that is true. A disconnect no longer cancels.
        The processing deadline does, by cancelling the Deferred and answering 451 4.4.5, and so does a server
        that stops and has waited long enough, with 421.

        :param message: session, envelope and content; frozen, and yours to keep. Content of more than a
            megabyte keeps a file open for as long.
        :return: None (accepted, 250), a Reply, Results with a reply for each forward-path, or an awaitable
            or Deferred of these.
        """


class IMessageSink(Interface):
    """Takes the content of one message while it arrives. Either ``finish`` or ``abort`` ends it, once.

    A ``finish`` that raises, refuses or is cancelled is followed by no ``abort``: it cleans up after itself.
    """

    def write(octets: bytes) -> Awaitable[None] | None:
        """Take the next octets of the content, of any length but none, dots unstuffed.

        :return: None for more at once, or a Deferred or awaitable: no more is read from the client until it
            is done. Raising refuses the message; the reply is sent after its end, and ``abort`` is called.
        """

    def finish() -> Outcome:
        """The final dot came and nothing was wrong: decide, as ``process_message`` does."""

    def abort() -> None:
        """The message will not be completed, or was refused: release everything.

        A ``write`` that was not done has been cancelled before. What this raises is only logged.
        """


class IStreamingProcessor(Interface):
    """A processor that sees the content while it arrives, and so never holds a message whole.

    Of a processor that is this and an :class:`IMessageProcessor`, this is used.
    """

    def begin(session: Session, envelope: Envelope) -> IMessageSink | Awaitable[IMessageSink]:
        """The client said DATA: give the sink that takes the content, or raise to refuse it unseen."""


class ITransaction(Interface):
    """One mail transaction of a client, as a processor takes part in it: from MAIL to DATA, or to its end.

    Called one at a time, each after the one before it was answered. Either a ``begin`` that gives a
    sink or ``abort`` ends it, once; what was not answered has been cancelled before ``abort``.
    """

    answer: Reply | None = Attribute("What MAIL is answered, a 2yz; None is the usual words.")

    def add_recipient(forward_path: ForwardPath) -> Verdict:
        """A client said RCPT, and no policy had anything against it: answer as an IRecipientPolicy does."""

    def begin(envelope: Envelope) -> IMessageSink | Awaitable[IMessageSink]:
        """The client said DATA: give the sink that takes the content, or raise to refuse it unseen.

        :param envelope: who the message is for. Filters may have made it others than were asked about.
        """

    def abort() -> None:
        """There will be no message: RSET, another hello, a disconnect. Release everything."""


class ITransactionProcessor(Interface):
    """A processor that answers MAIL and each RCPT itself, as one that asks another server must.

    Of a processor that is this and something else, this is used.
    """

    def open(session: Session, reverse_path: ReversePath) -> ITransaction | Awaitable[ITransaction]:
        """A client said MAIL, and no policy objected: give what goes on, or raise to refuse."""


class IRecipientFilter(Interface):
    """Decides about recipients when they are named, before the processor is asked about them."""

    def filter_recipient(session: Session, reverse_path: ReversePath, forward_path: ForwardPath) -> Rewriting:
        """A client said RCPT: who is to receive the message instead.

        :return: None (whom it names), the paths that stand for it, or a Reply that refuses it.
        """


class IMessageFilter(Interface):
    """Stands between the engine and the processor: looks at whole messages, refuses them or changes them.

    Filters are asked in the order in which ``--filter`` names them, each about what the one before it left;
    then the processor is given the message.
    """

    def filter_message(message: Message) -> Decision:
        """Decide about one whole message, after the final dot. The client waits, and the deadline runs.

        A signer answers with one :class:`~smtpserv.edit.InsertField` of its signature. Aliases are
        :class:`~smtpserv.edit.RemoveRecipient` and :class:`~smtpserv.edit.AddRecipient`, sender rewriting is
        :class:`~smtpserv.edit.ChangeReversePath`. A milter's actions have an edit each, of the same counting:
        addheader, insheader and chgheader (whose index counts within a name, from 1, and whose empty value
        deletes), addrcpt, delrcpt, chgfrom and replacebody; its accept is None, its discard a 2yz Reply.

        :return: None (nothing to change), the edits to be made, a Reply, or an awaitable or Deferred of
            these. A 4yz or 5yz refuses the message; a 2yz accepts it at once, and neither other filters nor
            the processor see it. Raising Reject or Defer refuses as well.
        """


class IHeaderFilter(IMessageFilter):
    """Marks a filter that looks no further than the header, and changes nothing else.

    It is given messages whose content ends with the header, when that is there, and the body streams past it.
    """


class IRelayingProcessor(Interface):
    """Marks a processor that sends mail on to other servers.

    Before it stands the rule of who may relay: only then is a recipient elsewhere accepted.
    """


class IRecipientDirectory(Interface):
    """Of a processor that relays: knows whose mail ends here, so that anybody may send to them."""

    def is_ours(forward_path: ForwardPath) -> bool | Awaitable[bool]:
        """Whether mail for the recipient is not relayed but has arrived; or raise, where nobody can tell."""


class ISessionPolicy(Interface):
    """Decides about connections."""

    def connect(session: Session) -> Verdict:
        """A client connected; it has been told nothing yet.

        A 5yz is said as 554, after which the client may only QUIT; a 4yz as 421, which closes the connection
        (RFC 5321 section 3.1).
        """

    def hello(session: Session) -> Verdict:
        """A client said HELO or EHLO; ``session.hello_name`` is what it calls itself."""


class IEarlyTalkerPolicy(Interface):
    """Decides about clients that speak before they are greeted (RFC 5321 section 3.1 lets none)."""

    def spoke_early(session: Session) -> Verdict:
        """A client sent something while the answers to ``connect`` were awaited; all of them were yes.

        Called before the greeting is sent, once. A refusal is said as one of ``connect`` is.
        """


class ISenderPolicy(Interface):
    """Decides about reverse-paths."""

    def check_sender(session: Session, reverse_path: ReversePath) -> Verdict:
        """A client said MAIL, in good form and order."""


class IRecipientPolicy(Interface):
    """Decides about forward-paths, one at a time."""

    def check_recipient(session: Session, reverse_path: ReversePath, forward_path: ForwardPath) -> Verdict:
        """A client said RCPT, in good form and order."""


class IMessageObserver(Interface):
    """Is told of each message what became of it, and has no say in it."""

    def message_ended(session: Session, envelope: Envelope, size: int, answer: Reply) -> None:
        """The last reply to a message was decided: to the end of its data, or to DATA if that was refused.

        :param size: octets of content that were received.
        """


class IAuthenticationObserver(Interface):
    """Is told of AUTH attempts that failed, and has no say in them."""

    def authentication_failed(session: Session, name: str) -> None:
        """A client's credentials were wrong.

        :param name: whom it wanted to be, as it wrote it; empty where that is not known.
        """


class IExtensionSupport(Interface):
    """What a processor honours beyond what every message needs. Only then is it offered to clients."""

    honours: Collection[str] = Attribute(
        "EHLO keywords: of DSN, BINARYMIME, REQUIRETLS, DELIVERBY, FUTURERELEASE and MT-PRIORITY, those whose"
        " parameters on the envelope it obeys, or passes on to somebody who does. Looked at for each hello."
    )


class IPages(Interface):
    """What a processor shows to browsers."""

    pages: "Mapping[str, IResource]" = Attribute(
        "Pages of twisted.web by the first part of their path, in ASCII, to be served by ``--http`` to those"
        " who ask for an address, for localhost or for ``--hostname``, and from pages there. Each answer says"
        " that browsers may load nothing, and a page may say otherwise."
    )


class IExtension(Interface):
    """An ESMTP extension from outside (RFC 5321 section 2.2)."""

    keyword: str = Attribute("As EHLO announces it.")
    argument: str = Attribute("What follows the keyword; maybe nothing.")
    verbs: Iterable[str] = Attribute("The commands it adds, in capitals.")
    mail: Mapping[str, Callable[[str | None], bool]] = Attribute(
        "The parameters it adds to MAIL, in capitals, and what says whether a value is in good form; it is"
        " given None where there is none."
    )
    rcpt: Mapping[str, Callable[[str | None], bool]] = Attribute("The same for RCPT.")
    allowance: int = Attribute("Octets it adds to the longest command line.")

    def perform(session: Session, verb: str, argument: str) -> Verdict:
        """A client said one of the commands; what follows the verb is text without control characters.

        :return: the reply; None is 250.
        """


class IExchange(Interface):
    """One SASL exchange (RFC 4954)."""

    def respond(octets: bytes | None) -> Awaitable[bytes | str]:
        """Take what the client said, decoded; None when it sent no initial response.

        :return: octets, the next challenge; or text, the identity that the client has proved.
        :raises smtpserv.error.SMTPError: when it ends otherwise.
        """


class IAuthentication(Interface):
    """Lets clients say who they are."""

    def mechanisms(session: Session) -> tuple[str, ...]:
        """The SASL mechanisms this session is offered, the strongest first."""

    def start(name: str, session: Session, failed: Callable[[str], None]) -> IExchange:
        """Begin an exchange.

        :param failed: to be called with the user's name, if it is known, as soon as credentials prove wrong;
            the client may hear of it later, or be gone by then.
        :raises smtpserv.error.SMTPError: for a mechanism that is not offered.
        """


class IMaker(Interface):
    """What all plug-ins have, whatever they make."""

    name: str = Attribute("What the option that names one calls it: letters, digits and hyphens.")
    help: str = Attribute("One line for ``--help-processors``, ``--help-filters`` ...")
    arguments: str = Attribute("The arguments it takes, several lines for ``--help-processor=NAME`` ...")


class IExtensionMaker(IMaker):
    """The plug-in: makes an ESMTP extension from the arguments of ``--extension=NAME:ARGS``.

    Put one in a module under ``twisted/plugins/``, or name it in the entry point group
    ``smtpserv.extensions``. :class:`smtpserv.plugins.ExtensionMaker` is one that needs no code.
    """

    def make_extension(reactor: "IReactorCore", positional: tuple[str, ...], named: dict[str, str]) -> object:
        """Make the extension; it provides IExtension.

        :param positional: the arguments without a name, in order.
        :param named: the others; a hyphen in a name has become an underscore.
        :raises smtpserv.error.StartError: for arguments that are wrong, in a line for the operator.
        """


class IPolicyMaker(IMaker):
    """The plug-in: makes a policy from the arguments of ``--policy=NAME:ARGS``.

    Put one in a module under ``twisted/plugins/``, or name it in the entry point group
    ``smtpserv.policies``. :class:`smtpserv.plugins.PolicyMaker` is one that needs no code.
    """

    def make_policy(reactor: "IReactorCore", positional: tuple[str, ...], named: dict[str, str]) -> object:
        """Make the policy; it provides one or more of the policies' interfaces, and may observe besides.

        :param positional: the arguments without a name, in order.
        :param named: the others; a hyphen in a name has become an underscore.
        :raises smtpserv.error.StartError: for arguments that are wrong, in a line for the operator.
        """


class IMessageFilterMaker(IMaker):
    """The plug-in: makes a filter from the arguments of ``--filter=NAME:ARGS``.

    Put one in a module under ``twisted/plugins/``, or name it in the entry point group ``smtpserv.filters``.
    :class:`smtpserv.plugins.FilterMaker` is one that needs no code.
    """

    def make_filter(
        reactor: "IReactorCore", hostname: str, positional: tuple[str, ...], named: dict[str, str]
    ) -> object:
        """Make the filter; it provides IMessageFilter, IRecipientFilter or both.

        :param hostname: our own name, as ``--hostname`` has it.
        :param positional: the arguments without a name, in order.
        :param named: the others; a hyphen in a name has become an underscore.
        :raises smtpserv.error.StartError: for arguments that are wrong, in a line for the operator.
        """


class IMessageProcessorMaker(IMaker):
    """The plug-in: makes a processor from the arguments of ``--processor=NAME:ARGS``.

    Put one in a module under ``twisted/plugins/``, or name it in the entry point group
    ``smtpserv.processors``. :class:`smtpserv.plugins.ProcessorMaker` is one that needs no code.
    """

    def make_processor(reactor: "IReactorCore", positional: tuple[str, ...], named: dict[str, str]) -> object:
        """Make the processor; it provides IMessageProcessor, IStreamingProcessor or ITransactionProcessor.

        :param positional: the arguments without a name, in order.
        :param named: the others; a hyphen in a name has become an underscore.
        :raises smtpserv.error.StartError: for arguments that are wrong, in a line for the operator.
        """
