"""A program that is kept out by the owners and modes of files even where it is root's.

python -m tests.powerless -m workers
"""

import ctypes
import os
import sys
from typing import Final

PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
CAP_SYS_PTRACE: Final = 19
"""Kept: without it nobody looks into a process that has more powers, be it of the same user."""


def without_powers() -> None:
    """Give up, before an exec, what lets root pass over the owners of files."""
    libc = ctypes.CDLL(None)
    capability = 0
    while libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        if capability != CAP_SYS_PTRACE:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        capability += 1


if __name__ == "__main__":
    without_powers()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
