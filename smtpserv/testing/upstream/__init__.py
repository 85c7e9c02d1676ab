"""A server to relay to that does whatever servers do: what a relay must stand, with a fault at any step.

It speaks the real dialogue, and does not care what carries it: a port, or ``twisted.test.iosim``::

    upstream = ScriptedUpstream({("RCPT", 2): Reply(550, "No such user", "5.1.1"), "end of data": [CLOSE]})
    port = reactor.listenTCP(0, upstream, interface="127.0.0.1")
    ...  # relay something to port.getHost().port
    assert [str(path) for path in upstream.transactions[0].forward_paths] == ["<a@a.example>"]

In this example each second recipient of a transaction is refused, and the first message gets no reply.
"""

from smtpserv.testing.upstream.connection import UpstreamConnection
from smtpserv.testing.upstream.fault import (
    CLOSE,
    ENDLESS,
    GARBAGE,
    HALF,
    RESET,
    STALL,
    Break,
    End,
    Fault,
    Faults,
    Plan,
    Step,
)
from smtpserv.testing.upstream.role import UpstreamTransaction
from smtpserv.testing.upstream.server import KEYWORDS, ScriptedUpstream

__all__ = [
    "CLOSE",
    "ENDLESS",
    "GARBAGE",
    "HALF",
    "KEYWORDS",
    "RESET",
    "STALL",
    "Break",
    "End",
    "Fault",
    "Faults",
    "Plan",
    "ScriptedUpstream",
    "Step",
    "UpstreamConnection",
    "UpstreamTransaction",
]
