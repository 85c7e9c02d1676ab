"""Who may relay: every trick that once turned a mail server into an open relay, and who is let through."""

from collections.abc import Awaitable

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpserv import reply
from smtpserv.dialogue.command import PARSERS, Rcpt, parse_command
from smtpserv.domain import Domains
from smtpserv.error import SMTPError
from smtpserv.interfaces import IRecipientPolicy
from smtpserv.message import ForwardPath, Peer, ReversePath, Session
from smtpserv.network import Networks
from smtpserv.policy.access import RelayAccess
from smtpserv.testing import RecordingProcessor, memory_session
from tests.fuzz import examples
from tests.fuzz.strategies import WIDE_LOCAL_PARTS
from tests.server_tools import HELLO, codes

ACCESS = RelayAccess(Networks.parse("127.0.0.0/8,::1"), Domains.parse("ours.example,xn--bcher-kva.example"))
STRANGER = Session("s", Peer("203.0.113.9", 2525), "EHLO", "ours.example")
REVERSE_PATHS = (ReversePath(""), ReversePath("boss@ours.example"), ReversePath("x@[127.0.0.1]"))

#: Forward-paths as relay testers send them; a stranger gets through with none.
TRICKS = """
user@other.example
USER@OTHER.EXAMPLE
user@ours.example.other.example
user@sub.ours.example
user@notours.example
user@ours.exampl
user@example
user@ours
user%other.example@ours.example
user%other.example@OURS.EXAMPLE
user%other.example%x@ours.example
user%[203.0.113.1]@ours.example
user%other.example
other.example!user@ours.example
a!b!user@ours.example
other.example!user
ours.example!user@other.example
"user@other.example"@ours.example
"user@other.example"
"user\\@other.example"@ours.example
"user%other.example"@ours.example
"user%other.example"
"other.example!user"@ours.example
user@other.example@ours.example
user@ours.example@other.example
user%ours.example@other.example
"user@ours.example"@other.example
@ours.example:user@other.example
@other.example:user@other.example
@ours.example,@other.example:user@other.example
@other.example:user%other.example@ours.example
user@[203.0.113.1]
user@[203.0.113.9]
user@[127.0.0.1]
user@[192.0.2.25]
user@[IPv6:::1]
user@[IPv6:2001:db8::1]
user@[ours.example]
user@[tag:ours.example]
"user@[203.0.113.1]"@ours.example
user@localhost
user@127.0.0.1
user@3405803777
user@ours.example.
user@ours.example..
user@.ours.example
user@ours..example
user@-ours.example
user@ours.example\\.other.example
user@ours.example other.example
user@ours.example,user@other.example
user@ours.example;user@other.example
user@ours.example>,<user@other.example
user@other.example#ours.example
user@other.example?ours.example
user@other.example/ours.example
user@ours.example:25
user@ours.example%other.example
<user@other.example>
:user@other.example
user
user@
@
@ours.example
@@ours.example
@ours.example:
""
postmaster@other.example
postmaster@
postmaster%other.example
postmaster!other.example
"postmaster"
postmasters
user@\u043eurs.example
user@our\uff53.example
user@\uff4furs.example
user@ours\u3002example
user@ours\uff0eexample
user@ours\u2024example
user@o\u200burs.example
user@ours.ex\u00e4mple
user@our\u017f.example
user@b\u00fc\u0441her.example
user@bucher.example
user@xn--bcher-kvb.example
user\uff05other.example@ours.example
user\uff20other.example@ours.example
user\ufe6bother.example@ours.example
other.example\uff01user@ours.example
user\ufe6aother.example@ours.example
""".strip().split("\n")

#: Forward-paths that anybody may send to.
OURS = (
    "user@ours.example",
    "USER@Ours.Example",
    "list-bounces+user=other.example@ours.example",
    '"user name"@ours.example',
    "user@b\u00fccher.example",
    "user@B\u00dcCHER.example",
    "user@XN--bcher-KVA.example",
    "\u00fcser@ours.example",
    "@other.example:user@ours.example",
    "postmaster@ours.example",
    "postmaster",
    "PostMaster",
)


def answered(path: str, session: Session = STRANGER, access: RelayAccess = ACCESS) -> reply.Reply | None:
    """What a recipient is answered who comes by the parser; what this refuses is refused."""
    try:
        command = parse_command(f"RCPT TO:<{path}>".encode(), PARSERS)
    except SMTPError as error:
        return error.reply
    assert isinstance(command, Rcpt)
    (answer,) = {access.check_recipient(session, each, command.forward_path) for each in REVERSE_PATHS}
    assert not isinstance(answer, Awaitable), "without a directory it is known at once"
    return answer


