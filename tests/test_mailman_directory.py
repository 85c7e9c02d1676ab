"""Who knows the lists: Mailman's REST API, its transport map, and Mailman 2's folders."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface.verify import verifyObject

from smtpserv.error import StartError
from smtpserv.mailman.address import ListAddress
from smtpserv.mailman.cache import DEADLINE
from smtpserv.mailman.directory import DirectoryAway, IListDirectory
from smtpserv.mailman.folder import ListFolder, folder_beside
from smtpserv.mailman.rest import MAX_BODY, PARALLEL, Login, RestDirectory, make_rest_directory, read_api
from smtpserv.mailman.transport_map import TransportMap
from smtpserv.testing import HandThread

LOGIN = Login("restadmin", "s3cret")


class Mailman(Resource):
    """Mailman's REST API, as far as it is asked here."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.lists = {"ant@lists.example.org", "ant-owner@lists.example.org"}
        self.domains: list[dict[str, Any]] = [
            {"mail_host": "lists.example.org", "alias_domain": "Alias.example.org"},
            {"mail_host": "other.example.org", "alias_domain": None},
        ]
        self.asked: list[str] = []
        self.status = 0
        self.body: bytes | None = None
        #: How many answers have no end, and whom they were given to.
        self.endless = 0
        self.begin = b'{"entries": ['
        self.left: list[object] = []

    def render(self, request: Request) -> bytes | int:
        """Answer what is asked, or what the test says."""
        path = request.path.decode("ascii")
        self.asked.append(path.removeprefix("/3.1/"))
        if self.endless:
            self.endless -= 1
            request.notifyFinish().addErrback(self.left.append)
            request.write(self.begin)
            return NOT_DONE_YET
        if self.status:
            request.setResponseCode(self.status)
            request.setHeader(b"Location", b"http://elsewhere.example/")
        elif (request.getUser(), request.getPassword()) != (b"restadmin", b"s3cret"):
            request.setResponseCode(401)
        elif path == "/3.1/domains":
            return json.dumps({"entries": self.domains}).encode() if self.body is None else self.body
        elif path.removeprefix("/3.1/lists/") not in self.lists:
            request.setResponseCode(404)
        return b"{}"


