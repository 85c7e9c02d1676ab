"""stub"""

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Mode(Enum):
    """m"""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    IMPLICIT = "implicit"


@dataclass(frozen=True)
class UpstreamTLS:
    """m"""

    mode: Mode = Mode.OPPORTUNISTIC

    @property
    def wants_starttls(self) -> bool:
        """m"""
        return self.mode in (Mode.OPPORTUNISTIC, Mode.REQUIRED)

    @property
    def is_required(self) -> bool:
        """m"""
        return self.mode in (Mode.IMPLICIT, Mode.REQUIRED)

    def options(self, host: str) -> Any:
        """m"""
        raise NotImplementedError


def make_upstream_tls(mode: Mode, roots: str, cert: str) -> UpstreamTLS:
    """m"""
    return UpstreamTLS(mode)
