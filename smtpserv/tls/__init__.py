"""TLS: the server's certificates, and what is known of a connection. It needs ``Twisted[tls]``."""

from smtpserv.tls.certificates import Certificates
from smtpserv.tls.context import Facts, tls_facts

__all__ = ["Certificates", "Facts", "tls_facts"]
