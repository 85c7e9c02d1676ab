"""Policies come before a processor that takes part in transactions; both may agree in their own words."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from smtpserv.error import Reject
from smtpserv.reply import Reply
from smtpserv.testing import RecordingProcessor, memory_session
from tests.filter_tools import Upstream
from tests.server_tools import ENVELOPE, HELLO, TRANSACTION, Later, Policy, always, codes

REFUSED = Reply(550, "Not you", "5.7.1")
PRAISED = Reply(250, "Very good", "2.1.9")


class PolicyTests(SynchronousTestCase):
    """Each stage, with a policy that has something to say."""

    def heard(self, octets: bytes, upstream: object, **answers: Any) -> list[str]:
        """What a client hears behind its hello, of a policy that answers so."""
        session = memory_session(upstream, policies=[Policy(**answers)])
        session.say(HELLO)
        return codes(session.say(octets))

    def test_refused_sender(self) -> None:
        """No processor is asked about a sender whom a policy refuses, whichever way."""
        for answer in (always(REFUSED), always(Reject("Not you"))):
            upstream = Upstream()
            self.assertEqual(
                self.heard(ENVELOPE, upstream, sender=answer), ["550 5.7.1", "503 5.5.1"], upstream.calls
            )
            self.assertEqual(upstream.calls, [])

    def test_refused_recipient(self) -> None:
        """Nor about a recipient; the others are."""
        upstream = Upstream()
        refuse: Any = lambda session, sender, path: REFUSED if path.local_part == "b" else None  # noqa: E731
        more = ENVELOPE + b"RCPT TO:<c@c.example>\r\n"
        self.assertEqual(
            self.heard(more, upstream, recipient=refuse), ["250 2.1.0", "550 5.7.1", "250 2.1.5"]
        )
        self.assertEqual(upstream.calls, ["open", "c@c.example"])

    def test_refused_later(self) -> None:
        """Nor when the policy takes its time."""
        for stage, calls in (("sender", []), ("recipient", ["open"])):
            upstream, later = Upstream(), Later()
            session = memory_session(upstream, policies=[Policy(**{stage: later})])
            session.say(HELLO + ENVELOPE)
            later.fire(REFUSED)
            self.assertIn("550 5.7.1", codes(session.hear()))
            self.assertEqual(upstream.calls, calls)

    def test_agreed(self) -> None:
        """A policy that agrees speaks for nobody but itself: who takes part in the transaction answers."""
        upstream = Upstream(b=Reply(250, "Taken", "2.1.7"))
        heard = self.heard(TRANSACTION, upstream, sender=always(PRAISED), recipient=always(PRAISED))
        self.assertEqual(heard, ["250 2.1.0", "250 2.1.7", "354", "250 2.6.0"])
        self.assertEqual(upstream.calls[:3], ["open", "b@b.example", "begin"])

    def test_agreed_alone(self) -> None:
        """Where no processor does, its words are the answer."""
        heard = self.heard(
            TRANSACTION, RecordingProcessor(), sender=always(PRAISED), recipient=always(PRAISED)
        )
        self.assertEqual(heard, ["250 2.1.9", "250 2.1.9", "354", "250 2.6.0"])

    def test_go_on_is_no_answer(self) -> None:
        """A policy has no 3yz to give: that is a local error, and nobody is asked."""
        upstream = Upstream()
        heard = self.heard(ENVELOPE, upstream, sender=always(Reply(354, "Go on", "")))
        self.assertEqual((heard[0], upstream.calls), ("451 4.3.0", []))
