"""Mail for lists goes through smtpserv to GNU Mailman, and what Mailman sends goes out through smtpserv."""

import email
import re
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from tests.integration.harness import Recorded, wait_for
from tests.integration.lists import BOUNCE, DOMAIN, MEMBERS, OTHERS, OWNER, ListsCase, passes, post

#: Posts that come while Mailman is killed, and after how many it is.
POSTS: Final = 24
BEFORE: Final = 8

#: Who is no member of any list.
NEWCOMER: Final = "newcomer@example.net"

_CONFIRMATION: Final = re.compile(rf"<?(bee-confirm\+[^@\s]+@{re.escape(DOMAIN)})>?")


def subjects(messages: Sequence[Recorded]) -> dict[str, str]:
    """The subject of each message, by its recipient."""
    return {
        recipient: " ".join(str(email.message_from_bytes(message.content)["Subject"]).split())
        for message in messages
        for recipient in message.recipients
    }


class LoopTests(ListsCase):
    """Nobody here but Mailman may relay, so whoever writes to a list is a stranger; some friends apart."""

    def test_fan_out(self) -> None:
        """A post goes out once, for all members, and has been here twice."""
        self.send(MEMBERS[0], f"ant@{DOMAIN}")
        (message,) = self.arrived(1)
        self.assertEqual((message.sender, sorted(message.recipients)), (f"ant-bounces@{DOMAIN}", [*MEMBERS]))
        self.assertEqual(subjects([message])[MEMBERS[0]], "[Ant] hello")
        self.assertEqual(passes(message), 2)

    def test_bounce(self) -> None:
        """A bounce of a member's copy comes back to Mailman, which finds out whose it is."""
        name = f"a-b-c@{DOMAIN}"
        self.send(MEMBERS[1], name)
        copies = {each.recipients[0]: each.sender for each in self.arrived(2)}
        verp = f"a-b-c-bounces+a=rcpta.example.test@{DOMAIN}"
        self.assertEqual(copies[MEMBERS[0]], verp)
        with self.connected() as client:
            client.sendmail("", [verp], BOUNCE.format(to=verp, who=MEMBERS[0]).replace("\n", "\r\n"))
        wait_for("the member's bounce score", lambda: self.mailman.members(name)[MEMBERS[0]]["bounce_score"])
        self.assertEqual(self.mailman.members(name)[MEMBERS[1]]["bounce_score"], 0)
        self.arrived(0)

    def test_called_like_an_owner(self) -> None:
        """A list that is called as another's owner is gets the mail, and has an owner's address itself."""
        self.send(MEMBERS[0], f"ant-owner@{DOMAIN}")
        (message,) = self.arrived(1)
        self.assertEqual((message.sender, message.recipients), (f"ant-owner-bounces@{DOMAIN}", [MEMBERS[0]]))

    def test_join_and_leave(self) -> None:
        """Who wants to join, or leave, is asked, and answers to the address with the token."""
        name = f"bee@{DOMAIN}"
        for way, is_member in (("join", True), ("leave", False)):
            self.send(NEWCOMER, f"bee-{way}@{DOMAIN}")
            (question,) = self.arrived(1)
            match = _CONFIRMATION.search(str(email.message_from_bytes(question.content)["From"]))
            assert match is not None, question.content
            # The name of a list is the same in capitals; a token need not be.
            address = match[1].replace("bee-confirm", "Bee-Confirm")
            self.send(NEWCOMER, address, "Re: confirm")
            self.mailman.wait_until_idle()
            self.assertIn(f"RCPT TO:<{address}>", self.mailman.heard)
            self.assertEqual(NEWCOMER in self.mailman.members(name), is_member)
        self.assertIn(NEWCOMER, self.arrived(1)[0].recipients)

    def test_request(self) -> None:
        """Commands are answered."""
        self.send(NEWCOMER, f"bee-request@{DOMAIN}", "help")
        (answer,) = self.arrived(1)
        self.assertEqual((answer.recipients, passes(answer)), ([NEWCOMER], 1))
        self.assertIn(b"help", answer.content)

    def test_owner(self) -> None:
        """Mail for the owner of a list is passed on to who that is."""
        self.send(NEWCOMER, f"bee-owner@{DOMAIN}", "a question")
        (message,) = self.arrived(1)
        self.assertEqual((message.recipients, passes(message)), ([OWNER], 2))

    def test_notices(self) -> None:
        """What Mailman tells the owner goes to the list's owner by way of itself, and goes round no more."""
        self.send(NEWCOMER, f"bee@{DOMAIN}", "let me in")
        messages = self.arrived(2)
        self.assertEqual(
            subjects(messages),
            {
                OWNER: f"bee@{DOMAIN} post from {NEWCOMER} requires approval",
                NEWCOMER: f"Your message to bee@{DOMAIN} awaits moderator approval",
            },
        )
        self.assertEqual({each.recipients[0]: passes(each) for each in messages}, {OWNER: 2, NEWCOMER: 1})

    def test_list_in_list(self) -> None:
        """A list that is a member of another has its copy when Mailman tries again: it goes another way."""
        self.send(MEMBERS[0], f"cat@{DOMAIN}")
        self.wait_for_messages(lambda messages: len(messages) == 2)
        messages = {each.sender: each for each in self.arrived(2)}
        copies = {sender: (sorted(each.recipients), passes(each)) for sender, each in messages.items()}
        self.assertEqual(
            copies,
            {f"cat-bounces@{DOMAIN}": ([MEMBERS[0]], 2), f"ant-bounces@{DOMAIN}": ([*MEMBERS], 3)},
        )

    def test_strangers(self) -> None:
        """Strangers may write to lists and to nobody else, whatever they call them."""
        answers = {
            f"bee@{DOMAIN}": (250, b"2.0.0"),
            f"bee-owner@{DOMAIN}": (452, b"4.5.3"),
            f"nobody@{DOMAIN}": (550, b"5.1.1"),
            f"bee-nobody@{DOMAIN}": (550, b"5.1.1"),
            f"x%example.net@{DOMAIN}": (550, b"5.7.1"),
            OTHERS[0]: (550, b"5.7.1"),
            f"bee@{DOMAIN}.example.net": (550, b"5.7.1"),
        }
        with self.connected() as client:
            client.ehlo()
            client.mail(NEWCOMER)
            for recipient, (code, status) in answers.items():
                said = client.rcpt(recipient)
                self.assertEqual((said[0], said[1][:5]), (code, status), recipient)

    def test_killed(self) -> None:
        """Mailman is killed while posts come from a client that tries again: all of them arrive.

        Twice may come those of which the client heard no good end, and what Mailman had in hand then: one
        message in each of three queues.
        """
        posts = Posts(self.connected)
        posts.start()
        wait_for("some posts", lambda: len(posts.accepted) >= BEFORE)
        self.mailman.kill()
        self.mailman.start()
        self.mailman.wait_until_ready()
        posts.join(200)
        self.assertEqual(len(posts.accepted), POSTS)
        self.wait_for_messages(lambda messages: len(arrivals(messages)) == POSTS)
        self.mailman.wait_until_idle()
        counts = arrivals(self.recording.messages())
        self.assertLessEqual(counts.total() - POSTS, len(posts.in_doubt) + 3, counts)
        self.assertEqual({said[0] for _, said in posts.refused}, {451}, posts.refused)


