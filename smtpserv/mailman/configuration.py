"""``smtpserv mailman-config``: what Mailman 3 must be told so that its mail goes through smtpserv."""

from dataclasses import dataclass
from typing import ClassVar, Final

from twisted.python.usage import Options

from smtpserv.arguments import read_argument
from smtpserv.error import StartError


@dataclass(frozen=True, slots=True)
class MailmanOptions:
    """Where each finds the other.

    :param lmtp_host: where Mailman listens, ``lmtp=`` of the processor.
    :param smtp_host: where smtpserv listens, ``--listen``: from there Mailman must be let relay
        (``--relay-from``).
    :param map_config: where ``map=`` is used, the file to be written for Mailman's map; empty without.
    :raises StartError: for what can't stand in mailman.cfg.
    """

    lmtp_host: str = "127.0.0.1"
    lmtp_port: int = 8024
    smtp_host: str = "127.0.0.1"
    smtp_port: int = 8025
    map_config: str = ""

    def __post_init__(self) -> None:
        for text in (self.lmtp_host, self.smtp_host, self.map_config):
            if not text.isprintable() or text != text.strip():
                raise StartError(f"{text!r} can't stand in mailman.cfg")
        for port in (self.lmtp_port, self.smtp_port):
            if not 0 < port < 65536:
                raise StartError(f"{port} is no port")
        if self.map_config and not self.map_config.startswith("/"):
            raise StartError(f"{self.map_config} is no absolute path, and Mailman wants one")


def mailman_config(options: MailmanOptions) -> str:
    """The lines for mailman.cfg, with remarks for whoever comes from another mail server."""
    incoming = _MAP if options.map_config else _ASKED
    return _TEXT.format(
        options=options, incoming=incoming.format(options=options), here=_where(options), mta=_OTHERS
    )


def _where(options: MailmanOptions) -> str:
    """The arguments of the processor that belong to it; a colon in one needs a backslash."""
    host = options.lmtp_host.replace(":", "\\:")
    way = ":map=VAR_DIR/data/postfix_lmtp" if options.map_config else ""
    return f"mailman:UPSTREAM:lmtp={host},{options.lmtp_port}{way}"


class _Options(Options):
    """What ``smtpserv mailman-config`` takes."""

    synopsis = "Usage: smtpserv mailman-config [options]"
    longdesc = "Prints what mailman.cfg of GNU Mailman 3 must say so that its mail goes through smtpserv."
    optParameters: ClassVar[list[list[str | None]]] = [
        ["lmtp", None, "127.0.0.1,8024", "where Mailman listens: HOST,PORT"],
        ["smtp", None, "127.0.0.1,8025", "where smtpserv listens: HOST,PORT"],
        ["map", None, "", "a file to be written for Mailman, where smtpserv watches its map (map=)"],
    ]


def command(arguments: list[str]) -> str:
    """What ``smtpserv mailman-config`` prints.

    :raises UsageError: for an option that is none.
    :raises StartError: for a value that can't be used.
    """
    options = _Options()
    options.parseOptions(arguments)
    lmtp_host, lmtp_port = read_argument("--lmtp", read_place, options["lmtp"])
    smtp_host, smtp_port = read_argument("--smtp", read_place, options["smtp"])
    return mailman_config(MailmanOptions(lmtp_host, lmtp_port, smtp_host, smtp_port, options["map"]))


def read_place(written: str) -> tuple[str, int]:
    """Where a server is.

    :raises ValueError: for what does not tell both.
    """
    host, _, port = written.rpartition(",")
    is_number = port.isascii() and port.isdigit() and len(port) < 6
    if not (host and is_number and 0 < int(port) < 65536):
        raise ValueError("HOST,PORT")
    return host, int(port)


_TEXT: Final = """\
# For mailman.cfg of GNU Mailman 3, in place of what its section [mta] has; then: mailman restart
# On smtpserv's side: --processor={here}

[mta]
{incoming}
# What comes for a list is given to Mailman here, by LMTP:
lmtp_host: {options.lmtp_host}
lmtp_port: {options.lmtp_port}
# What Mailman sends goes back through smtpserv, which hands notices to list owners to Mailman again:
outgoing: mailman.mta.deliver.deliver
smtp_host: {options.smtp_host}
smtp_port: {options.smtp_port}

{mta}"""

# NullMTA reads no configuration; but the default one names a program that need not be there.
_ASKED: Final = """\
# Nothing is to be written for a mail server: smtpserv asks which lists there are.
incoming: mailman.mta.null.NullMTA
configuration: python:mailman.config.exim4"""

_MAP: Final = """\
# The map that smtpserv watches is written anew whenever a list comes or goes. Two lines are in
# {options.map_config}:
#   [postfix]
#   transport_file_type: regex
incoming: mailman.mta.postfix.LMTP
configuration: {options.map_config}"""

_OTHERS: Final = """\
# Where another mail server took the lists' mail so far, and smtpserv now does:
#   Postfix   main.cf: take Mailman's files (data/postfix_lmtp, data/postfix_domains) out of transport_maps,
#             local_recipient_maps and relay_domains. If it stays in front of smtpserv: relay_domains has the
#             lists' domains, and transport_maps sends them to smtp:[SMTPSERV]:PORT.
#   Exim      take the router and the transport for Mailman out. If it stays in front: a manualroute router
#             for the lists' domains, with route_list = * SMTPSERV::PORT
#   OpenSMTPD smtpd.conf: action "lists" relay host smtp://SMTPSERV:PORT
#             and match for domain { LIST-DOMAIN } action "lists", in place of delivery by lmtp.
# A server behind smtpserv (its UPSTREAM) needs none of this; it must let smtpserv's machine relay.
"""
