"""The protocol's rules on lane, late arrivals, evictions and reconcile: what each prevents."""

from hal0.jobs import settle
from hal0.registry.roster import engine_named
from tests.machine.arrivals import answer_last, to_idle, to_ready, to_warming
from tests.machine.play import Play
from tests.machine.rules import shows

EVICTED = "ready>offline evicted_by_engine"
A_DEADLINE_MS, SETTLED_MS = 121_000, 601_000


def _reconcile(play: Play) -> None:
    play.do("read_health")
    play.do("write_reading")


def _is_lane_free(play: Play) -> bool:
    return play.sql("SELECT count(*) FROM engine_lane") == [(0,)]


@shows("watch")
def test_a_rescued_load_that_was_sent_sends_nothing_and_watches(play: Play) -> None:
    to_warming(play, "one")
    play.replace(0, "kill")
    play.do("rescue", play.workers[1])
    play.bring("one", "health")
    answer_last(play, "ok")
    play.drain()
    assert play.now("one")["state"] == "ready"
    assert play.real.engine.posted == ["load m-one"]


@shows("lane_outlives_job")
def test_the_lane_is_held_beyond_the_jobs_own_end(play: Play) -> None:
    to_warming(play, "one")
    play.do("unload", "one")
    play.do("pass_time", A_DEADLINE_MS)
    assert play.now("one")["error"] == "preload.load_timeout"
    assert not _is_lane_free(play)
    play.do("load", "two", 4096)
    play.work_out()
    assert play.real.engine.posted == ["load m-one"]
    answer_last(play, "ok")
    play.drain()
    assert play.now("one")["state"] == "offline", "its last request was an unload"
    assert play.real.engine.loaded == {"m-two": 4096}


@shows("watcher")
def test_after_the_deadline_the_late_answer_is_read(play: Play) -> None:
    to_warming(play, "one")
    play.do("pass_time", A_DEADLINE_MS)
    assert not _is_lane_free(play)
    answer_last(play, "ok")
    assert _is_lane_free(play), "at once, and no settling was needed"
    assert play.real.engine.posted == ["load m-one", "unload m-one"]
    play.drain()
    assert play.now("one")["state"] == "error"


@shows("late_unload")
def test_a_late_arrival_whose_owner_is_dead_is_unloaded_by_another(play: Play) -> None:
    to_warming(play, "one")
    play.do("pass_time", A_DEADLINE_MS)
    play.replace(0, "kill")
    answer_last(play, "ok")
    assert play.real.engine.loaded == {"m-one": 4096}
    play.do("settle", play.workers[1])
    assert (play.real.engine.loaded, _is_lane_free(play)) == ({}, True)
    assert play.now("one")["state"] == "error", "never adopted"
    play.drain()


@shows("late_under_lane")
def test_a_late_arrival_is_unloaded_before_the_lane_goes(play: Play) -> None:
    job_id, _ = to_warming(play, "one")
    play.do("pass_time", A_DEADLINE_MS)
    play.do("retry", job_id)
    play.bring("one", "resolve")
    play.do("unload", "one")
    lanes: list[bool] = []
    play.real.engine.on_unload = lambda: lanes.append(_is_lane_free(play))
    answer_last(play, "ok")
    assert lanes == [False], "unloaded once, under the lane"
    play.drain()
    _reconcile(play)
    assert (play.now("one")["state"], play.real.engine.loaded) == ("offline", {})


@shows("lane_names_attempt")
def test_a_late_hand_of_an_earlier_attempt_frees_no_lane(play: Play) -> None:
    job_id, first = to_warming(play, "one")
    play.do("pass_time", A_DEADLINE_MS)
    play.do("retry", job_id)
    play.work_out()
    play.do("engine_dies")
    play.do("engine_starts")
    play.do("settle", play.workers[0])
    play.bring("one", "sent")
    play.do("pass_time", A_DEADLINE_MS)
    play.replace(0, "kill")
    answer_last(play, "ok")
    assert not _settle(play, job_id, first)
    assert play.sql("SELECT job_id, attempt FROM engine_lane") == [(job_id, first + 1)]

    def taken_by_a_third() -> None:
        play.sql("UPDATE engine_lane SET attempt = 3")

    play.real.engine.on_health = taken_by_a_third
    _settle(play, job_id, first + 1)
    assert play.sql("SELECT job_id, attempt FROM engine_lane") == [(job_id, 3)]


def _settle(play: Play, job_id: int, attempt: int) -> bool:
    """Settle the lane of one attempt, as whoever read its answer does."""
    with play.real.db.read() as tx:
        engine = engine_named(tx, "default")
    return settle.settle_lane(play.real.workers[play.workers[1]], engine, (job_id, attempt))


@shows("evicted_marked")
def test_after_a_failed_load_what_the_engine_lost_goes_offline(play: Play) -> None:
    to_ready(play, "one")
    to_warming(play, "two")
    answer_last(play, "fail_evicting")
    assert play.now("one")["history"][-1] == EVICTED
    assert play.sql("SELECT kind FROM incidents") == [("load_failed",)]
    play.drain()


