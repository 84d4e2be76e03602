"""How often a body's progress is written, and at which rate it is said to go."""

from itertools import pairwise

import pytest

from hal0.db import Database
from hal0.jobs.context import Body, Told
from hal0.jobs.queries import Progress, job_detail
from tests.rows import ask_load, make_model, make_slot
from tests.unit.jobs.conftest import MakeWorker

MIB = 2**20


@pytest.fixture
def body(db: Database, make_worker: MakeWorker) -> Body:
    """A body of a pull that is claimed and does nothing."""
    make_model(db)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    return Body(make_worker().claim())


def seen(db: Database, body: Body) -> Progress:
    with db.read() as tx:
        progress = job_detail(tx, body.held.job.id).progress
    assert progress is not None
    return progress


def test_of_many_steps_within_a_second_the_first_is_written(
    db: Database, make_worker: MakeWorker, body: Body
) -> None:
    ctx = make_worker().ctx
    for done in range(500):
        ctx.progress(body, "fetch", done, 1000)
    assert (seen(db, body).done_bytes, seen(db, body).rate_bytes_s) == (0, None)


def test_a_new_phase_and_the_end_are_written_at_once(
    db: Database, make_worker: MakeWorker, body: Body
) -> None:
    ctx = make_worker().ctx
    ctx.progress(body, "rehash", 5, 1000)
    ctx.progress(body, "fetch", 6, 1000)
    assert (seen(db, body).phase, seen(db, body).done_bytes) == ("fetch", 6)
    ctx.progress(body, "fetch", 1000, 1000)
    assert seen(db, body).done_bytes == 1000


def test_where_nobody_knows_the_total_it_is_no_more_often(
    db: Database, make_worker: MakeWorker, body: Body
) -> None:
    ctx = make_worker().ctx
    for done in range(1, 500):
        ctx.progress(body, "fetch", done, 0)
    assert (seen(db, body).done_bytes, seen(db, body).left_s) == (1, None)


def test_the_rate_follows_what_comes_and_forgets_a_burst() -> None:
    steps = [0, 10, 20, 30, 130, 140, 150, 160, 170, 180]
    told = Told(0, "fetch", 0)
    rates = []
    for second, (_, done) in enumerate(pairwise(steps), start=1):
        told = told.then(second * 1000, "fetch", done * MIB)
        rates.append((told.rate_bytes_s or 0) / MIB)
    assert rates[:3] == pytest.approx([10, 10, 10])
    assert 30 < rates[3] < 50
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 16


def test_a_rate_begins_anew_with_a_phase_and_when_a_file_is_begun_anew() -> None:
    told = Told(0, "rehash", 0).then(1000, "rehash", 9)
    assert told.rate_bytes_s == 9
    assert told.then(2000, "fetch", 20).rate_bytes_s is None
    assert told.then(2000, "rehash", 3).rate_bytes_s is None
    assert told.then(1000, "rehash", 10).rate_bytes_s is None


def test_the_time_that_is_left_is_what_is_missing_at_this_rate() -> None:
    assert Progress("fetch", 25, 100, 5.0).left_s == 15
    assert Progress("fetch", 100, 100, 5.0).left_s == 0
    assert Progress("fetch", 25, 0, 5.0).left_s is None
    assert Progress("fetch", 25, 100, 0.0).left_s is None
    assert Progress("fetch", 25, 100, None).left_s is None
