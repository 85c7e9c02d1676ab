"""One mail transaction, from MAIL to the end of its data."""

from smtpserv import reply
from smtpserv.dialogue.event import Content, ContentRefused, Data, EndOfData
from smtpserv.dialogue.extension import Terms
from smtpserv.dialogue.framing import LineReader, MailDataReader
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.reply import Reply


class Transaction:
    """What MAIL and RCPT have said so far, and what has come of the content."""

    __slots__ = ("reverse_path", "forward_paths", "attempts", "_terms", "_content", "_size", "_given_up")

    def __init__(self, terms: Terms, reverse_path: ReversePath) -> None:
        self.reverse_path = reverse_path
        #: The recipients that were accepted.
        self.forward_paths: list[ForwardPath] = []
        #: RCPT commands, refused ones included (RFC 9422, RCPTMAX).
        self.attempts = 0
        self._terms = terms
        self._content = MailDataReader(terms.bare_newlines)
        self._size = 0
        self._given_up = False

    def data(self) -> Data:
        """The client said DATA: all that the envelope will hold."""
        return Data(self.reverse_path, tuple(self.forward_paths))

    def next_event(self, source: LineReader) -> Content | ContentRefused | EndOfData | None:
        """Read mail data from what is buffered; None when it needs more."""
        reader = self._content
        if not reader.ended:
            octets = source.take()
            if not octets:
                return None
            content, rest = reader.read(octets)
            if rest:
                source.receive(rest)
            if content:
                self._size += len(content)
                if not self._given_up:
                    self._given_up = self.refusal() is not None
                    return ContentRefused() if self._given_up else Content(content)
        return EndOfData(self.refusal()) if reader.ended else None

    def refusal(self) -> Reply | None:
        """What there is against the content so far; at the end it is the same however it was split."""
        if self._content.bare_newline:
            return reply.BARE_NEWLINE
        return reply.MESSAGE_TOO_BIG if self._size > self._terms.max_size else None
