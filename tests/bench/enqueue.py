"""How long a job waits on an idle machine: from before its enqueue to the first line of its body.

Each system is two processes, a client and a worker, and has been idle for two seconds before its
job. A round gives each system one job, in random order and one at a time; while one is measured,
the others do what they do when idle.
"""

import os
import random
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final

from hal0.db import open_database
from hal0.jobs.boot import first_act
from hal0.settings import Settings
from tests.bench.servers import start_postgres, start_redis
from tests.bench.systems.starter import BEGUN_FD
from tests.bench.table import Row, Spread, Verdict, judged, ratios
from tests.bench.workshop import NotHere, Workshop, read_line, wait_for
from tests.rows import make_model, make_slot

IDLE_S: Final = 2.0
GAP_S: Final = 0.15
"""Between the jobs of two systems, so that the end of one is not the beginning of the next."""
ROUNDS: Final = 60
WARM_UP: Final = 2
TARGET: Final = 2.5
NOWHERE: Final = "http://127.0.0.1:9"
DURABLE: Final = {"appendonly": "yes", "appendfsync": "always"}

WHAT: Final = "enqueue to body"
HAL0: Final = "hal0"
BARE: Final = "bare sqlite3, insert and claim"
TO_BEAT: Final = {
    "RQ + Redis, every write synced": "rq-fork-synced",
    "RQ without fork + Redis, every write synced": "rq-simple-synced",
    "SqliteHuey that polls each 10 to 50 ms": "huey-sqlite",
}
TO_SHOW: Final = {
    "RQ + Redis as it comes, not synced": "rq-fork",
    "RQ without fork + Redis as it comes, not synced": "rq-simple",
    "RedisHuey, every write synced": "huey-redis-synced",
    "RedisHuey, Redis as it comes, not synced": "huey-redis",
    "PostgresHuey": "huey-postgres",
}
"""Rivals by how the table calls them."""


class System:
    """One system at work: a client that enqueues when told, a worker that says when it began."""

    def __init__(
        self, shop: Workshop, module: str, *words: str, has_worker: bool = True, **env: str
    ) -> None:
        self._name = " ".join((module, *words))
        read_end, write_end = os.pipe()
        self._begun = os.fdopen(read_end)
        how = {"env": env | {BEGUN_FD: str(write_end)}, "pass_fds": [write_end]}
        module = f"tests.bench.systems.{module}"
        self._client = shop.python(module, "client", *words, stdin=-1, stdout=-1, **how)
        self._read_client()  # it is up, and what tables it needs are made
        if has_worker:
            shop.python(module, "worker", *words, **how)
        os.close(write_end)
        self._quiet_since = time.monotonic()

    def _read_client(self) -> str:
        assert self._client.stdout is not None
        return read_line(self._client.stdout, f"the client of {self._name}")

    def rest(self) -> None:
        """Wait until this system has been idle for long enough."""
        left_s = self._quiet_since + IDLE_S - time.monotonic()
        time.sleep(max(left_s, GAP_S))

    def one_job(self) -> float:
        """Enqueue one job; return how many milliseconds it waited."""
        assert self._client.stdin is not None
        self._client.stdin.write("\n")
        self._client.stdin.flush()
        begun_ns = int(read_line(self._begun, f"a body of {self._name}"))
        asked_ns = int(self._read_client())
        self._quiet_since = time.monotonic()
        return (begun_ns - asked_ns) / 1e6


