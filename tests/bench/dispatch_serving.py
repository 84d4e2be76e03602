"""What the state `serving` costs the database: its edges, and the count of requests in between."""

import sqlite3
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.acceptance.house import House
from tests.bench.dispatch_systems import HAL0, Bench
from tests.bench.dispatch_wire import Order
from tests.bench.table import Row, Spread, judged

PERIODS: Final = 10
STEADY: Final = Order(8, for_s=5.0)
EDGES: Final = 2
REFRESHES_S: Final = 2.0
LEASES: Final = "SELECT at FROM leases"
BEATS: Final = "SELECT seen_at FROM owners"
LOOK_S: Final = 0.01
WAL_HEAD: Final = 32
FRAME_HEAD: Final = 24


@dataclass(frozen=True, slots=True)
class Period:
    """What was written from before the first request until the slot is ready again."""

    lasted_s: float
    commits: int
    """Of everybody in this home."""
    beats: int
    """Those of them by which API and worker say that they live."""
    refreshes: int
    """Those of them that write the lease's count anew."""
    moves: list[str]
    """States that the slot went to."""


def measure(bench: Bench) -> list[Row]:
    """Watch the database over periods of one request, and over one of many."""
    short = [_period(bench, Order(1, requests=1)) for _ in range(PERIODS)]
    steady = _period(bench, STEADY)
    edges = [float(one.commits - one.beats - one.refreshes) for one in short]
    rate = steady.refreshes / steady.lasted_s
    are_two = all(period.moves == ["serving", "ready"] for period in (*short, steady))
    return [
        Row(
            what="commits of the edges of a serving period",
            figure=f"{statistics.median(edges):g}",
            spread=str(Spread.of(edges)),
            to_reach=f"{EDGES}",
            verdict=judged(statistics.median(edges) == EDGES and are_two),
            how=f"{PERIODS} periods of one request; each moved twice: {'yes' if are_two else 'no'}",
            samples={"commits": edges},
        ),
        Row(
            what="refreshes of the count of requests, a second of steady load",
            figure=f"{rate:.1f}",
            to_reach=f"<= {REFRESHES_S:g}",
            verdict=judged(rate <= REFRESHES_S),
            how=f"{STEADY.for_s:g} s at c={STEADY.concurrency}; {steady.commits} commits of all",
        ),
    ]


def _period(bench: Bench, order: Order) -> Period:
    house = bench.house
    bench.load.prepare(bench.systems[HAL0].target, order)
    house.wait_until("ready")  # the warm-up was a period too
    with closing(_reader(house)) as db, log_kept(house) as log:
        last_move = db.execute("SELECT max(id) FROM transitions").fetchone()[0]
        with times_seen(house, LEASES) as leases, times_seen(house, BEATS) as beats:
            before, beats_before, began_s = commits_in(log), len(beats), time.monotonic()
            bench.load.run()
            house.wait_for(lambda: db.execute("SELECT state FROM slots").fetchone() == ("ready",))
            commits, lasted_s = commits_in(log) - before, time.monotonic() - began_s
        moves = db.execute("SELECT to_state FROM transitions WHERE id > ?", (last_move,))
        return Period(
            lasted_s, commits, len(beats) - beats_before, len(leases) - 1, [to for (to,) in moves]
        )


def _reader(house: House) -> sqlite3.Connection:
    return sqlite3.connect(house.home / "hal0.db", isolation_level=None, check_same_thread=False)


@contextmanager
def log_kept(house: House) -> Iterator[Path]:
    """Give the log of commits, which nobody begins anew while a view of before is open."""
    with closing(_reader(house)) as db:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM slots").fetchone()
        yield house.home / "hal0.db-wal"


def commits_in(log: Path) -> int:
    """Count the commits in a log of SQLite: frames that say how large the file is after them.

    Frames of before the log began anew carry other salts (https://sqlite.org/fileformat2.html#wal).
    """
    data = log.read_bytes()
    page_bytes, salts = int.from_bytes(data[8:12]), data[16:24]
    commits = 0
    for at in range(WAL_HEAD, len(data), FRAME_HEAD + page_bytes):
        frame = data[at : at + FRAME_HEAD]
        if frame[8:16] != salts:
            break
        commits += frame[4:8] != b"\0\0\0\0"
    return commits


@contextmanager
def times_seen(house: House, query: str) -> Iterator[set[str]]:
    """Note each time that rows carry while the block runs, those that they begin with too."""
    seen: set[str] = set()
    is_over, has_looked = threading.Event(), threading.Event()

    def look() -> None:
        with closing(_reader(house)) as db:
            while True:
                seen.update(at for (at,) in db.execute(query))
                has_looked.set()
                if is_over.wait(LOOK_S):
                    return

    thread = threading.Thread(target=look)
    thread.start()
    has_looked.wait()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()
