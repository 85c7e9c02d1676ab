"""What a filter may change of a message, as values: a list of them says it all.

They hold in their order, each on what the ones before it left. So they can be kept, compared and sent over a
wire; and those of two filters, put one behind the other, are those of both.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from smtpserv.dialogue.grammar import MAIL_ARGUMENT, RCPT_ARGUMENT, is_path_of_good_length
from smtpserv.header import Field, Header, make_field
from smtpserv.message import Content, Envelope, ForwardPath, Message, Path, ReversePath


class HeaderEdit:
    """One that changes the header."""

    __slots__ = ()

    def to_header(self, header: Header) -> Header:
        """The header as it is then."""
        raise NotImplementedError


class EnvelopeEdit:
    """One that changes the envelope."""

    __slots__ = ()

    def to_envelope(self, envelope: Envelope) -> Envelope:
        """The envelope as it is then."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ReplaceBody:
    """Everything behind the empty line is other octets."""

    body: Content


Edit = HeaderEdit | EnvelopeEdit | ReplaceBody


def changed(message: Message, edits: Iterable[Edit]) -> Message:
    """The message as edits make it. The body, and fields that they do not name, stay octet for octet."""
    envelope, content, header = message.envelope, message.content, None
    for edit in edits:
        if isinstance(edit, HeaderEdit):
            header = edit.to_header(header or Header.of(content))
        elif isinstance(edit, EnvelopeEdit):
            envelope = edit.to_envelope(envelope)
        else:
            content, header = (header or Header.of(content)).with_body(edit.body), None
    return Message(message.session, envelope, header.of_content(content) if header else content)


@dataclass(frozen=True)
class _FieldEdit(HeaderEdit):
    """Says a field.

    :raises ValueError: for what could not stand in a header: see :func:`smtpserv.header.make_field`.
    """

    name: str
    value: str
    field: Field = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", make_field(self.name, self.value))


@dataclass(frozen=True)
class AddField(_FieldEdit):
    """A field below all others."""

    def to_header(self, header: Header) -> Header:
        """Add it."""
        return header.added(self.field)


@dataclass(frozen=True)
class InsertField(_FieldEdit):
    """A field above the one that ``index`` counts from 0; at 0 go trace fields (RFC 5321 section 4.4)."""

    index: int = 0

    def to_header(self, header: Header) -> Header:
        """Insert it."""
        return header.inserted(self.field, self.index)


@dataclass(frozen=True)
class ReplaceField(_FieldEdit):
    """A field in place of the ``occurrence``-th of its name, counted from 1 above; added if there is none."""

    occurrence: int = 1

    def to_header(self, header: Header) -> Header:
        """Replace it."""
        return header.replaced(self.field, self.occurrence)


@dataclass(frozen=True, slots=True)
class DeleteField(HeaderEdit):
    """The ``occurrence``-th field of a name goes, counted from 1 above; without a number all of them do."""

    name: str
    occurrence: int | None = None

    def to_header(self, header: Header) -> Header:
        """Delete it."""
        return header.deleted(self.name, self.occurrence)


@dataclass(frozen=True, slots=True)
class ChangeReversePath(EnvelopeEdit):
    """Notifications go there.

    :raises ValueError: for what is no address; the empty one is the null reverse-path.
    """

    reverse_path: ReversePath

    def __post_init__(self) -> None:
        _check(self.reverse_path)

    def to_envelope(self, envelope: Envelope) -> Envelope:
        """Change it."""
        return replace(envelope, reverse_path=self.reverse_path)


@dataclass(frozen=True, slots=True)
class AddRecipient(EnvelopeEdit):
    """One more recipient, behind the others.

    :raises ValueError: for what is no address.
    """

    forward_path: ForwardPath

    def __post_init__(self) -> None:
        _check(self.forward_path)

    def to_envelope(self, envelope: Envelope) -> Envelope:
        """Add it."""
        return replace(envelope, forward_paths=(*envelope.forward_paths, self.forward_path))


@dataclass(frozen=True, slots=True)
class RemoveRecipient(EnvelopeEdit):
    """Every recipient of that very address goes, whatever its parameters."""

    address: str

    def to_envelope(self, envelope: Envelope) -> Envelope:
        """Remove it."""
        kept = tuple(path for path in envelope.forward_paths if path.address != self.address)
        return replace(envelope, forward_paths=kept)


@dataclass(frozen=True, slots=True)
class Redirect(EnvelopeEdit):
    """These and nobody else are the recipients. Nobody at all: the message is accepted and dropped.

    :raises ValueError: for what is no address.
    """

    forward_paths: tuple[ForwardPath, ...]

    def __post_init__(self) -> None:
        for path in self.forward_paths:
            _check(path)

    def to_envelope(self, envelope: Envelope) -> Envelope:
        """Redirect it."""
        return replace(envelope, forward_paths=self.forward_paths)


def _check(path: Path) -> None:
    """See that an address could have come by MAIL or RCPT, so that no relay says more by it than meant."""
    verb, argument = ("FROM", MAIL_ARGUMENT) if isinstance(path, ReversePath) else ("TO", RCPT_ARGUMENT)
    match = argument.fullmatch(f"{verb}:<{path.address}>".encode("utf-8", "replace"))
    said = b"".join(part or b"" for part in match.groups()) if match else b""
    if match is None or said != path.address.encode("utf-8", "replace"):
        raise ValueError(f"not an address: {path.address!r}")
    if not (path.address.isprintable() and is_path_of_good_length(path.address)):
        raise ValueError(f"not an address: {path.address!r}")
