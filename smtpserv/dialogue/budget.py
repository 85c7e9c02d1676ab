"""How long a client that gets nowhere is listened to."""

from typing import Final

from smtpserv import reply
from smtpserv.dialogue.terms import Terms
from smtpserv.reply import Reply

#: Replies that say the client does not know how to talk.
_MISTAKES: Final = frozenset({500, 501, 502, 503, 504, 555})


class Budget:
    """How much a client may ask of us without getting anywhere."""

    __slots__ = ("refused", "_terms", "_errors", "_commands")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._errors = 0
        self._commands = 0
        #: Whether the last command was refused for what it said; not so once one brings a message forward.
        self.refused = False

    def spend(self, verb: str, answer: Reply) -> Reply | None:
        """Count a command that brought no message forward; the last reply, when it was one too many.

        A refused recipient does not count: how many there may be, a transaction limits. And what is out of
        order behind a refusal is no mistake: who pipelines could not know (RFC 2920).
        """
        is_mistake = answer.code in _MISTAKES
        if not (self.refused and answer is reply.OUT_OF_ORDER):
            self._errors += is_mistake
            self.refused = answer.code >= 400 and not is_mistake
        if answer is reply.TOO_MANY_RECIPIENTS or (verb == "RCPT" and answer.code >= 400):
            return None
        self._commands += 1
        if self._errors > self._terms.max_errors:
            return reply.TOO_MANY_ERRORS
        return reply.TOO_MANY_COMMANDS if self._commands > self._terms.max_commands else None

    def earn(self) -> None:
        """A message was accepted."""
        self._commands = 0
