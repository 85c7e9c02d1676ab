"""Whatever a client sends, and however the network cuts it: the properties that the dialogue keeps.

``SMTPSERV_EXAMPLES=1000 trial tests.test_dialogue_properties`` makes a thousand times as many inputs.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import reply
from smtpserv.dialogue import state
from smtpserv.dialogue.event import Content, Data, EndOfData, Event
from smtpserv.dialogue.replies import whole_replies
from smtpserv.dialogue.server import ServerDialogue
from smtpserv.dialogue.terms import BareNewlines, Terms
from smtpserv.reply import Reply
from smtpserv.testing import DialoguePair, RecordingProcessor, memory_session
from tests.fuzz import examples
from tests.fuzz.strategies import COMMANDS, CONTENTS, CONVERSATIONS, NOISE, PLACES, cut

#: What a colleague may answer to anything, None to accept.
REFUSALS: Final = (None, None, None, Reply(450, "Later"), Reply(550, "No"), Reply(421, "Gone"))
ANSWERS: Final = st.lists(st.sampled_from(REFUSALS), max_size=12)

TERMS: Final = st.builds(
    Terms,
    hostname=st.just("mx.example"),
    max_size=st.sampled_from([20, 1 << 20]),
    max_recipients=st.sampled_from([2, 1000]),
    max_line=st.sampled_from([30, 4096]),
    max_errors=st.sampled_from([3, 20]),
    max_commands=st.sampled_from([5, 1000]),
    bare_newlines=st.sampled_from(BareNewlines),
    tls=st.booleans(),
    require_tls=st.sampled_from([False, False, True]),
    honours=st.sampled_from([frozenset(), frozenset({"DSN", "BINARYMIME", "DELIVERBY", "FUTURERELEASE"})]),
)


@dataclass
class Outcome:
    """What came of a conversation, with nothing in it that depends on the split."""

    said: bytes = b""
    events: list[Event] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)


def events(dialogue: ServerDialogue) -> Iterator[Event]:
    """What it tells; nothing more when it says so."""
    while True:
        is_hungry = dialogue.is_hungry
        event = dialogue.next_event()
        if event is None:
            return
        assert not is_hungry, "there was more to tell"
        yield event


def converse(
    terms: Terms, pieces: Iterable[bytes], answers: Sequence[Reply | None], naps: int = 0
) -> Outcome:
    """Hold a conversation, each event answered in turn; accepted when the answers are used up.

    :param naps: bit by bit, whether what came waits for the next piece before it is looked at.
    """
    dialogue, outcome, remaining = ServerDialogue(terms), Outcome(), iter(answers)
    dialogue.send()
    content = b""
    for number, piece in enumerate([*pieces, b""]):
        dialogue.receive(piece)
        if piece and naps >> number & 1:
            continue
        for event in events(dialogue):
            if isinstance(event, Content):
                assert event.octets, "content of no octets"
                content += event.octets
                continue
            if dialogue.owed is None:
                continue
            outcome.events.append(event)
            if isinstance(event, Data):
                content = b""
            refusal = None
            if isinstance(event, EndOfData):
                refusal = event.refusal
                if refusal is None:
                    outcome.contents.append(content)
                content = b""
            dialogue.send(refusal or next(remaining, None))
        assert dialogue.owed is None
        if dialogue.state is not state.CLOSED:
            assert dialogue.buffered <= terms.line_limit, f"{dialogue.buffered} octets kept"
    outcome.said = dialogue.take_output()
    return outcome


class Splits(SynchronousTestCase):
    """The network's packets mean nothing."""

    @examples(50)
    @given(TERMS, CONVERSATIONS, PLACES, ANSWERS, st.integers(0, 1 << 13))
    def test_dialogue(
        self, terms: Terms, spoken: bytes, places: list[float], answers: list[Reply | None], naps: int
    ) -> None:
        """Any conversation, valid or not, gives the same replies, events and octets however it is split."""
        whole = converse(terms, [spoken], answers)
        self.assertEqual(converse(terms, cut(spoken, places), answers), whole)
        self.assertEqual(converse(terms, cut(spoken, places), answers, naps), whole)
        if len(spoken) < 500:
            self.assertEqual(converse(terms, [bytes([octet]) for octet in spoken], answers), whole)

    @examples(30)
    @given(CONVERSATIONS, PLACES)
    def test_session(self, spoken: bytes, places: list[float]) -> None:
        """The same holds for a whole session: what is heard, and what the processor sees."""
        outcomes = []
        for pieces in ([spoken], cut(spoken, places)):
            processor = RecordingProcessor()
            session = memory_session(processor)
            heard = session.hear() + b"".join(session.say(piece) for piece in pieces)
            messages = [
                (each.envelope.reverse_path, each.envelope.forward_paths, each.content.read())
                for each in processor.messages
            ]
            outcomes.append((re.sub(rb"(?<=Ok, )\S+", b"ID", heard), messages))
        self.assertEqual(*outcomes)


