"""Where everything is put together: the options, and the service they describe."""

import gc
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from smtpserv import __version__
from smtpserv.dialogue.command import PARSERS, foreign
from smtpserv.dialogue.extension import Check, Extension
from smtpserv.dialogue.extensions import EXTENSIONS
from smtpserv.dialogue.terms import BareNewlines, Terms
from smtpserv.error import StartError
from smtpserv.filters.arrangement import arrange
from smtpserv.interfaces import (
    IAuthentication,
    IExtension,
    IExtensionSupport,
    IPages,
    IRecipientDirectory,
    IRelayingProcessor,
    IStreamingProcessor,
    ITransactionProcessor,
)
from smtpserv.metrics import Counts, Pulse
from smtpserv.network import Networks
from smtpserv.options import DEFAULT_LISTEN as DEFAULT_LISTEN
from smtpserv.options import Options as Options
from smtpserv.options import fail
from smtpserv.plugins import (
    find_extensions,
    find_filters,
    find_policies,
    find_processors,
    make_extension,
    make_filter,
    make_policy,
    make_processor,
)
from smtpserv.policy.access import RelayAccess
from smtpserv.policy.authentication import Authentication
from smtpserv.policy.certificate import CertificateChecker
from smtpserv.policy.checkers import make_checker
from smtpserv.server.descriptors import make_room
from smtpserv.server.endpoint import Entrance
from smtpserv.server.factory import Sessions, SMTPServerFactory
from smtpserv.server.house import Foreigner, House
from smtpserv.server.journal import Journal, render_json, render_text
from smtpserv.server.limits import Limits
from smtpserv.server.listening import Listener
from smtpserv.server.logfile import open_log
from smtpserv.server.panel import seat

#: Seconds that messages under way are given when the server stops.
DRAIN: Final = 30.0

_log = Logger()


class MailService(MultiService):
    """The listeners and their sessions, from the first port bound to the last message finished.

    :param web: what runs until all that is over.
    """

    def __init__(
        self, journal: Journal, sessions: Sessions, listeners: list[Listener], web: MultiService
    ) -> None:
        super().__init__()
        self._web: Final = web
        self._journal: Final = journal
        self._sessions: Final = sessions
        for listener in listeners:
            listener.setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Bind; a port that can't be had ends the start."""
        try:
            super().privilegedStartService()
            self._web.privilegedStartService()
        except StartError as error:
            fail(str(error))

    def startService(self) -> None:
        """What is in memory by now stays: spare the garbage collector the walk."""
        super().startService()
        self._web.startService()
        gc.collect()
        gc.freeze()

    async def _see_out(self) -> None:
        await super().stopService()
        await self._sessions.drain(DRAIN)
        self._journal.flush()
        await self._web.stopService()

    def stopService(self) -> "Deferred[None]":
        """Take no more connections, and wait for the messages under way."""
        return Deferred.fromCoroutine(self._see_out())


def makeService(options: Options) -> MailService:
    """The whole server, as the options describe it. Only here is the global reactor named."""
    from twisted.internet import reactor

    # A processor that lies in the folder where the operator stands is found, but hides no installed module.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    options["max-connections"] = make_room(options["max-connections"])
    try:
        return make_service(reactor, options)
    except StartError as error:
        fail(str(error))


