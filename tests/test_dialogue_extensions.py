"""The parameters that extensions add to MAIL and RCPT: offered where they are honoured, checked, and kept."""

from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue.terms import Terms
from smtpserv.message import Envelope, TLSFacts
from smtpserv.testing import MemorySession, RecordingProcessor, memory_session
from tests.server_tools import codes

ALL: Final = frozenset({"DSN", "BINARYMIME", "REQUIRETLS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY"})

#: By keyword: parameters of MAIL that pass, and such as do not.
MAIL: Final = {
    "DSN": (
        ["RET=FULL", "ret=hdrs", "ENVID=" + "x" * 100, "ENVID=a+2Bb", "RET=HDRS ENVID=a"],
        ["RET", "RET=", "RET=BOTH", "RET=FULL RET=HDRS", "ENVID", "ENVID=" + "x" * 101, "ENVID=a+2bb"]
        + ["ENVID=a+b", "ENVID=a+0Ab", "ENVID=a+80b", "ENVID=\u00e4", "ENVID=a ENVID=a"],
    ),
    "BINARYMIME": (["BODY=BINARYMIME", "body=binarymime"], ["BODY=BINARY", "BODY", "BODY=7BIT BODY=7BIT"]),
    "DELIVERBY": (
        ["BY=120;R", "by=+120;rt", "BY=-120;N", "BY=0;N", "BY=999999999;NT"],
        ["BY", "BY=120", "BY=0;R", "BY=000;R", "BY=-120;R", "BY=1234567890;R", "BY=1;X", "BY=1;RR", "BY=;R"],
    ),
    "FUTURERELEASE": (
        ["HOLDFOR=1", "HOLDFOR=999999999", "HOLDUNTIL=2030-01-02T03:04:05Z"]
        + ["HOLDUNTIL=2030-01-02T03:04:05-07:00"],
        ["HOLDFOR=0", "HOLDFOR=-1", "HOLDFOR=1234567890", "HOLDFOR", "HOLDUNTIL=tomorrow"]
        + ["HOLDUNTIL=2030-01-02", "HOLDFOR=1 HOLDFOR=1", "HOLDFOR=1 HOLDUNTIL=2030-01-02T03:04:05Z"]
        + ["HOLDUNTIL=2030-13-02T03:04:05Z", "HOLDUNTIL=2030-02-30T03:04:05Z"],
    ),
    "MT-PRIORITY": (
        ["MT-PRIORITY=0", "MT-PRIORITY=9", "mt-priority=-9"],
        ["MT-PRIORITY", "MT-PRIORITY=10", "MT-PRIORITY=-0", "MT-PRIORITY=+1", "MT-PRIORITY=x"],
    ),
}

#: Parameters of RCPT that pass, and such as do not.
RCPT: Final = (
    ["NOTIFY=NEVER", "notify=success,Delay", "NOTIFY=FAILURE", "ORCPT=rfc822;b@b.example"]
    + ["ORCPT=x-local;a+2Bb", "ORCPT=utf-8;a\\x{20AC}b", "ORCPT=utf-8;\u00e4@b", "orcpt=UTF-8;\\x{2B}"]
    + ["ORCPT=rfc822;" + "x" * 493],
    ["NOTIFY", "NOTIFY=", "NOTIFY=NEVER,DELAY", "NOTIFY=DELAY,DELAY", "NOTIFY=OFTEN", "NOTIFY=DELAY,"]
    + ["ORCPT", "ORCPT=b@b.example", "ORCPT=;b", "ORCPT=rfc822;", "ORCPT=rfc822;a+2b", "ORCPT=rfc822;a+zz"]
    + ["ORCPT=rfc822;\u00e4", "ORCPT=utf-8;a\\x{110000}", "ORCPT=utf-8;\\x{D800}", "ORCPT=utf-8;\\x{0A}"]
    + ["ORCPT=rfc822;" + "x" * 494, "NOTIFY=DELAY NOTIFY=DELAY", "ORCPT=a;b ORCPT=a;b"],
)


def opened(**terms: Any) -> MemorySession:
    """A session that has said EHLO."""
    session = memory_session(RecordingProcessor(), terms=Terms(**{"honours": ALL, **terms}))
    session.say(b"EHLO x\r\n")
    return session


