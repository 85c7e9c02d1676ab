"""What twistd finds here: names and strings only, since every run of twistd loads this file."""

from twisted.application.service import ServiceMaker

from smtpserv.plugins import FilterMaker, PolicyMaker, ProcessorMaker

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

rates = PolicyMaker(
    name="rates",
    help="refuses for now what an address or an identity does too often",
    arguments="""\
N/s, N/min, N/h or N/d for one limit or more; N may come at once:
sessions=, messages=, recipients=, octets=, auth-failures=   of one address (IPv6: one /64)
identity-messages=, identity-recipients=, identity-octets=, identity-auth-failures=   of one who authenticated
exempt=CIDR,...   addresses that are not counted""",
    factory="smtpserv.policy.limits:make_rates",
    wants_reactor=True,
)

dnsbl = PolicyMaker(
    name="dnsbl",
    help="refuses clients whose address stands in a DNS block list",
    arguments="""\
ZONE,... or zone=ZONE,...   the lists, asked all at once
exempt=CIDR,...             addresses that are not asked about; private ones never are""",
    factory="smtpserv.policy.dns:make_dnsbl",
    wants_reactor=True,
)

rdns = PolicyMaker(
    name="rdns",
    help="refuses clients whose address has no name in the DNS that leads back to it",
    arguments="exempt=CIDR,...   addresses that are not asked about; private ones never are",
    factory="smtpserv.policy.dns:make_rdns",
    wants_reactor=True,
)

greeting = PolicyMaker(
    name="greeting",
    help="greets late, and refuses clients that speak before",
    arguments="""\
SECONDS or delay=SECONDS   the delay, up to 60 [5]
exempt=CIDR,...            addresses that are greeted at once""",
    factory="smtpserv.policy.greeting:make_greeting",
    wants_reactor=True,
)

add_header = FilterMaker(
    name="add-header",
    help="adds a field to the header of each message",
    arguments="NAME:VALUE   of the field",
    factory="smtpserv.filters.fields:make_add_header",
)

received = FilterMaker(
    name="received",
    help="adds our Received field at the top of each message",
    arguments="",
    factory="smtpserv.filters.fields:make_received",
    wants_reactor=True,
    wants_hostname=True,
)

verify = FilterMaker(
    name="verify",
    help="checks SPF, DKIM, ARC and DMARC, and tells it in an Authentication-Results field",
    arguments="""\
reject=dmarc      refuse what fails DMARC where the author's domain says so
exempt=CIDR,...   addresses whose messages are left as they are""",
    factory="smtpserv.filters.verify:make_verify",
    wants_reactor=True,
    wants_hostname=True,
)

recipient_rewrite = FilterMaker(
    name="recipient-rewrite",
    help="gives mail to those that a file of aliases names instead",
    arguments="""\
FILE                 lines of name: target, target, as in aliases(5); read again when it changes
domains=DOMAIN,...   where names without a domain hold [everywhere]""",
    factory="smtpserv.filters.rewrite:make_rewrite",
    wants_reactor=True,
    wants_hostname=True,
)

proxy = ProcessorMaker(
    name="proxy",
    help="passes each transaction through to another mail server, live",
    arguments="""\
HOST,... or host=HOST,...   servers in order of preference; a path is a Unix socket's [localhost]
PORT or port=PORT           [25; 465 with tls=implicit]
tls=none|opportunistic|required|implicit   [opportunistic; required with user=]
trust-roots=FILE            PEM file of the authorities that are trusted [the machine's]
certificate=FILE            PEM file of our own certificate and its key
tls-name=NAME               whom their certificates must name [the host]
user=NAME                   who we are to them, and its proof:
password-file=FILE          its first line is the password
token-file=FILE             its first line is a bearer token (XOAUTH2, OAUTHBEARER)
lmtp=yes|no                 whether they speak LMTP [no]
forward-client=yes|no       tell them who our client is, by XFORWARD or XCLIENT [no]
x-peer=yes|no               add an X-Peer field, as smtpd did [no]
connections=N               open at once to one server [100]
uses=N                      messages of one connection [1000]
idle=SECONDS                that a connection is kept without use [60]
opening-timeout=SECONDS     until a connection is ready for mail, in all [60]
connect-timeout=, greeting-timeout=, command-timeout=, data-timeout=, block-timeout=, end-timeout=SECONDS
                            RFC 5321's [30, 300, 300, 120, 180, 600]""",
    factory="smtpserv.processors.proxy:make_proxy",
    wants_reactor=True,
)

mailman = ProcessorMaker(
    name="mailman",
    help="gives mail for GNU Mailman's lists to Mailman, and passes the rest on as proxy does",
    arguments="""\
All that proxy takes, but lmtp=, and:
lmtp=HOST,PORT              Mailman 3's LMTP server [127.0.0.1,8024]
domains=DOMAIN,...          the lists' domains: who is no list there is nobody, and others are not asked about
api=URL                     Mailman's REST API is asked which lists there are, and not its LMTP server
api-user=NAME               [restadmin]
api-password-file=FILE      its first line is the password
map=FILE                    or the regex transport map that Mailman writes tells it
wrapper=PATH                Mailman 2's mail/mailman, in place of all of these
lists=FOLDER                where Mailman 2 has its lists [lists beside the wrapper's folder]""",
    factory="smtpserv.processors.mailman:make_mailman",
    wants_reactor=True,
)

dkim_sign = FilterMaker(
    name="dkim-sign",
    help="signs mail of our own domains, if it comes from us, by DKIM",
    arguments="""\
domain=DOMAIN,...   whose mail is signed, and that of the domains below; other mail is left as it is
selector=NAME       under which the DNS has the public key: NAME._domainkey.DOMAIN
key-file=PATH       the private key, RSA or Ed25519, in PEM or base64; read again when it changes
fields=NAME,...     the header fields that are signed [those of RFC 6376 section 5.4.1]
hosts=CIDR,...      whose mail is signed, besides that of who authenticated [127.0.0.0/8,::1,unix]""",
    factory="smtpserv.filters.dkim_sign:make_dkim_sign",
    wants_reactor=True,
)

milter = FilterMaker(
    name="milter",
    help="asks a milter (rspamd, OpenDKIM, SpamAssassin ...), and does what it says",
    arguments="""\
tcp:HOST:PORT, unix:PATH, inet:PORT@HOST or local:PATH   where it is
default=tempfail|accept   what becomes of mail while it is away [tempfail]
timeout=SECONDS           how long it may take to answer [30]
Put it before --filter=received: a milter is not shown our own Received field.""",
    factory="smtpserv.milter.filter:make_milter",
    wants_reactor=True,
)