def measure(shop: Workshop) -> list[Row]:
    """Give each system one job a round."""
    rounds = int(os.environ.get("BENCH_ROUNDS", ROUNDS))
    systems, missing = _start_all(shop)
    took: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(-WARM_UP, rounds):
        for name in random.sample(list(systems), len(systems)):
            systems[name].rest()
            waited_ms = systems[name].one_job()
            if number >= 0:
                took[name].append(waited_ms)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r  round {max(0, number + 1)} of {rounds}  ")
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    bare = _row(took, BARE, f"<= {TARGET} x", lambda ratio: ratio <= TARGET)
    beaten = [_row(took, name, "< 1 x", lambda ratio: ratio < 1) for name in TO_BEAT]
    shown = [_row(took, name) for name in TO_SHOW]
    return [
        Row(f"{WHAT} / {name}", "-", verdict=Verdict.NOT_HERE, how=missing[name])
        if row is None
        else row
        for name, row in zip((BARE, *TO_BEAT, *TO_SHOW), (bare, *beaten, *shown), strict=True)
    ]


def _row(
    took: dict[str, list[float]],
    name: str,
    to_reach: str = "",
    is_met: Callable[[float], bool] | None = None,
) -> Row | None:
    """Compare hal0 with one system; None = that one is not here."""
    if name not in took:
        return None
    ratio = ratios(took[HAL0], took[name])
    ours, theirs = Spread.of(took[HAL0]), Spread.of(took[name])
    return Row(
        what=f"{WHAT} / {name}",
        figure=f"{ratio.p50:.2f} x",
        spread=str(ratio),
        to_reach=to_reach,
        verdict=Verdict.SHOWN if is_met is None else judged(is_met(ratio.p50)),
        how=f"p50 {ours.p50:.1f} ms, {theirs.p50:.1f} ms; {len(took[name])} rounds",
        samples={"hal0": took[HAL0], "other": took[name]},
    )


def _start_all(shop: Workshop) -> tuple[dict[str, System], dict[str, str]]:
    """Start every system that can be had; say of the others what they lack."""
    makers: dict[str, Callable[[], System]] = {
        HAL0: lambda: _hal0(shop),
        BARE: lambda: System(shop, "bare", str(shop.folder / "bare.db"), has_worker=False),
    }
    rivals = _Rivals(shop)
    makers |= {
        name: lambda key=key: rivals.start(key)  # type: ignore[misc]
        for name, key in (TO_BEAT | TO_SHOW).items()
    }
    systems, missing = {}, {}
    for name, make in makers.items():
        try:
            systems[name] = make()
        except NotHere as exc:
            missing[name] = str(exc)
    time.sleep(1)  # for workers that say nothing when they are up
    return systems, missing


def _hal0(shop: Workshop) -> System:
    """Start a worker of hal0 over a home with one slot."""
    home = shop.folder / "hal0"
    settings = Settings(home=home, engine_url=NOWHERE)
    db = open_database(settings)
    first_act(db, "bench")
    make_model(db, "tiny")
    make_slot(db, "chat", "tiny")
    db.close()
    system = System(shop, "hal0_jobs", HAL0_HOME=str(home), HAL0_ENGINE_URL=NOWHERE)
    bells = settings.run / "bells"
    wait_for(lambda: bells.is_dir() and any(bells.iterdir()), "a worker of hal0")
    return system


class _Rivals:
    """The rivals, and the servers that they share."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._urls: dict[bool, str] = {}

    def start(self, key: str) -> System:
        """Start one; raises NotHere."""
        family, kind, *rest = key.split("-")
        if family == "rq":
            if find_spec("rq") is None:
                raise NotHere("rq not installed")
            return System(self._shop, "rq_jobs", kind, self._redis(is_synced=bool(rest)))
        where = {
            "sqlite": lambda: str(self._shop.folder / "huey.db"),
            "redis": lambda: self._redis(is_synced=bool(rest)),
            "postgres": lambda: start_postgres(self._shop),
        }
        return System(self._shop, "huey_jobs", kind, where[kind]())

    def _redis(self, *, is_synced: bool) -> str:
        if is_synced not in self._urls:
            name = "redis-synced" if is_synced else "redis"
            settings = DURABLE if is_synced else {}
            self._urls[is_synced] = start_redis(self._shop, name, settings)
        return self._urls[is_synced]