class RestTests(SynchronousTestCase):
    """``api=``."""

    def setUp(self) -> None:
        self.mailman = Mailman()
        self.clock = Clock()
        self.directory = self.make()

    def make(self, api: str = "http://127.0.0.1/3.1", login: Login = LOGIN) -> RestDirectory:
        """A directory that asks it."""
        self.treq = StubTreq(self.mailman)
        return RestDirectory(self.treq, api, login, self.clock)

    def knows(self, mailbox: str, directory: RestDirectory | None = None) -> Any:
        """What it says."""
        return self.successResultOf(Deferred.fromCoroutine((directory or self.directory).knows(mailbox)))

    def away(self, directory: RestDirectory | None = None, mailbox: str = "ant@lists.example.org") -> str:
        """Why it can't say."""
        asked = Deferred.fromCoroutine((directory or self.directory).knows(mailbox))
        error = self.failureResultOf(asked, DirectoryAway).value
        assert isinstance(error, DirectoryAway)
        return error.reason

    def test_known(self) -> None:
        """A list and its sub-addresses are, in any case and with any token; others are not."""
        self.assertTrue(verifyObject(IListDirectory, self.directory))
        for mailbox in (
            "ant@lists.example.org",
            "ANT-Bounces+u=h@Lists.example.org",
            "ant-join@Alias.example.org",
        ):
            self.assertIs(self.knows(mailbox), True, mailbox)
        for mailbox in ("bee@lists.example.org", "ant-foo@lists.example.org", "ant@other.example.org"):
            self.assertIs(self.knows(mailbox), False, mailbox)

    def test_order(self) -> None:
        """A list that is called as a sub-address is asked about first."""
        self.knows("ant-owner@lists.example.org")
        self.knows("ant-request@lists.example.org")
        lists = ["ant-owner", "ant-request", "ant"]
        self.assertEqual(self.mailman.asked[1:], [f"lists/{name}@lists.example.org" for name in lists])

    def test_not_asked(self) -> None:
        """Of other domains nothing is asked, and nothing at all of what is no list's."""
        self.assertIs(self.knows("postmaster"), False)
        self.assertIs(self.knows('"a/../b"@lists.example.org'), False)
        self.assertEqual(self.mailman.asked, [])
        self.assertIs(self.knows("ant@example.net"), False)
        self.assertEqual(self.mailman.asked, ["domains"])

    def test_new_domain(self) -> None:
        """A domain that Mailman is new to is known within half a minute."""
        self.mailman.lists.add("ant@new.example.org")
        self.assertIs(self.knows("ant@new.example.org"), False)
        self.mailman.domains.append({"mail_host": "new.example.org", "alias_domain": ""})
        self.clock.advance(30)
        self.assertIs(self.knows("ant@new.example.org"), True)

    def test_kept(self) -> None:
        """What it said is not asked again for a while."""
        for _ in range(3):
            self.knows("ant-bounces+a=b@lists.example.org")
        self.assertEqual(len(self.mailman.asked), 3)

    def test_away(self) -> None:
        """Any status but 200 and 404 says nothing, nor does a redirection; nor 404 for the domains."""
        for status in (301, 400, 401, 404, 500, 503):
            self.setUp()
            self.mailman.status = status
            self.assertEqual(self.away(), f"HTTP status {status}")
            self.assertEqual(self.mailman.asked, ["domains"])

    def test_away_later(self) -> None:
        """When it goes, what is known stands, and what never was known is 451."""
        self.knows("ant@lists.example.org")
        self.mailman.status = 500
        self.clock.advance(3000)
        self.assertIs(self.knows("ant@lists.example.org"), True)
        self.assertEqual(self.away(mailbox="bee@lists.example.org"), "HTTP status 500")
        self.assertIs(self.knows("bee@example.net"), False)
        self.mailman.status = 0
        self.assertIs(self.knows("bee@lists.example.org"), False)

    def test_wrong_password(self) -> None:
        """A login that Mailman refuses is no answer, and is shown nowhere."""
        login = Login("restadmin", "guess")
        self.assertEqual(self.away(self.make(login=login)), "HTTP status 401")
        self.assertNotIn("guess", f"{login!r} {login} {vars(self.make(login=login))}")

    def test_nonsense(self) -> None:
        """What is no list of domains is no answer, and neither is one without end."""
        for body in (b"", b"[]", b"{", b'{"entries": [{}]}', b'{"entries": [1]}', b'{"entries": 1}', b"\xff"):
            self.setUp()
            self.mailman.body = body
            self.away()

    def test_no_end(self) -> None:
        """Who begins an answer and does not end it is let go, with the connection."""
        self.mailman.endless = 1
        asked = Deferred.fromCoroutine(self.directory.knows("ant@lists.example.org"))
        self.assertNoResult(asked)
        self.clock.advance(DEADLINE)
        self.assertEqual(self.failureResultOf(asked, DirectoryAway).value.reason, "no answer in 10 s")
        self.treq.flush()
        self.assertEqual(len(self.mailman.left), 1)
        self.assertIs(self.knows("ant@lists.example.org"), True)

    def test_too_long(self) -> None:
        """Who answers at too great length is let go at once."""
        self.mailman.endless = 1
        self.mailman.begin = b" " * (MAX_BODY + 1)
        self.assertIn(f"more than {MAX_BODY} octets", self.away())
        self.treq.flush()
        self.assertEqual(len(self.mailman.left), 1)

    def begun(self, begin: bytes = b"") -> "tuple[Deferred[bool], Any, StringTransport]":
        """An answer that has begun with this: who waits for it, the body, and its connection."""
        connection = StringTransport()
        bodies: list[Any] = []
        response = SimpleNamespace(code=200, deliverBody=bodies.append)
        client = SimpleNamespace(get=lambda *_, **__: succeed(response))
        directory = RestDirectory(client, "https://127.0.0.1/3.1", LOGIN, self.clock)
        asked = Deferred.fromCoroutine(directory.knows("ant@lists.example.org"))
        (body,) = bodies
        body.makeConnection(connection)
        body.dataReceived(begin)
        return asked, body, connection

    def test_let_go(self) -> None:
        """Who is let go is cut off; TLS would wait for him to say goodbye, and he may go on for ever."""
        asked, _, connection = self.begun(b"{")
        self.assertEqual(connection.producerState, "producing")
        self.clock.advance(DEADLINE)
        self.failureResultOf(asked, DirectoryAway)
        self.assertEqual((connection.producerState, connection.disconnecting), ("stopped", False))
        asked, body, connection = self.begun(b" " * (MAX_BODY + 1))
        self.failureResultOf(asked, DirectoryAway)
        self.assertEqual((connection.producerState, connection.disconnecting), ("stopped", False))
        body.dataReceived(b" ")
        self.assertLessEqual(len(body._octets), MAX_BODY + 1)

    def test_ends(self) -> None:
        """An answer may end with its connection, if it had not told its length; less than that is none."""
        for reason, answers in (
            (ResponseDone(), True),
            (PotentialDataLoss(), True),
            (ResponseFailed([Failure(ConnectionDone())]), False),
            (ConnectionLost(), False),
        ):
            asked, body, _ = self.begun(b'{"entries": []}')
            body.connectionLost(Failure(reason))
            if answers:
                self.assertIs(self.successResultOf(asked), False)
            else:
                self.failureResultOf(asked, DirectoryAway)

    def test_parallel(self) -> None:
        """So many questions are under way at once; the others wait, and all have an end."""
        self.knows("ant@lists.example.org")
        before = len(self.mailman.asked)
        self.mailman.endless = 2 * PARALLEL
        asked = [
            Deferred.fromCoroutine(self.directory.knows(f"{number}@lists.example.org"))
            for number in range(PARALLEL + 2)
        ]
        self.assertEqual(len(self.mailman.asked), before + PARALLEL)
        self.clock.advance(DEADLINE)
        for each in asked:
            self.failureResultOf(each, DirectoryAway)

    def test_no_domains(self) -> None:
        """A Mailman without domains has no lists."""
        self.mailman.body = b'{"start": 0, "total_size": 0}'
        self.assertIs(self.knows("ant@lists.example.org"), False)

    def test_urls(self) -> None:
        """The version may be left out; credentials stand elsewhere."""
        for written in ("http://localhost:8001", "http://localhost:8001/", "http://localhost:8001/3.1/"):
            self.assertEqual(read_api(written), "http://localhost:8001/3.1")
        self.assertEqual(read_api("https://[::1]/mailman/3.0"), "https://[::1]/mailman/3.0")
        for written in (
            "",
            "localhost:8001",
            "ftp://a",
            "http://",
            "http://u:p@a/",
            "http://a:x/",
            "http://a:0/",
            "http://a/?q",
            "http://a/#f",
            "http://[a/",
            "http://a/\r\nX: y",
        ):
            self.assertRaises(ValueError, read_api, written)

    def test_treq_missing(self) -> None:
        """Without treq the start ends with what to install."""
        reactor: Any = MemoryReactorClock()
        make_rest_directory(reactor, "http://127.0.0.1/3.1", LOGIN)
        self.addCleanup(sys.modules.__setitem__, "treq.client", sys.modules["treq.client"])
        sys.modules["treq.client"] = None  # type: ignore[assignment]
        error = self.assertRaises(StartError, make_rest_directory, reactor, "http://a/3.1", LOGIN)
        self.assertIn("smtpserv[mailman]", str(error))


