"""What ``MailmanProxy`` of Python's old :mod:`smtpd` did wrong, and that it is gone.

=================================================  ==================================================
MailmanProxy                                       here
=================================================  ==================================================
ignored every list with a hyphen in its name       ``test_hyphens``
ignored the domain                                 ``test_domain``
took no mail for bounces and confirmations         ``test_subaddresses``
made -join and -leave -request, with a Subject     ``test_join``
added From and Date where they were missing        ``test_no_fields``
relayed the rest first, whatever became of lists   ``test_lists_first``, ``test_rest_first``
dropped the refusals of both                       ``test_refusals_of_lists``, ``test_refusals_of_the_rest``
=================================================  ==================================================
"""

from smtpserv.reply import Reply
from smtpserv.testing import ScriptedUpstream
from tests.test_processors_mailman import CONTENT, LMTP, LMTP_PORT, MAIL, MailmanCase

LISTS = "lists.example"


class DefectTests(MailmanCase):
    """One test for each."""

    def taken(self, upstream: ScriptedUpstream) -> list[str]:
        """Whom a server has taken messages for."""
        return [path.address for message in upstream.messages for path in message.forward_paths]

    def deliver(self, mailbox: str, content: bytes = CONTENT) -> None:
        """A message for one mailbox is taken."""
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, mailbox), ["250 2.1.5"])
        self.assertEqual(self.post(client, content), ["354", "250 2.0.0"])

    def test_hyphens(self) -> None:
        """The names of lists have hyphens."""
        self.start()
        mailboxes = [f"{name}@{LISTS}" for name in ("a-b-c", "a-b-c-owner", "ant-owner", "ant-owner-owner")]
        for mailbox in mailboxes:
            self.deliver(mailbox)
        self.assertEqual(self.taken(self.lists), mailboxes)
        self.assertEqual(self.upstream.messages, [])

    def test_domain(self) -> None:
        """The same name in a domain that has no lists is somebody else's."""
        self.start()
        for mailbox in (f"ant@{LISTS}", "ant@b.example", "ant-owner@mail.lists.example"):
            self.deliver(mailbox)
        self.assertEqual(self.taken(self.lists), [f"ant@{LISTS}"])
        self.assertEqual(self.taken(self.upstream), ["ant@b.example", "ant-owner@mail.lists.example"])

    def test_subaddresses(self) -> None:
        """All of Mailman's addresses are, with what stands behind a plus sign as it was sent."""
        self.start()
        names = ("bounces", "confirm", "join", "leave", "owner", "request", "subscribe", "unsubscribe")
        mailboxes = [f"ant-{name}@{LISTS}" for name in names]
        mailboxes += [f"ant-bounces+User=Host.example@{LISTS}", f"ant-confirm+1bDe@{LISTS}"]
        for mailbox in mailboxes:
            self.deliver(mailbox)
        self.assertEqual(self.taken(self.lists), mailboxes)

    def test_join(self) -> None:
        """Whoever joins writes to that very address, and what was written is not touched."""
        self.start()
        for mailbox in (f"ant-join@{LISTS}", f"ant-leave@{LISTS}"):
            self.deliver(mailbox, b"From: a@a.example\r\n\r\nplease\r\n")
        self.assertEqual(self.taken(self.lists), [f"ant-join@{LISTS}", f"ant-leave@{LISTS}"])
        for message in self.lists.messages:
            self.assertNotIn(b"\nsubject:", message.content.lower())

    def test_no_fields(self) -> None:
        """No field is added but the trace."""
        self.start()
        self.deliver(f"ant@{LISTS}", b"Subject: hello\r\n\r\nhello\r\n")
        (message,) = self.lists.messages
        header = message.content.partition(b"\r\n\r\n")[0].replace(b"\r\n\t", b" ")
        names = [line.partition(b":")[0] for line in header.split(b"\r\n")]
        self.assertEqual([each for each in names if each != b"Return-Path"], [b"Received", b"Subject"])

    def test_lists_first(self) -> None:
        """With a list the rest waits, so that nothing of a message is relayed that its sender sends again."""
        self.start({"end of data": Reply(451, "Not now", "4.3.0")})
        client = self.client()
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, f"ant@{LISTS}", "b@b.example"), ["250 2.1.5", "452 4.5.3"])
        self.assertEqual(self.post(client), ["354", "451 4.3.0"])
        self.assertEqual(self.taken(self.upstream), [])

    def test_rest_first(self) -> None:
        """With the rest lists wait, and their being away is no reason to send the rest twice."""
        self.start()
        self.network.listen(LMTP, LMTP_PORT, None)
        client = self.client()
        client.say(MAIL)
        answers = self.rcpt(client, "b@b.example", f"ant@{LISTS}")
        self.assertEqual([each[:2] for each in answers], ["25", "45"])
        self.assertEqual(self.post(client), ["354", "250 2.0.0"])
        self.assertEqual(self.taken(self.upstream), ["b@b.example"])
        self.assertEqual(self.taken(self.lists), [])

    def test_refusals_of_lists(self) -> None:
        """What Mailman refuses, at any stage, the client hears."""
        for stage, answer in (("RCPT", "550 5.1.1"), ("DATA", "554 5.0.0"), ("end of data", "550 5.7.1")):
            code, status = answer.split(" ")
            self.start({stage: Reply(int(code), "No", status)})
            client = self.client()
            client.say(MAIL)
            heard = [*self.rcpt(client, f"ant@{LISTS}")]
            if stage != "RCPT":
                heard += client.say(b"DATA\r\n")
            if stage == "end of data":
                heard += client.say(CONTENT + b".\r\n")
            self.assertEqual(heard[-1], answer)

    def test_refusals_of_the_rest(self) -> None:
        """What the mail server refuses as well: recipients, and messages."""
        self.start()
        client = self.client()
        self.upstream.faults["RCPT"] = [Reply(550, "Nobody", "5.1.1"), None]
        self.upstream.faults["end of data"] = Reply(554, "Spam", "5.7.1")
        client.say(MAIL)
        self.assertEqual(self.rcpt(client, "x@b.example", "b@b.example"), ["550 5.1.1", "250 2.1.5"])
        self.assertEqual(self.post(client), ["354", "554 5.7.1"])
