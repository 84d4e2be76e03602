"""Huey as it comes: SqliteHuey with tuned polling, RedisHuey and PostgresHuey, which block."""

import sys
from typing import Any

from huey import Huey, PostgresHuey, RedisHuey, SqliteHuey

from tests.bench.systems.starter import begin, serve

THREADS = 4  # as many as hal0's worker has
POLLING = {"initial_delay": 0.01, "backoff": 1.15, "max_delay": 0.05}


def make(kind: str, where: str) -> tuple[Huey, Any]:
    """Return a Huey over the file or server at `where`, and its one task."""
    if kind == "sqlite":
        huey = SqliteHuey("bench", filename=where)
    elif kind == "redis":
        huey = RedisHuey("bench", url=where)
    else:
        huey = PostgresHuey("bench", dsn=where)
    return huey, huey.task(name="job")(begin)


if __name__ == "__main__":
    role, kind, where = sys.argv[1:]
    huey, task = make(kind, where)
    if role == "client":
        serve(task)
    else:
        huey.create_consumer(workers=THREADS, periodic=False, **POLLING).run()