def rules(name: str, domain: str = "lists.example.org") -> str:
    """The lines of a list, as Mailman 3.3.10 writes them."""
    host, local_part = domain.replace(".", "\\."), name.replace(".", "\\.")
    lines = [f"/^{local_part}@{host}$/"] + [
        f"/^{local_part}-{each}{TOKEN if each in ('bounces', 'confirm') else ''}@{host}$/"
        for each in ("bounces", "confirm", "join", "leave", "owner", "request", "subscribe", "unsubscribe")
    ]
    return "".join(f"{line:<60}lmtp:[127.0.0.1]:8024\n" for line in lines) + "\n"


TOKEN = "(\\+.*)?"
HEAD = "# AUTOMATICALLY GENERATED BY MAILMAN ON 2026-11-22 23:00:00\n#\n    \n"


class TransportMapTests(SynchronousTestCase):
    """``map=``."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "postfix_lmtp"
        self.write(HEAD + rules("ant") + rules("ant.farm-talk"))

    def write(self, text: str, name: str = "postfix_lmtp") -> None:
        """Replace a file, as Mailman does."""
        (self.folder / f"{name}.new").write_text(text)
        os.replace(self.folder / f"{name}.new", self.folder / name)

    def knows(self, directory: TransportMap, mailbox: str) -> Any:
        """What it says."""
        return self.successResultOf(Deferred.fromCoroutine(directory.knows(mailbox)))

    def assert_known(self, directory: TransportMap, *mailboxes: str, known: bool = True) -> None:
        """It says the same of all."""
        for mailbox in mailboxes:
            self.assertIs(self.knows(directory, mailbox), known, mailbox)

    def test_known(self) -> None:
        """What is in the map, in any case and with any token; nothing that a dot might stand for."""
        directory = TransportMap(str(self.path), maybeDeferred)
        self.assertTrue(verifyObject(IListDirectory, directory))
        known = ("ant", "Ant-Bounces+u=h", "ant-confirm+T0ken", "ant.farm-talk", "ant.farm-talk-unsubscribe")
        self.assert_known(directory, *[f"{each}@Lists.example.org" for each in known])
        unknown = ("bee", "ant-foo", "antxfarm-talk", "")
        self.assert_known(directory, *[f"{each}@lists.example.org" for each in unknown], known=False)
        self.assert_known(directory, "ant@listsxexample.org", "ant@example.net", "postmaster", known=False)

    def test_alias_domains(self) -> None:
        """The domain that has an alias is in the map beside."""
        self.write(HEAD + rules("ant", "alias.example.org"))
        directory = TransportMap(str(self.path), maybeDeferred)
        self.assert_known(directory, "ant@lists.example.org", known=False)
        self.write(HEAD + "/^ant@lists\\.example\\.org$/      ant@alias.example.org\n", "postfix_vmap")
        self.assert_known(directory, "ant@lists.example.org", "ant-owner@alias.example.org")
        (self.folder / "postfix_vmap").unlink()
        self.assert_known(directory, "ant@lists.example.org", known=False)

    def test_changes(self) -> None:
        """A map that was replaced counts from then on, and is read in a thread, once for all who ask."""
        thread = HandThread()
        directory = TransportMap(str(self.path), thread)
        self.write(HEAD + rules("bee"))
        found = [Deferred.fromCoroutine(directory.knows("bee@lists.example.org")) for _ in range(3)]
        self.assertNoResult(found[0])
        thread.step()
        self.assertEqual([self.successResultOf(each) for each in found], [True] * 3)
        self.assert_known(directory, "ant@lists.example.org", known=False)
        self.assertEqual(thread.waiting, [])

    def test_given_up(self) -> None:
        """Who gives up while it is read leaves the others what is read."""
        thread = HandThread()
        directory = TransportMap(str(self.path), thread)
        self.write(HEAD + rules("bee"))
        first, second = (Deferred.fromCoroutine(directory.knows("bee@lists.example.org")) for _ in "ab")
        first.addErrback(lambda _: None).cancel()
        for _ in range(2):
            thread.step()
        self.assertIs(self.successResultOf(second), True)

    def assert_away(self, directory: TransportMap, mailbox: str) -> None:
        """It can't tell."""
        self.failureResultOf(Deferred.fromCoroutine(directory.knows(mailbox)), DirectoryAway)

    def test_broken_or_gone(self) -> None:
        """While it is broken or gone its lists stay, others may be new, and what is no list's goes on."""
        events = self.enterContext(capturedLogs())
        directory = TransportMap(str(self.path), maybeDeferred)
        for spoil in (lambda: self.write(HEAD + rules("bee") + "half a li"), self.path.unlink):
            spoil()
            for _ in range(2):
                self.assert_known(directory, "ant@lists.example.org")
                self.assert_away(directory, "bee@Lists.example.org")
                self.assert_known(directory, "bee@example.net", "postmaster", known=False)
        broken, gone = (str(formatEvent(event)) for event in events)
        self.assertIn("line 14: not a line of Mailman's map", broken)
        self.assertIn("No such file", gone)
        self.write(HEAD + rules("bee"))
        self.assert_known(directory, "bee@lists.example.org")
        self.assert_known(directory, "ant@lists.example.org", known=False)

    def test_shut(self) -> None:
        """One that could not be read is read when it can be, changed or not; the log tells of it once."""
        events = self.enterContext(capturedLogs())
        errors: list[Exception] = [PermissionError(13, "Permission denied")] * 3

        def in_thread(read: Any) -> Any:
            return fail(errors.pop()) if errors else succeed(read())

        directory = TransportMap(str(self.path), in_thread)
        self.write(HEAD + rules("bee"))
        for _ in range(3):
            self.assert_away(directory, "bee@lists.example.org")
        self.assert_known(directory, "bee@lists.example.org")
        self.assertEqual(len(events), 1)

    def test_no_lists(self) -> None:
        """A map without lists is one."""
        self.write(HEAD)
        self.assert_known(TransportMap(str(self.path), maybeDeferred), "ant@lists.example.org", known=False)

    def test_wrong(self) -> None:
        """A map that can't be read ends the start, and so does one of type hash."""
        error = self.assertRaises(StartError, TransportMap, str(self.folder / "none"), maybeDeferred)
        self.assertIn("No such file", str(error))
        for line in (
            "ant@lists.example.org   lmtp:[127.0.0.1]:8024",
            "/^ant@lists\\.example\\.org$/",
            "/^ant.*@lists\\.example\\.org$/ lmtp:[127.0.0.1]:8024",
            "/^(a|b)@lists\\.example\\.org$/ lmtp:[127.0.0.1]:8024",
            "\udcff",
        ):
            self.path.write_text(f"{HEAD}{line}\n", errors="surrogateescape")
            error = self.assertRaises(StartError, TransportMap, str(self.path), maybeDeferred)
            self.assertIn("line 4: not a line of Mailman's map", str(error))


