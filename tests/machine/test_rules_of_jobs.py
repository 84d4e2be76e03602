"""The protocol's rules on orders, claims and workers: what each prevents does not happen."""

import sqlite3

import pytest
from sqlalchemy import insert

from hal0.clock import boot_id, utc_now
from hal0.tables import engine_lane
from tests.machine.arrivals import (
    answer_last,
    to_error,
    to_idle,
    to_ready,
    to_starting,
    to_unloading,
    to_warming,
)
from tests.machine.play import Play
from tests.machine.reference.rows import Lane
from tests.machine.rows_of import of_real
from tests.machine.rules import shows

SUPERSEDED = ("cancelled", "superseded")


@shows("fence")
def test_an_owner_that_lost_its_claim_writes_nothing(play: Play) -> None:
    stale = to_starting(play, "one")
    play.do("unload", "one")
    before = {**of_real(play.real), "bodies": {}}
    play.do("go_on", *stale)
    assert of_real(play.real) == before
    assert play.sql("SELECT state, outcome FROM jobs WHERE id = ?", stale[0]) == [SUPERSEDED]
    play.drain()


@shows("claim_waits_for_lane")
def test_a_load_is_claimed_only_when_the_lane_is_free(play: Play) -> None:
    to_warming(play, "one")
    play.do("load", "two", 4096)
    play.replace(0, "kill")
    play.do("pass_time", 121_000)
    play.do("rescue", play.workers[1])
    play.work_out()
    assert play.now("one")["error"] == "preload.load_timeout"
    assert play.loads("two") == [("queued", None, 0)], "nor put back again and again"
    play.drain()
    assert play.now("two")["state"] == "ready"


@shows("claim_waits_for_unloads")
def test_a_load_is_claimed_only_when_no_unload_of_its_engine_runs(play: Play) -> None:
    to_ready(play, "one")
    play.do("unload", "one")
    play.bring("one", "sent")
    play.do("load", "two", 4096)
    play.work_out()
    assert play.loads("two") == [("queued", None, 0)]
    answer_last(play, "ok")
    play.bring("two", "sent")
    play.drain()


@shows("lane_key")
def test_whoever_cannot_take_the_lane_sends_nothing_though_its_claim_were_wrong(
    play: Play,
) -> None:
    play.do("load", "two", 4096)
    body = play.bring("two", "health")
    play.do("load", "one", 4096)
    other = play.reference.jobs[8]
    row = {"engine_id": 1, "slot_id": 1, "job_id": other.id, "attempt": 1, "is_answered": 0}
    owner = play.real.workers[play.workers[1]].owner.id
    settle = {"settle_boot": boot_id(), "settle_ms": 2**50, "sent_at": utc_now()}
    with play.real.db.write() as tx:
        tx.execute(insert(engine_lane), {**row, **settle, "owner_id": owner, "process": None})
    play.reference.lane = Lane(other, 1, play.workers[1], None, 2**50)
    play.do("go_on", *body)
    assert play.loads("two") == [("queued", "deferred", 1)]
    assert (play.now("two")["state"], play.now("two")["generation"]) == ("starting", 0)
    assert play.real.engine.posted == []


@shows("unload_waits_for_lane")
def test_no_unload_is_sent_while_the_lane_names_its_slot(play: Play) -> None:
    to_warming(play, "one")
    play.do("pass_time", 121_000)
    play.do("unload", "one")
    play.work_out()
    assert play.now("one")["state"] == "error"
    assert play.real.engine.posted == ["load m-one"], "the engine would say: no such model"
    answer_last(play, "ok")
    play.drain()
    assert (play.now("one")["state"], play.real.engine.loaded) == ("offline", {})


@shows("unload_unsettled")
def test_a_load_waits_until_the_engine_settled_the_slots_last_unload(play: Play) -> None:
    to_ready(play, "one")
    play.do("unload", "one")
    play.bring("one", "sent")
    play.do("load", "one", 4096)
    play.do("pass_time", 61_000)
    play.work_out()
    assert play.loads("one")[1:] == [("queued", None, 0)], "its unload would take the model down"
    answer_last(play, "ok")
    play.drain()
    assert (play.now("one")["state"], play.real.engine.loaded) == ("ready", {"m-one": 4096})


@shows("machine_guard")
def test_a_machines_unload_is_skipped_when_the_slot_was_used_meanwhile(play: Play) -> None:
    to_idle(play, "one")
    play.do("idle_unload", "one")
    play.do("claim", play.workers[0])
    play.do("admit", "one", "north")
    play.served("one")
    play.drain()
    assert play.now("one")["state"] == "ready"
    assert play.real.engine.posted == ["load m-one"]


def test_a_machine_unloads_nothing_behind_an_error_that_somebody_uses_by_then(play: Play) -> None:
    to_unloading(play, "one")
    answer_last(play, "fail")
    play.do("scan", play.workers[0])
    play.do("used_past_us", "m-one", "begins")
    play.work_out()
    assert (play.now("one")["state"], play.real.engine.loaded) == ("error", {"m-one": 4096})
    play.drain()


def test_a_machine_takes_what_somebody_loaded_with_other_options_as_it_is(play: Play) -> None:
    to_ready(play, "one")
    play.do("engine_dies")
    play.do("engine_starts")
    play.do("scan", play.workers[0])
    play.do("engine_loads", "m-one", 512)
    play.work_out()
    assert (play.now("one")["state"], play.real.engine.loaded) == ("ready", {"m-one": 512})
    assert play.real.engine.posted == ["load m-one"], "that of before the restart"
    play.drain()


