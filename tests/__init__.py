"""The tests of smtpserv: ``trial tests``."""
