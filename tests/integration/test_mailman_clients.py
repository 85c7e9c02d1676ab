"""Mail that goes to a list and to others at once: a transaction goes one way, and its client copes."""

import os
import smtplib
from collections.abc import Callable, Sequence
from functools import partial

from twisted.trial.unittest import SkipTest

from tests.integration.harness import require
from tests.integration.lists import DOMAIN, FRIEND, MEMBERS, OTHERS, ListsCase, post
from tests.integration.test_exim import Exim
from tests.integration.test_postfix import Postfix


class MixedTests(ListsCase):
    """Clients that may relay."""

    def assert_mixed(self, send: Callable[[str, Sequence[str], bytes], object], count: int = 2) -> None:
        """A client sends a message to a list and to others, and all get it once.

        :param count: of the messages in which it comes.
        """
        name = f"ant@{DOMAIN}"
        send(MEMBERS[0], [OTHERS[0], name, OTHERS[1]], post(MEMBERS[0], name))
        recipients = [recipient for message in self.arrived(count) for recipient in message.recipients]
        self.assertEqual(sorted(recipients), sorted([*MEMBERS, *OTHERS]))

    def test_smtplib(self) -> None:
        """A list beside other recipients is not yet taken, and then in a transaction of its own."""

        def send(sender: str, recipients: Sequence[str], content: bytes) -> None:
            with self.connected(FRIEND) as client:
                refused = client.sendmail(sender, recipients, content)
                self.assertEqual([(each, said[0]) for each, said in refused.items()], [(recipients[1], 452)])
                self.assertEqual(client.sendmail(sender, list(refused), content), {})

        self.assert_mixed(send)

    def test_postfix(self) -> None:
        """Postfix as a satellite tries again, and need not if it sends each recipient alone."""
        for more, count in (("", 2), ("smtp_destination_recipient_limit = 1\n", 3)):
            postfix = self.postfix(more)
            with smtplib.SMTP(*postfix.address) as client:
                self.assert_mixed(client.sendmail, count)
            self.assertEqual("status=deferred" in postfix.log, count == 2, postfix.log)

    def postfix(self, more: str) -> Postfix:
        """One with settings of its own."""
        require("postfix")
        if os.geteuid() != 0:
            raise SkipTest("Postfix can only be started by root")
        postfix = Postfix(self.directory(), self.front.port, more)
        self.addCleanup(postfix.stop)
        postfix.wait_until_ready()
        return postfix

    def test_exim(self) -> None:
        """Exim waits for its next queue run, and need not if it sends each recipient alone."""
        for more, runs, count in (("", 1, 2), ("max_rcpt = 1", 0, 3)):
            exim = Exim(self.directory(), self.front.port, more)
            self.assert_mixed(partial(self.send_by, exim, runs), count)

    @staticmethod
    def send_by(exim: Exim, runs: int, sender: str, recipients: Sequence[str], content: bytes) -> None:
        """Send a message by Exim, which looks at its queue so many times."""
        exim.send(content, *recipients, sender=sender)
        for _ in range(runs):
            exim.run_queue()
