"""What a milter wants done to a message, as edits."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from smtpserv.dialogue.command import PARSERS, Mail, Rcpt
from smtpserv.dialogue.extension import check_parameters
from smtpserv.dialogue.extensions import EXTENSIONS
from smtpserv.edit import (
    AddField,
    AddRecipient,
    ChangeReversePath,
    DeleteField,
    Edit,
    InsertField,
    RemoveRecipient,
    ReplaceField,
)
from smtpserv.error import SMTPError
from smtpserv.message import Envelope, ReversePath
from smtpserv.milter.packet import Answer, MilterError, Packet, read_number, read_strings

#: A place in a header that is beyond its end.
_FAR: Final = 1 << 31

_LINE_END: Final = re.compile(r"\r?\n|\r")

_MAIL_CHECKS: Final = {name: check for row in EXTENSIONS for name, check in row.mail.items()}
_RCPT_CHECKS: Final = {name: check for row in EXTENSIONS for name, check in row.rcpt.items()}


@dataclass(frozen=True, slots=True)
class Context:
    """What it takes to understand a change.

    :param leading_space: whether values come with the space behind the colon.
    """

    envelope: Envelope
    leading_space: bool = False


def change_of(packet: Packet, context: Context) -> Edit | None:
    """The edit that a packet asks for; None where it asks for none.

    :raises MilterError: for one that can't be made.
    """
    read = _CHANGES.get(packet.kind)
    try:
        return read(packet.payload, context) if read else None
    except (ValueError, SMTPError) as error:
        raise MilterError(str(error)) from error


def _add_header(payload: bytes, context: Context) -> Edit:
    name, value = read_strings(payload, 2, 2)
    return AddField(_text(name), _value(value, context))


def _insert_header(payload: bytes, context: Context) -> Edit:
    """Counted from 0 at our own Received field, which no milter is shown; it comes later, if at all."""
    index, rest = read_number(payload)
    if index >= _FAR:
        raise MilterError("a negative index")
    name, value = read_strings(rest, 2, 2)
    return InsertField(_text(name), _value(value, context), max(0, index - 1))


def _change_header(payload: bytes, context: Context) -> Edit:
    """Counted from 1; 0 is taken for 1, and without a value the field goes, as with Sendmail."""
    index, rest = read_number(payload)
    if index >= _FAR:
        raise MilterError("a negative index")
    name, value = read_strings(rest, 2, 2)
    if not name:
        raise MilterError("a header field without a name")
    if not value:
        return DeleteField(_text(name), index or 1)
    return ReplaceField(_text(name), _value(value, context), index or 1)


def _add_recipient(payload: bytes, context: Context) -> Edit:
    (address,) = read_strings(payload, 1, 1)
    return _recipient(address, b"")


def _add_recipient_with_parameters(payload: bytes, context: Context) -> Edit:
    address, parameters = _with_parameters(payload)
    return _recipient(address, parameters)


def _recipient(address: bytes, parameters: bytes) -> Edit:
    command = PARSERS[b"RCPT"](b"TO:<" + _bare(address) + b"> " + parameters)
    assert isinstance(command, Rcpt)
    check_parameters(command.forward_path.parameters, _RCPT_CHECKS)
    return AddRecipient(command.forward_path)


def _delete_recipient(payload: bytes, context: Context) -> Edit:
    (address,) = read_strings(payload, 1, 1)
    return RemoveRecipient(_text(_bare(address)))


def _change_sender(payload: bytes, context: Context) -> Edit:
    """What MAIL said besides stays, where nothing else is said: it tells of the content as well."""
    address, parameters = _with_parameters(payload)
    command = PARSERS[b"MAIL"](b"FROM:<" + _bare(address) + b"> " + parameters)
    assert isinstance(command, Mail)
    path = command.reverse_path
    check_parameters(path.parameters, _MAIL_CHECKS)
    kept = context.envelope.reverse_path.parameters
    return ChangeReversePath(ReversePath(path.address, {**kept, **path.parameters}))


def _with_parameters(payload: bytes) -> tuple[bytes, bytes]:
    address, *parameters = read_strings(payload, 1, 2)
    return address, b"".join(parameters)


def _bare(address: bytes) -> bytes:
    """An address with or without its angle brackets."""
    return address[1:-1] if address[:1] == b"<" and address[-1:] == b">" else address


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _value(octets: bytes, context: Context) -> str:
    """A field's value, its lines folded as they must be: some end in LF alone, are blank, or not indented."""
    text = _text(octets.removeprefix(b" ") if context.leading_space else octets)
    first, *others = _LINE_END.split(text)
    folded = [line if line[:1] in (" ", "\t") else f"\t{line}" for line in others if line.strip()]
    return "\r\n".join([first, *folded])


_CHANGES: Final[dict[bytes, Callable[[bytes, Context], Edit]]] = {
    Answer.ADD_HEADER: _add_header,
    Answer.INSERT_HEADER: _insert_header,
    Answer.CHANGE_HEADER: _change_header,
    Answer.ADD_RECIPIENT: _add_recipient,
    Answer.ADD_RECIPIENT_WITH_PARAMETERS: _add_recipient_with_parameters,
    Answer.DELETE_RECIPIENT: _delete_recipient,
    Answer.CHANGE_SENDER: _change_sender,
}
