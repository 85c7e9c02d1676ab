"""The door through which processors, policies and filters enter, built-in ones and strangers' alike.

``--processor=NAME[:ARGS]`` names a Twisted plugin, an entry point of the group ``smtpserv.processors``, or a
dotted path ``package.module:Name`` to a class, an instance or a factory; ``--policy=NAME[:ARGS]`` does the
same with the group ``smtpserv.policies``, ``--filter=NAME[:ARGS]`` with ``smtpserv.filters``.
"""

import difflib
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.plugin import getPlugins
from zope.interface.exceptions import Invalid
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyObject

from smtpserv.arguments import parse_arguments, split_description
from smtpserv.error import StartError
from smtpserv.maker import (
    EXTENSIONS,
    FILTERS,
    MAKERS,
    POLICIES,
    PROCESSORS,
    Kind,
    Maker,
    arguments_of,
    first_line,
)
from smtpserv.maker import GROUP as GROUP
from smtpserv.maker import ExtensionMaker as ExtensionMaker
from smtpserv.maker import FilterMaker as FilterMaker
from smtpserv.maker import PolicyMaker as PolicyMaker
from smtpserv.maker import ProcessorMaker as ProcessorMaker

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore


class Directory:
    """Every plug-in of a kind that was found, by its name."""

    def __init__(
        self, plugins: Iterable[Maker], points: Iterable[EntryPoint], kind: Kind = PROCESSORS
    ) -> None:
        self.kind: Final = kind
        self._makers: Final[dict[str, Callable[[], Maker]]] = {}
        for maker in plugins:
            name: str | None = getattr(maker, "name", None)
            if name is None:
                raise StartError(f"a plug-in for --{kind.noun} has no name: {maker!r}")
            self._add(name, lambda maker=maker: maker)  # type: ignore[misc]
        for point in points:
            self._add(point.name, lambda point=point: self._from_entry_point(point))  # type: ignore[misc]

    def _add(self, name: str, get: Callable[[], Maker]) -> None:
        if name in self._makers:
            raise StartError(f"two {self.kind.group.rpartition('.')[2]} are called {name!r}")
        self._makers[name] = get

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._makers))

    def maker(self, name: str) -> Maker:
        """The maker of that name.

        :raises StartError: when there is none, with the nearest names; and when it is no maker.
        """
        if name in self._makers:
            maker = self._makers[name]()
            _verify(self.kind.maker, maker, f"{self.kind.noun} {name!r}")
            return maker
        near = difflib.get_close_matches(name, self._makers, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(self)}"
        raise StartError(f"no {self.kind.noun} is called {name!r}; {hint}")

    def _from_entry_point(self, point: EntryPoint) -> Maker:
        noun = self.kind.noun
        try:
            found = point.load()
        except Exception as error:
            raise StartError(f"cannot load {noun} {point.name!r} ({point.value}): {error}") from error
        if self.kind.maker.providedBy(found):
            return cast(Maker, found)
        path = f"{point.module}:{point.attr}" if point.attr else point.value
        return cast(Maker, MAKERS[noun](point.name, first_line(found), arguments_of(found), path))


def find_processors() -> Directory:
    """Look for every processor that is installed."""
    return _find(PROCESSORS)


def find_policies() -> Directory:
    """Look for every policy that is installed."""
    return _find(POLICIES)


def find_extensions() -> Directory:
    """Look for every ESMTP extension from outside that is installed."""
    return _find(EXTENSIONS)


def find_filters() -> Directory:
    """Look for every filter that is installed."""
    return _find(FILTERS)


def _find(kind: Kind) -> Directory:
    maker: Any = kind.maker
    return Directory(getPlugins(maker), entry_points(group=kind.group), kind)


def make_processor(description: str, reactor: "IReactorCore", directory: Directory) -> object:
    """Make the processor that ``--processor`` describes, and see that it is one.

    :raises StartError: in one line, for whatever is wrong with it.
    """
    return _make(description, reactor, directory)


def make_policy(description: str, reactor: "IReactorCore", directory: Directory) -> object:
    """Make the policy that ``--policy`` describes, and see that it is one.

    :raises StartError: in one line, for whatever is wrong with it.
    """
    return _make(description, reactor, directory)


def make_extension(description: str, reactor: "IReactorCore", directory: Directory) -> Any:
    """Make the extension that ``--extension`` describes, and see that it is one.

    :raises StartError: in one line, for whatever is wrong with it.
    """
    return _make(description, reactor, directory)


def make_filter(description: str, reactor: "IReactorCore", directory: Directory, hostname: str) -> object:
    """Make the filter that ``--filter`` describes, and see that it is one.

    :param hostname: our own name, for the fields that tell it.
    :raises StartError: in one line, for whatever is wrong with it.
    """
    return _make(description, reactor, directory, hostname)


def _make(description: str, reactor: "IReactorCore", directory: Directory, *facts: str) -> object:
    kind = directory.kind
    name, *fields = split_description(description)
    if name not in directory and fields and _is_module(name):
        name = f"{name}:{fields.pop(0)}"
        maker: Maker = MAKERS[kind.noun](name, "", "", name)
    else:
        maker = directory.maker(name)
    arguments = parse_arguments(fields)
    try:
        make = getattr(maker, f"make_{kind.noun}")
        made: object = make(reactor, *facts, arguments.positional, arguments.named)
    except StartError as error:
        raise StartError(f"--{kind.noun}={name}: {error}") from error
    except Exception as error:
        raise StartError(f"--{kind.noun}={name}: {type(error).__name__}: {error}") from error
    _check(kind, made, name)
    return made


def _is_module(name: str) -> bool:
    try:
        return "." in name or importlib.util.find_spec(name) is not None
    except ValueError:
        return False


def _check(kind: Kind, made: object, name: str) -> None:
    """See that an object honours an interface that it must, and each of ours that it says it does.

    :raises StartError: with what is missing.
    """
    if not any(each.providedBy(made) for each in kind.required):
        wanted = " or ".join(each.__name__ for each in kind.required)
        raise StartError(f"--{kind.noun}={name} is no {wanted}: Does not declaratively implement any")
    for interface in kind.required + kind.optional:
        if interface.providedBy(made):
            _verify(interface, made, f"--{kind.noun}={name}")


def _verify(interface: InterfaceClass, found: object, what: str) -> None:
    """See that an object keeps the word it gave.

    :raises StartError: with what is missing.
    """
    try:
        verifyObject(interface, found)
    except Invalid as error:
        reasons = "; ".join(_told(each) for each in getattr(error, "exceptions", [error]))
        raise StartError(f"{what} is no {interface.__name__}: {reasons}") from error


def _told(error: Invalid) -> str:
    """The reason alone, without the object and the interface that zope puts before it."""
    return re.sub(r"^.*? interface \S+: ", "", " ".join(str(error).split())).rstrip(".")