def test_what_was_there_with_other_options_is_not_the_load_that_is_watched(play: Play) -> None:
    to_warming(play, "one")
    play.do("engine_loads", "m-one", 512)
    play.replace(0, "kill")
    play.do("rescue", play.workers[1])
    play.work_out()
    assert play.now("one")["state"] == "warming", "the engine owes it still"
    answer_last(play, "ok")
    play.drain()
    assert (play.now("one")["state"], play.real.engine.loaded) == ("ready", {"m-one": 4096})


@shows("machines_quiet")
def test_machines_enqueue_nothing_for_a_slot_with_an_unfinished_job(play: Play) -> None:
    play.do("load", "one", 4096)
    assert play.do("machine_load", "one").status == 409
    assert len(play.loads("one")) == 1
    play.drain()


@shows("bad_key")
def test_a_load_that_was_sent_and_failed_is_sent_again_by_no_machine(play: Play) -> None:
    play.do("load", "one", 4096)
    play.bring("one", "post")
    play.reboot()
    play.do("rescue", play.workers[0])
    play.do("engine_starts")
    play.work_out()
    assert (play.now("one")["state"], play.now("one")["error"]) == ("offline", None)
    assert play.do("machine_load", "one").status == 409
    play.drain()
    assert play.real.engine.posted == []
    assert play.do("load", "one", 4096).status == 202
    play.drain()
    assert play.real.engine.posted == ["load m-one"]


@shows("supersede")
def test_a_newer_intent_cancels_what_is_only_queued(play: Play) -> None:
    to_idle(play, "one")
    play.do("idle_unload", "one")
    play.do("load", "one", 4096)
    play.drain()
    assert play.sql("SELECT state, outcome FROM jobs WHERE kind = 'unload' AND step = 2")[1:2] == [
        SUPERSEDED
    ]
    assert play.real.engine.posted == ["load m-one"]
    play.do("load", "two", 4096)
    to_starting(play, "two")
    play.do("unload", "two")
    play.drain()
    assert (play.now("two")["state"], play.real.engine.posted) == ("offline", ["load m-one"])


@shows("waits_for_sent_only")
def test_an_unload_that_is_claimed_and_not_sent_is_not_waited_for(play: Play) -> None:
    to_idle(play, "one")
    play.do("idle_unload", "one")
    stale = play.do("claim", play.workers[0])
    play.do("load", "one", 4096)
    play.do("go_on", *stale)
    play.drain()
    assert play.now("one")["state"] == "ready"
    assert play.real.engine.posted == ["load m-one"]


@shows("sent_is_waited_for")
def test_a_sent_load_that_rescue_put_back_is_waited_for(play: Play) -> None:
    to_warming(play, "one")
    play.replace(0, "kill")
    play.do("rescue", play.workers[1])
    play.do("unload", "one")
    assert play.now("one")["state"] == "warming"
    assert play.loads("one") == [("queued", "interrupted", 1)]
    play.drain()
    assert play.now("one")["state"] == "offline"
    assert play.real.engine.posted == ["load m-one", "unload m-one"]


@shows("dedup_takes_over")
def test_an_operators_request_takes_a_machines_chain_over(play: Play) -> None:
    to_idle(play, "one")
    queued = play.do("idle_unload", "one")
    asked = play.do("unload", "one")
    assert (asked.how, asked.jobs) == ("deduplicated", queued.jobs)
    play.do("admit", "one", "north")
    play.served("one")
    play.drain()
    assert play.now("one")["state"] == "offline"


@shows("cancel_moves_slot")
@pytest.mark.parametrize("is_put_back", [False, True])
def test_a_cancel_moves_the_slot_in_the_same_commit(play: Play, is_put_back: bool) -> None:
    job_id, _ = to_starting(play, "one")
    if is_put_back:
        play.replace(0, "kill")
        play.do("rescue", play.workers[1])
    assert play.do("cancel", job_id).status == 200
    assert play.now("one")["history"][-1] == "starting>offline cancelled"
    play.drain()


@shows("retry_409")
def test_a_retry_is_refused_while_a_newer_chain_is_unfinished(play: Play) -> None:
    to_error(play, "one")
    play.do("validate", "one")
    assert play.do("retry", 4).code == "job.superseded"
    play.drain()
    assert play.do("retry", 4).status == 202
    play.drain()
    assert play.now("one")["state"] == "ready"


@shows("one_running")
def test_a_second_running_job_of_a_slot_cannot_be_written(play: Play) -> None:
    to_starting(play, "one")
    assert play.do("claim", play.workers[1]) is None
    with pytest.raises(sqlite3.IntegrityError, match="one runs at a time"):
        play.sql("UPDATE jobs SET state = 'running', owner_id = 'me', attempt = 1 WHERE id = 3")
    play.drain()


@shows("crash_limit")
def test_a_job_that_killed_three_workers_fails_and_others_go_on(play: Play) -> None:
    play.do("load", "one", 4096)
    play.do("load", "two", 4096)
    for _ in range(3):
        play.bring("one", "resolve")
        play.replace(0, "kill")
        play.do("rescue", play.workers[1])
    assert play.now("one")["history"][-1] == "starting>error worker_lost"
    assert play.now("one")["error"] == "job.worker_crashed"
    play.drain()
    assert (play.now("one")["state"], play.now("two")["state"]) == ("error", "ready")


@shows("unowned_recovered")
def test_a_transient_state_that_no_job_owns_is_recovered_by_an_audited_row(play: Play) -> None:
    to_starting(play, "one")
    play.sql("UPDATE jobs SET state = 'cancelled', owner_id = NULL WHERE slot_id = 1")
    play.real.rescue(play.workers[1])
    assert play.now("one")["history"][-1] == "starting>error worker_lost"
