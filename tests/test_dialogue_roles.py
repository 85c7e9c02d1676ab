"""Client and server joined: one table, and so they agree, however the network splits what they say."""

import contextlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.dialogue import state
from smtpserv.dialogue.client import Answer, ClientDialogue
from smtpserv.dialogue.command import Auth, Command, Hello, Mail, Plain, Rcpt, Response
from smtpserv.dialogue.event import Content, EndOfData, Event
from smtpserv.dialogue.extension import Standing
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.dialogue.terms import Terms
from smtpserv.message import ForwardPath, ReversePath
from smtpserv.reply import Reply, Results
from tests.fuzz import examples
from tests.fuzz.strategies import MAILBOXES, WHOLE_CONTENTS

MAIL: Final = Mail(ReversePath("a@a.example"))
RCPT: Final = Rcpt(ForwardPath("b@b.example"))
DATA: Final = Plain("DATA")
EVERYWHERE: Final = range(1 << 30)


class Wire:
    """One direction: cuts what goes over it at places, counted from its begin."""

    def __init__(self, places: Container[int]) -> None:
        self._places = places
        self.length = 0

    def carry(self, octets: bytes) -> list[bytes]:
        """The pieces that arrive."""
        places = [place for place in range(1, len(octets)) if self.length + place in self._places]
        self.length += len(octets)
        return [octets[start:end] for start, end in pairwise([0, *places, len(octets)])] if octets else []


@dataclass
class Told:
    """All that both sides learned of each other."""

    answers: list[Answer] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)


class Joined:
    """A client and a server.

    :param up: where what the client says is cut; down: what the server says.
    :param answers: what the server says to each verb, in turn; None accepts, as when they are used up.
    """

    def __init__(
        self,
        up: Container[int] = (),
        down: Container[int] = (),
        answers: Mapping[str, Sequence[Reply | Results | None]] | None = None,
        **terms: Any,
    ) -> None:
        self.client = ClientDialogue(bool(terms.get("lmtp")))
        self.server = ServerDialogue(Terms(**{"hostname": "mx.example", "tls": True, "auth": True, **terms}))
        self.server.stand(Standing(mechanisms=("PLAIN",)))
        self.up, self.down = Wire(up), Wire(down)
        self.told = Told()
        self._answers = {verb: iter(each) for verb, each in (answers or {}).items()}
        self._content = b""
        self.server.send()
        self.settle()

    def say(self, *commands: Command) -> None:
        """The client says them, as fast as it may, and all is answered."""
        for command in commands:
            self.client.say(command)
        self.settle()

    def message(self, content: bytes, *behind: Command) -> None:
        """The client sends mail data, its end, and what may follow that at once."""
        self.client.write(content[:7])
        self.client.write(content[7:])
        self.client.end()
        self.say(*behind)

    def settle(self) -> None:
        """Until neither has more to say; then they are in the same state."""
        moved = True
        while moved:
            out = self.client.take_output()
            for piece in self.up.carry(out):
                self.server.receive(piece)
                self._serve()
            back = self.server.take_output()
            for piece in self.down.carry(back):
                self.client.receive(piece)
                self.told.answers += iter(self.client.next_answer, None)
            moved = bool(out or back)
        assert self.client.awaited is None or self.client.state.is_deaf, self.client.awaited
        assert self.client.state is self.server.state, f"{self.client.state} is not {self.server.state}"
        self.told.states.append(self.client.state)

    def shake_hands(self) -> None:
        """What comes next comes under TLS."""
        self.client.secured()
        self.server.secured(Standing(secure=True, mechanisms=("PLAIN",)))

    def _serve(self) -> None:
        while (event := self.server.next_event()) is not None:
            if isinstance(event, Content):
                self._content += event.octets
                continue
            self.told.events.append(event)
            if isinstance(event, EndOfData):
                self.told.contents.append(self._content)
                self._content = b""
            if self.server.owed is not None:
                self.server.send(next(self._answers.get(self.server.owed, iter(())), None))


NO: Final = Reply(550, "No\nand no", "5.1.1")
CHALLENGE: Final = Reply(334, "dj1x", "")


def session(up: Container[int] = (), down: Container[int] = ()) -> Joined:
    """A session in which all that there is is said."""
    pair = Joined(up, down, {"RCPT": [None, NO], "AUTH": [CHALLENGE], state.RESPONSE: [CHALLENGE, NO]})
    pair.say(Hello("EHLO", "client.example"))
    pair.say(MAIL, RCPT, RCPT, DATA)
    pair.message(b"..\r\n.\r\n\r\n.a", MAIL, RCPT)
    pair.client.write_chunk(b".\r\n", last=False)
    pair.client.write_chunk(b"b\r\n", last=True)
    pair.say(Plain("NOOP", "x"), Plain("STARTTLS"))
    pair.shake_hands()
    pair.say(Hello("EHLO", "tls.example"))
    pair.say(Auth("PLAIN", None))
    pair.say(Response(b"x"))
    pair.say(Response(b""))
    pair.say(MAIL, Plain("RSET"), Plain("QUIT"))
    return pair


