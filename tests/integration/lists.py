"""A whole installation with mailing lists: smtpserv before GNU Mailman and before a mail server.

All of it stands until the program ends, for starting Mailman takes a while. What its lists are for:

====================  ====================================================================
``ant@``              three members, one copy of a post for all of them
``ant-owner@``        a list that is called as the address of another's owner is
``a-b-c@``            personal: each member's copy has a reverse-path that names the member
``bee@``              people come and go, write to the owner, and post without being members
``cat@``              the list ``ant`` is a member, beside somebody
====================  ====================================================================
"""

import re
import smtplib
from collections.abc import Callable, Sequence
from email.utils import make_msgid
from typing import Final

from tests.integration.harness import PATIENCE, Recorded, Server, free_port, wait_for
from tests.integration.mailman import ALL, Mailman, installation
from tests.integration.programs import SharedServerCase, TLSTestCase

DOMAIN: Final = "lists.example.test"
HOSTNAME: Final = "smtpserv.example"

MEMBERS: Final = ("a@rcpta.example.test", "b@rcptb.example.test", "c@rcptc.example.test")
OWNER: Final = "owner@example.test"

#: Who has nothing to do with lists.
OTHERS: Final = ("x@example.net", "y@example.net")

#: Where strangers come from, if not everybody on this machine may relay; and who may.
STRANGER: Final = "127.0.0.2"
FRIEND: Final = "127.0.0.1"

#: What a mail server says of a copy that it can't deliver, to the reverse-path of it.
BOUNCE: Final = """\
From: MAILER-DAEMON@rcpta.example.test
To: {to}
Subject: Undelivered
Message-ID: <1@rcpta.example.test>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="="

--=
Content-Type: text/plain

It could not be delivered.
--=
Content-Type: message/delivery-status

Reporting-MTA: dns; rcpta.example.test

Final-Recipient: rfc822; {who}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 No such user

--=--
"""

_OURS: Final = re.compile(rb"^Received:[^\r]*(?:\r\n[ \t][^\r]*)*\bby " + re.escape(HOSTNAME.encode()), re.M)


def post(sender: str, recipient: str, subject: str = "hello", body: str = "Hello") -> bytes:
    """A message that people send."""
    fields = {
        "From": f"Somebody <{sender}>",
        "To": recipient,
        "Subject": subject,
        "Date": "Sun, 22 Nov 2026 16:00:00 +0000",
        "Message-ID": make_msgid(domain="client.example"),
    }
    lines = [f"{name}: {text}" for name, text in fields.items()]
    return "\r\n".join([*lines, "", body, ""]).encode()


def passes(message: Recorded) -> int:
    """How often a message has been with us."""
    return len(_OURS.findall(message.content.partition(b"\r\n\r\n")[0]))


class ListsCase(SharedServerCase):
    """Has it; ``recording`` is the mail server that gets what is for people."""

    mailman: Mailman
    front: Server

    @classmethod
    def start(cls, keeper: TLSTestCase) -> None:
        """Start the three, and make the lists."""
        installation()
        port = free_port()
        cls.recording = keeper.recording_server("--hostname=sink.example")
        cls.mailman = Mailman(keeper.directory(), port, (*ALL, "retry"))
        keeper.addCleanup(cls.mailman.kill)
        where = f"lmtp={cls.mailman.lmtp[0]},{cls.mailman.lmtp[1]}:domains={DOMAIN}"
        options = [
            f"--listen=tcp:{port}:interface=127.0.0.1",
            f"--processor=mailman:127.0.0.1:{cls.recording.port}:tls=none:{where}",
            f"--hostname={HOSTNAME}",
            f"--relay-from={FRIEND}",
        ]
        cls.front = keeper.started(Server(options, ("127.0.0.1", port), keeper.directory()))
        cls.mailman.wait_until_ready()
        cls.make_lists()

    @classmethod
    def make_lists(cls) -> None:
        """As the module says."""
        mailman = cls.mailman
        mailman.add_domain(DOMAIN)
        mailman.add_list(f"ant@{DOMAIN}", MEMBERS, require_explicit_destination=False)
        mailman.add_list(f"ant-owner@{DOMAIN}", MEMBERS[:1])
        mailman.add_list(f"a-b-c@{DOMAIN}", MEMBERS[:2], personalize="individual")
        mailman.add_list(f"bee@{DOMAIN}")
        mailman.add_member(f"bee@{DOMAIN}", OWNER, role="owner")
        mailman.add_list(f"cat@{DOMAIN}", [MEMBERS[0], f"ant@{DOMAIN}"])

    def connected(self, source: str = STRANGER) -> smtplib.SMTP:
        """A client, that closes at the end of a ``with``."""
        client = smtplib.SMTP("127.0.0.1", self.front.port, "client.example", PATIENCE, (source, 0))
        self.addCleanup(client.close)
        return client

    def send(self, sender: str, recipient: str, *more: str, source: str = STRANGER) -> None:
        """Send a message, with a subject and a body, as a stranger."""
        with self.connected(source) as client:
            client.sendmail(sender, [recipient], post(sender, recipient, *more))

    def arrived(self, count: int) -> Sequence[Recorded]:
        """The messages that have arrived for people, when Mailman has nothing more to do.

        :raises AssertionError: when they are not as many.
        """
        if count:
            self.wait_for_messages(lambda messages: len(messages) >= count)
        self.mailman.wait_until_idle()
        messages = self.recording.messages()
        self.assertEqual(len(messages), count, [each.content for each in messages])
        self.recording.forget()
        return messages

    def wait_for_messages(self, are_enough: Callable[[Sequence[Recorded]], bool]) -> Sequence[Recorded]:
        """The messages, when they are enough."""

        def found() -> Sequence[Recorded]:
            messages = self.recording.messages()
            return messages if are_enough(messages) else []

        try:
            return wait_for("messages", found)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.mailman.log}\n{self.front.stderr[-4000:]}") from None
