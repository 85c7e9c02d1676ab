"""The other door: each maker here is found. Names and strings only, since every twistd loads this file."""

from smtpserv.plugins import ProcessorMaker

mailboxes = ProcessorMaker(
    name="mailboxes",
    help="stores each message in the Maildirs of its recipients, and refuses other recipients",
    arguments="FOLDER   holds a folder for each user: alice, bob, postmaster",
    factory="smtpserv_maildir:MailboxesProcessor",
)