class ListFolderTests(SynchronousTestCase):
    """Mailman 2's lists."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        for name in ("ant", "ant-owner", "c++"):
            (self.path / name).mkdir(parents=True)
            (self.path / name / "config.pck").touch()
        (self.path / "half-made").mkdir()
        self.folder = ListFolder(str(self.path))

    def test_find(self) -> None:
        """A list, its extensions, and a list that is called as one."""
        for mailbox, found in {
            "Ant@a.example": ListAddress("ant"),
            "ant-admin@b.example": ListAddress("ant", "admin"),
            "ant-owner@a.example": ListAddress("ant-owner"),
            "ant-owner-owner@a.example": ListAddress("ant-owner", "owner"),
            "ant-bounces+u=h@a.example": ListAddress("ant", "bounces"),
            "c++-confirm+t@a.example": ListAddress("c++", "confirm"),
            "half-made@a.example": None,
            "bee@a.example": None,
            "../ant@a.example": None,
            "postmaster": None,
        }.items():
            self.assertEqual(self.folder.find(mailbox), found, mailbox)

    def test_gone(self) -> None:
        """A folder that is gone, or shut, does not say that there are no lists."""
        self.path.rename(f"{self.path}-away")
        self.assertRaises(DirectoryAway, self.folder.find, "ant@a.example")
        Path(f"{self.path}-away").rename(self.path)
        self.assertEqual(self.folder.find("ant@a.example"), ListAddress("ant"))
        self.assertRaises(DirectoryAway, self.folder.find, f"{'a' * 300}@a.example")

    def test_wrong(self) -> None:
        """The start wants a folder."""
        self.assertRaises(StartError, ListFolder, str(self.path / "none"))
        self.assertRaises(StartError, ListFolder, str(self.path / "ant" / "config.pck"))

    def test_beside(self) -> None:
        """The folder that belongs to a wrapper."""
        self.assertEqual(folder_beside("/var/lib/mailman/mail/mailman"), "/var/lib/mailman/lists")
