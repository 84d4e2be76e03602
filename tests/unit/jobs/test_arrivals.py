"""What is the arrival of a load that was sent: its file, with its options, in whatever process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import update

from hal0 import points
from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.jobs.settle import settle_all
from hal0.states import JobKind, SlotState
from hal0.tables import engine_lane, engines
from tests.fakes.lemond import Lemond
from tests.ledger import eventually, has_failed_key, history, job, the_lanes
from tests.rows import ask_load, slot_now
from tests.unit.jobs.conftest import MakeWorker
from tests.worker import Worker, equip, load_there, loads, unloads


@contextmanager
def _busy_with_another(lemond: Lemond) -> Iterator[None]:
    """Let the engine load somebody's `m-other` until the block is left: what comes waits."""
    lemond.script(models={"m-other": {"load": "hang"}})
    load = threading.Thread(target=load_there, args=(lemond, "m-other"))
    load.start()
    try:
        eventually(lambda: lemond.state()["loading"])
        yield
    finally:
        lemond.script(models={"m-other": None})
        load.join()


def _options_there(lemond: Lemond) -> Any:
    listed = lemond.get("/v1/health").json()["all_models_loaded"]
    return [one["recipe_options"]["ctx_size"] for one in listed if one["model_name"] == "m-chat"]


def test_what_was_there_with_other_options_is_not_taken_for_a_load_that_waits_its_turn(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    """Its worker has died, and another one watches what the engine lists."""
    first, second = make_worker(load_timeout_s=15), make_worker(load_timeout_s=15)
    equip(db, "chat", "other")
    load_there(lemond, "m-chat", ctx_size=512)
    with _busy_with_another(lemond):
        ask_load(db)
        held = first.work_up_to(JobKind.LOAD)
        with first.running(held):
            eventually(lambda: lemond.state()["waiting"] == 1)
            first.ctx.stopping.set()
        watching = threading.Thread(target=second.run, args=(second.claim(),))
        watching.start()
        watching.join(0.5)
        assert (slot_now(db).state, len(the_lanes(db))) == (SlotState.WARMING, 1)
        assert _options_there(lemond) == [512]
    watching.join()
    assert (slot_now(db).state, _options_there(lemond)) == (SlotState.READY, [4096])


def test_what_was_there_with_other_options_is_not_unloaded_as_a_late_arrival(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(load_timeout_s=0.5)
    equip(db, "chat", "other")
    load_there(lemond, "m-chat", ctx_size=512)
    with _busy_with_another(lemond):
        ask_load(db)
        worker.work()
        assert (slot_now(db).error or {})["code"] == "preload.load_timeout"
        settle_all(worker.ctx)
        assert (len(the_lanes(db)), unloads(lemond)) == (1, []), "the load is still to come"
    eventually(lambda: not the_lanes(db))
    assert (unloads(lemond), lemond.state()["loaded"]) == (["m-chat"], ["m-other"])


def test_what_was_there_with_other_options_is_nobodys_leftover_when_the_lane_goes(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(load_timeout_s=0.5)
    equip(db, "chat", "other")
    load_there(lemond, "m-chat", ctx_size=512)
    with _busy_with_another(lemond):
        ask_load(db)
        worker.work()
        with db.write() as tx:
            tx.execute(update(engine_lane).values(settle_ms=monotonic_ms()))
        settle_all(worker.ctx)
        assert (the_lanes(db), unloads(lemond)) == ([], [])
        assert slot_now(db).engine_model is None


@pytest.mark.slow
def test_another_file_by_the_name_of_the_model_is_not_its_arrival(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat")
    ask_load(db)
    held = worker.work_up_to(JobKind.LOAD)
    lemond.script(models={"m-chat": {"checkpoint": "/elsewhere/m-chat.gguf"}})
    worker.run(held)
    assert (slot_now(db).state, lemond.state()["loaded"]) == (SlotState.ERROR, [])
    assert "lists no such file" in (job(db, held.job.id).error or {})["detail"]


def test_a_load_that_another_process_got_and_carried_out_has_succeeded(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """The engine was restarted between the last look at it and the request."""
    equip(db, "chat")
    ask_load(db)
    held = worker.work_up_to(JobKind.LOAD)
    points.arm("load.marked:sleep=2")
    with worker.running(held):
        eventually(lambda: slot_now(db).state is SlotState.WARMING)
        lemond.kill()
        lemond.start()
    assert (history(db)[-1], loads(lemond)) == ("warming>ready loaded", ["m-chat"])
    assert (has_failed_key(db), the_lanes(db)) == (False, [])
    with db.read() as tx:
        process = tx.execute(engines.select().where(engines.c.name == "lemond")).one().process
    assert slot_now(db).engine_process == process
