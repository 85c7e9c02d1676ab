"""However smtpserv is installed, it is there, and starts: from any folder, by each of its three commands."""

import atexit
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from twisted.trial.unittest import SynchronousTestCase

from smtpserv import __version__
from tests.integration.harness import ROOT, IntegrationTestCase, Server, environment, free_port

#: What a release is made of.
PARTS = [
    "CHANGELOG.rst",
    "CONTRIBUTING.rst",
    "LICENSE",
    "MANIFEST.in",
    "README.rst",
    "docs",
    "examples",
    "pyproject.toml",
    "ruff.toml",
    "setup.cfg",
    "smtpserv",
    "tests",
    "twisted",
]
LEFTOVERS = shutil.ignore_patterns(
    "__pycache__", "*.egg-info", "build", "dist", "dropin.cache", "_trial_temp*"
)

#: Nothing of this checkout.
INSTALLED = {"PYTHONPATH": ""}

#: Seconds that pip may take.
PIP_PATIENCE = 300.0


def run(*command: "str | Path", cwd: Path | None = None) -> str:
    """Run a command to its good end, outside the checkout; what it printed."""
    done = subprocess.run(
        command,
        cwd=cwd or workshop(),
        env=environment(**INSTALLED),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PIP_PATIENCE,
        check=False,
    )
    if done.returncode:
        raise AssertionError(
            f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}"
        )
    return done.stdout


@cache
def workshop() -> Path:
    """A folder for everything that is built, gone when the tests end."""
    path = Path(tempfile.mkdtemp(prefix="smtpserv-packaging-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def sources(purpose: str) -> Path:
    """A copy of the checkout, without what was ever built in it.

    :param purpose: building leaves things behind, so that each purpose gets a copy of its own.
    """
    copy = workshop() / purpose
    copy.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=LEFTOVERS)
        else:
            shutil.copy(ROOT / part, copy)
    return copy


@cache
def archive(kind: str) -> Path:
    """The release.

    :param kind: ``whl``, or ``tar.gz`` for the sdist, from which the wheel is made.
    """
    release = workshop() / "release"
    if not release.exists():
        run(sys.executable, "-m", "build", "--outdir", release, sources("build"))
    (path,) = release.glob(f"*.{kind}")
    return path


@cache
def wheels() -> Path:
    """A folder with all that an installation needs: the index is asked once."""
    path = workshop() / "wheels"
    run(sys.executable, "-m", "pip", "wheel", "--wheel-dir", path, archive("whl"), "setuptools>=77")
    return path


def pip(home: Path, *arguments: "str | Path") -> None:
    """Run pip for a virtual environment, which has none, with the wheels that are there."""
    python = home / "bin" / "python"
    offline: list[str | Path] = ["--no-index", "--find-links", wheels()]
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, *arguments)


@cache
def furnished() -> Path:
    """A virtual environment with all that smtpserv needs, for copies: to unpack and compile it takes long."""
    path = workshop() / "furnished"
    run(sys.executable, "-m", "venv", "--without-pip", path)
    needs = [
        wheel for wheel in wheels().glob("*.whl") if not wheel.name.startswith(("smtpserv-", "setuptools-"))
    ]
    pip(path, "--no-deps", *needs)
    return path


@cache
def install(*what: "str | Path") -> Path:
    """The ``bin`` folder of a new virtual environment in which that is installed."""
    path = Path(tempfile.mkdtemp(prefix="venv-", dir=workshop()))
    shutil.copytree(furnished(), path, symlinks=True, dirs_exist_ok=True)
    for file in (path / "bin").iterdir():
        text = b"" if file.is_symlink() else file.read_bytes()
        if str(furnished()).encode() in text:
            file.write_bytes(text.replace(str(furnished()).encode(), str(path).encode()))
    pip(path, *what)
    return path / "bin"


if TYPE_CHECKING:
    _Case = IntegrationTestCase
else:
    _Case = object


