"""What all systems have in common: a client that enqueues when told, a body that says it began.

Both write CLOCK_MONOTONIC, which all processes of a machine share.
"""

import os
import sys
import time
from collections.abc import Callable

BEGUN_FD = "BENCH_BEGUN_FD"


def serve(enqueue: Callable[[], object]) -> None:
    """Enqueue one job for each line on stdin, and print when that began, in nanoseconds."""
    sys.stdout.write("up\n")
    sys.stdout.flush()
    while sys.stdin.readline():
        began_ns = time.monotonic_ns()
        enqueue()
        sys.stdout.write(f"{began_ns}\n")
        sys.stdout.flush()


def begin() -> None:
    """Say when this was called; the first line of every job's body."""
    began_ns = time.monotonic_ns()
    os.write(int(os.environ[BEGUN_FD]), b"%d\n" % began_ns)
