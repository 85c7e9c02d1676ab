"""What a filter may change of a message."""

from twisted.trial.unittest import SynchronousTestCase

from smtpserv.edit import (
    AddField,
    AddRecipient,
    ChangeReversePath,
    DeleteField,
    Edit,
    InsertField,
    Redirect,
    RemoveRecipient,
    ReplaceBody,
    ReplaceField,
    changed,
)
from smtpserv.message import Content, ForwardPath, ReversePath
from smtpserv.testing.memory import make_message

SENT = b"Received: 1\r\nSubject: x\r\nReceived: 2\r\n\r\nbody\r\n"


class EditTests(SynchronousTestCase):
    """One edit, or several."""

    def content(self, *edits: Edit) -> bytes:
        """What is left of the content."""
        return changed(make_message(SENT), edits).content.read()

    def recipients(self, *edits: Edit) -> list[str]:
        """Who is left of the recipients."""
        message = changed(make_message(forward_paths=("b@b.example", "c@c.example", "b@b.example")), edits)
        return [path.address for path in message.envelope.forward_paths]

    def test_nothing(self) -> None:
        """No edits change nothing."""
        message = make_message(SENT)
        self.assertEqual(changed(message, ()), message)

    def test_header(self) -> None:
        """Fields are added, inserted, replaced and deleted; the rest stays."""
        for edit, expected in {
            AddField("X", "y"): SENT.replace(b"\r\n\r\n", b"\r\nX: y\r\n\r\n"),
            InsertField("X", "y"): b"X: y\r\n" + SENT,
            InsertField("X", "y", 1): SENT.replace(b"Subject", b"X: y\r\nSubject"),
            ReplaceField("received", "y", 2): SENT.replace(b"Received: 2", b"received: y"),
            DeleteField("RECEIVED", 1): SENT.replace(b"Received: 1\r\n", b""),
            DeleteField("received"): b"Subject: x\r\n\r\nbody\r\n",
        }.items():
            self.assertEqual(self.content(edit), expected)

    def test_in_order(self) -> None:
        """Each edit is made on what the one before it left."""
        self.assertEqual(
            self.content(DeleteField("received", 1), ReplaceField("received", "y"), DeleteField("subject")),
            b"received: y\r\n\r\nbody\r\n",
        )

    def test_body(self) -> None:
        """Another body below the header as it is by then, and edits below that; without any header too."""
        edits = (DeleteField("received"), ReplaceBody(Content(b"new")), AddField("X", "y"))
        self.assertEqual(self.content(*edits), b"Subject: x\r\nX: y\r\n\r\nnew")
        for sent, left in ((b"", b"\r\nnew"), (b"A: b", b"A: b\r\n\r\nnew"), (b"\r\nbody", b"\r\nnew")):
            message = changed(make_message(sent), [ReplaceBody(Content(b"new"))])
            self.assertEqual(message.content.read(), left)

    def test_recipients(self) -> None:
        """They are added, removed each time they come, and replaced altogether."""
        path = ForwardPath("d@d.example", {"NOTIFY": "NEVER"})
        self.assertEqual(
            self.recipients(AddRecipient(path)), ["b@b.example", "c@c.example", "b@b.example", "d@d.example"]
        )
        self.assertEqual(self.recipients(RemoveRecipient("b@b.example")), ["c@c.example"])
        self.assertEqual(self.recipients(RemoveRecipient("B@b.example")), self.recipients())
        self.assertEqual(self.recipients(Redirect((path,))), ["d@d.example"])
        self.assertEqual(self.recipients(Redirect(())), [])

    def test_reverse_path(self) -> None:
        """It is changed, also to the null one."""
        for address in ("d@d.example", ""):
            message = changed(make_message(), [ChangeReversePath(ReversePath(address))])
            self.assertEqual(message.envelope.reverse_path.address, address)

    def test_addresses(self) -> None:
        """What could not have come by MAIL or RCPT is no address."""
        for address in (
            "a",
            "a@b> SIZE=1",
            "a@b\r\nDATA",
            "@c:a@b.example",
            "a@[1.2.3]",
            "a@b SIZE=1",
            "a\u2028@b",
        ):
            self.assertRaises(ValueError, AddRecipient, ForwardPath(address))
            self.assertRaises(ValueError, Redirect, (ForwardPath("b@b.example"), ForwardPath(address)))
            self.assertRaises(ValueError, ChangeReversePath, ReversePath(address))
        self.assertRaises(ValueError, AddRecipient, ForwardPath(""))
        AddRecipient(ForwardPath("postmaster"))
        AddRecipient(ForwardPath('"a b>"@b.example'))

    def test_values(self) -> None:
        """Edits are equal by what they say."""
        self.assertEqual(AddField("X", "y"), AddField("X", "y"))
        self.assertNotEqual(AddField("X", "y"), InsertField("X", "y"))
        self.assertRaises(ValueError, AddField, "X", "y\r\nZ: z")
