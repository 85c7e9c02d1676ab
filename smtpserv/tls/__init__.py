"""TLS: the server's certificates, upstreams, and what is known of a connection. It needs ``Twisted[tls]``."""

from smtpserv.tls.certificates import Certificates
from smtpserv.tls.context import Facts, tls_facts
from smtpserv.tls.upstream import TLSMode, UpstreamTLS

__all__ = ["Certificates", "Facts", "TLSMode", "UpstreamTLS", "tls_facts"]
