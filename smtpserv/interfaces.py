"""Every public interface. One is required, of one method; each of the others adds what its name says.

All methods may return their answer, or a Deferred or awaitable of it (``async def`` works), or raise
:class:`smtpserv.error.Reject` or :class:`smtpserv.error.Defer`. Any other exception is answered with
451 4.3.0; its text goes to the log and never to the peer. They are called in the reactor's thread and
must not block it. The docstrings here are the contract.
"""

# Interface methods take no self, and have no body but their contract.
# mypy: disable-error-code="empty-body"

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

from smtpserv.message import Envelope, ForwardPath, Message, ReversePath, Session
from smtpserv.reply import Reply, Results

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore

#: What a policy answers: None lets the next policy decide (at last: accepted), a failure refuses.
Verdict = Reply | None | Awaitable[Reply | None]

#: What becomes of a message: None is accepted, a Reply is sent, Results hold one for each recipient.
Outcome = Reply | Results | None | Awaitable[Reply | Results | None]


class IMessageProcessor(Interface):
    """What happens to a message: the one interface that a processor must provide."""

    def process_message(message: Message) -> Outcome:
        """Take, refuse or defer one whole message.

        Called once for each message, after the final dot. The client waits for the answer, and a 2yz is the
        promise that the message will not be lost: give it when that is true. A disconnect no longer cancels;
        the processing deadline does, by cancelling the Deferred and answering 451 4.4.5.

        :param message: session, envelope and content; frozen, and yours to keep.
        :return: None (accepted, 250), a Reply, Results with a reply for each forward-path, or an awaitable
            or Deferred of these.
        """


class IMessageSink(Interface):
    """Takes the content of one message while it arrives. Either ``finish`` or ``abort`` ends it."""

    def write(octets: bytes) -> Awaitable[None] | None:
        """Take the next octets of the content, of any length but none, dots unstuffed.

        :return: None for more at once, or a Deferred or awaitable: no more is read from the client until it
            is done. Raising refuses the message; the reply is sent after its end, and ``abort`` is called.
        """

    def finish() -> Outcome:
        """The final dot came and nothing was wrong: decide, as ``process_message`` does."""

    def abort() -> None:
        """The message will not be completed, or was refused: release everything. Must not raise."""


class IStreamingProcessor(Interface):
    """A processor that sees the content while it arrives, and so never holds a message whole."""

    def begin(session: Session, envelope: Envelope) -> IMessageSink | Awaitable[IMessageSink]:
        """The client said DATA: give the sink that takes the content, or raise to refuse it unseen."""


class ISessionPolicy(Interface):
    """Decides about connections. A failure for ``connect`` closes it (554 or 421)."""

    def connect(session: Session) -> Verdict:
        """A client connected; it has been told nothing yet."""

    def hello(session: Session) -> Verdict:
        """A client said HELO or EHLO; ``session.hello_name`` is what it called itself."""


class ISenderPolicy(Interface):
    """Decides about reverse-paths."""

    def check_sender(session: Session, reverse_path: ReversePath) -> Verdict:
        """A client said MAIL, in good form and order."""


class IRecipientPolicy(Interface):
    """Decides about forward-paths, one at a time."""

    def check_recipient(session: Session, reverse_path: ReversePath, forward_path: ForwardPath) -> Verdict:
        """A client said RCPT, in good form and order."""


class IMessageProcessorMaker(Interface):
    """The plug-in: makes a processor from the arguments of ``--processor=NAME:ARGS``.

    Put one in a module under ``twisted/plugins/``, or name it in the entry point group
    ``smtpserv.processors``. :class:`smtpserv.plugins.ProcessorMaker` is one that needs no code.
    """

    name: str = Attribute("What ``--processor`` calls it: letters, digits and hyphens.")
    help: str = Attribute("One line for ``--help-processors``.")
    arguments: str = Attribute("The arguments it takes, several lines for ``--help-processor=NAME``.")

    def make_processor(reactor: "IReactorCore", positional: tuple[str, ...], named: dict[str, str]) -> object:
        """Make the processor; it provides IMessageProcessor, IStreamingProcessor or both.

        :param positional: the arguments without a name, in order.
        :param named: the others; a hyphen in a name has become an underscore.
        :raises smtpserv.error.StartError: for arguments that are wrong, in a line for the operator.
        """
