"""Hostile input: how much of it a run makes, and what it is made of.

``SMTPSERV_EXAMPLES=100 trial tests.test_dialogue_properties`` makes a hundred times as many inputs.
"""

import os
import tempfile
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

# What hypothesis keeps to be quicker next time; it would leave it in the working folder.
_HOME: Final = tempfile.TemporaryDirectory()
set_hypothesis_home_dir(_HOME.name)

#: What the number of examples is multiplied by.
SCALE: Final = float(os.environ.get("SMTPSERV_EXAMPLES", "1"))


#: Busy machines are slow at times: nothing depends on how fast inputs are made.
settings.register_profile(
    "smtpserv", deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=100
)
settings.load_profile("smtpserv")


def examples(number: int) -> settings:
    """So many examples, times the scale; no deadline, and nothing kept on disk."""
    return settings(max_examples=max(1, int(number * SCALE)))
