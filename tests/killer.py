"""Runs the command line in a child of its own for each line of stdin, and kills it where asked.

A line is `{"words": [...], "kill_at": n}`: SIGKILL right before the child's n-th change of a disk,
None = never. The answer is its exit code, -9 when it was killed. One process imports for all.
"""

import json
import os
import signal
import sys
from typing import Any

import hal0.cli.lemond
import hal0.lemond.install  # noqa: F401
from hal0.cli import main

CHANGES = {
    *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"),
    *("os.symlink", "os.truncate", "os.utime"),
}


def kill_at(count: int) -> None:
    """Die right before the change of this number."""
    left = count

    def look(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        is_opened_to_write = event == "open" and args[2] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or is_opened_to_write:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def run(words: list[str], count: int | None) -> int:
    """Return how the child ended."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        if count is not None:
            kill_at(count)
        os._exit(main(words))
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.write(f"{run(order['words'], order['kill_at'])}\n")
        sys.stdout.flush()
