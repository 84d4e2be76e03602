"""What tests of faults look at: the engine's call log, attempts and owners by their rows."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from tests.acceptance.house import House
from tests.fakes.lemond import Lemond

IS_FULL_LENGTH = bool(os.environ.get("FAULTS_FULL"))
"""With FAULTS_FULL=1 times are the defaults of hal0, and sweeps miss nothing out."""


def add_slots(house: House, *names: str, **body: Any) -> None:
    """Make slots, each with a model of its own: `m-<name>`."""
    for seed, name in enumerate(names):
        house.add_model(f"m-{name}", seed=seed)
        house.add_slot(name, f"m-{name}", **body)


def loads_sent(lemond: Lemond) -> list[str]:
    """Return the models that the engine was asked to load, in order."""
    return [call["body"]["model_name"] for call in lemond.calls("/v1/load")]


def outcomes(house: House, job_id: int) -> list[str]:
    """Return how the attempts of a job ended."""
    rows = house.sql("SELECT outcome FROM job_attempts WHERE job_id = ? ORDER BY attempt", job_id)
    return [outcome for (outcome,) in rows]


def jobs_of(house: House, *states: str) -> list[int]:
    """Return the jobs in these states."""
    places = ", ".join("?" * len(states))
    rows = house.sql(f"SELECT id FROM jobs WHERE state IN ({places}) ORDER BY id", *states)
    return [job_id for (job_id,) in rows]


def check_nobody_died(house: House, processes: int) -> None:
    """All of so many processes live, no row says otherwise, and no attempt was taken from one."""
    assert house.sql("SELECT count(*), count(ended_at) FROM owners") == [(processes, 0)]
    assert [process.poll() for process in house.processes] == [None] * processes
    assert house.sql("SELECT * FROM job_attempts WHERE outcome = 'interrupted'") == []


@contextmanager
def locked(house: House) -> Iterator[None]:
    """Hold the database's write lock as another program would."""
    path = house.home / "hal0.db"
    with closing(sqlite3.connect(path, isolation_level=None, timeout=20)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
