"""What becomes of MAIL's and RCPT's parameters, row by row."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.error import SMTPError
from smtpserv.message import NO_PARAMETERS, ForwardPath, Parameters, ReversePath
from smtpserv.relay.parameters import pass_recipient, pass_sender
from tests.fuzz import examples

#: Each parameter, the keywords that a server must offer to be told it, and what happens if it offers none of
#: them: an empty text where it is left out, else the code and status of the refusal.
SENDER: Final = (
    ("SIZE", "1000", ("SIZE",), ""),
    ("BODY", "7BIT", ("8BITMIME",), ""),
    ("BODY", "8BITMIME", ("8BITMIME",), ""),
    ("BODY", "8bitmime", ("8BITMIME",), ""),
    ("BODY", "BINARYMIME", ("BINARYMIME", "CHUNKING"), "554 5.6.3"),
    ("BODY", "binarymime", ("BINARYMIME", "CHUNKING"), "554 5.6.3"),
    ("SMTPUTF8", None, ("SMTPUTF8",), "550 5.6.9"),
    ("REQUIRETLS", None, ("REQUIRETLS",), "550 5.7.30"),
    ("RET", "FULL", ("DSN",), ""),
    ("ENVID", "x", ("DSN",), ""),
    ("AUTH", "<>", ("AUTH",), ""),
    ("BY", "1;R", ("DELIVERBY",), "555 5.5.4"),
    ("HOLDFOR", "1", ("FUTURERELEASE",), "555 5.5.4"),
    ("HOLDUNTIL", "2026-01-01T00:00:00Z", ("FUTURERELEASE",), "555 5.5.4"),
    ("MT-PRIORITY", "3", ("MT-PRIORITY",), ""),
    ("X", None, ("X",), ""),
)
RECIPIENT: Final = (
    ("NOTIFY", "NEVER", ("DSN",), ""),
    ("NOTIFY", "FAILURE,DELAY", ("DSN",), ""),
    ("NOTIFY", "SUCCESS", ("DSN",), "555 5.5.4"),
    ("NOTIFY", "failure,success", ("DSN",), "555 5.5.4"),
    ("ORCPT", "rfc822;b@b.example", ("DSN",), ""),
)
#: What is no broken promise where a message has arrived.
KEPT: Final = ("NOTIFY", "BY", "REQUIRETLS")


class ParameterTests(SynchronousTestCase):
    """``pass_sender`` and ``pass_recipient``."""

    def passed(self, keyword: str, value: str | None, offers: tuple[str, ...], is_final: bool = False) -> str:
        """What becomes of a parameter: what is said of it, or the refusal."""
        offered = dict.fromkeys(offers, "")
        parameters: Parameters = {keyword: value}
        sender, recipient = ReversePath("a@a.example", parameters), ForwardPath("b@b.example", parameters)
        outcomes = set()
        for call in (
            lambda: pass_sender(sender, offered, is_final=is_final),
            lambda: pass_recipient(recipient, offered, is_final),
        ):
            try:
                outcomes.add(repr(dict(call().parameters)))
            except SMTPError as error:
                outcomes.add(f"{error.reply.code} {error.reply.status}")
        (outcome,) = outcomes
        return outcome

    def test_rows(self) -> None:
        """Where it is offered it is passed on as it is; else it is left out, or refused."""
        for keyword, value, needed, refusal in SENDER + RECIPIENT:
            self.assertEqual(self.passed(keyword, value, needed), repr({keyword: value}))
            for offers in ((), *((each,) for each in needed if len(needed) > 1)):
                self.assertEqual(self.passed(keyword, value, offers), refusal or "{}", (keyword, value))

    def test_at_the_end(self) -> None:
        """Where messages have arrived, no promise is broken behind it; other things still count."""
        for keyword, value, needed, refusal in SENDER + RECIPIENT:
            expected = "{}" if keyword in KEPT or not refusal else refusal
            self.assertEqual(self.passed(keyword, value, (), is_final=True), expected, keyword)
            self.assertEqual(self.passed(keyword, value, needed, is_final=True), repr({keyword: value}))

    def test_unknown_parameter_is_named(self) -> None:
        """A refusal says which one it is."""
        path = ForwardPath("b@b.example", {"NOTIFY": "SUCCESS"})
        error = self.assertRaises(SMTPError, pass_recipient, path, {})
        self.assertIn("NOTIFY", error.reply.text)

    def test_size(self) -> None:
        """What we add to a message counts."""
        path = ReversePath("a@a.example", {"SIZE": "1000", "BODY": "8BITMIME"})
        passed = pass_sender(path, {"SIZE": "", "8BITMIME": ""}, 24)
        self.assertEqual(passed.parameters, {"SIZE": "1024", "BODY": "8BITMIME"})
        self.assertEqual(passed.address, "a@a.example")
        self.assertEqual(path.parameters["SIZE"], "1000")

    def test_nothing(self) -> None:
        """A path without any is passed on as it stands."""
        sender, recipient = ReversePath(""), ForwardPath("postmaster")
        self.assertEqual(pass_sender(sender, {}, 24), sender)
        self.assertEqual(pass_recipient(recipient, {}), recipient)
        self.assertEqual(pass_recipient(ForwardPath("b", {"ORCPT": "x"}), {}).parameters, NO_PARAMETERS)

    @examples(60)
    @given(
        st.dictionaries(st.sampled_from([row[0] for row in SENDER + RECIPIENT]), st.just("1"), max_size=5),
        st.sets(st.sampled_from([each for row in SENDER + RECIPIENT for each in row[2]])),
    )
    def test_never_unasked(self, parameters: dict[str, str], offers: set[str]) -> None:
        """No server is told what it did not offer, and none is told more than the client said."""
        offered = dict.fromkeys(offers, "")
        needed = {row[0]: row[2] for row in SENDER + RECIPIENT if row[1] != "BINARYMIME"}
        try:
            passed = pass_recipient(ForwardPath("b@b.example", parameters), offered).parameters
        except SMTPError:
            return
        self.assertLessEqual(passed.items(), parameters.items())
        for keyword in passed:
            self.assertTrue(keyword == "BODY" or set(needed[keyword]) <= offers, keyword)
