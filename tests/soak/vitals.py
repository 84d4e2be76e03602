"""What an API process holds when nobody asks it anything, and whether that has grown.

Tasks and descriptors must be what they were, by kind. Of memory two figures are judged, for each
hides what the other shows: Python's blocks, which are small and of which a lease that is kept, or
anything else with a name and a field, takes two and more for each request; and the bytes that the C
library has given out, in which larger things show. Both are exact. What SQLite keeps of the
database's pages grows with it, up to a limit of each connection: that is not counted, and what else
a new connection of the pool keeps is allowed for. The resident set is shown and not judged: what
allocators keep for themselves is no leak.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.soak.evidence import Violation

CACHED_BLOCKS: Final = 5000
"""Statements above all that connections of the pool keep prepared; 3200 were seen."""
BLOCKS_A_REQUEST: Final = 0.1
HEAP_BYTES: Final = 1 << 20
STILL_S: Final = 5.0
"""Longer than anybody keeps a connection that nobody uses."""
LIMIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """One process at one moment."""

    tasks: Counter[str]
    files: Counter[str]
    """Descriptors by what they are; without the database's, whose pool has a limit of its own."""
    blocks: int
    heap_bytes: int
    """Without SQLite's."""
    resident_kib: int


def read(pid: int, told: Path) -> Vitals:
    """Ask a `watched_api`, which tells it in the file `told`."""
    told.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    until = time.monotonic() + LIMIT_S
    while not told.exists():
        assert time.monotonic() < until, f"process {pid} tells nothing of itself"
        time.sleep(0.01)
    said = json.loads(told.read_text(encoding="utf-8"))
    return Vitals(
        tasks=Counter(said["tasks"]),
        files=_files(pid),
        blocks=said["blocks"],
        heap_bytes=said["heap_bytes"] - said["sqlite_bytes"],
        resident_kib=_resident_kib(pid),
    )


def read_when_still(pid: int, told: Path) -> Vitals:
    """Ask until connections and tasks that are about to end have ended, or do not end."""
    began = since = time.monotonic()
    seen = read(pid, told)
    while (now := time.monotonic()) < since + STILL_S and now < began + LIMIT_S:
        time.sleep(0.5)
        before, seen = seen, read(pid, told)
        if (seen.tasks, seen.files) != (before.tasks, before.files):
            since = time.monotonic()
    return seen


def leaks(before: Vitals, after: Vitals, requests: int) -> Iterator[Violation]:
    """Yield what has grown between two moments without requests, with so many between them."""
    for what, was, now in (
        ("tasks", before.tasks, after.tasks),
        ("descriptors", before.files, after.files),
    ):
        if more := now - was:
            yield Violation("leak", f"{what} after {requests} requests: {dict(more)} more")
    blocks = after.blocks - before.blocks
    if blocks > CACHED_BLOCKS + BLOCKS_A_REQUEST * requests:
        yield Violation("leak", f"{blocks} blocks of memory more after {requests} requests")
    heap_bytes = after.heap_bytes - before.heap_bytes
    if heap_bytes > HEAP_BYTES:
        yield Violation("leak", f"{heap_bytes} bytes more after {requests} requests")


def _files(pid: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if Path(target).name.startswith("hal0.db"):
            continue
        found[target.partition(":[")[0]] += 1
    return found


def _resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
