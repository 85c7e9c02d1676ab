"""How many connections there is room for, as far as the system lets files be open."""

import resource
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from smtpserv.server.descriptors import EACH, RESERVE, make_room
from tests.server_tools import captured_log


class System:
    """Limits on open files that are nobody's."""

    RLIMIT_NOFILE = resource.RLIMIT_NOFILE
    RLIM_INFINITY = resource.RLIM_INFINITY

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = soft, hard

    def getrlimit(self, which: int) -> tuple[int, int]:
        """What holds."""
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        """What holds from now on."""
        assert self.limits[0] < limits[0] and self.limits[1] == limits[1]
        self.limits = limits


class RoomTests(SynchronousTestCase):
    """The soft limit is raised, the hard one is kept to."""

    def check(self, soft: int, hard: int, raised: int, room: int) -> None:
        """Of a thousand connections that are wanted, so many may be."""
        system: Any = System(soft, hard)
        self.assertEqual(make_room(1000, system), room)
        self.assertEqual(system.limits, (raised, hard))

    def test_raised(self) -> None:
        """A soft limit is raised to what is needed, and no further than the hard one."""
        needed = RESERVE + EACH * 1000
        self.check(1024, needed + 1, needed, 1000)
        self.check(1024, resource.RLIM_INFINITY, needed, 1000)
        self.check(1024, needed - 1, needed - 1, 1000)
        self.check(1024, RESERVE + 1000, RESERVE + 1000, 1000)

    def test_enough(self) -> None:
        """One that is enough, or is none, stays."""
        self.check(100_000, 100_000, 100_000, 1000)
        self.check(resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1000)

    def test_too_low(self) -> None:
        """Where the system allows fewer, those beyond are refused by us, and the log says so."""
        log = captured_log(self)
        self.check(256, 512, 512, 512 - RESERVE)
        self.check(10, 10, 10, 1)
        self.assertEqual([event["room"] for event in log], [512 - RESERVE, 1])

    def test_not_allowed(self) -> None:
        """A limit that can't be raised is kept to."""

        class Strict(System):
            def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
                raise ValueError("not allowed to raise maximum limit")

        system: Any = Strict(256, 1 << 20)
        self.assertEqual(make_room(1000, system), 256 - RESERVE)
