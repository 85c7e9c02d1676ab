"""Filters of recipients, before a processor that is asked about them and before one that is not."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpserv import reply
from smtpserv.edit import AddRecipient
from smtpserv.error import Defer, Reject
from smtpserv.filters.arrangement import arrange
from smtpserv.filters.chain import answered
from smtpserv.filters.recipients import MOST
from smtpserv.interfaces import ITransaction, ITransactionProcessor
from smtpserv.message import Envelope, ForwardPath, ReversePath
from smtpserv.reply import Reply, Results
from smtpserv.testing import memory_session
from smtpserv.testing.memory import RecordingProcessor, make_message, run_now
from tests.filter_tools import Filter, HeaderFilter, RecipientFilter, Upstream
from tests.server_tools import CONTENT, ENVELOPE, HELLO, Later, Sink, always, codes

SESSION = make_message().session
YES, NO, LATER = Reply(250, "yes"), Reply(550, "no"), Reply(450, "later")


class RecipientsCase(SynchronousTestCase):
    """Has a client that names recipients, and sends a message to those that were accepted."""

    def result(self, answer: Any) -> Any:
        """The answer, or what was raised."""
        asked = Deferred.fromCoroutine(answered(answer))
        return self.successResultOf(asked.addErrback(lambda failure: failure.value))

    def open(self, processor: object, *filters: object) -> Any:
        """A transaction."""
        self.processor = arrange(processor, filters, run_now, 1 << 20)
        return self.result(self.processor.open(SESSION, ReversePath("a@a.example")))  # type: ignore[union-attr]

    def add(self, transaction: Any, *names: str) -> list[Any]:
        """The code that each recipient is answered."""
        self.named = []
        told = []
        for name in names:
            path = ForwardPath(f"{name}@b.example")
            answer = self.result(transaction.add_recipient(path))
            told.append(answer.code if isinstance(answer, Reply) else answer)
            self.named += [path] if told[-1] == 250 else []
        return told

    def send(self, transaction: Any) -> Any:
        """What becomes of a message for those that were accepted."""
        envelope = Envelope("x.1", ReversePath("a@a.example"), tuple(self.named))
        taking = self.result(transaction.begin(envelope))
        self.assertIsNone(self.result(taking.write(CONTENT)))
        return self.result(taking.finish())


class RewritingTests(RecipientsCase):
    """Whom the processor is asked about, and what the client is told."""

    def test_interfaces(self) -> None:
        """Whatever the processor, the engine may ask it about recipients."""
        for processor in (Upstream(), Sink(), RecordingProcessor()):
            transaction = self.open(processor, RecipientFilter())
            self.assertTrue(verifyObject(ITransactionProcessor, self.processor))
            self.assertTrue(verifyObject(ITransaction, transaction))

    def test_through(self) -> None:
        """Who is let be is asked about as without filters; so is the envelope."""
        upstream = Upstream(c=YES, d=NO)
        transaction = self.open(upstream, RecipientFilter())
        self.assertEqual(self.add(transaction, "b", "c", "d"), [250, 250, 550])
        self.assertIsNone(self.send(transaction))
        self.assertEqual(upstream.calls, ["open", "b@b.example", "c@b.example", "d@b.example", "begin"])
        assert upstream.envelope is not None
        self.assertEqual(upstream.envelope.forward_paths, tuple(self.named))
        self.assertEqual((upstream.sink.content, upstream.sink.calls[-1]), (CONTENT, "finish"))

    def test_in_turn(self) -> None:
        """Each filter is asked about all that the one before it made."""
        first, second = RecipientFilter(b="c d"), RecipientFilter(d="e f", b="never")
        upstream = Upstream()
        transaction = self.open(upstream, first, second)
        self.assertEqual(self.add(transaction, "b"), [250])
        self.assertEqual((first.asked, second.asked), (["b@b.example"], ["c@b.example", "d@b.example"]))
        self.assertEqual(upstream.calls[1:], ["c@b.example", "e@b.example", "f@b.example"])

    def test_all_must_be_welcome(self) -> None:
        """One of several that is not wanted refuses the recipient, for now if that may help."""
        for answers, code in (
            ({}, 250),
            ({"c": YES}, 250),
            ({"d": NO}, 550),
            ({"c": NO, "d": LATER}, 450),
            ({"c": Reject("no")}, 550),
            ({"c": Reject("no"), "d": Defer("later")}, 451),
        ):
            self.assertEqual(self.add(self.open(Upstream(**answers), RecipientFilter(b="c d")), "b"), [code])

    def test_refused(self) -> None:
        """A refused recipient's rewritten ones are not in the envelope."""
        upstream = Upstream(d=NO)
        transaction = self.open(upstream, RecipientFilter(b="c d", x="e"))
        self.assertEqual(self.add(transaction, "b", "x"), [550, 250])
        self.send(transaction)
        assert upstream.envelope is not None
        self.assertEqual([each.address for each in upstream.envelope.forward_paths], ["e@b.example"])

    def test_refused_again(self) -> None:
        """One who is named twice, and refused the second time, is who he was the first time."""
        filter = RecipientFilter(b="c")
        upstream = Upstream(d=NO)
        transaction = self.open(upstream, filter)
        self.assertEqual(self.add(transaction, "b"), [250])
        named = self.named
        filter._table["b"] = "d"
        self.assertEqual(self.add(transaction, "b"), [550])
        self.named = named
        self.send(transaction)
        assert upstream.envelope is not None
        self.assertEqual([each.address for each in upstream.envelope.forward_paths], ["c@b.example"])

    def test_on_the_wire(self) -> None:
        """The client hears of whom it named, and the message goes to those that the filters made."""
        processor = RecordingProcessor()
        filters = [RecipientFilter(b="x y", c=NO, d=[]), HeaderFilter()]
        session = memory_session(arrange(processor, filters, run_now, 1 << 20))
        session.say(b"EHLO client.example\r\nMAIL FROM:<a@a.example>\r\n")
        said = session.say(b"".join(b"RCPT TO:<%c@b.example>\r\n" % name for name in b"bcd") + b"DATA\r\n")
        self.assertEqual(codes(said), ["250 2.1.5", "550 5.0.0", "250 2.1.5", "354"])
        self.assertEqual(codes(session.say(CONTENT + b".\r\n")), ["250 2.6.0"])
        (message,) = processor.messages
        self.assertEqual([each.local_part for each in message.envelope.forward_paths], ["x", "y"])
        self.assertEqual(message.content.read(), CONTENT)
        self.assertIn("recipient=b@b.example recipients=2", session.journal[-1])

    def test_goodbye(self) -> None:
        """A client that resets, or goes, at any time, ends the processor's transaction once."""
        for last in (b"RSET\r\n", b"DATA\r\nSubject:", b"DATA\r\n\r\nbody"):
            upstream = Upstream()
            filters = [RecipientFilter(b="x"), HeaderFilter()]
            session = memory_session(arrange(upstream, filters, run_now, 1 << 20))
            session.say(HELLO + ENVELOPE + last)
            session.disconnect()
            ends = upstream.calls[2:] + upstream.sink.calls
            self.assertEqual(ends, ["begin", "begin", "write", "abort"] if b"body" in last else ["abort"])

    def test_filter_refuses(self) -> None:
        """A reply of a filter, or what it raises, is the answer; the processor is not asked."""
        for decision, code in ((NO, 550), (LATER, 450), (YES, 451), (Reply(354, "", ""), 451)):
            upstream = Upstream()
            self.assertEqual(self.add(self.open(upstream, RecipientFilter(b=decision)), "b"), [code])
            self.assertEqual(upstream.calls, ["open"])
        error = Reject("no")
        self.assertEqual(self.add(self.open(Upstream(), RecipientFilter(b=error)), "b"), [error])

    def test_no_address(self) -> None:
        """What could not have come by RCPT goes no further."""
        for address in ("c@b.example>\r\nDATA", "c", "", "@b.example"):
            upstream = Upstream()
            transaction = self.open(upstream, RecipientFilter(b=[ForwardPath(address)]))
            self.assertIsInstance(self.add(transaction, "b")[0], ValueError)
            self.assertEqual(upstream.calls, ["open"])

    def test_too_many(self) -> None:
        """One becomes no more than a thousand."""
        for count, code in ((MOST, 250), (MOST + 1, reply.LIST_TOO_LONG.code)):
            many = [ForwardPath(f"{n}@b.example") for n in range(count)]
            self.assertEqual(self.add(self.open(Sink(), RecipientFilter(b=many)), "b"), [code])

    def test_dropped(self) -> None:
        """One that becomes nobody is accepted; a message for nobody else too, and the transaction aborted."""
        upstream = Upstream()
        transaction = self.open(upstream, RecipientFilter(b=[]), HeaderFilter(NO))
        self.assertEqual(self.add(transaction, "b"), [250])
        self.assertIsNone(self.send(transaction))
        self.assertEqual(upstream.calls, ["open", "abort"])

    def test_once(self) -> None:
        """Two that lead to one are one recipient, asked about once, with the parameters that came first."""
        upstream = Upstream()
        transaction = self.open(upstream, RecipientFilter(c="b", d="B b"))
        path = ForwardPath("b@B.example", {"NOTIFY": "NEVER"})
        self.assertEqual(self.result(transaction.add_recipient(path)), reply.RECIPIENT_OK)
        self.assertEqual(self.add(transaction, "c", "d"), [250, 250])
        self.named.insert(0, path)
        self.send(transaction)
        self.assertEqual(upstream.calls[1:], ["b@B.example", "B@b.example", "begin"])
        assert upstream.envelope is not None
        self.assertEqual(upstream.envelope.forward_paths, (path, ForwardPath("B@b.example")))

    def test_later(self) -> None:
        """The client waits for filter and processor; who is at work when it goes is cancelled."""
        for stage in range(2):
            later = Later()
            filter = RecipientFilter(b=later()) if stage == 0 else RecipientFilter()
            upstream = Upstream() if stage == 0 else Upstream(b=later)
            transaction = self.open(upstream, filter)
            adding = Deferred.fromCoroutine(transaction.add_recipient(ForwardPath("b@b.example")))
            self.assertNoResult(adding)
            adding.cancel()
            self.failureResultOf(adding)
            transaction.abort()
            self.assertEqual((later.cancelled, upstream.calls[-1]), (1, "abort"))

    def test_answer_of_mail(self) -> None:
        """MAIL is answered as the processor says; what is no transaction is for the engine to judge."""
        upstream = Upstream()
        self.patch(upstream, "answer", YES)
        self.assertEqual(self.open(upstream, RecipientFilter(), HeaderFilter()).answer, YES)
        self.patch(upstream, "open", always(NO))
        self.assertEqual(self.open(upstream, RecipientFilter()), NO)


