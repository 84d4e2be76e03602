"""What a caller may do, and the names of those who act without a token."""

from enum import IntEnum
from typing import Final


class Role(IntEnum):
    """What a caller may do; each role may do what those below it may.

    client   inference alone
    reader   also looks at everything
    writer   also changes everything
    """

    ANYONE = 0
    CLIENT = 1
    READER = 2
    WRITER = 3

    def __str__(self) -> str:
        """Return its name, as rows, bodies and messages have it."""
        return self.name.lower()

    @classmethod
    def named(cls, name: str) -> "Role":
        """Return the role of this name; there must be one."""
        return cls[name.upper()]


GRANTED: Final = ("client", "reader", "writer")
"""The roles that a token can have."""

LOCAL: Final = "local"
"""Who is on this machine while there are no tokens, and who works on the database directly."""

MACHINES: Final = frozenset({"worker", "scan", "reconcile", "dispatcher"})
RESERVED: Final = MACHINES | {LOCAL, "api", "engine", "hal0", "prune", "rescue", "restore"}
"""Names that no token may have: in an audit row they mean, or may come to mean, hal0 itself."""
