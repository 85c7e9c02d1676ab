"""What a processor's author needs to test it, and what this package's own tests use: no ports, no waiting.

A whole server session in memory, around the real dialogue::

    session = memory_session(MyProcessor())
    session.say(PREAMBLE)
    session.say(b"Subject: hello\\r\\n\\r\\nhello\\r\\n.\\r\\n")
    assert session.last_reply().code == 250

And a server to relay to, with a fault at any step: :mod:`smtpserv.testing.upstream`.
"""

from smtpserv.testing.contract import MessageProcessorContract, StreamingProcessorContract
from smtpserv.testing.dialogue import DialoguePair, Script, at_every_split, read_script
from smtpserv.testing.memory import (
    PREAMBLE,
    HandThread,
    MemorySession,
    RecordingProcessor,
    make_message,
    memory_house,
    memory_session,
)
from smtpserv.testing.upstream import ScriptedUpstream

__all__ = [
    "PREAMBLE",
    "DialoguePair",
    "HandThread",
    "MemorySession",
    "MessageProcessorContract",
    "RecordingProcessor",
    "Script",
    "ScriptedUpstream",
    "StreamingProcessorContract",
    "at_every_split",
    "make_message",
    "memory_house",
    "memory_session",
    "read_script",
]
