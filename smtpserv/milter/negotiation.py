"""What the two sides of the milter protocol agree on at first: its version, actions and steps."""

import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from smtpserv.milter.packet import Command, MilterError, Packet

#: That of Sendmail 8.14 and everything since, and the oldest that anybody speaks.
VERSION: Final = 6
OLDEST: Final = 2

_FORM: Final = struct.Struct("!III")


class Actions(IntFlag):
    """What a milter may want to be done to a message (``SMFIF_``)."""

    ADD_HEADERS = 0x01
    CHANGE_BODY = 0x02
    ADD_RECIPIENTS = 0x04
    DELETE_RECIPIENTS = 0x08
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENTS_WITH_PARAMETERS = 0x80


class Steps(IntFlag):
    """What need not be said to a milter, or is not answered, and how things are said (``SMFIP_``)."""

    NO_CONNECT = 0x000001
    NO_HELO = 0x000002
    NO_MAIL = 0x000004
    NO_RCPT = 0x000008
    NO_BODY = 0x000010
    NO_HEADERS = 0x000020
    NO_END_OF_HEADER = 0x000040
    UNANSWERED_HEADERS = 0x000080
    NO_UNKNOWN = 0x000100
    NO_DATA = 0x000200
    SKIP = 0x000400
    UNANSWERED_CONNECT = 0x001000
    UNANSWERED_HELO = 0x002000
    UNANSWERED_MAIL = 0x004000
    UNANSWERED_RCPT = 0x008000
    UNANSWERED_DATA = 0x010000
    UNANSWERED_UNKNOWN = 0x020000
    UNANSWERED_END_OF_HEADER = 0x040000
    UNANSWERED_BODY = 0x080000
    LEADING_SPACE = 0x100000


_ALL_ACTIONS: Final = Actions(sum(Actions))
_ALL_STEPS: Final = Steps(sum(Steps))
_NO_STEPS: Final = Steps(0)

#: By command: what says that it is not wanted, and what that it is not answered.
_STEPS: Final = {
    Command.CONNECT: (Steps.NO_CONNECT, Steps.UNANSWERED_CONNECT),
    Command.HELO: (Steps.NO_HELO, Steps.UNANSWERED_HELO),
    Command.MAIL: (Steps.NO_MAIL, Steps.UNANSWERED_MAIL),
    Command.RCPT: (Steps.NO_RCPT, Steps.UNANSWERED_RCPT),
    Command.DATA: (Steps.NO_DATA, Steps.UNANSWERED_DATA),
    Command.HEADER: (Steps.NO_HEADERS, Steps.UNANSWERED_HEADERS),
    Command.END_OF_HEADER: (Steps.NO_END_OF_HEADER, Steps.UNANSWERED_END_OF_HEADER),
    Command.BODY: (Steps.NO_BODY, Steps.UNANSWERED_BODY),
    Command.END_OF_MESSAGE: (_NO_STEPS, _NO_STEPS),
}

#: The version that brought a command; the others were always there.
_SINCE: Final = {Command.DATA: 4}

#: What is said first: all that we know.
OFFER: Final = Packet(Command.NEGOTIATE, _FORM.pack(VERSION, _ALL_ACTIONS, _ALL_STEPS))


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed with a milter."""

    version: int = VERSION
    actions: Actions = _ALL_ACTIONS
    steps: Steps = _NO_STEPS

    @classmethod
    def parse(cls, packet: Packet) -> "Terms":
        """Those that a milter answers the offer with.

        :raises MilterError: for what is no such answer, or wants what was not offered.
        """
        if packet.kind != Command.NEGOTIATE or len(packet.payload) < _FORM.size:
            raise MilterError(f"the offer was answered with {packet.kind!r}")
        version, actions, steps = _FORM.unpack_from(packet.payload)
        if not OLDEST <= version <= VERSION:
            raise MilterError(f"it speaks version {version} of the protocol")
        if unknown := actions & ~int(_ALL_ACTIONS):
            raise MilterError(f"it wants to do more than we can: {unknown:#x}")
        return cls(version, Actions(actions), Steps(steps & _ALL_STEPS))

    def wants(self, command: bytes) -> bool:
        """Whether the milter is told of a command."""
        return self.version >= _SINCE.get(command, OLDEST) and not self.steps & _STEPS[command][0]

    def answers(self, command: bytes) -> bool:
        """Whether it answers one that it is told of."""
        return not self.steps & _STEPS[command][1]

    @property
    def has_leading_space(self) -> bool:
        """Whether header values are said with the space behind the colon; else the first one is dropped."""
        return bool(self.steps & Steps.LEADING_SPACE)
