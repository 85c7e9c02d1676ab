"""``discard``: accepts and drops."""

from twisted.trial.unittest import SynchronousTestCase, TestCase

from smtpserv.processors.discard import DiscardProcessor
from smtpserv.testing import StreamingProcessorContract, memory_session
from tests.server_tools import CONTENT, DONE, HELLO, PREAMBLE, TRANSACTION, codes


class DiscardContract(StreamingProcessorContract, TestCase):
    """What every streaming processor must stand."""

    def make_processor(self) -> DiscardProcessor:
        return DiscardProcessor()


class DiscardTests(SynchronousTestCase):
    """It is a hole."""

    def test_accepts(self) -> None:
        """Every message is accepted, and the next one too."""
        heard = memory_session(DiscardProcessor()).say(HELLO + TRANSACTION * 3)
        self.assertEqual(codes(heard)[2:], DONE * 3)

    def test_keeps_nothing(self) -> None:
        """A million octets leave nothing behind."""
        processor = DiscardProcessor()
        session = memory_session(processor)
        session.say(PREAMBLE)
        for _ in range(100):
            session.say(CONTENT * 500)
        self.assertEqual(codes(session.say(b".\r\n")), ["250 2.6.0"])
        self.assertEqual(vars(processor), {})
