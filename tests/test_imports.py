"""Who may import whom: DESIGN section 4, held by the sources themselves."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

import smtpserv

ROOT: Final = Path(smtpserv.__file__).parent

VALUES: Final = {"message", "reply"}
EDITS: Final = {"header", "edit"}
PLACES: Final = {"network", "domain"}
BELOW: Final = (
    VALUES
    | EDITS
    | PLACES
    | {
        "error",
        "interfaces",
        "escape",
        "settings",
        "arguments",
        "awaiting",
        "collecting",
        "trace",
        "tls",
        "metrics",
    }
)

#: The rooms each room may import from; rooms that are not here may import from none.
MAY: Final[dict[str, set[str]]] = {
    "error": {"reply"},
    "tls": {"error"},
    "header": {"message"},
    "edit": {"message", "header", "dialogue"},
    "interfaces": VALUES | {"edit"},
    "arguments": {"error"},
    "trace": {"message", "network", "dialogue"},
    "settings": PLACES | {"dialogue", "error"},
    "maker": {"error", "interfaces"},
    "plugins": {"error", "interfaces", "arguments", "maker"},
    "options": {"error", "escape", "plugins", "settings"},
    "dialogue": VALUES | {"error"},
    "server": VALUES
    | {"error", "interfaces", "dialogue", "network", "escape", "metrics", "tls", "transport", "awaiting"},
    "relay": VALUES
    | {"error", "interfaces", "dialogue", "escape", "metrics", "tls", "transport", "awaiting"}
    | {"arguments", "network", "settings", "trace"},
    "transport": set(),
    "awaiting": set(),
    "collecting": VALUES | {"awaiting", "interfaces"},
    "policy": VALUES | PLACES | {"interfaces", "error", "dialogue", "settings", "arguments", "escape"},
    "mailman": VALUES | {"error", "interfaces", "domain", "arguments", "escape", "relay"},
    "spool": VALUES | {"error", "interfaces"},
    "inbox": VALUES | {"error", "interfaces"},
    "compat": VALUES | {"interfaces"},
    "exposition": {"metrics"},
    "web": {"error", "interfaces", "metrics", "exposition"},
    "milter": BELOW | {"dialogue", "server"},
    "filters": BELOW | {"server", "policy"},
    "processors": BELOW | {"spool", "relay", "inbox", "mailman"},
    "tap": BELOW | {"plugins", "options", "server", "dialogue", "policy", "filters", "milter", "web"},
    "testing": BELOW | {"server", "dialogue", "policy", "filters"},
    "__main__": {"error", "escape"},
}

#: What the dialogue, which knows no clock, log or network, may not import even of the standard library.
IMPURE: Final = {
    "time",
    "socket",
    "logging",
    "asyncio",
    "ssl",
    "selectors",
    "threading",
    "random",
    "os",
    "sys",
}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package, by its dotted name."""
    files = {path: path.relative_to(ROOT.parent).with_suffix("") for path in ROOT.rglob("*.py")}
    return {".".join(name.parts): ast.parse(path.read_text("utf-8")) for path, name in files.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    """Everything a module imports, wherever in it, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """``smtpserv.server.protocol`` stands in ``server``."""
    return name.split(".")[1]


class Imports(SynchronousTestCase):
    """The house stands as it was drawn."""

    def test_rooms(self) -> None:
        """Each room imports only from the rooms below it, so a newcomer can read them one at a time."""
        for name, tree in modules().items():
            for imported in imports(tree):
                if imported.startswith("smtpserv.") and room(imported) not in (room(name), "__version__"):
                    self.assertIn(room(imported), MAY.get(room(name), set()), f"{name} imports {imported}")

    def test_nothing_imports_the_top(self) -> None:
        """No module needs the tap, the tests' tools or the command line; the server needs no processor."""
        for name, tree in modules().items():
            for imported in imports(tree):
                for top in {"tap", "testing", "__main__"} - {room(name)}:
                    self.assertFalse(
                        f"{imported}.".startswith(f"smtpserv.{top}."), f"{name} imports {imported}"
                    )

    def test_dialogue_is_pure(self) -> None:
        """The dialogue runs under any event loop, or in a fuzzer: it knows no clock, log or socket."""
        for name, tree in modules().items():
            if room(name) in ("dialogue", "message", "reply", "error"):
                foreign = {imported.split(".")[0] for imported in imports(tree)} - {"smtpserv"}
                allowed = sys.stdlib_module_names - (IMPURE if room(name) == "dialogue" else set())
                self.assertLessEqual(foreign, allowed, name)

    def test_only_tap_names_the_reactor(self) -> None:
        """Everything but the tap is handed its reactor, and so can run on a clock that stands still."""
        for name, tree in modules().items():
            if room(name) != "tap":
                self.assertNotIn("twisted.internet.reactor", set(imports(tree)), name)

    def test_no_circles(self) -> None:
        """Imports run one way, between modules as between rooms."""
        trees = modules()
        needs = {
            name: {
                other
                for imported in imports(tree)
                for other in (imported, imported.rpartition(".")[0])
                if other in trees and other != name
            }
            for name, tree in trees.items()
        }
        while leaves := [name for name, needed in needs.items() if not needed & needs.keys()]:
            for leaf in leaves:
                del needs[leaf]
        self.assertEqual(set(needs), set(), "these import each other")
