"""What may be raised, and what the peer then hears: each error of the dialogue carries its reply."""

from typing import ClassVar, Final

from smtpserv.reply import Reply, sayable


class SMTPError(Exception):
    """A command or message that is answered with a failure.

    :param reply: what the peer shall hear, of one of :attr:`classes`.
    :raises ValueError: for a reply that is none.
    """

    #: The classes of reply that it may carry.
    classes: ClassVar[tuple[int, ...]] = (4, 5)

    def __init__(self, reply: Reply) -> None:
        if reply.reply_class not in self.classes:
            raise ValueError(f"no answer to {type(self).__name__}: {reply}")
        super().__init__(str(reply))
        self.reply: Final = reply


class Reject(SMTPError):
    """Refuse for good: the client returns the message to its sender.

    :param text: what the peer shall read; what a reply can't say is escaped, what is too long is cut.
    :param code: a 5yz reply code.
    :param status: an enhanced status code of class 5; 5.7.1 is "refused by policy" (RFC 3463 section 3.8).
    :raises ValueError: for what is no 5yz reply.
    """

    classes = (5,)

    def __init__(self, text: str = "Message refused", code: int = 550, status: str = "5.7.1") -> None:
        super().__init__(Reply(code, sayable(text), status))


class Defer(SMTPError):
    """Refuse for now: the client keeps the message and tries again.

    :param text: what the peer shall read; what a reply can't say is escaped, what is too long is cut.
    :param code: a 4yz reply code; 421 closes the connection as well.
    :param status: an enhanced status code of class 4; 4.7.1 is "delayed by policy".
    :raises ValueError: for what is no 4yz reply.
    """

    classes = (4,)

    def __init__(self, text: str = "Try again later", code: int = 451, status: str = "4.7.1") -> None:
        super().__init__(Reply(code, sayable(text), status))


class StartError(ValueError):
    """The server can't start as it was told to; the text is the one line its operator reads."""
