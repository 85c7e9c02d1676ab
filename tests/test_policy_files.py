"""Checkers of files: hashed passwords and SCRAM secrets, a line for each user."""

import os
import sys
from collections.abc import Callable
from typing import Any

import bcrypt
from argon2 import PasswordHasher
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpserv.dialogue.sasl import Password
from smtpserv.dialogue.scram import ScramSecret
from smtpserv.error import StartError
from smtpserv.policy.checkers import make_checker
from smtpserv.policy.credentials import IScramSecrets, PasswordCredentials
from smtpserv.policy.htpasswd import HtpasswdChecker
from smtpserv.policy.scram_file import ScramChecker
from smtpserv.testing import HandThread

ARGON2 = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("hush")
BCRYPT = bcrypt.hashpw(b"hush", bcrypt.gensalt(4)).decode()
SCRAM = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


class Case(SynchronousTestCase):
    """Files of users."""

    def setUp(self) -> None:
        self.path: str = self.mktemp()

    def write(self, *lines: str, encoding: str = "utf-8") -> str:
        """Replace the file, as an editor does."""
        with open(self.path + "~", "w", encoding=encoding) as file:
            file.write("".join(f"{line}\n" for line in lines))
        os.replace(self.path + "~", self.path)
        return self.path

    def check(self, checker: Any, username: str, password: str) -> object:
        """The identity, or None for one that is refused."""
        answer = checker.requestAvatarId(PasswordCredentials(Password(username, password)))
        found = self.outcome(answer)
        if isinstance(found, bytes):
            return found.decode()
        self.assertIs(found, UnauthorizedLogin)
        return None

    def outcome(self, deferred: "Deferred[Any]") -> object:
        """The result or the type of the failure."""
        results: list[Any] = []
        deferred.addErrback(lambda failure: failure.type).addCallback(results.append)
        return results[0]

    def refused(self, make: Callable[..., object], *lines: str, encoding: str = "utf-8") -> str:
        """The line that ends the start, without the path."""
        self.write(*lines, encoding=encoding)
        error: StartError = self.assertRaises(StartError, make, self.path, maybeDeferred)
        return str(error).replace(self.path, "PATH")


class HtpasswdTests(Case):
    """``--auth=htpasswd:PATH``."""

    def checker(self, *lines: str) -> HtpasswdChecker:
        """One that blocks where it stands."""
        return HtpasswdChecker(self.write(*lines), maybeDeferred)

    def test_kinds(self) -> None:
        """argon2 and bcrypt, in the forms that htpasswd and others write them; remarks and blank lines."""
        checker = self.checker(
            "# staff",
            "",
            f"tim:{ARGON2}",
            f"ann:{BCRYPT}",
            f"bob:{BCRYPT.replace('$2b', '$2y')}  ",
            f"jürgen:{BCRYPT}",
        )
        for name in ("tim", "ann", "bob", "jürgen"):
            self.assertEqual(self.check(checker, name, "hush"), name)
            self.assertIsNone(self.check(checker, name, "guess"))
        self.assertIsNone(self.check(checker, "nobody", "hush"))
        self.assertTrue(verifyObject(ICredentialsChecker, checker))

    def test_long_password(self) -> None:
        """bcrypt hashes 72 octets and no more; what made the hash did the same."""
        hashed = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
        self.assertEqual(self.check(self.checker(f"tim:{hashed}"), "tim", "x" * 100), "tim")

    def test_unknown_user(self) -> None:
        """A user whom nobody knows costs a hash as well; in an empty file there is nobody."""
        self.assertIsNone(self.check(self.checker(), "tim", "hush"))
        asked: list[bytes] = []

        def checkpw(password: bytes, hashed: bytes) -> bool:
            asked.append(password)
            return True

        self.patch(bcrypt, "checkpw", checkpw)
        checker = self.checker(f"tim:{BCRYPT}")
        self.assertIsNone(self.check(checker, "nobody", "hush"))
        self.assertEqual(asked, [b"hush"])

    def test_in_thread(self) -> None:
        """Neither the file nor the hash keeps the reactor waiting."""
        thread = HandThread()
        checker = HtpasswdChecker(self.write(f"tim:{ARGON2}"), thread)
        answer = checker.requestAvatarId(PasswordCredentials(Password("tim", "hush")))
        self.assertNoResult(answer)
        thread.step()
        self.assertEqual(self.successResultOf(answer), b"tim")

    def test_read_again(self) -> None:
        """A file that changed counts from then on; one that is broken or gone lets nobody in."""
        checker = self.checker(f"tim:{BCRYPT}")
        self.write(f"ann:{BCRYPT}")
        self.assertEqual(self.check(checker, "ann", "hush"), "ann")
        self.assertIsNone(self.check(checker, "tim", "hush"))
        credentials = PasswordCredentials(Password("ann", "hush"))
        self.write("ann:hush")
        self.assertEqual(self.outcome(checker.requestAvatarId(credentials)), StartError)
        os.remove(self.path)
        self.assertEqual(self.outcome(checker.requestAvatarId(credentials)), StartError)
        self.write(f"ann:{ARGON2}")
        self.assertEqual(self.check(checker, "ann", "hush"), "ann")

    def test_broken_lines(self) -> None:
        """A broken line ends the start with its number, and is not quoted."""
        for line, expected in (
            ("hush", "not a user, a colon and a hash"),
            (":hush", "not a user, a colon and a hash"),
            ("tim\x07:hush", "a prohibited character"),
            ("ann:hush", "not an argon2 or bcrypt hash"),
            ("ann:$6$salt$hush", "not an argon2 or bcrypt hash"),
            ("ann:$2y$10$hush", "a broken bcrypt hash"),
            ("ann:$argon2id$hush", "a broken argon2 hash"),
            (f"tim:{BCRYPT}", "a second line for a user"),
        ):
            said = self.refused(HtpasswdChecker, "# staff", f"tim:{BCRYPT}", line)
            self.assertEqual(said, f"PATH, line 3: {expected}")

    def test_unreadable(self) -> None:
        """So does a file that can't be read, or is no text."""
        self.assertEqual(self.refused(HtpasswdChecker, "jürgen:x", encoding="latin-1"), "PATH is not UTF-8")
        os.remove(self.path)
        said = self.assertRaises(StartError, HtpasswdChecker, self.path, maybeDeferred)
        self.assertEqual(str(said), f"cannot read {self.path}: No such file or directory")

    def test_library_missing(self) -> None:
        """A hash whose library is not installed names what to install."""
        for module, hashed in (("argon2", ARGON2), ("bcrypt", BCRYPT)):
            self.addCleanup(sys.modules.__setitem__, module, sys.modules[module])
            sys.modules[module] = None  # type: ignore[assignment]
            said = self.refused(HtpasswdChecker, f"tim:{hashed}")
            self.assertEqual(said, f"PATH, line 1: its hash needs {module}: pip install smtpserv[passwords]")


