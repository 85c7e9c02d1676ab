"""What an operator writes of the servers behind us, and the one clear line when it is wrong."""

import os
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue.login import Credentials
from smtpserv.error import StartError
from smtpserv.relay.making import make_route, yes
from smtpserv.relay.patience import Patience
from smtpserv.relay.pool import PoolLimits
from smtpserv.relay.upstream import Doorway, Upstream
from smtpserv.tls.upstream import TLSMode
from tests.certificates import make_pair


class MakingCase(SynchronousTestCase):
    """Makes routes."""

    def doors(self, *where: str, **named: str) -> list[Doorway]:
        """The doors of a route."""
        doors = [pool.door for pool in make_route(Clock(), *where, **named).pools]
        assert all(isinstance(door, Doorway) for door in doors)
        return doors  # type: ignore[return-value]

    def upstream(self, *where: str, **named: str) -> Upstream:
        """The one server of a route."""
        (door,) = self.doors(*where, **named)
        return door.upstream

    def limits(self, **named: str) -> PoolLimits:
        """What bounds a pool."""
        limits: PoolLimits = make_route(Clock(), **named).pools[0]._limits
        return limits

    def wrong(self, *where: str, **named: str) -> str:
        """The line that an operator reads."""
        error = self.assertRaises(StartError, make_route, Clock(), *where, **named)
        self.assertNotIn("\n", str(error))
        return str(error)

    def file(self, content: bytes, mode: int = 0o600) -> str:
        """A file that holds this."""
        path: str = self.mktemp()
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        return path


class ServerTests(MakingCase):
    """Which servers there are, and how they are spoken to."""

    def test_usual(self) -> None:
        """Without arguments it is the server of this machine."""
        found = self.upstream()
        self.assertEqual((found.host, found.port, found.lmtp), ("localhost", 25, False))
        self.assertEqual((found.tls.mode, found.credentials), (TLSMode.OPPORTUNISTIC, None))
        self.assertEqual((found.patience, self.limits()), (Patience(), PoolLimits()))

    def test_hosts(self) -> None:
        """Several in order of preference; IPv6 addresses may stand in brackets."""
        doors = self.doors("mx1.example, mx2.example,,[2001:db8::1],/run/lmtp", "2525")
        self.assertEqual(
            [str(door) for door in doors],
            ["mx1.example:2525", "mx2.example:2525", "2001:db8::1:2525", "/run/lmtp"],
        )
        for host in ("", ",", " "):
            self.assertEqual(self.wrong(host), "host: no server is named")

    def test_no_hosts(self) -> None:
        """What can't be where a server is is told at once, and not with the first message."""
        for host in ("a b", "mx.example:26", "mx..example", "-x", "[mx.example", "mx.example;mx2.example"):
            line = f"host: {host!r} is not the name or address of a host, or the path of a socket"
            self.assertEqual(self.wrong(f"mx.example,{host}"), line)
        for host in (
            "mx_1.example",
            "mx.example.",
            "fe80::1%eth0",
            "[::1]",
            "b\xfccher.example",
            "192.0.2.1",
        ):
            self.assertEqual(self.upstream(host).host, host.strip("[]"))

    def test_ports(self) -> None:
        """The port is that of the protocol, if no other is named."""
        self.assertEqual(self.upstream("x", "1").port, 1)
        self.assertEqual(self.upstream("x", port="65535").port, 65535)
        self.assertEqual(self.upstream("x", tls="implicit").port, 465)
        self.assertEqual(self.upstream("x", tls="implicit", port="25").port, 25)
        for port in ("0", "65536", "smtp", "-1", "2 5"):
            self.assertEqual(self.wrong("x", port), f"port: {port!r} is not a whole number from 1 to 65535")

    def test_local(self) -> None:
        """It is known which are on this machine."""
        for host, local in (
            ("localhost", True),
            ("127.0.0.1", True),
            ("::1", True),
            ("/run/x", True),
            ("mx.example", False),
            ("192.0.2.1", False),
        ):
            self.assertIs(self.upstream(host).is_local, local, host)

    def test_lmtp(self) -> None:
        """LMTP is spoken if that is said."""
        self.assertTrue(self.doors(lmtp="yes")[0].is_lmtp)
        self.assertFalse(self.doors(lmtp="no")[0].is_lmtp)
        self.assertEqual(self.wrong(lmtp="maybe"), "lmtp: 'maybe' is not yes or no")

    def test_yes(self) -> None:
        """Yes is yes, no is no, and all else is neither."""
        self.assertEqual((yes("x", "yes"), yes("x", "no")), (True, False))
        error = self.assertRaises(StartError, yes, "forward_client", "true")
        self.assertEqual(str(error), "forward-client: 'true' is not yes or no")

    def test_unknown(self) -> None:
        """An argument that there is not is named, the first of several."""
        self.assertEqual(self.wrong(pasword_file="x", colour="red"), "unknown argument 'colour'")
        self.assertEqual(self.wrong(pasword_file="x"), "unknown argument 'pasword-file'")