@shows("restore")
def test_what_was_evicted_and_is_wanted_is_loaded_again_and_the_culprit_never(play: Play) -> None:
    to_ready(play, "one")
    to_warming(play, "two")
    answer_last(play, "fail_evicting")
    play.drain()
    assert (play.now("one")["state"], play.now("two")["state"]) == ("idle", "error")
    assert play.real.engine.posted == ["load m-one", "load m-two", "load m-one"]


@shows("settle_marks_lost")
def test_whoever_lets_the_lane_go_marks_what_the_load_cost(play: Play) -> None:
    to_ready(play, "one")
    to_warming(play, "two")
    play.do("pass_time", A_DEADLINE_MS)
    play.replace(0, "kill")
    answer_last(play, "fail_evicting")
    play.do("pass_time", SETTLED_MS)
    play.do("settle", play.workers[1])
    assert play.now("one")["history"][-1] == EVICTED
    assert play.now("one")["desired"] == "loaded", "no operator unloaded it"
    play.drain()
    assert play.now("one")["state"] == "idle"


@shows("lru_not_restored")
def test_a_model_dropped_for_a_load_that_succeeded_is_not_restored(small: Play) -> None:
    to_ready(small, "one")
    to_ready(small, "two")
    assert small.now("one")["history"][-1] == EVICTED
    small.drain()
    assert small.real.engine.posted == ["load m-one", "load m-two"]


@shows("restore_needs_room")
def test_a_machines_load_never_evicts(small: Play) -> None:
    to_ready(small, "one")
    to_ready(small, "two")
    assert small.do("machine_load", "one").status == 202
    small.drain()
    assert (small.now("one")["state"], small.now("two")["state"]) == ("offline", "ready")
    assert small.loads("one")[-1] == ("succeeded", "skipped", 1)


@shows("refused_has_a_state")
def test_a_load_refused_after_its_mark_was_not_sent_and_waits_from_offline(play: Play) -> None:
    play.do("load", "one", 4096)
    body = play.bring("one", "post")
    play.do("engine_dies")
    play.do("go_on", *body)
    assert play.now("one")["history"][-1] == "warming>offline engine_restarted"
    assert (play.loads("one"), _is_lane_free(play)) == ([("queued", "deferred", 1)], True)
    play.do("unload", "one")
    play.drain()
    assert (play.now("one")["state"], play.real.engine.posted) == ("offline", [])


def test_a_load_whose_engine_stays_away_leaves_a_transient_slot_in_error(play: Play) -> None:
    """refused_has_a_state, its other half."""
    play.do("load", "one", 4096)
    play.do("engine_dies")
    for _ in range(2):
        play.work_out()
        play.do("pass_time", 301_000)
    play.work_out()
    assert (play.now("one")["state"], play.now("one")["error"]) == ("error", "engine.unreachable")
    play.drain()


@shows("reconcile_skips_unfinished")
def test_a_slot_with_an_unfinished_job_is_left_to_it(play: Play) -> None:
    to_ready(play, "one")
    play.do("validate", "one")
    play.do("engine_loses", "m-one")
    _reconcile(play)
    assert play.now("one")["state"] == "ready"
    play.drain()
    assert play.now("one")["history"][-1] == "ready>offline unloaded_elsewhere"


@shows("reconcile_skips_lane")
def test_an_engine_with_a_load_in_its_lane_is_left_to_whoever_settles_that(play: Play) -> None:
    to_ready(play, "one")
    play.do("engine_loses", "m-one")
    play.do("read_health")
    to_warming(play, "two")
    play.do("write_reading")
    assert play.now("one")["state"] == "ready"
    answer_last(play, "fail")
    assert play.now("one")["history"][-1] == EVICTED, "and no operator's act"
    assert play.now("one")["desired"] == "loaded"
    play.drain()


@shows("reconcile_cas")
def test_a_slot_that_was_loaded_anew_since_the_read_is_left_alone(play: Play) -> None:
    to_ready(play, "one")
    play.do("engine_loses", "m-one")
    play.do("read_health")
    play.do("load", "one", 512)
    play.bring("one", "sent")
    answer_last(play, "ok")
    play.bring("one", "sent")
    answer_last(play, "ok")
    play.do("write_reading")
    assert play.now("one")["state"] == "ready"
    play.drain()
    assert play.now("one")["state"] == "ready"


@shows("reconcile_cas_transition")
def test_a_slot_that_moved_since_the_read_is_left_alone(play: Play) -> None:
    to_idle(play, "one")
    play.do("engine_loses", "m-one")
    play.do("read_health")
    play.do("load", "one", 4096)
    assert play.now("one")["history"][-1] == "idle>ready touched"
    play.do("write_reading")
    assert play.now("one")["state"] == "ready", "its generation is the same, its story is not"
    play.drain()


@shows("reconcile_reads_lane")
def test_what_was_read_while_the_lane_was_held_moves_nothing_when_it_is_free(play: Play) -> None:
    to_ready(play, "one")
    to_warming(play, "two")
    play.do("engine_loses", "m-one")
    play.do("read_health")
    for engine in (play.reference.engine, play.real.engine):
        engine.loaded["m-one"] = 4096  # the engine's own retry brings it back
    answer_last(play, "ok")
    assert _is_lane_free(play)
    play.do("write_reading")
    assert play.now("one")["state"] == "ready"
    play.drain()