def arrivals(messages: Sequence[Recorded]) -> Counter[str]:
    """How often each subject has come."""
    return Counter(str(email.message_from_bytes(each.content)["Subject"]) for each in messages)


class Posts(threading.Thread):
    """A client that sends posts one after the other, each until it is accepted."""

    def __init__(self, connect: Callable[[], smtplib.SMTP]) -> None:
        super().__init__(daemon=True)
        self._connect = connect
        #: Subjects, and what was said last.
        self.accepted: list[tuple[str, tuple[int, bytes]]] = []
        self.refused: list[tuple[str, tuple[int, bytes]]] = []
        #: Those whose end was sent, and not heard to be good.
        self.in_doubt: set[str] = set()

    def run(self) -> None:
        """Send them all."""
        for number in range(POSTS):
            while not self._is_accepted(f"[Ant] post {number}"):
                time.sleep(0.2)

    def _is_accepted(self, subject: str) -> bool:
        name = f"ant@{DOMAIN}"
        try:
            with self._connect() as client:
                client.ehlo()
                client.mail(MEMBERS[0])
                said = client.rcpt(name)
                if said[0] == 250:
                    said = client.data(post(MEMBERS[0], name, subject))
                    if said[0] != 250:
                        self.in_doubt.add(subject)
        except smtplib.SMTPResponseException as error:
            said = (error.smtp_code, repr(error).encode())
        heard = self.accepted if said[0] == 250 else self.refused
        heard.append((subject, said))
        return said[0] == 250
