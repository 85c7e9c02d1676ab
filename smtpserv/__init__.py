"""A programmable SMTP server on Twisted: the successor of Python's ``smtpd`` module.

A session's dialogue is held by :mod:`smtpserv.dialogue`; what happens to a message is decided by a component
that provides :class:`smtpserv.interfaces.IMessageProcessor`.
"""

__version__ = "0.1.0"
