"""The door through which processors enter, built-in ones and strangers' alike.

``--processor=NAME[:ARGS]`` names a Twisted plugin, an entry point of the group ``smtpserv.processors``, or a
dotted path ``package.module:Name`` to a class, an instance or a factory.
"""

import difflib
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

from twisted.plugin import IPlugin, getPlugins
from zope.interface import implementer
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from smtpserv.error import StartError
from smtpserv.interfaces import (
    IMessageProcessor,
    IMessageProcessorMaker,
    IRecipientPolicy,
    ISenderPolicy,
    ISessionPolicy,
    IStreamingProcessor,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore

#: The entry point group in which a package names its processors.
GROUP: Final = "smtpserv.processors"

_FIELD: Final = re.compile(r"(?:^|:)((?:[^:\\]|\\.?)*)", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_NAMED: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Arguments:
    """What follows the name, as in Twisted's endpoint strings: ``one:two:key=value``, ``\\:`` for a colon."""

    positional: tuple[str, ...]
    named: dict[str, str]


def parse_arguments(fields: Iterable[str]) -> Arguments:
    """Tell positional arguments from named ones; hyphens in names become underscores.

    :param fields: the parts between the colons, still escaped.
    :raises StartError: for a name that is given twice, or a positional argument behind a named one.
    """
    positional: list[str] = []
    named: dict[str, str] = {}
    for part in fields:
        match = _NAMED.fullmatch(part)
        if match is None and named:
            raise StartError(f"argument {part!r} without a name comes behind named ones")
        if match is None:
            positional.append(_unescape(part))
            continue
        key = match[1].replace("-", "_")
        if key in named:
            raise StartError(f"argument {match[1]!r} is given twice")
        named[key] = _unescape(match[2])
    return Arguments(tuple(positional), named)


def split_description(description: str) -> list[str]:
    """Cut at the colons that no backslash stands before; the parts stay escaped."""
    return _FIELD.findall(description)


def _unescape(part: str) -> str:
    return _ESCAPED.sub(r"\1", part)


@implementer(IPlugin, IMessageProcessorMaker)
@dataclass(frozen=True)
class ProcessorMaker:
    """A maker that needs no code: it calls what a dotted path names, with the arguments as they come.

    :param factory: ``package.module:Name``, imported when the processor is wanted and not before.
    :param wants_reactor: whether the factory takes the reactor as its first argument.
    """

    name: str
    help: str
    arguments: str
    factory: str
    wants_reactor: bool = False

    def make_processor(
        self, reactor: "IReactorCore", positional: tuple[str, ...], named: dict[str, str]
    ) -> object:
        """Call the factory; arguments that it does not take are a :class:`StartError`."""
        found = load(self.factory)
        if not callable(found) or any(each.providedBy(found) for each in _PROCESSORS):
            if positional or named:
                raise StartError(f"{self.name} takes no arguments")
            return found
        return _call(self.name, found, (reactor, *positional) if self.wants_reactor else positional, named)


def _call(
    name: str, factory: Callable[..., object], positional: tuple[object, ...], named: dict[str, str]
) -> object:
    try:
        inspect.signature(factory).bind(*positional, **named)
    except TypeError as error:
        raise StartError(f"{name}: {error}") from None
    except ValueError:
        pass  # a callable that hides its signature
    return factory(*positional, **named)


def load(path: str) -> Any:
    """The object that a dotted path names.

    :raises StartError: when its module or name is not there.
    """
    module_name, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except Exception as error:
        raise StartError(f"cannot load {path}: {error}") from error


class Directory:
    """Every processor found, by its name."""

    def __init__(self, plugins: Iterable[IMessageProcessorMaker], points: Iterable[EntryPoint]) -> None:
        self._makers: Final[dict[str, Callable[[], IMessageProcessorMaker]]] = {}
        for maker in plugins:
            self._add(maker.name, lambda maker=maker: maker)  # type: ignore[misc]
        for point in points:
            self._add(point.name, lambda point=point: _from_entry_point(point))  # type: ignore[misc]

    def _add(self, name: str, get: Callable[[], IMessageProcessorMaker]) -> None:
        if name in self._makers:
            raise StartError(f"two processors are called {name!r}")
        self._makers[name] = get

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._makers))

    def maker(self, name: str) -> IMessageProcessorMaker:
        """The maker of that name.

        :raises StartError: when there is none, with the nearest names.
        """
        if name in self._makers:
            return self._makers[name]()
        near = difflib.get_close_matches(name, self._makers, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(self)}"
        raise StartError(f"no processor is called {name!r}; {hint}")


def find_processors() -> Directory:
    """Look for every processor that is installed."""
    return Directory(getPlugins(IMessageProcessorMaker), entry_points(group=GROUP))


def _from_entry_point(point: EntryPoint) -> IMessageProcessorMaker:
    try:
        found = point.load()
    except Exception as error:
        raise StartError(f"cannot load processor {point.name!r} ({point.value}): {error}") from error
    if IMessageProcessorMaker.providedBy(found):
        return found
    return ProcessorMaker(point.name, first_line(found), "", point.value)


def first_line(found: object) -> str:
    """What an object says of itself, in a line."""
    return (inspect.getdoc(found) or "").partition("\n")[0]


def make_processor(description: str, reactor: "IReactorCore", directory: Directory) -> object:
    """Make the processor that ``--processor`` describes, and see that it is one.

    :raises StartError: in one line, for whatever is wrong with it.
    """
    name, *fields = split_description(description)
    if name in directory:
        maker = directory.maker(name)
    elif fields and _is_module(name):
        name = f"{name}:{fields.pop(0)}"
        maker = ProcessorMaker(name, "", "", name)
    else:
        maker = directory.maker(name)
    arguments = parse_arguments(fields)
    try:
        processor = maker.make_processor(reactor, arguments.positional, arguments.named)
    except StartError as error:
        raise StartError(f"--processor={name}: {error}") from error
    except Exception as error:
        raise StartError(f"--processor={name}: {type(error).__name__}: {error}") from error
    check_processor(processor, name)
    return processor


def _is_module(name: str) -> bool:
    try:
        return "." in name or importlib.util.find_spec(name) is not None
    except ValueError:
        return False


def check_processor(processor: object, name: str) -> None:
    """See that an object honours the interface it must, and each of ours that it says it does.

    :raises StartError: with what is missing.
    """
    said = [each for each in (*_PROCESSORS, *_ADD_ONS) if each.providedBy(processor)]
    if not any(each in said for each in _PROCESSORS):
        said.insert(0, IMessageProcessor)
    for interface in said:
        try:
            verifyObject(interface, processor)
        except Invalid as error:
            reasons = "; ".join(_told(each) for each in getattr(error, "exceptions", [error]))
            raise StartError(f"--processor={name} is no {interface.__name__}: {reasons}") from error


_PROCESSORS: Final = (IMessageProcessor, IStreamingProcessor)
_ADD_ONS: Final = (ISessionPolicy, ISenderPolicy, IRecipientPolicy)


def _told(error: Invalid) -> str:
    """The reason alone, without the object and the interface that zope puts before it."""
    return re.sub(r"^.*? interface \S+: ", "", " ".join(str(error).split())).rstrip(".")