class ScramTests(Case):
    """``--auth=scram:PATH``."""

    def checker(self, *lines: str) -> ScramChecker:
        """One that blocks where it stands."""
        return ScramChecker(self.write(*lines), maybeDeferred)

    def test_secrets(self) -> None:
        """The secret of each user, and a decoy for the others that looks like it."""
        checker = self.checker(f"user:{SCRAM}")
        self.assertTrue(verifyObject(IScramSecrets, checker))
        secret = self.outcome(checker.scram_secret("user"))
        self.assertEqual(secret, ScramSecret.parse(SCRAM))
        self.assertIsNone(self.outcome(checker.scram_secret("nobody")))
        decoy = self.outcome(checker.decoy_secret("nobody"))
        assert isinstance(decoy, ScramSecret)
        self.assertEqual((decoy.iterations, len(decoy.salt)), (4096, 16))
        self.assertEqual(
            self.outcome(self.checker().decoy_secret("x")), self.outcome(self.checker().decoy_secret("x"))
        )

    def test_passwords(self) -> None:
        """Passwords in clear are checked as well."""
        checker = self.checker(f"user:{SCRAM}")
        self.assertEqual(self.check(checker, "user", "pencil"), "user")
        self.assertIsNone(self.check(checker, "user", "pencils"))
        self.assertIsNone(self.check(checker, "nobody", "pencil"))

    def test_broken_line(self) -> None:
        """A broken line ends the start with its number."""
        self.assertEqual(self.refused(ScramChecker, "user:x"), "PATH, line 1: no SCRAM-SHA-256 secret")


class StrcredTests(Case):
    """``--auth=TYPE:ARGS``."""

    def test_found(self) -> None:
        """Our checkers are found by their names."""
        self.assertIsInstance(make_checker(f"htpasswd:{self.write(f'tim:{BCRYPT}')}"), HtpasswdChecker)
        self.assertIsInstance(make_checker(f"scram:{self.write(f'user:{SCRAM}')}"), ScramChecker)

    def test_refused(self) -> None:
        """One clear line names what is wrong, and quotes no arguments, which may be passwords."""
        for description, expected in (
            ("htpaswd:hush", "--auth: no checker is called 'htpaswd'; there are: "),
            ("htpasswd", "--auth=htpasswd: the path of a file is missing"),
            ("scram:", "--auth=scram: the path of a file is missing"),
            ("htpasswd:missing", "--auth=htpasswd: cannot read missing: No such file or directory"),
            ("file:", "--auth=file: bad arguments; it takes: "),
            ("file:.", "--auth=file: cannot read .: Is a directory"),
            ("certificate: ,", "--auth=certificate: a list of names such as "),
            ("memory:hush", "--auth=memory: bad arguments; it takes: "),
            ("anonymous", "--auth=anonymous: it takes no credentials that a client could send"),
        ):
            said = str(self.assertRaises(StartError, make_checker, description))
            self.assertTrue(said.startswith(expected), said)
            self.assertNotIn("hush", said)
