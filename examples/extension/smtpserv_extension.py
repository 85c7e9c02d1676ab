"""An ESMTP extension from outside: with ``XLABEL`` clients label messages, and ask which labels there are.

``MAIL FROM:<a@a.example> XLABEL=urgent`` is then on the envelope, as ``reverse_path.parameters["XLABEL"]``.
"""

import re
from collections.abc import Callable, Mapping

from zope.interface import implementer

from smtpserv.interfaces import IExtension
from smtpserv.message import Session
from smtpserv.plugins import ExtensionMaker
from smtpserv.reply import Reply


@implementer(IExtension)
class Labels:
    """The extension; its arguments are the labels there are: ``--extension=labels:urgent:bulk``."""

    keyword = "XLABEL"
    verbs = ("XLABELS",)
    allowance = 40

    def __init__(self, *labels: str) -> None:
        if not labels or not all(re.fullmatch("[a-z]{1,20}", label) for label in labels):
            raise ValueError("labels are words of up to 20 small letters")
        self.argument = " ".join(labels)
        self.mail = {"XLABEL": labels.__contains__}
        self.rcpt: Mapping[str, Callable[[str | None], bool]] = {}

    def perform(self, session: Session, verb: str, argument: str) -> Reply:
        """Answer ``XLABELS``."""
        return Reply(501, "No argument", "5.5.4") if argument else Reply(250, self.argument, "2.0.0")


labels = ExtensionMaker(
    "labels", "labels of messages", "LABEL ...   those there are", "smtpserv_extension:Labels"
)