def make_service(reactor: Any, options: Options) -> MailService:
    """The parts in the order of the message.

    :raises StartError: for what can't be put together.
    """
    limits = make_limits(options)
    processor = make_processor(options["processor"], reactor, find_processors())
    policies = make_policies(options, reactor, processor)
    extensions = [make_extension(each, reactor, find_extensions()) for each in options["extension"]]
    filters = [make_filter(each, reactor, find_filters(), options["hostname"]) for each in options["filter"]]
    terms = make_terms(options, processor, extensions)
    entrance = make_entrance(options, reactor)
    counts = Counts()
    house = House(
        clock=reactor,
        terms=terms,
        limits=limits,
        panel=seat([*policies, processor, *filters], counts),
        processor=as_streaming(processor, reactor, limits, filters),
        journal=Journal(reactor, open_log(options["log"]), _FORMATS[options["log-format"]]),
        certificates=entrance.certificates(options["tls"]) if options["tls"] else None,
        authentication=make_authentication(options, reactor),
        trusted=options["trust-xclient"],
        foreigners=answers_of(extensions),
        counts=counts,
    )
    sessions = Sessions(reactor, limits, counts)
    listeners = make_listeners(options, entrance, house, sessions)
    _log.info("smtpserv {version}, processor {name}", version=__version__, name=options["processor"])
    web = make_web(options, reactor, entrance, counts, sessions, processor)
    if IService.providedBy(processor):
        processor.setServiceParent(web)
    return MailService(house.journal, sessions, listeners, web)


def make_listeners(options: Options, entrance: Entrance, house: House, sessions: Sessions) -> list[Listener]:
    """One for each endpoint."""
    factories = {
        "listen": SMTPServerFactory(house, sessions),
        "lmtp": SMTPServerFactory(replace(house, terms=replace(house.terms, lmtp=True)), sessions),
    }
    return [
        Listener(option, each, entrance.endpoint(each, option), factory)
        for option, factory in factories.items()
        for each in options[option]
    ]


def make_policies(options: Options, reactor: Any, processor: object) -> list[object]:
    """All who have a say before the processor does; of one that relays, who may relay comes first."""
    directory = find_policies()
    whose = IRecipientDirectory(processor, None)
    access = RelayAccess(options["relay-from"], options["relay-to"], directory=whose)
    guards: list[object] = [access] if IRelayingProcessor.providedBy(processor) else []
    return guards + [make_policy(each, reactor, directory) for each in options["policy"]]


def make_entrance(options: Options, reactor: Any) -> Entrance:
    """What makes endpoints and certificates."""
    proxies: Networks = options["trust-proxy"]
    trusts = proxies.__contains__ if proxies != Networks() else None
    return Entrance(reactor, trusts, options["tls"], options["tls-client-ca"])


def make_web(
    options: Options, reactor: Any, entrance: Entrance, counts: Counts, sessions: Sessions, processor: object
) -> MultiService:
    """What ``--http`` asks for, if anything.

    :raises StartError: where a library is missing, and for a processor's pages that are none.
    """
    web = MultiService()
    where = options["http"]
    if where:
        from smtpserv.web import make_site

        shown, name = IPages(processor, None), options["hostname"]
        try:
            pages = {} if shown is None else dict(shown.pages)
            site = make_site(counts, lambda: sessions.is_draining, reactor, pages, name)
        except (TypeError, ValueError, AttributeError) as error:
            raise StartError(f"--processor: its pages can't be served: {error}") from error
        Listener("http", where, entrance.endpoint(where, "http"), site).setServiceParent(web)
        Pulse(reactor, counts.stalls).setServiceParent(web)
    return web


def make_authentication(options: Options, reactor: Any) -> IAuthentication | None:
    """What AUTH asks; None where it is not offered."""
    if not options["auth"]:
        return None
    checkers = [make_checker(each) for each in options["auth"]]
    if not options["tls-client-ca"] and any(isinstance(each, CertificateChecker) for each in checkers):
        raise StartError("--auth=certificate needs --tls-client-ca")
    return Authentication(
        checkers,
        reactor,
        without_tls=options["auth-without-tls"],
        hostname=options["hostname"],
        max_failures=options["max-auth-failures"],
    )


def has_tls(options: Options) -> bool:
    """Whether there is an endpoint on which clients may use TLS."""
    return bool(options["tls"]) or any("tls:" in each for each in options["listen"] + options["lmtp"])


def answers_of(extensions: list[IExtension]) -> dict[str, Foreigner]:
    """What answers each verb that extensions from outside add."""

    def answer_of(extension: IExtension, verb: str) -> Foreigner:
        return lambda session, argument: extension.perform(session, verb, argument)

    return {verb: answer_of(each, verb) for each in extensions for verb in each.verbs}


