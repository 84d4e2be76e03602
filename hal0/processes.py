"""Which process is meant: a pid together with its start, which no other process can have."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

DELETED: Final = " (deleted)"
"""What Linux writes behind the path of an open file that has no name any more."""


def start_ticks(pid: int) -> int | None:
    """Return when a living process began, in clock ticks since boot; None = it is gone.

    Field 22 of /proc/PID/stat; the command before it may hold spaces and parentheses. A start in
    wall time would move when somebody sets the clock.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        state, *fields = stat.rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in {"Z", "X"} else int(fields[18])


def is_stopped(pid: int, start: int) -> bool:
    """Tell whether exactly this process lies stopped, by SIGSTOP or a debugger."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        state = stat.rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in {"T", "t"} and start_ticks(pid) == start


def open_files(pid: int) -> set[str]:
    """Return what a process holds open, as Linux calls it: `DELETED` ends what has no name more.

    Empty for a process that is gone. Raises PermissionError when this user may not look into it.
    """
    found = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.add(str(link.readlink()))
    except (FileNotFoundError, ProcessLookupError):
        return set()
    return found


def deleted_files(pid: int) -> set[str]:
    """Return the paths of files that a process holds open, and that were deleted since.

    Empty for a process that is gone, and for one that this user may not look into.
    """
    with contextlib.suppress(PermissionError):
        found = open_files(pid)
        return {name.removesuffix(DELETED) for name in found if name.endswith(DELETED)}
    return set()


def kill_exactly(pid: int, start: int) -> bool:
    """SIGKILL this process and no successor of its pid; tell whether it was there.

    A pidfd is opened first and the start compared after: what the descriptor names cannot change.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if start_ticks(pid) != start:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return True
    finally:
        os.close(descriptor)