class TLSTests(MakingCase):
    """``tls`` and what belongs to it."""

    def test_modes(self) -> None:
        """Each of them; none else."""
        for mode in TLSMode:
            self.assertIs(self.upstream(tls=mode.value).tls.mode, mode)
        self.assertEqual(
            self.wrong(tls="maybe"), "tls: 'maybe' is not none or opportunistic or required or implicit"
        )

    def test_unix(self) -> None:
        """A Unix socket has no implicit TLS: it would be spoken to in clear."""
        line = self.wrong("mx.example,/run/x", tls="implicit")
        self.assertEqual(line, "tls: there is no implicit TLS on a Unix socket, /run/x")

    def test_usual(self) -> None:
        """Who tells a password wants to know to whom."""
        path = self.file(b"hush")
        self.assertIs(self.upstream(user="tim", password_file=path).tls.mode, TLSMode.REQUIRED)
        found = self.upstream(user="tim", password_file=path, tls="none")
        self.assertIs(found.tls.mode, TLSMode.NONE)

    def test_files(self) -> None:
        """Certificates and authorities are read at the start."""
        pair = make_pair("mx.example")
        roots, own = self.file(pair.certificate_pem), self.file(pair.pem)
        found = self.upstream("x", tls="required", trust_roots=roots, certificate=own, tls_name="mx.example")
        self.assertEqual(found.tls.server_name, "mx.example")
        for name in ("trust_roots", "certificate"):
            self.assertIn("/nowhere", self.wrong("x", tls="required", **{name: "/nowhere"}))
            broken = self.file(b"what?")
            self.assertIn(broken, self.wrong("x", tls="required", **{name: broken}))


class NumberTests(MakingCase):
    """Times and bounds."""

    def test_patience(self) -> None:
        """Each phase has its time."""
        rows = (
            ("connect_timeout", "connect"),
            ("greeting_timeout", "greeting"),
            ("command_timeout", "command"),
            ("data_timeout", "start"),
            ("block_timeout", "block"),
            ("end_timeout", "end"),
        )
        for number, (argument, phase) in enumerate(rows, 1):
            self.assertEqual(
                self.upstream(**{argument: f"{number}.5"}).patience, Patience(**{phase: number + 0.5})
            )
            for written in ("0", "-1", "soon", "nan", ""):
                self.assertEqual(
                    self.wrong(**{argument: written}),
                    f"{argument.replace('_', '-')}: {written!r} is not a number of seconds over 0",
                )

    def test_limits(self) -> None:
        """Each bound of the pool."""
        self.assertEqual(
            self.limits(connections="3", uses="7", idle="2.5"), PoolLimits(connections=3, uses=7, idle=2.5)
        )
        for argument, written, wrong in (
            ("connections", "0", "a whole number from 1 to 100000"),
            ("connections", "many", "a whole number from 1 to 100000"),
            ("uses", "0", "a whole number from 1"),
            ("idle", "0", "a number of seconds over 0"),
        ):
            self.assertEqual(self.wrong(**{argument: written}), f"{argument}: {written!r} is not {wrong}")


class CredentialsTests(MakingCase):
    """Who we are to the server, and its proof."""

    def test_password(self) -> None:
        """The password is the first line of its file."""
        for content in (b"hush", b"hush\n", b"hush\r\n", b"hush\nmore\n"):
            found = self.upstream(user="tim", password_file=self.file(content))
            self.assertEqual(found.credentials, Credentials("tim", "hush"))
            self.assertNotIn("hush", repr(found))

    def test_token(self) -> None:
        """So is a token; there may be both."""
        token, password = self.file(b"abc"), self.file(b"hush")
        found = self.upstream(user="tim", token_file=token)
        self.assertEqual(found.credentials, Credentials("tim", token="abc"))
        found = self.upstream(user="tim", token_file=token, password_file=password)
        self.assertEqual(found.credentials, Credentials("tim", "hush", "abc"))

    def test_half(self) -> None:
        """A name without a proof is none, and neither is a proof without a name."""
        path = self.file(b"hush")
        for name in ("password_file", "token_file"):
            self.assertEqual(self.wrong(**{name: path}), "password-file and token-file need user=")
        self.assertEqual(self.wrong(user="tim"), "user: password-file= or token-file= is missing")

    def test_files(self) -> None:
        """A file that can't be read, is empty, or anybody can read, is named, and its content is not told."""
        folder: str = self.mktemp()
        os.mkdir(folder)
        for name in ("password_file", "token_file"):
            argument = name.replace("_", "-")
            open_to_all, empty = self.file(b"hush", 0o604), self.file(b"\n")
            for path, line in (
                ("/nowhere", f"{argument}: cannot read /nowhere: No such file or directory"),
                (folder, f"{argument}: cannot read {folder}: Is a directory"),
                (empty, f"{argument}: {empty} is empty"),
                (open_to_all, f"{argument}: {open_to_all} can be read by everybody; chmod it to 600"),
            ):
                self.assertEqual(self.wrong(user="tim", **{name: path}), line)
            binary = self.file(b"\xff\n")
            self.assertEqual(
                self.wrong(user="tim", **{name: binary}), f"{argument}: cannot read {binary}: not UTF-8"
            )

    def test_group(self) -> None:
        """Its group may read it."""
        path = self.file(b"hush", 0o640)
        self.assertIsNotNone(self.upstream(user="tim", password_file=path).credentials)

    def test_unusable(self) -> None:
        """What no mechanism could send is refused at the start, and not told."""
        cases: tuple[tuple[str, Any], ...] = (("ti\0m", b"hush"), ("tim", b"hu\0sh"))
        for user, content in cases:
            line = self.wrong(user=user, password_file=self.file(content))
            self.assertNotIn("hu", line)
