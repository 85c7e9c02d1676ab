"""What is said of lists agrees with GNU Mailman, and goes on while it is away."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from smtpserv.mailman.directory import DirectoryAway, IListDirectory
from smtpserv.mailman.rest import Login, RestDirectory, make_client, make_rest_directory
from smtpserv.mailman.transport_map import TransportMap
from tests.integration.mailman import PASSWORD, USER, Mailman, MailmanCase

DOMAIN = "lists.example.test"

#: Lists, and what is asked about them.
LISTS = [f"{name}@{DOMAIN}" for name in ("ant", "ant-farm-talk", "ant-owner", "b.e_e")]
SUBADDRESSES = ("bounces", "confirm", "join", "leave", "owner", "request", "subscribe", "unsubscribe")
LOCAL_PARTS = [
    *("ant", "ANT", "ant-farm-talk", "ant-farm-talk-owner", "ant-owner", "ant-owner-owner", "b.e_e-join"),
    *[f"ant-{each}" for each in SUBADDRESSES],
    *(
        "ant-bounces+user=host.example",
        "Ant-Confirm+T0kenX",
        "ant-bounces+0aB-owner",
        "ant+tag",
        "ant-owner+x",
    ),
    *(
        "bee",
        "ant-foo",
        "ant-admin",
        "ant-farm",
        "ant-farm-owner",
        "bxe_e",
        "-owner",
        "owner",
        "ant-",
        "postmaster",
    ),
]
MAILBOXES = [
    *[f"{local_part}@{DOMAIN}" for local_part in LOCAL_PARTS],
    *(f"ant@{DOMAIN.upper()}", "ant@example.net", "ant@alias.example.test", f"{LISTS[0]}.example"),
]


class DirectoryTests(MailmanCase, TestCase):
    """The directories beside Mailman's own answers."""

    timeout = 1800

    async def assert_agrees(self, directory: Any, mailman: Mailman, *mailboxes: str) -> None:
        """What is known here is what Mailman's LMTP server takes."""
        takes = dict(zip(mailboxes, mailman.takes(*mailboxes), strict=True))
        self.assertEqual({each: await directory.knows(each) for each in mailboxes}, takes)
        self.assertEqual(set(takes.values()), {True, False})

    async def assert_away(self, directory: IListDirectory, mailbox: str) -> None:
        """It can't tell."""
        try:
            known = await directory.knows(mailbox)
        except DirectoryAway:
            return
        self.fail(f"{mailbox} is {'' if known else 'not '}known")

    async def test_directories(self) -> None:
        """REST and the map agree with Mailman while lists and alias domains come and go, and when it is away.

        It is all one test because Mailman takes its time to start. The second time it has the configuration
        that writes no map.
        """
        mailman = self.mailman(with_map=True)
        clock = Clock()
        login = Login(USER, PASSWORD)
        rest = RestDirectory(make_client(reactor), mailman.api, login, clock)
        mailman.add_domain(DOMAIN)
        mailman.add_list(LISTS[0])
        by_map = TransportMap(str(mailman.map), deferToThread)
        for directory in (rest, by_map):
            await self.assert_agrees(directory, mailman, LISTS[0], LISTS[1])
        for address in LISTS[1:]:
            mailman.add_list(address)
        mailman.rest(f"domains/{DOMAIN}", "PATCH", alias_domain="alias.example.test")
        mailman.delete_list(LISTS[3])
        clock.advance(300)
        for directory in (rest, by_map, make_rest_directory(reactor, mailman.api, login)):
            await self.assert_agrees(directory, mailman, *MAILBOXES)
        await self.assert_away(make_rest_directory(reactor, mailman.api, Login(USER, "guess")), LISTS[0])

        mailman.stop()
        clock.advance(299)
        for directory in (rest, by_map):
            self.assertEqual([await directory.knows(each) for each in (LISTS[0], LISTS[3])], [True, False])
        clock.advance(3000)
        self.assertIs(await rest.knows(LISTS[0]), True)
        for name in (LISTS[3], f"new@{DOMAIN}"):
            await self.assert_away(rest, name)
        self.assertIs(await by_map.knows(f"new@{DOMAIN}"), False)

        mailman.start(with_map=False)
        mailman.wait_until_ready()
        mailman.add_list(f"new@{DOMAIN}")
        clock.advance(30)
        await self.assert_agrees(rest, mailman, f"new@{DOMAIN}", *MAILBOXES)
