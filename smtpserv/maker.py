"""Kinds of plug-ins, and the makers that need no code."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from twisted.plugin import IPlugin
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from smtpserv.error import StartError
from smtpserv.interfaces import (
    IAuthenticationObserver,
    IEarlyTalkerPolicy,
    IExtension,
    IExtensionMaker,
    IExtensionSupport,
    IMessageFilter,
    IMessageFilterMaker,
    IMessageObserver,
    IMessageProcessor,
    IMessageProcessorMaker,
    IPages,
    IPolicyMaker,
    IRecipientDirectory,
    IRecipientFilter,
    IRecipientPolicy,
    IRelayingProcessor,
    ISenderPolicy,
    ISessionPolicy,
    IStreamingProcessor,
    ITransactionProcessor,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorCore

#: The entry point group in which a package names its processors.
GROUP: Final = "smtpserv.processors"

Maker = IMessageProcessorMaker | IPolicyMaker | IMessageFilterMaker | IExtensionMaker


@dataclass(frozen=True)
class Kind:
    """One kind of plug-in.

    :param noun: the option that names one; a maker's method is called ``make_`` and this.
    :param group: the entry point group in which a package names its own.
    :param maker: the interface of what makes one.
    :param required: the interfaces of which one must be provided.
    :param optional: those that it may provide besides, and is held to as well.
    """

    noun: str
    group: str
    maker: InterfaceClass
    required: tuple[InterfaceClass, ...]
    optional: tuple[InterfaceClass, ...] = ()


_STAGES: Final = (ISessionPolicy, IEarlyTalkerPolicy, ISenderPolicy, IRecipientPolicy)
_OBSERVERS: Final = (IMessageObserver, IAuthenticationObserver)

PROCESSORS: Final = Kind(
    "processor",
    GROUP,
    IMessageProcessorMaker,
    (IMessageProcessor, IStreamingProcessor, ITransactionProcessor),
    (IRelayingProcessor, IRecipientDirectory, IExtensionSupport, IPages, *_STAGES, *_OBSERVERS),
)
POLICIES: Final = Kind("policy", "smtpserv.policies", IPolicyMaker, _STAGES, _OBSERVERS)
EXTENSIONS: Final = Kind("extension", "smtpserv.extensions", IExtensionMaker, (IExtension,))
FILTERS: Final = Kind(
    "filter", "smtpserv.filters", IMessageFilterMaker, (IMessageFilter, IRecipientFilter), _OBSERVERS
)


@dataclass(frozen=True)
class _FactoryMaker:
    """A maker that needs no code: it calls what a dotted path names, with the arguments as they come.

    :param factory: ``package.module:Name``, imported when its product is wanted and not before.
    :param wants_reactor: whether the factory takes the reactor as its first argument.
    """

    name: str
    help: str
    arguments: str
    factory: str
    wants_reactor: bool = False

    def _make(
        self, kind: Kind, reactor: "IReactorCore", positional: tuple[str, ...], named: dict[str, str]
    ) -> object:
        found = load(self.factory)
        if not callable(found) or any(each.providedBy(found) for each in kind.required):
            if positional or named:
                raise StartError(f"{self.name} takes no arguments")
            return found
        return _call(self.name, found, (reactor, *positional) if self.wants_reactor else positional, named)


@implementer(IPlugin, IMessageProcessorMaker)
class ProcessorMaker(_FactoryMaker):
    """Makes a processor by calling what a dotted path names."""

    def make_processor(
        self, reactor: "IReactorCore", positional: tuple[str, ...], named: dict[str, str]
    ) -> object:
        """Call the factory; arguments that it does not take are a :class:`StartError`."""
        return self._make(PROCESSORS, reactor, positional, named)


@implementer(IPlugin, IPolicyMaker)
class PolicyMaker(_FactoryMaker):
    """Makes a policy by calling what a dotted path names."""

    def make_policy(
        self, reactor: "IReactorCore", positional: tuple[str, ...], named: dict[str, str]
    ) -> object:
        """Call the factory; arguments that it does not take are a :class:`StartError`."""
        return self._make(POLICIES, reactor, positional, named)


@implementer(IPlugin, IExtensionMaker)
class ExtensionMaker(_FactoryMaker):
    """Makes an ESMTP extension by calling what a dotted path names."""

    def make_extension(
        self, reactor: "IReactorCore", positional: tuple[str, ...], named: dict[str, str]
    ) -> object:
        """Call the factory; arguments that it does not take are a :class:`StartError`."""
        return self._make(EXTENSIONS, reactor, positional, named)


@implementer(IPlugin, IMessageFilterMaker)
@dataclass(frozen=True)
class FilterMaker(_FactoryMaker):
    """Makes a filter by calling what a dotted path names.

    :param wants_hostname: whether the factory takes our own name, behind the reactor if it takes that too.
    """

    wants_hostname: bool = False

    def make_filter(
        self, reactor: "IReactorCore", hostname: str, positional: tuple[str, ...], named: dict[str, str]
    ) -> object:
        """Call the factory; arguments that it does not take are a :class:`StartError`."""
        own = (hostname,) if self.wants_hostname else ()
        return self._make(FILTERS, reactor, (*own, *positional), named)


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
        return attrgetter(name)(importlib.import_module(module_name))
    except SystemExit:
        raise StartError(f"cannot load {path}: it ends the program") from None
    except Exception as error:
        raise StartError(f"cannot load {path}: {error}") from error


def first_line(found: object) -> str:
    """What an object says of itself, in a line."""
    return (inspect.getdoc(found) or "").partition("\n")[0]


def arguments_of(found: object) -> str:
    """The arguments that a factory takes, one a line; none of what is no factory, or hides them."""
    try:
        parameters = list(inspect.signature(found).parameters.values()) if callable(found) else []
    except ValueError:
        parameters = []
    return "\n".join(map(_argument, parameters))


def _argument(parameter: inspect.Parameter) -> str:
    name, default = parameter.name.replace("_", "-"), parameter.default
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"{name} ..."
    if parameter.kind is parameter.VAR_KEYWORD:
        return f"{name}=..."
    return f"{name}=" if default is parameter.empty or default in ("", None) else f"{name}=   [{default}]"


#: The maker of what only a path names, by noun.
MAKERS: Final[dict[str, Any]] = {
    "processor": ProcessorMaker,
    "policy": PolicyMaker,
    "filter": FilterMaker,
    "extension": ExtensionMaker,
}
