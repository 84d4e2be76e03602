"""`hal0 api` that tells what it holds when a signal asks: `python -m tests.soak.watched_api FILE`

At SIGUSR1 the file is replaced by `{"tasks": [...], "blocks": n, "heap_bytes": n, "sqlite_bytes":
n}`: the tasks of the event loop by the names of their coroutines, how many blocks of memory Python
has given out, how many bytes the C library, and how many of those SQLite has. hal0 has no route for
that; this process is hal0's own code but for this handler.
"""

import _sqlite3
import asyncio
import ctypes
import gc
import json
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType

from hal0.api.app import serve
from hal0.settings import Settings


class Mallinfo(ctypes.Structure):
    """What glibc says of its heaps; of mallinfo(3), in its order."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )
    hblkhd: int
    uordblks: int


def heap_bytes() -> int:
    """Return how many bytes are given out, in all heaps: what is free but kept does not count."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Mallinfo
    told: Mallinfo = ask()
    return told.uordblks + told.hblkhd


def sqlite_bytes() -> int:
    """Return how many of them are SQLite's: above all pages that its connections keep."""
    ask = ctypes.CDLL(_sqlite3.__file__).sqlite3_memory_used
    ask.restype = ctypes.c_int64
    return int(ask())


def tell(file: Path, number: int, frame: FrameType | None) -> None:
    """Write what the process holds; runs in the thread of its event loop."""
    tasks = [task.get_coro() for task in asyncio.all_tasks()]
    gc.collect()
    told = {
        "tasks": sorted(getattr(coro, "__qualname__", str(coro)) for coro in tasks),
        "blocks": sys.getallocatedblocks(),
        "heap_bytes": heap_bytes(),
        "sqlite_bytes": sqlite_bytes(),
    }
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(told), encoding="utf-8")
    fresh.rename(file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, partial(tell, Path(sys.argv[1])))
    raise SystemExit(serve(Settings.load()))
