"""Single keys of a terminal, without Enter; the terminal is as it was when the block ends."""

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Read = Callable[[float], str]
"""Waits so many seconds for a key; `""` = none came."""


@contextmanager
def keys() -> Iterator[Read]:
    """Give what reads keys from standard input; where that is no terminal, none ever comes."""
    if not sys.stdin.isatty():
        yield _none
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def read(wait_s: float) -> str:
        ready, _, _ = select.select([number], [], [], wait_s)
        return os.read(number, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(number)
        yield read
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _none(wait_s: float) -> str:
    select.select([], [], [], wait_s)
    return ""
