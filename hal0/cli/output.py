"""Where a command writes to: its descriptors are open, and what it wrote has arrived.

A descriptor that is closed at the start would be that of the next file that is opened, be it the
database: so each is opened on nothing first.
"""

import os
import sys
from typing import Final

DESCRIPTORS: Final = {0: os.O_WRONLY, 1: os.O_RDONLY, 2: os.O_WRONLY}
"""How each stands for one that is closed: input and output then fail, as they are to."""


def open_all() -> None:
    """Open what is closed of standard input, output and error."""
    for number, how in DESCRIPTORS.items():
        try:
            os.fstat(number)
        except OSError:
            _open_nothing(number, how)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def has_failed() -> bool:
    """Tell whether standard output takes nothing more; what it still holds is given up then."""
    try:
        sys.stdout.write("\n")  # without a buffer there is nothing left that could fail again
        sys.stdout.flush()
    except OSError:
        _open_nothing(sys.stdout.fileno(), os.O_WRONLY)  # Python writes the rest as it ends
        return True
    return False


def _open_nothing(number: int, how: int) -> None:
    nothing = os.open(os.devnull, how)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)