#: What twistd looks up: names and strings only, and the checkers that --auth looks up.
PLUGINS: Final = {"twisted/plugins/smtpserv_plugins.py", "twisted/plugins/smtpserv_checkers.py"}


class StartsAnywhere(_Case):
    """What must be true of every installation."""

    def installed(self) -> Path:
        """The ``bin`` folder of the installation."""
        raise NotImplementedError

    def check_start(self, *command: "str | Path") -> None:
        """The command starts a server that receives mail, and SIGTERM ends it."""
        port = free_port()
        listening = [*map(str, command), f"--listen=tcp:{port}:interface=127.0.0.1", "--processor=discard"]
        server = self.started(Server(listening, ("127.0.0.1", port), self.directory(), env=INSTALLED))
        self.assert_served(server)
        server.terminate()
        self.assertEqual(server.wait(), -signal.SIGTERM, server.stderr)

    def test_twistd_lists_it(self) -> None:
        """``twistd --help`` has a line for it."""
        self.assertRegex(
            run(self.installed() / "twistd", "--help"), r"\n +smtpserv +A programmable SMTP server\n"
        )

    def test_twistd_starts_it(self) -> None:
        """``twistd -n smtpserv`` receives mail."""
        self.check_start(self.installed() / "twistd", "-n", "smtpserv")

    def test_command_starts_it(self) -> None:
        """``smtpserv`` receives mail."""
        self.check_start(self.installed() / "smtpserv")

    def test_module_starts_it(self) -> None:
        """``python -m smtpserv`` receives mail."""
        self.check_start(self.installed() / "python", "-m", "smtpserv")


class WheelInstallationTests(StartsAnywhere, IntegrationTestCase):
    """Installed from the wheel."""

    def installed(self) -> Path:
        """By ``pip install smtpserv-....whl``."""
        return install(archive("whl"))


class SdistInstallationTests(StartsAnywhere, IntegrationTestCase):
    """Installed from the sdist."""

    def installed(self) -> Path:
        """By ``pip install smtpserv-....tar.gz``."""
        return install(archive("tar.gz"))


class CheckoutInstallationTests(StartsAnywhere, IntegrationTestCase):
    """Installed from a checkout."""

    def installed(self) -> Path:
        """By ``pip install .``"""
        return install(sources("install"))


class EditableInstallationTests(StartsAnywhere, IntegrationTestCase):
    """Installed from a checkout that is worked on."""

    def installed(self) -> Path:
        """By ``pip install -e .``"""
        return install("-e", sources("edit"))


class ReleaseTests(SynchronousTestCase):
    """What a release holds."""

    def test_wheel(self) -> None:
        """Our package, its licence and the plugin files: no tests, no part of Twisted."""
        with zipfile.ZipFile(archive("whl")) as wheel:
            names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        package = {
            str(path.relative_to(sources("read"))) for path in (sources("read") / "smtpserv").rglob("*.py")
        }
        self.assertEqual(names, package | PLUGINS | {"smtpserv/py.typed"})

    def test_metadata(self) -> None:
        """The version is that of the package; the licence and the README come along."""
        with zipfile.ZipFile(archive("whl")) as wheel:
            info = f"smtpserv-{__version__}.dist-info"
            metadata = wheel.read(f"{info}/METADATA").decode("utf-8")
            self.assertIn(f"{info}/licenses/LICENSE", wheel.namelist())
        self.assertIn(f"\nVersion: {__version__}\n", metadata)
        self.assertIn("\nRequires-Python: >=3.11\n", metadata)
        self.assertIn((sources("read") / "README.rst").read_text("utf-8").strip(), metadata)

    def test_sdist(self) -> None:
        """All of the sources, so that who has the sdist can run the tests; nothing that was built."""
        with tarfile.open(archive("tar.gz")) as sdist:
            names = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
        written = {
            str(path.relative_to(sources("read"))) for path in sources("read").rglob("*") if path.is_file()
        }
        built = re.compile(r"PKG-INFO|smtpserv\.egg-info/.*")
        self.assertEqual({name for name in names if not built.fullmatch(name)}, written)
