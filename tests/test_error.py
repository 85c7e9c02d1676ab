"""What may be raised, and what the peer then hears."""

from twisted.trial.unittest import SynchronousTestCase

from smtpserv.error import Defer, Reject, SMTPError, StartError
from smtpserv.reply import Reply


class Errors(SynchronousTestCase):
    """Each error carries its reply."""

    def test_smtp_error(self) -> None:
        """An error carries any failure, and reads as what the peer is told."""
        for failure in (Reply(450, "Later"), Reply(554, "Never", "5.7.1")):
            error = SMTPError(failure)
            self.assertIs(error.reply, failure)
            self.assertEqual(str(error), str(failure))

    def test_no_failure(self) -> None:
        """A success cannot be raised."""
        for success in (Reply(250), Reply(354)):
            self.assertRaises(ValueError, SMTPError, success)

    def test_reject(self) -> None:
        """Reject is for good, by policy unless told otherwise."""
        self.assertEqual(Reject().reply, Reply(550, "Message refused", "5.7.1"))
        self.assertEqual(Reject("Full", 552, "5.2.2").reply, Reply(552, "Full", "5.2.2"))

    def test_defer(self) -> None:
        """Defer is for now; 421 closes as well."""
        self.assertEqual(Defer().reply, Reply(451, "Try again later", "4.7.1"))
        self.assertEqual(Defer("Busy", 421, "4.3.2").reply, Reply(421, "Busy", "4.3.2"))

    def test_of_the_wrong_class(self) -> None:
        """Reject with a transient code or Defer with a permanent one is a mistake that shows at once."""
        self.assertRaises(ValueError, Reject, "x", 450)
        self.assertRaises(ValueError, Defer, "x", 550)
        self.assertRaises(ValueError, Reject, "x", 450, "4.7.1")
        self.assertRaises(ValueError, Defer, "x", 550, "5.7.1")

    def test_unsendable(self) -> None:
        """A text that cannot be sent as it is, say with a peer's words in it, is escaped and cut."""
        self.assertEqual(Reject("two\r\nl\x1bines").reply.text, "two\\r\nl\\x1bines")
        self.assertEqual(Defer("ä\u20ac").reply.text, "\\xe4\\u20ac")
        self.assertEqual(len(Reject("x" * 5000).reply.octets), 494)

    def test_kinds(self) -> None:
        """Both are SMTP errors; an error of starting is not, and is a ValueError."""
        self.assertIsInstance(Reject(), SMTPError)
        self.assertIsInstance(Defer(), SMTPError)
        self.assertNotIsInstance(StartError("x"), SMTPError)
        self.assertIsInstance(StartError("x"), ValueError)