class AnyOctets(SynchronousTestCase):
    """Nothing a client sends breaks the server."""

    @examples(100)
    @given(TERMS, NOISE, PLACES, ANSWERS)
    def test_well_formed(
        self, terms: Terms, noise: bytes, places: list[float], answers: list[Reply | None]
    ) -> None:
        """Any octets at all: no exception, every reply a reply, memory bounded, the last word the last."""
        outcome = converse(terms, cut(noise, places), answers)
        replies = whole_replies(outcome.said)
        self.assertEqual(b"".join(each.octets for each in replies), outcome.said)
        for each in replies[:-1]:
            self.assertNotIn(each.code, (221, 421))
        for event in outcome.events:
            if isinstance(event, Data):
                self.assertTrue(event.forward_paths)
                self.assertLessEqual(len(event.forward_paths), terms.max_recipients)
        for content in outcome.contents:
            self.assertLessEqual(len(content), terms.max_size)

    @examples(40)
    @given(NOISE, PLACES)
    def test_one_reply_each(self, noise: bytes, places: list[float]) -> None:
        """A session without mail data has one reply for each line, and one more for the greeting."""
        noise = b"NOOP\r\n" + re.sub(rb"(?i)ehlo|helo|quit|bdat", b"XXXX", noise)
        terms = Terms(max_errors=1000, max_commands=1000)
        replies = whole_replies(converse(terms, cut(noise, places), ()).said)
        self.assertEqual(len(replies), 1 + noise.count(b"\r\n"))


class Agreement(RuleBasedStateMachine):
    """A client that knows only what is on the wire, and the server, whatever it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.connect()

    def is_over(self) -> bool:
        """Whether the session has ended."""
        return self.pair.client_state is state.CLOSED

    @precondition(is_over)
    @rule()
    def connect(self) -> None:
        """A new session begins."""
        self.pair = DialoguePair(Terms(max_errors=10_000, max_commands=10_000, max_recipients=5))

    def in_mail_data(self) -> bool:
        """Whether the client may send mail data."""
        return self.pair.client_state is state.DATA

    def may_speak(self) -> bool:
        """Whether the client may send a command."""
        return self.pair.client_state not in (state.DATA, state.CLOSED)

    @precondition(may_speak)
    @rule(line=COMMANDS, answer=st.sampled_from(REFUSALS))
    def command(self, line: bytes, answer: Reply | None) -> None:
        """The client says anything."""
        self.pair.command(line, answer)

    @precondition(may_speak)
    @rule(answer=st.sampled_from([None, None, None, Reply(450), Reply(550)]))
    def next_step(self, answer: Reply | None) -> None:
        """The client says what brings it forward."""
        steps = {
            state.CONNECTED: b"EHLO client.example",
            state.READY: b"MAIL FROM:<a@a.example>",
            state.MAIL: b"RCPT TO:<b@b.example>",
            state.RCPT: b"DATA",
            state.BDAT: b"RSET",
        }
        self.pair.command(steps[self.pair.client_state], answer)

    @precondition(may_speak)
    @rule(octets=CONTENTS, last=st.booleans(), answer=st.sampled_from(REFUSALS))
    def chunk(self, octets: bytes, last: bool, answer: Reply | None) -> None:
        """The client sends a chunk, in order or not."""
        self.pair.chunk(octets, last, answer)

    @precondition(may_speak)
    @rule()
    def quit(self) -> None:
        """The client takes its leave."""
        self.pair.command(b"QUIT")

    @precondition(in_mail_data)
    @rule(content=CONTENTS.filter(lambda content: b"\r\n.\r\n" not in b"\r\n" + content + b"\r\n"))
    def mail_data(self, content: bytes) -> None:
        """The client sends a message, which is taken or not."""
        self.pair.mail_data(content + b"\r\n.\r\n")

    @precondition(in_mail_data)
    @rule(answer=st.sampled_from(REFUSALS))
    def answered_mail_data(self, answer: Reply | None) -> None:
        """The client sends a good message, and the server decides."""
        self.pair.mail_data(b"text\r\n.\r\n", answer)

    @invariant()
    def states_agree(self) -> None:
        """Both are in the same state, and nothing is left over."""
        assert self.pair.client_state is self.pair.server.state
        assert self.pair.server.owed is None
        if self.pair.client_state is not state.CLOSED:
            assert self.pair.server.buffered == 0


class Roles(SynchronousTestCase):
    """Client and server run one table, and so they agree."""

    def test_agreement(self) -> None:
        """After every exchange both are in the same state, whatever was said and answered."""
        run_state_machine_as_test(Agreement, settings=examples(20))

    def test_greeting_refused(self) -> None:
        """A pair that never got to know each other agrees as well."""
        pair = DialoguePair(Terms(max_errors=100))
        self.assertEqual(pair.command(b"EHLO x").code, 250)
        self.assertEqual(pair.command(b"QUIT", reply.SHUTTING_DOWN).code, 221)
        self.assertIs(pair.client_state, state.CLOSED)
