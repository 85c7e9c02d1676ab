"""The checkers that ``--auth`` finds here; loaded when one is looked for, not at every run of twistd."""

from smtpserv.policy.certificate import CertificateChecker
from smtpserv.policy.credentials import ICertificateCredentials
from smtpserv.policy.htpasswd import HtpasswdChecker
from smtpserv.policy.scram_file import ScramChecker
from smtpserv.policy.strcred import CheckerFactory

htpasswd = CheckerFactory(
    authType="htpasswd",
    authHelp="A file of user:hash lines, argon2 or bcrypt (htpasswd -B). Read again when it changes.",
    argStringFormat="PATH",
    checker=HtpasswdChecker,
)

scram = CheckerFactory(
    authType="scram",
    authHelp=(
        "A file of user:SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey lines, as PostgreSQL writes them.\n"
        "With it SCRAM-SHA-256 is offered. Read again when it changes."
    ),
    argStringFormat="PATH",
    checker=ScramChecker,
)

certificate = CheckerFactory(
    authType="certificate",
    authHelp=(
        "Clients whose TLS certificate an authority of --tls-client-ca vouches for, by EXTERNAL;\n"
        "only those that it names so, if names are given: a mailbox, else a host, else a CN."
    ),
    argStringFormat="[NAME,...]",
    checker=CertificateChecker,
    credentialInterfaces=(ICertificateCredentials,),
)