class StrangerTests(SynchronousTestCase):
    """A peer that may not relay."""

    def test_honours_the_interface(self) -> None:
        """It is a policy about recipients."""
        self.assertTrue(verifyObject(IRecipientPolicy, ACCESS))

    def test_tricks(self) -> None:
        """Not one of the relay testers' addresses passes, whatever the reverse-path says."""
        for path in TRICKS:
            answer = answered(path)
            self.assertIsNotNone(answer, path)
            assert answer is not None
            self.assertIn(answer.code, (501, 550), path)

    def test_tricks_unparsed(self) -> None:
        """Nor would it pass if the parser let it through, unless it is ours but for a dot at its end."""
        for path in TRICKS:
            answer = ACCESS.check_recipient(STRANGER, REVERSE_PATHS[0], ForwardPath(path))
            if path not in ("user@ours.example.", "@ours.example"):
                self.assertIs(answer, reply.RELAY_DENIED, path)

    def test_ours(self) -> None:
        """Mail to our domains passes, in any form of their names, and so does mail to the postmaster."""
        for path in OURS:
            self.assertIsNone(answered(path), path)

    def test_no_domains(self) -> None:
        """Without domains of our own only the postmaster is left."""
        access = RelayAccess(Networks(), Domains())
        passing = [path for path in (*OURS, *TRICKS) if answered(path, access=access) is None]
        self.assertEqual(passing, ["postmaster", "PostMaster"])

    def test_routed(self) -> None:
        """The percent sign passes where the operator says so, and only to our domains."""
        access = RelayAccess(Networks(), ACCESS.relay_to, routed=True)
        self.assertIsNone(answered("user%other.example@ours.example", access=access))
        self.assertIs(answered("user%ours.example@other.example", access=access), reply.RELAY_DENIED)

    @given(WIDE_LOCAL_PARTS)
    @examples(200)
    def test_any_local_part(self, local_part: str) -> None:
        """A domain elsewhere is refused whatever the local-part; one of ours takes it without a route."""
        self.assertIs(answered(f"{local_part}@other.example"), reply.RELAY_DENIED)
        expected = reply.RELAY_DENIED if set("%!@") & set(local_part) else None
        self.assertIs(answered(f"{local_part}@ours.example"), expected)

    def test_in_a_session(self) -> None:
        """A client is told 550 5.7.1, and goes on with the recipients it may have."""
        session = memory_session(RecordingProcessor(), peer=STRANGER.peer, policies=[ACCESS])
        session.say(HELLO + b"MAIL FROM:<>\r\n")
        heard = session.say(b"RCPT TO:<a@other.example>\r\nRCPT TO:<a@ours.example>\r\n")
        self.assertEqual(codes(heard), ["550 5.7.1", "250 2.1.5"])


class RelayTests(SynchronousTestCase):
    """A session that may relay."""

    def test_by_address(self) -> None:
        """Whoever comes from the networks given may send anywhere; from elsewhere, or a socket, nobody."""
        for host, may in {
            "127.0.0.1": True,
            "::ffff:127.8.8.8": True,
            "::1": True,
            "128.0.0.1": False,
            "::2": False,
            "": False,
            "/run/x": False,
            "127.0.0.1.other.example": False,
        }.items():
            session = Session("s", Peer(host))
            self.assertIs(ACCESS.may_relay(session), may, host)
            self.assertIs(answered("user@other.example", session) is None, may, host)
            self.assertIs(answered("a%b@[203.0.113.1]", session) is None, may, host)

    def test_by_identity(self) -> None:
        """Whoever authenticated may send anywhere; an identity without a name is nobody's."""
        for identity, may in {"user": True, "": False, None: False}.items():
            session = Session("s", STRANGER.peer, identity=identity)
            self.assertIs(ACCESS.may_relay(session), may)
            self.assertIs(answered("user@other.example", session) is None, may)

    def test_hello_name_proves_nothing(self) -> None:
        """What a client calls itself does not matter."""
        for name in ("localhost", "[127.0.0.1]", "ours.example"):
            self.assertFalse(ACCESS.may_relay(Session("s", STRANGER.peer, "EHLO", name)))