_FORMATS: Final = {"text": render_text, "json": render_json}


def as_streaming(
    processor: object, reactor: Any, limits: Limits, filters: Sequence[object] = ()
) -> ITransactionProcessor | IStreamingProcessor:
    """The processor behind its filters, as the engine uses it; whoever needs whole messages is given them."""
    in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    return arrange(processor, filters, in_thread, limits.memory_limit)


def make_terms(options: Options, processor: object, extensions: Iterable[IExtension] = ()) -> Terms:
    """What the server offers its clients.

    :raises StartError: for what can't be required, and for extensions that are in each other's way.
    """
    for name in ("require-tls", "tls-client-ca"):
        if options[name] and not has_tls(options):
            raise StartError(f"--{name} needs --tls")
    if options["require-auth"] and not options["auth"]:
        raise StartError("--require-auth needs --auth")
    if options["bare-newlines"] is BareNewlines.ALLOW and IRelayingProcessor.providedBy(processor):
        # What ends a line for one server is text to another: so one message becomes two.
        raise StartError("--bare-newlines=allow can't go with a processor that relays; use normalize")
    support = IExtensionSupport(processor, None)
    return Terms(
        hostname=options["hostname"],
        max_size=options["max-size"],
        max_recipients=options["max-recipients"],
        max_errors=options["max-errors"],
        max_commands=options["max-commands"],
        bare_newlines=options["bare-newlines"],
        tls=bool(options["tls"]),
        auth=bool(options["auth"]),
        require_tls=options["require-tls"],
        require_auth=options["require-auth"],
        honours=support.honours if support is not None else frozenset(),
        extensions=EXTENSIONS + rows_of(extensions),
    )


def rows_of(extensions: Iterable[IExtension]) -> tuple[Extension, ...]:
    """The rows of extensions from outside.

    :raises StartError: for a word that could not be said, or that is another's.
    """
    rows = []
    taken = {verb.decode("ascii") for verb in PARSERS}.union(*map(_words_of, EXTENSIONS))
    for each in extensions:
        words = _words_of(each)
        wrong = [word for word in words if not _KEYWORD.fullmatch(word)]
        wrong += [each.argument] if not _ARGUMENT.fullmatch(each.argument) else []
        if wrong or words & taken:
            word, fault = (wrong[0], "can't be said") if wrong else (min(words & taken), "is taken")
            raise StartError(f"--extension: {word!r} {fault}")
        taken |= words
        rows.append(_row_of(each))
    return tuple(rows)


def _words_of(extension: IExtension | Extension) -> set[str]:
    return {extension.keyword, *extension.verbs, *extension.mail, *extension.rcpt}


def _row_of(extension: IExtension) -> Extension:
    return Extension(
        extension.keyword,
        argument=lambda *_: extension.argument,
        mail={name: _careful(check) for name, check in extension.mail.items()},
        rcpt={name: _careful(check) for name, check in extension.rcpt.items()},
        verbs={verb: foreign(verb) for verb in extension.verbs},
        allowance=extension.allowance,
    )


def _careful(check: Check) -> Check:
    """A stranger's check that fails has not found the value good."""

    def checked(value: str | None) -> bool:
        try:
            return check(value)
        except Exception:
            _log.failure("The check of a parameter failed")
            return False

    return checked


#: What may be a keyword (RFC 5321 section 4.1.1.1), in capitals.
_KEYWORD: Final = re.compile("[A-Z0-9][A-Z0-9-]*")

#: What may follow it, on a line of at most 512 octets.
_ARGUMENT: Final = re.compile("[ -~]{0,400}")


def make_limits(options: Options) -> Limits:
    """What the server bears."""
    return Limits(
        max_connections=options["max-connections"],
        max_connections_per_address=options["max-connections-per-address"],
        idle_timeout=options["idle-timeout"],
        session_deadline=options["session-deadline"],
        data_deadline=options["data-deadline"],
        min_data_rate=options["min-data-rate"],
        processing_deadline=options["processing-deadline"],
    )
