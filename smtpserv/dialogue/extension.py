"""What a service extension is (RFC 5321 section 2.2): one row, wherever it comes from.

The built-in rows are in :mod:`smtpserv.dialogue.extensions`; what a server makes of them for its sessions is
in :mod:`smtpserv.dialogue.terms`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from smtpserv import reply
from smtpserv.dialogue.command import Parse
from smtpserv.error import SMTPError
from smtpserv.message import Parameters
from smtpserv.reply import Reply

#: Says whether a parameter's value, None where it has none, is in good form.
Check = Callable[[str | None], bool]


class Standing(NamedTuple):
    """What a session has come to, as far as it decides what it is offered.

    :param secure: whether TLS protects it.
    :param authenticated: whether the client has proved who it is.
    :param mechanisms: the SASL mechanisms it may use.
    :param trusted: whether it may speak for other clients.
    """

    secure: bool = False
    authenticated: bool = False
    mechanisms: tuple[str, ...] = ()
    trusted: bool = False


def _no_argument(terms: Any, standing: Standing) -> str:
    return ""


def _always(terms: Any, standing: Standing) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Extension:
    """What one EHLO keyword means. What depends on the server is given its :class:`~.terms.Terms`.

    :param keyword: as EHLO announces it.
    :param argument: what follows the keyword.
    :param offered: whether it is announced, and with it all that follows here is in force.
    :param mail: the parameters it adds to MAIL, and how each is checked.
    :param rcpt: the same for RCPT.
    :param one_of: parameters that exclude each other.
    :param verbs: the commands it adds, and how each is parsed.
    :param withheld: the reply to one of its commands while it is not offered.
    :param allowance: octets it adds to the longest command line.
    """

    keyword: str
    argument: Callable[[Any, Standing], str] = _no_argument
    offered: Callable[[Any, Standing], bool] = _always
    mail: Mapping[str, Check] = field(default_factory=dict)
    rcpt: Mapping[str, Check] = field(default_factory=dict)
    one_of: frozenset[str] = frozenset()
    verbs: Mapping[str, Parse] = field(default_factory=dict)
    withheld: Reply = reply.OUT_OF_ORDER
    allowance: int = 0


def check_parameters(
    parameters: Parameters, permitted: Mapping[str, Check], one_of: Iterable[frozenset[str]] = ()
) -> None:
    """Check each parameter by its row.

    :param one_of: sets of parameters that exclude each other.
    :raises SMTPError: 555 for one that no announced extension has, 501 for a value in bad form, and for
        two that exclude each other.
    """
    for keyword, value in parameters.items():
        check = permitted.get(keyword)
        if check is None:
            raise SMTPError(reply.unknown_parameter(keyword[:40]))
        if not check(value):
            raise SMTPError(reply.BAD_PARAMETER)
    for each in one_of:
        if len(each & parameters.keys()) > 1:
            raise SMTPError(reply.BAD_PARAMETER)
