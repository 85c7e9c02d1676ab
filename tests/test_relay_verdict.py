"""What another server says, as a client of ours may hear it."""

from smtpserv.awaiting import as_deferred
from smtpserv.relay.verdict import all_passed_on, passed_on
from smtpserv.reply import Reply, Results
from tests.relay_tools import MAIL, Connection, RelayCase


class VerdictTests(RelayCase):
    """``passed_on`` and ``all_passed_on``."""

    def test_of_a_message(self) -> None:
        """The code and the words are the server's, and there is a status."""
        for said, heard in (
            (Reply(250, "Ok", "2.1.0"), Reply(250, "Ok", "2.1.0")),
            (Reply(250, "Ok", ""), Reply(250, "Ok", "2.0.0")),
            (Reply(550, "No", ""), Reply(550, "No", "5.0.0")),
        ):
            self.assertEqual(passed_on(said), heard)

    def test_of_our_session(self) -> None:
        """What the server has against us closes no client's session, and is no refusal of its mail."""
        for said, heard in (
            (Reply(421, "Bye", "4.3.2"), Reply(451, "Bye", "4.3.2")),
            (Reply(421, "Bye\nbye", ""), Reply(451, "Bye\nbye", "4.0.0")),
            (
                Reply(530, "Must issue STARTTLS first", "5.7.0"),
                Reply(451, "Must issue STARTTLS first", "4.7.0"),
            ),
            (Reply(530, "Authentication required", ""), Reply(451, "Authentication required", "4.0.0")),
            (Reply(534, "Too weak", "5.7.9"), Reply(451, "Too weak", "4.7.9")),
            (Reply(535, "No longer", "5.7.8"), Reply(451, "No longer", "4.7.8")),
            (Reply(538, "Not in clear", "5.7.11"), Reply(451, "Not in clear", "4.7.11")),
        ):
            self.assertEqual(passed_on(said), heard)

    def test_of_each_recipient(self) -> None:
        """Of several each is passed on."""
        results = Results([Reply(250, "Ok", "2.1.5"), Reply(421, "Bye", "4.3.2")])
        self.assertEqual(
            all_passed_on(results), Results([Reply(250, "Ok", "2.1.5"), Reply(451, "Bye", "4.3.2")])
        )
        self.assertEqual(all_passed_on(Reply(421, "Bye", "4.3.2")), Reply(451, "Bye", "4.3.2"))

    def test_longest(self) -> None:
        """The longest line that is read can be passed on with a status that it had not."""
        connection = Connection().ready()
        question = connection.client.ask(MAIL)
        connection.say(b"550 " + b"x" * 2000 + b"\r\n")
        self.assertEqual(passed_on(self.successResultOf(as_deferred(question))).status, "5.0.0")
