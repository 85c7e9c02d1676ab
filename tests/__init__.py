"""The tests of smtpserv: ``trial tests``."""

from tests import fuzz as fuzz  # its settings hold for all
