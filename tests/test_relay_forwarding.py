"""Telling a server behind us who our client is."""

from collections.abc import Mapping
from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue.command import Override, parse_xforward
from smtpserv.dialogue.wording import render
from smtpserv.error import SMTPError
from smtpserv.message import Peer, Session
from smtpserv.relay.forwarding import introduction
from tests.fuzz import examples

XFORWARD: Final = {"XFORWARD": "NAME ADDR PORT PROTO HELO IDENT SOURCE"}
XCLIENT: Final = {"XCLIENT": "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"}
SESSION: Final = Session("3f2a", Peer("192.0.2.1", 2525), "EHLO", "client.example", identity="tim")


def told(session: Session, offers: Mapping[str, str]) -> Mapping[str, str | None]:
    """What is said."""
    said = introduction(session, offers)
    assert said is not None
    return said.attributes


class IntroductionTests(SynchronousTestCase):
    """``introduction``."""

    def test_xforward(self) -> None:
        """What is for the log."""
        said = introduction(SESSION, XFORWARD)
        assert said is not None
        self.assertEqual(
            render(said),
            b"XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=2525 PROTO=ESMTP HELO=client.example"
            b" IDENT=3f2a SOURCE=REMOTE\r\n",
        )

    def test_xclient(self) -> None:
        """What is gone by: who authenticated, too."""
        self.assertEqual(
            introduction(SESSION, XCLIENT),
            Override(
                "XCLIENT",
                {
                    "NAME": None,
                    "ADDR": "192.0.2.1",
                    "PORT": "2525",
                    "PROTO": "ESMTP",
                    "HELO": "client.example",
                    "LOGIN": "tim",
                },
            ),
        )

    def test_both(self) -> None:
        """XFORWARD where there is a choice: it takes nothing from us."""
        said = introduction(SESSION, XCLIENT | XFORWARD)
        assert said is not None
        self.assertEqual(said.verb, "XFORWARD")
        fallen_back = introduction(SESSION, XCLIENT | {"XFORWARD": ""})
        assert fallen_back is not None
        self.assertEqual(fallen_back.verb, "XCLIENT")

    def test_what_is_wanted(self) -> None:
        """Nothing but what the server wants to hear, in whatever case it says so."""
        self.assertEqual(
            told(SESSION, {"XFORWARD": "addr Helo UNHEARD"}), {"ADDR": "192.0.2.1", "HELO": "client.example"}
        )
        for offers in ({}, {"XFORWARD": ""}, {"XCLIENT": "UNHEARD"}, {"DSN": "ADDR"}):
            self.assertIsNone(introduction(SESSION, offers))

    def test_addresses(self) -> None:
        """As the protocol writes them; of a Unix socket there is none."""
        for host, address, source in (
            ("2001:db8::1", "IPv6:2001:db8::1", "REMOTE"),
            ("::ffff:192.0.2.1", "192.0.2.1", "REMOTE"),
            ("fe80::1%eth0", "IPv6:fe80::1", "REMOTE"),
            ("127.0.0.1", "127.0.0.1", "LOCAL"),
            ("::1", "IPv6:::1", "LOCAL"),
            ("/run/x", None, "LOCAL"),
            ("", None, "LOCAL"),
        ):
            facts = told(Session("1", Peer(host)), XFORWARD)
            self.assertEqual((facts["ADDR"], facts["SOURCE"], facts["PORT"]), (address, source, None))

    def test_unknown(self) -> None:
        """What is not known is told so."""
        facts = told(Session("1", Peer("192.0.2.1")), XCLIENT)
        self.assertEqual((facts["HELO"], facts["LOGIN"], facts["PORT"]), (None, None, None))

    def test_protocol(self) -> None:
        """HELO is SMTP, any other hello is ESMTP."""
        protocols = {
            verb: told(Session("1", Peer("192.0.2.1"), verb), XFORWARD)["PROTO"]
            for verb in ("HELO", "EHLO", "LHLO")
        }
        self.assertEqual(protocols, {"HELO": "SMTP", "EHLO": "ESMTP", "LHLO": "ESMTP"})

    def test_forwarded(self) -> None:
        """Whom a client of ours relays for is told as it told us, and nothing of the client itself."""
        forwarded = Session("1", Peer("192.0.2.1"), forwarded={"ADDR": "198.51.100.7", "NAME": None})
        self.assertEqual(told(forwarded, XFORWARD), {"ADDR": "198.51.100.7", "NAME": None})

    @examples(60)
    @given(st.text(max_size=20), st.text(max_size=20))
    def test_injection(self, hello: str, id: str) -> None:
        """Whatever a client calls itself makes one line, and no other attribute."""
        said = introduction(Session(id, Peer("192.0.2.1"), "EHLO", hello), XFORWARD)
        assert said is not None
        try:
            line = render(said)
        except ValueError:  # a lone surrogate, which comes from nowhere
            return
        self.assertEqual(line.count(b"\n"), 1)
        try:
            self.assertEqual(parse_xforward(line[len("XFORWARD ") : -2]), said)
        except SMTPError:  # not printable, and refused
            self.assertFalse(hello.isprintable() and id.isprintable())
