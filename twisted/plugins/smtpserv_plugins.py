"""What twistd finds here: names and strings only, since every run of twistd loads this file."""

from twisted.application.service import ServiceMaker

from smtpserv.plugins import ProcessorMaker

service = ServiceMaker(
    name="smtpserv",
    module="smtpserv.tap",
    description="A programmable SMTP server",
    tapname="smtpserv",
)

debugging = ProcessorMaker(
    name="debugging",
    help="prints each message on stdout, then drops it",
    arguments="format=text|json   smtpd's form, or one JSON object a line [text]",
    factory="smtpserv.processors.debugging:make_debugging",
    wants_reactor=True,
)

discard = ProcessorMaker(
    name="discard",
    help="accepts and drops each message",
    arguments="",
    factory="smtpserv.processors.discard:DiscardProcessor",
)
