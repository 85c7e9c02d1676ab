"""One mail transaction, from MAIL to the end of its data."""

from smtpserv import reply
from smtpserv.dialogue.command import Hello, Mail, Rcpt
from smtpserv.dialogue.event import Content, ContentRefused, Data, EndOfData
from smtpserv.dialogue.extension import Terms, check_parameters
from smtpserv.dialogue.framing import LineReader, MailDataReader
from smtpserv.error import SMTPError
from smtpserv.message import ForwardPath, Path, ReversePath
from smtpserv.reply import Reply


class Transaction:
    """What MAIL and RCPT have said so far, and what has come of the content.

    :param hello: the EHLO or HELO it stands under: after HELO no extension is in force.
    """

    __slots__ = (
        "_terms",
        "_extended",
        "_reverse_path",
        "_forward_paths",
        "attempts",
        "_content",
        "_size",
        "_given_up",
    )

    def __init__(self, terms: Terms, hello: Hello) -> None:
        self._terms = terms
        self._extended = hello.verb != "HELO"
        self._reverse_path = ReversePath("")
        self._forward_paths: list[ForwardPath] = []
        #: RCPT commands, refused ones included (RFC 9422, RCPTMAX).
        self.attempts = 0
        self._content = MailDataReader(terms.bare_newlines)
        self._size = 0
        self._given_up = False

    def check_mail(self, command: Mail) -> None:
        """Whether MAIL asks for nothing that is not offered.

        :raises SMTPError: with the reply.
        """
        path = command.reverse_path
        if path.parameters:
            check_parameters(path.parameters, self._terms.mail_parameters if self._extended else {})
        self._check_script(path, path)
        if (path.size or 0) > self._terms.max_size:
            raise SMTPError(reply.MESSAGE_TOO_BIG)

    def check_rcpt(self, command: Rcpt) -> None:
        """Count an RCPT, and whether it asks for nothing that is not offered.

        :raises SMTPError: with the reply.
        """
        path = command.forward_path
        self.attempts += 1
        if self.attempts > self._terms.max_recipients:
            raise SMTPError(reply.TOO_MANY_RECIPIENTS)
        if path.parameters:
            check_parameters(path.parameters, self._terms.rcpt_parameters if self._extended else {})
        self._check_script(path, self._reverse_path)

    @staticmethod
    def _check_script(path: Path, reverse_path: ReversePath) -> None:
        if not path.address.isascii() and not reverse_path.smtputf8:
            raise SMTPError(reply.NEEDS_SMTPUTF8)

    def keep_mail(self, command: Mail) -> None:
        """MAIL was accepted."""
        self._reverse_path = command.reverse_path

    def keep_rcpt(self, command: Rcpt) -> None:
        """RCPT was accepted."""
        self._forward_paths.append(command.forward_path)

    def data(self) -> Data:
        """The client said DATA: all that the envelope will hold."""
        return Data(self._reverse_path, tuple(self._forward_paths))

    def next_event(self, source: LineReader) -> Content | ContentRefused | EndOfData | None:
        """Read mail data from what is buffered; None when it needs more."""
        reader = self._content
        if not reader.ended and source:
            content, rest = reader.read(source.take())
            source.receive(rest)
            self._size += len(content)
            if content and not self._given_up:
                self._given_up = self.refusal() is not None
                return ContentRefused() if self._given_up else Content(content)
        return EndOfData(self.refusal()) if reader.ended else None

    def refusal(self) -> Reply | None:
        """What there is against the content so far; at the end it is the same however it was split."""
        if self._content.bare_newline:
            return reply.BARE_NEWLINE
        return reply.MESSAGE_TOO_BIG if self._size > self._terms.max_size else None