def announced(session: MemorySession) -> set[str]:
    """The keywords of the last EHLO."""
    return {line.split()[0] for line in session.last_reply().text.split("\n")[1:]}


class ParameterTests(SynchronousTestCase):
    """What MAIL and RCPT may say."""

    def test_mail(self) -> None:
        """Good values pass, bad ones get 501, and each may come once."""
        session = opened()
        for good, bad in MAIL.values():
            for written in good:
                heard = session.say(f"MAIL FROM:<a@a.example> {written}\r\nRSET\r\n".encode())
                self.assertEqual(codes(heard), ["250 2.1.0", "250 2.0.0"], written)
            session = opened(max_errors=100)
            for written in bad:
                heard = session.say(f"MAIL FROM:<a@a.example> {written}\r\n".encode())
                self.assertEqual(codes(heard), ["501 5.5.4"], written)

    def test_rcpt(self) -> None:
        """The same for RCPT; what passes can be decoded."""
        session = opened(max_errors=100)
        session.say(b"MAIL FROM:<a@a.example> SMTPUTF8\r\n")
        for number, expected in enumerate(["250 2.1.5", "501 5.5.4"]):
            for written in RCPT[number]:
                heard = session.say(f"RCPT TO:<b@b.example> {written}\r\n".encode())
                self.assertEqual(codes(heard), [expected], written)

    def test_not_honoured(self) -> None:
        """What the processor does not honour is not announced, and its parameters are unknown."""
        session = opened(honours=frozenset())
        self.assertEqual(announced(session) & ALL, set())
        for keyword, (good, _) in MAIL.items():
            heard = session.say(f"MAIL FROM:<a@a.example> {good[0]}\r\n".encode())
            expected = "501 5.5.4" if keyword == "BINARYMIME" else "555 5.5.4"
            self.assertEqual(codes(heard), [expected], good[0])
        session.say(b"MAIL FROM:<a@a.example>\r\n")
        for written in ("NOTIFY=NEVER", "ORCPT=rfc822;b@b"):
            self.assertEqual(codes(session.say(f"RCPT TO:<b@b> {written}\r\n".encode())), ["555 5.5.4"])

    def test_requiretls(self) -> None:
        """REQUIRETLS is offered under TLS alone, and has no value (RFC 8689)."""
        session = opened()
        self.assertEqual(announced(session) & ALL, ALL - {"REQUIRETLS"})
        self.assertEqual(codes(session.say(b"MAIL FROM:<a@a.example> REQUIRETLS\r\n")), ["555 5.5.4"])
        session.protocol._conversation.secured(TLSFacts("TLSv1.3", "x"))
        session.say(b"EHLO x\r\n")
        self.assertEqual(announced(session) & ALL, ALL)
        self.assertEqual(codes(session.say(b"MAIL FROM:<a@a.example> REQUIRETLS=1\r\n")), ["501 5.5.4"])
        self.assertEqual(codes(session.say(b"MAIL FROM:<a@a.example> REQUIRETLS\r\n")), ["250 2.1.0"])

    def test_envelope(self) -> None:
        """What was said is on the envelope, decoded."""
        processor = RecordingProcessor()
        session = memory_session(processor, terms=Terms(honours=ALL))
        session.say(
            b"EHLO x\r\nMAIL FROM:<a@a.example> RET=hdrs ENVID=a+2Bb\r\n"
            b"RCPT TO:<b@b.example> NOTIFY=success,Delay ORCPT=RFC822;c+2Bd@b.example\r\n"
            b"RCPT TO:<c@b.example> ORCPT=utf-8;\\x{20AC}\\x{2B}@b.example\r\n"
            b"RCPT TO:<d@b.example>\r\nBDAT 3 LAST\r\nx\r\n"
        )
        envelope: Envelope = processor.messages[0].envelope
        self.assertEqual((envelope.reverse_path.ret, envelope.reverse_path.envid), ("HDRS", "a+b"))
        first, second, third = envelope.forward_paths
        self.assertEqual(first.notify, {"SUCCESS", "DELAY"})
        self.assertEqual(first.original_recipient, ("rfc822", "c+d@b.example"))
        self.assertEqual(second.original_recipient, ("utf-8", "\u20ac+@b.example"))
        self.assertEqual((third.notify, third.original_recipient), (frozenset(), None))
