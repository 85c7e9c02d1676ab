"""What another server says, as a client of ours may hear it."""

from typing import Final

from smtpserv.reply import Reply, Results

#: What is said of our session and of no message: the server goes away, or wants TLS or a login of us (RFC
#: 3207 section 4, RFC 4954 section 6). No client can mend that, nor is its mail refused by it.
_OF_OUR_SESSION: Final = frozenset({421, 530, 534, 535, 538})


def is_of_our_session(answer: Reply) -> bool:
    """Whether a server's reply is of no message, and so would be the same for the next one."""
    return answer.code in _OF_OUR_SESSION


def passed_on(answer: Reply) -> Reply:
    """A server's reply: with a status, and of its client's mail alone."""
    if answer.code in _OF_OUR_SESSION:
        return Reply(451, answer.text, f"4{answer.status[1:]}" if answer.status else None)
    return answer if answer.status else Reply(answer.code, answer.text)


def all_passed_on(answer: Reply | Results) -> Reply | Results:
    """What is said at the end of a message."""
    if isinstance(answer, Results):
        return Results([passed_on(each) for each in answer.replies])
    return passed_on(answer)