def lmtp_session(up: Container[int] = (), down: Container[int] = ()) -> Joined:
    """The same under LMTP, where a message has many answers."""
    results = Results([Reply(250, "a"), NO])
    pair = Joined(up, down, {state.END_OF_DATA: [results], state.LAST_CHUNK: [results]}, lmtp=True)
    pair.say(Hello("LHLO", "client.example"))
    pair.say(MAIL, RCPT, RCPT, DATA)
    pair.message(b"a", MAIL, RCPT, RCPT)
    pair.client.write_chunk(b"b\r\n", last=True)
    pair.say(Plain("QUIT"))
    return pair


class SplitTests(SynchronousTestCase):
    """The network's packets mean nothing."""

    def test_session(self) -> None:
        """What is told in a whole session."""
        told = session().told
        self.assertEqual(told.contents, [b"..\r\n.\r\n\r\n.a\r\n", b".\r\nb\r\n"])
        codes = [each[1].code for each in told.answers if isinstance(each[1], Reply)]
        self.assertEqual(
            codes,
            [
                220,
                250,
                250,
                250,
                550,
                354,
                250,
                250,
                250,
                250,
                250,
                250,
                220,
                250,
                334,
                334,
                550,
                250,
                250,
                221,
            ],
        )
        self.assertIn(state.TLS, told.states)
        self.assertIn(state.AUTH, told.states)
        self.assertIs(told.states[-1], state.CLOSED)

    def test_lmtp(self) -> None:
        """And of a session of LMTP."""
        told = lmtp_session().told
        self.assertEqual(told.contents, [b"a\r\n", b"b\r\n"])
        results = [each[1] for each in told.answers if isinstance(each[1], Results)]
        self.assertEqual(results, [Results([Reply(250, "a"), NO])] * 2)

    def test_every_split(self) -> None:
        """It is the same at every split of either direction, and octet by octet of both."""
        for converse in (session, lmtp_session):
            whole = converse()
            for length, way in ((whole.up.length, "up"), (whole.down.length, "down")):
                for place in range(1, length):
                    self.assertEqual(converse(**{way: {place}}).told, whole.told, f"{way} at {place}")
            self.assertEqual(converse(EVERYWHERE, EVERYWHERE).told, whole.told)


#: What the server says to a command, None to accept.
ANSWERS: Final = st.sampled_from([None, None, None, Reply(450, "Later"), NO, Reply(421, "Gone")])

#: What a client may say, in order or not.
COMMANDS: Final[st.SearchStrategy[Command]] = st.one_of(
    st.sampled_from([Hello("EHLO", "x"), MAIL, RCPT, RCPT, DATA, DATA]),
    st.sampled_from([Plain("RSET"), Plain("NOOP"), Plain("VRFY", "x"), Plain("STARTTLS"), Plain("QUIT")]),
    st.sampled_from([Auth("PLAIN", b"x"), Response(b"x")]),
    MAILBOXES.map(lambda address: Rcpt(ForwardPath(address))),
)


class AgreementTests(SynchronousTestCase):
    """Whatever is said and answered."""

    @examples(100)
    @given(
        st.lists(st.lists(COMMANDS, min_size=1, max_size=4) | WHOLE_CONTENTS | st.booleans(), max_size=12),
        st.fixed_dictionaries(
            {
                verb: st.lists(ANSWERS, max_size=4)
                for verb in ("EHLO", "MAIL", "RCPT", "DATA", "STARTTLS", state.END_OF_DATA, state.LAST_CHUNK)
            }
        ),
        st.sets(st.integers(0, 1000), max_size=30),
        st.sets(st.integers(0, 1000), max_size=30),
    )
    def test_agreement(
        self,
        said: list[list[Command] | bytes | bool],
        answers: dict[str, list[Reply | None]],
        up: set[int],
        down: set[int],
    ) -> None:
        """The client says what it may; then both are in the same state, and each command has its answer."""
        answers["AUTH"] = [CHALLENGE] * 3
        pair = Joined(up, down, answers, max_errors=1000)
        pair.say(Hello("EHLO", "client.example"))
        asked = 2
        for each in said:
            if pair.client.state is state.TLS:
                pair.shake_hands()
            asked += self.take_part(pair, each)
            pair.settle()
        if pair.client.state is not state.CLOSED:
            self.assertEqual(len(pair.told.answers), asked)

    @staticmethod
    def take_part(pair: Joined, what: list[Command] | bytes | bool) -> int:
        """Say commands, a message or a chunk as far as it is in order; how many answers are owed for it."""
        client, asked = pair.client, 0
        for each in what if isinstance(what, list) else [what]:
            with contextlib.suppress(ValueError):
                if isinstance(each, bytes):
                    client.write(each)
                    client.end()
                elif isinstance(each, bool):
                    client.write_chunk(b"text\r\n", each)
                else:
                    client.say(each)
                asked += 1
        return asked
