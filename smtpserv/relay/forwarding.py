"""Telling a server behind us who our client is: XFORWARD, which it logs, or XCLIENT, which it goes by.

https://www.postfix.org/XFORWARD_README.html and XCLIENT_README.html
"""

from collections.abc import Mapping

from smtpserv.dialogue.command import Hello, Override
from smtpserv.dialogue.grammar import is_hello_name
from smtpserv.message import Session
from smtpserv.network import ip_address, is_local


def introduction(session: Session, offers: Mapping[str, str]) -> Override | None:
    """What to say of a client before MAIL, of what the server wants to hear; None when it wants nothing.

    XFORWARD comes first: XCLIENT makes the server forget us for its client, its rights included.
    """
    facts = _facts(session)
    for verb in ("XFORWARD", "XCLIENT"):
        wanted = offers.get(verb, "").upper().split()
        told = {name: value for name, value in facts.items() if name in wanted}
        if told:
            return Override(verb, told)
    return None


def hello_as(session: Session, own: Hello | None) -> Hello:
    """The hello behind XCLIENT: it is the client's by then, and the server takes its name for the client's.

    :param own: ours, which stands where the client's name is not known or could not be said.
    """
    assert own is not None, "XCLIENT is offered in the answer to a hello"
    name = _facts(session).get("HELO") or ""
    return Hello(own.verb, name) if is_hello_name(name.encode()) else own


def _facts(session: Session) -> Mapping[str, str | None]:
    """What is known by the attributes' names; whom a client of ours relays for is told as it told us."""
    if session.forwarded:
        return session.forwarded
    host = session.peer.host
    address = ip_address(host)
    written = None if address is None else f"IPv6:{address}" if address.version == 6 else str(address)
    return {
        "NAME": None,
        "ADDR": written,
        "PORT": str(session.peer.port) if session.peer.port else None,
        "PROTO": "SMTP" if session.greeting_verb == "HELO" else "ESMTP",
        "HELO": session.hello_name or None,
        "LOGIN": session.identity,
        "IDENT": session.id,
        "SOURCE": "LOCAL" if is_local(host) else "REMOTE",
    }