class ToldTests(RecipientsCase):
    """Results, in terms of the recipients that the client named."""

    def told(self, results: Results | Reply, *filters: object, names: str = "b c d e") -> Any:
        """What the recipients are told, by code."""
        sink = Sink(finish=always(results))
        transaction = self.open(sink, *filters)
        self.add(transaction, *names.split())
        outcome = self.send(transaction)
        return [each.code for each in outcome.replies] if isinstance(outcome, Results) else outcome

    def test_own(self) -> None:
        """Each is told what became of all that it was made; who was dropped, that all is well."""
        filter = RecipientFilter(b="x y", c="y", d=[])
        self.assertEqual(self.told(Results([YES, YES, NO]), filter), [250, 250, 250, 550])
        self.assertEqual(self.told(Results([YES, NO, YES]), filter), [550, 550, 250, 250])
        self.assertEqual(self.told(Results([NO, LATER, YES]), filter), [450, 450, 250, 250])

    def test_repeated(self) -> None:
        """One who was named twice is told twice (RFC 2033 section 4.2)."""
        filter = RecipientFilter(b="x")
        self.assertEqual(self.told(Results([NO, YES]), filter, names="b c b"), [550, 250, 550])

    def test_single(self) -> None:
        """A reply to all is one to all."""
        self.assertEqual(self.told(NO, RecipientFilter(b="x")), NO)

    def test_with_filters_of_messages(self) -> None:
        """What those changed is told in terms of what they were given, and that in the client's."""
        for kind in (Filter, HeaderFilter):
            edits = [AddRecipient(ForwardPath("z@b.example"))]
            filters = RecipientFilter(b="x y"), kind(edits, edits)
            self.assertEqual(self.told(Results([YES, NO, YES, YES]), *filters, names="b c"), [550, 250])
            self.assertEqual(self.told(Results([YES, YES, YES, NO]), *filters, names="b c"), [550, 550])

    def test_wrong_number(self) -> None:
        """Replies for others than the recipients there are answer nothing."""
        self.assertIsInstance(self.told(Results([YES]), RecipientFilter(b="x y")), ValueError)

    def test_whole(self) -> None:
        """A processor of whole messages gets them rewritten, too."""
        processor = RecordingProcessor()
        transaction = self.open(processor, RecipientFilter(b="x y"), Filter())
        self.add(transaction, "b")
        self.assertIsNone(self.send(transaction))
        envelope = processor.messages[0].envelope
        self.assertEqual([each.address for each in envelope.forward_paths], ["x@b.example", "y@b.example"])
