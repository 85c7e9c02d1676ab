"""Mailman 2's wrapper as a process: a stand-in that keeps its command line and its exit codes."""

import contextlib
import os
from pathlib import Path
from typing import Any

from twisted.internet import reactor, task
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from smtpserv import reply
from smtpserv.mailman.address import ListAddress
from smtpserv.mailman.wrapper import Wrapper
from tests.integration.harness import PATIENCE, Client, IntegrationTestCase, wait_for

#: Takes posts for the list "ant", as scripts/post does; the names of others say how it fails.
STAND_IN = """\
#!/bin/sh
case $2 in
    ant) cat >"{here}/$1-$2.$$" && mv "{here}/$1-$2.$$" "{here}/$1-$2" ;;
    group) echo 'Group mismatch error.  Mailman expected the mail' >&2; exit 2 ;;
    later) cat >/dev/null; exit 75 ;;
    unread) exit 1 ;;
    slow) echo $$ >"{here}/slow"; exec sleep 600 ;;
    lot) cat >/dev/null; head -c 1000000 /dev/zero >&2; exit 0 ;;
    env) env >"{here}/env" ;;
    dies) kill -KILL $$ ;;
    late)
        touch "{here}/begun"
        while [ ! -e "{here}/go" ]; do sleep 0.05; done
        cat >"{here}/part" && mv "{here}/part" "{here}/whole" ;;
esac
"""


class WrapperTests(IntegrationTestCase, TestCase):
    """What a child of the reactor does and leaves."""

    timeout = 4 * PATIENCE

    def setUp(self) -> None:
        """Write the stand-in."""
        self.here = self.directory()
        path = self.here / "mailman"
        path.write_text(STAND_IN.format(here=self.here))
        path.chmod(0o755)
        self.wrapper = Wrapper(reactor, str(path), deferToThread)

    def deliver(self, name: str, *pieces: bytes, extension: str | None = None) -> "Deferred[Any]":
        """Begin a delivery."""
        address = ListAddress(name, extension)
        return Deferred.fromCoroutine(self.wrapper.deliver(address, pieces or (b"Hello\r\n",)))

    async def test_octets(self) -> None:
        """16 MiB arrive as they were, with Unix line ends, by post and by another extension."""
        pieces = [b"Subject: x\r\n\r\n", *[bytes(range(256)) * 256 + b"\r\n"] * 256]
        whole = b"".join(pieces).replace(b"\r\n", b"\n")
        self.assertIsNone(await self.deliver("ant", *pieces))
        self.assertIsNone(await self.deliver("ant", extension="unsubscribe"))
        self.assertTrue((self.here / "post-ant").read_bytes() == whole)
        self.assertEqual((self.here / "unsubscribe-ant").read_bytes(), b"Hello\n")

    async def test_exits(self) -> None:
        """Each end has its answer, whether the message was read or not, and however much is said."""
        large = [b"x" * 65536] * 32
        for name, answer in {
            "group": reply.LISTS_MISCONFIGURED,
            "later": reply.LISTS_DEFERRED,
            "unread": reply.LISTS_REFUSED,
            "lot": None,
            "dies": reply.LISTS_DEFERRED,
        }.items():
            self.assertEqual(await self.deliver(name, *large), answer, name)

    async def test_environment(self) -> None:
        """Nothing of ours is in its environment."""
        os.environ["SECRET"] = "x"
        self.addCleanup(os.environ.pop, "SECRET")
        self.assertIsNone(await self.deliver("env"))
        names = {line.partition("=")[0] for line in (self.here / "env").read_text().splitlines()}
        self.assertLessEqual(names, {"PATH", "PWD", "OLDPWD", "SHLVL", "_"})

    async def test_given_up(self) -> None:
        """A child that is given up is gone, and so is the one whose time is over."""
        given_up = self.deliver("slow")
        await self.assert_killed(given_up, given_up.cancel)
        self.wrapper = Wrapper(reactor, str(self.here / "mailman"), deferToThread, deadline=5.0)
        await self.assert_killed(self.deliver("slow"), lambda: None)

    async def assert_killed(self, delivery: "Deferred[Any]", give_up: Any) -> None:
        """Its process has ended, and was waited for."""
        pid = await self.pid(self.here / "slow")
        give_up()
        with contextlib.suppress(CancelledError):
            self.assertEqual(await delivery, reply.PROCESSING_TOO_LONG)
        while Path(f"/proc/{pid}").exists():
            await task.deferLater(reactor, 0.02)

    async def pid(self, file: Path) -> int:
        """What it has written there, once."""
        while not (file.exists() and file.read_text().endswith("\n")):
            await task.deferLater(reactor, 0.02)
        pid = int(file.read_text())
        file.unlink()
        return pid

    async def test_many(self) -> None:
        """Fifty at once take their turns, and none stays."""
        self.assertEqual(await gatherResults([self.deliver("ant") for _ in range(50)]), [None] * 50)


class KilledTests(IntegrationTestCase):
    """The server is killed while the wrapper has a message."""

    def test_whole(self) -> None:
        """The list gets the whole message all the same: where it was cut would pass for its end."""
        here = self.directory()
        for name in ("mail", "lists/late"):
            (here / name).mkdir(parents=True)
        (here / "lists" / "late" / "config.pck").touch()
        wrapper = here / "mail" / "mailman"
        wrapper.write_text(STAND_IN.format(here=here))
        wrapper.chmod(0o755)
        server = self.server(processor=f"mailman:127.0.0.1:1:domains=lists.example:wrapper={wrapper}")
        content = b"Subject: x\r\n\r\n" + b"Hello, this is a long message.\r\n" * 50000
        with Client(server.address) as client:
            client.expect("EHLO client.example", "250")
            client.expect("MAIL FROM:<a@a.example>", "250")
            client.expect("RCPT TO:<late@lists.example>", "250")
            client.expect("DATA", "354")
            client.send(content + b".\r\n")
            wait_for("the wrapper", (here / "begun").exists)
            server.kill()
        (here / "go").touch()
        wait_for("the message", (here / "whole").exists)
        self.assertTrue((here / "whole").read_bytes().endswith(content.replace(b"\r\n", b"\n")))
