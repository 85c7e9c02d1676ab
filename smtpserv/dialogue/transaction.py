"""One mail transaction, from MAIL to the end of its content."""

from smtpserv import reply
from smtpserv.dialogue.command import Bdat
from smtpserv.dialogue.event import Content, ContentRefused, Data, EndOfData
from smtpserv.dialogue.framing import ChunkReader, ContentReader, LineReader, MailDataReader
from smtpserv.dialogue.terms import BareNewlines, Terms
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.reply import Reply


class Transaction:
    """What MAIL and RCPT have said so far, and what has come of the content."""

    def __init__(self, terms: Terms, reverse_path: ReversePath) -> None:
        self.reverse_path = reverse_path
        #: The recipients that were accepted.
        self.forward_paths: list[ForwardPath] = []
        #: RCPT commands, refused ones included (RFC 9422, RCPTMAX).
        self.attempts = 0
        #: Whether whoever takes the content wants it.
        self.begun = False
        self._max_size = terms.max_size
        self._reader: ContentReader = MailDataReader(terms.bare_newlines)
        self._size = 0
        self._refusal: Reply | None = None
        self._given_up = False

    @property
    def has_ended(self) -> bool:
        """Whether the end of the content has been read."""
        return self._reader.ended

    @property
    def is_hungry(self) -> bool:
        """Whether octets of the content are needed to go on."""
        return self._reader.is_hungry

    def data(self) -> Data:
        """The client has content: all that the envelope will hold."""
        return Data(self.reverse_path, tuple(self.forward_paths))

    def refuse(self, refusal: Reply) -> None:
        """There is something against the content, whatever it is: it is read, and goes nowhere."""
        self._refusal, self._given_up = self._refusal or refusal, True

    def expect(self, chunk: Bdat, bare_newlines: BareNewlines) -> None:
        """A chunk comes; that all of them are too much is known before it does."""
        if not isinstance(self._reader, ChunkReader):
            self._reader = ChunkReader(
                BareNewlines.ALLOW if self.reverse_path.body == "BINARYMIME" else bare_newlines
            )
        self._reader.expect(chunk.size, chunk.last)
        if self._size + chunk.size > self._max_size:
            self._refusal = self._refusal or reply.MESSAGE_TOO_BIG

    def next_event(self, source: LineReader) -> Content | ContentRefused | EndOfData | None:
        """Read content from what is buffered; None when it needs more."""
        reader = self._reader
        if not reader.ended:
            octets = source.take()
            if not octets and reader.is_hungry:
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
        if self._refusal is not None:
            return self._refusal
        if self._reader.bare_newline:
            return reply.BARE_NEWLINE
        return reply.MESSAGE_TOO_BIG if self._size > self._max_size else None
