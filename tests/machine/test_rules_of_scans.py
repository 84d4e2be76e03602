"""The protocol's rules on scans, the other halves: idle, adopted, lost, given back, held back."""

from tests.machine.arrivals import (
    answer_last,
    to_error,
    to_idle,
    to_ready,
    to_unloading,
    to_warming,
)
from tests.machine.play import Play

A_DEADLINE_MS, A_SCAN_MS = 121_000, 30_000


def _scan(play: Play, how: str = "well") -> None:
    play.do("scan", play.workers[0], how)


def _scan_for(play: Play, seconds: int) -> None:
    for _ in range(seconds // 30):
        _scan(play)
        play.do("pass_time", A_SCAN_MS)


def _restart_engine(play: Play) -> None:
    play.do("engine_dies")
    play.do("engine_starts")


def _serve_on(play: Play, slot: str) -> None:
    play.work_out()
    if play.reference.engine.requests:
        answer_last(play, "ok")
    assert play.now(slot)["state"] == "idle", "a machine loads for nobody who waits"


def _kinds_of_incidents(play: Play) -> list[str]:
    return [kind for (kind,) in play.sql("SELECT kind FROM incidents ORDER BY id")]


# -- late_unload --------------------------------------------------------------------------------


def test_what_a_failed_unload_left_is_unloaded_by_a_machine_once(play: Play) -> None:
    to_unloading(play, "one")
    answer_last(play, "fail")
    assert (play.now("one")["state"], play.now("one")["error"]) == ("error", "engine.refused")
    _scan(play)
    play.bring("one", "sent")
    answer_last(play, "ok")
    assert play.now("one")["history"][-1] == "error>offline unload_confirmed"
    play.drain()
    assert play.real.engine.posted == ["load m-one", "unload m-one", "unload m-one"]


def test_a_machine_tries_no_second_time_to_unload_what_will_not_go(play: Play) -> None:
    to_unloading(play, "one")
    answer_last(play, "fail")
    _scan(play)
    play.bring("one", "sent")
    answer_last(play, "fail")
    _scan_for(play, 90)
    play.drain()
    assert play.now("one")["state"] == "error"
    assert play.real.engine.posted.count("unload m-one") == 2


def test_a_pinned_slot_keeps_even_what_a_failed_unload_left(play: Play) -> None:
    to_ready(play, "one")
    play.do("pin", "one", True)
    play.do("unload", "one", False, True)
    play.bring("one", "sent")
    answer_last(play, "fail")
    play.drain()
    assert play.real.engine.loaded == {"m-one": 4096}


# -- restore, lru_not_restored -------------------------------------------------------------------


def test_what_a_restart_cost_comes_back_under_one_incident(play: Play) -> None:
    to_ready(play, "one")
    to_ready(play, "two")
    _restart_engine(play)
    _scan(play)
    assert _kinds_of_incidents(play) == ["engine_restarted"]
    play.drain()
    assert (play.now("one")["state"], play.now("two")["state"]) == ("idle", "idle")


def test_what_is_wanted_is_loaded_after_a_reboot_once_the_engine_is_well(play: Play) -> None:
    to_ready(play, "one")
    play.reboot()
    assert play.now("one")["to restore"] == ("m-one", 4096)
    _scan(play, "hung")
    play.do("claim", play.workers[0])
    assert play.real.engine.posted == ["load m-one"]
    play.do("engine_starts")
    _scan(play)
    _serve_on(play, "one")
    play.drain()


def test_what_is_dropped_for_another_clients_load_is_not_restored(small: Play) -> None:
    to_ready(small, "one")
    small.do("engine_loads", "m-two", 512)
    _scan(small)
    assert small.now("one")["history"][-1] == "ready>offline evicted_by_engine"
    assert (small.now("two")["state"], small.now("two")["desired"]) == ("ready", "unloaded")
    assert _kinds_of_incidents(small) == ["load_made_room"]
    small.drain()
    assert small.real.engine.posted == ["load m-one"]


def test_a_slot_that_keeps_losing_its_model_waits_longer_each_time_and_is_parked(
    play: Play,
) -> None:
    to_ready(play, "one")
    for sent, pause_s in enumerate((10, 20, 40, 80, 160), start=1):
        _restart_engine(play)
        _scan(play)
        _serve_on(play, "one")
        assert play.sql("SELECT sent FROM breakers") == [(sent,)]
        _restart_engine(play)
        _scan(play)
        play.do("pass_time", pause_s * 1000 - 100)
        _scan(play)
        assert play.do("claim", play.workers[0]) is None, "not before its pause has passed"
        play.do("pass_time", 100)
    _scan_for(play, 600)
    assert play.real.engine.posted == ["load m-one"] * 6
    assert play.now("one")["to restore"] == ("m-one", 4096), "it waits for an operator"
    play.do("load", "one", 4096)
    play.drain()
    assert (play.now("one")["state"], play.now("one")["breaker"]) == ("ready", None)


def test_five_minutes_with_its_model_make_a_slot_well_also_after_a_reboot(play: Play) -> None:
    to_ready(play, "one")
    _restart_engine(play)
    _scan(play)
    _serve_on(play, "one")
    play.reboot()
    play.do("engine_starts")
    play.do("engine_loads", "m-one", 4096)
    _scan_for(play, 240)
    assert play.now("one")["breaker"] == (1, 0)
    _scan_for(play, 90)
    assert play.now("one")["breaker"] is None
    play.drain()


def test_an_automatic_load_that_was_refused_is_not_counted(play: Play) -> None:
    to_ready(play, "one")
    _restart_engine(play)
    _scan(play)
    body = play.bring("one", "post")
    assert play.sql("SELECT sent FROM breakers") == [(1,)]
    play.do("engine_dies")
    play.do("go_on", *body)
    assert play.sql("SELECT sent FROM breakers") == []
    play.drain()


def test_a_slot_that_got_another_model_is_not_given_back_the_one_before(play: Play) -> None:
    to_ready(play, "one")
    play.reboot()
    play.do("assign", "one", "m-spare")
    play.drain()
    assert (play.now("one")["state"], play.real.engine.loaded) == ("offline", {})


def test_a_machines_load_takes_the_place_of_its_own_model(small: Play) -> None:
    """restore_needs_room, its other half: to reload what is there evicts nobody."""
    to_ready(small, "one")
    _scan(small, "hung")
    small.do("pass_time", 61_000)
    _scan(small, "hung")
    assert small.now("one")["error"] == "engine.lost"
    small.do("backend_dies", "m-one")
    _scan(small)
    small.bring("one", "sent")
    assert small.real.engine.posted == ["load m-one", "unload m-one"]
    answer_last(small, "ok")
    _serve_on(small, "one")
    small.drain()


# -- machine_guard, idle -------------------------------------------------------------------------


def test_what_nobody_uses_is_demoted_and_then_unloaded(play: Play) -> None:
    to_ready(play, "one")
    _scan_for(play, 300)
    assert play.now("one")["state"] == "ready", "not before the full time"
    _scan(play)
    assert play.now("one")["history"][-1] == "ready>idle demoted"
    play.do("pass_time", A_SCAN_MS)
    _scan(play)
    play.drain()
    assert play.now("one")["history"][-2:] == [
        "idle>unloading idle_unload",
        "unloading>offline unloaded",
    ]
    assert play.now("one")["desired"] == "unloaded"


def test_a_use_past_hal0_wakes_a_slot_and_voids_its_unload(play: Play) -> None:
    to_idle(play, "one")
    _scan(play)
    play.do("idle_unload", "one")
    play.do("used_past_us", "m-one", "briefly")
    play.work_out()
    assert play.now("one")["state"] == "idle"
    _scan(play)
    assert play.now("one")["history"][-1] == "idle>ready used_elsewhere"
    play.drain()


def test_a_lease_or_silence_of_the_engine_voids_an_idle_unload(play: Play) -> None:
    to_idle(play, "one")
    play.do("idle_unload", "one")
    body = play.bring("one", "health")
    play.do("admit", "one", "north")
    play.do("go_on", *body)
    play.served("one")
    play.do("idle_unload", "one")
    body = play.bring("one", "health")
    play.do("engine_dies")
    play.do("go_on", *body)
    assert play.now("one")["state"] == "ready"
    assert play.real.engine.posted == ["load m-one"]
    play.drain()


def test_a_slot_that_is_pinned_after_its_unload_was_queued_is_not_unloaded(play: Play) -> None:
    to_idle(play, "one")
    play.do("idle_unload", "one")
    play.do("pin", "one", True)
    play.drain()
    assert play.real.engine.posted == ["load m-one"]


def test_an_operators_unload_waits_for_a_request_past_hal0(play: Play) -> None:
    to_ready(play, "one")
    play.do("used_past_us", "m-one", "begins")
    play.do("unload", "one")
    play.work_out()
    assert (play.now("one")["state"], play.real.engine.posted) == ("ready", ["load m-one"])
    play.do("used_past_us", "m-one", "ends")
    play.drain()
    assert play.now("one")["state"] == "offline"


# -- reconcile -----------------------------------------------------------------------------------


def test_what_somebody_loaded_is_adopted_and_never_unloaded_by_a_machine(play: Play) -> None:
    play.do("engine_loads", "m-one", 512)
    _scan_for(play, 900)
    assert (play.now("one")["state"], play.now("one")["desired"]) == ("idle", "unloaded")
    assert play.real.engine.posted == []
    play.do("engine_loses", "m-one")
    play.drain()
    assert play.now("one")["history"][-1] == "idle>offline unloaded_elsewhere"


def test_what_timed_out_is_adopted_from_another_process_alone(play: Play) -> None:
    to_warming(play, "one")
    play.do("pass_time", A_DEADLINE_MS)
    answer_last(play, "ok")
    play.do("unload", "one")
    play.drain()
    play.do("engine_loads", "m-one", 4096)
    _scan(play)
    assert play.now("one")["state"] == "offline"
    _restart_engine(play)
    play.do("engine_loads", "m-one", 4096)
    _scan(play)
    assert play.now("one")["state"] == "ready"
    play.drain()


def test_what_timed_out_says_nothing_of_another_model(play: Play) -> None:
    to_warming(play, "one")
    play.do("pass_time", A_DEADLINE_MS)
    answer_last(play, "ok")
    play.do("unload", "one")
    play.drain()
    play.do("assign", "one", "m-spare")
    play.do("engine_loads", "m-spare", 4096)
    _scan(play)
    assert play.now("one")["state"] == "ready"
    play.drain()


def test_a_slot_that_was_changed_or_deleted_since_the_read_adopts_nothing(play: Play) -> None:
    """reconcile_cas_transition, its other half: neither change is a transition."""
    play.do("engine_loads", "m-one", 4096)
    play.do("read_health")
    play.do("assign", "one", "m-spare")
    play.do("write_reading")
    assert play.now("one")["state"] == "offline"
    play.do("engine_loads", "m-two", 4096)
    play.do("read_health")
    play.do("delete", "two", False)
    play.do("write_reading")
    assert play.sql("SELECT state FROM slots ORDER BY id") == [("offline",), ("offline",)]
    play.drain()


def test_an_engine_that_stays_away_costs_its_slots_and_one_that_returns_gives_them_back(
    play: Play,
) -> None:
    to_ready(play, "one")
    to_ready(play, "two")
    _scan(play, "hung")
    play.do("pass_time", 59_000)
    _scan(play, "hung")
    assert play.now("one")["state"] == "ready", "it has its grace"
    play.do("pass_time", 2_000)
    _scan(play, "hung")
    assert play.now("one")["history"][-1] == "ready>error engine_lost"
    assert _kinds_of_incidents(play) == ["engine_lost"]
    play.do("engine_loses", "m-two")
    play.drain()
    assert (play.now("one")["state"], play.now("two")["state"]) == ("ready", "idle")
    assert play.real.engine.posted == ["load m-one", "load m-two", "load m-two"]


def test_a_slow_health_is_not_a_death_and_no_list_is_not_an_empty_one(play: Play) -> None:
    to_ready(play, "one")
    play.do("engine_loses", "m-one")
    for how in ("slow", "mute", "slow", "mute"):
        _scan(play, how)
        play.do("pass_time", 61_000)
    assert play.now("one")["state"] == "ready"
    play.drain()


def test_what_a_second_scan_misses_too_was_unloaded_by_a_person_and_what_is_back_was_not(
    play: Play,
) -> None:
    for name in ("one", "two"):
        to_ready(play, name)
    for name in ("one", "two"):
        play.do("engine_loses", f"m-{name}")
    _scan(play)
    play.do("engine_loads", "m-two", 512)
    _scan(play)
    assert (play.now("one")["state"], play.now("one")["desired"]) == ("offline", "unloaded")
    assert (play.now("two")["state"], play.now("two")["desired"]) == ("ready", "loaded")
    play.drain()


def test_what_made_room_for_a_load_that_a_scan_came_into_stays_wanted(small: Play) -> None:
    to_ready(small, "one")
    small.do("engine_loses", "m-one")
    _scan(small)
    small.do("engine_loads", "m-spare", 512)
    _scan(small)
    small.do("engine_loses", "m-spare")
    _scan(small)
    assert (small.now("one")["state"], small.now("one")["desired"]) == ("offline", "loaded")
    small.drain()


def test_what_an_error_left_and_a_scan_missed_is_somebody_elses_when_it_is_there_again(
    play: Play,
) -> None:
    """late_unload, its other half."""
    to_unloading(play, "one")
    answer_last(play, "fail")
    play.do("engine_loses", "m-one")
    _scan(play)
    play.do("engine_loads", "m-one", 512)
    play.drain()
    assert play.real.engine.loaded == {"m-one": 512}


def test_what_failed_and_was_adopted_all_the_same_is_restored_after_a_restart(play: Play) -> None:
    """bad_key, its other half: it serves."""
    to_warming(play, "one")
    _restart_engine(play)
    play.work_out()
    assert play.now("one")["failed keys"] == {("m-one", 4096)}
    play.do("engine_loads", "m-one", 4096)
    _scan(play)
    assert play.now("one")["failed keys"] == set()
    _restart_engine(play)
    _scan(play)
    _serve_on(play, "one")
    play.drain()


# -- loads meet what is there --------------------------------------------------------------------


def test_a_load_adopts_what_the_engine_has_already_as_wanted(play: Play) -> None:
    play.do("load", "one", 512)
    body = play.bring("one", "health")
    play.do("engine_loads", "m-one", 512)
    play.do("go_on", *body)
    assert (play.now("one")["state"], play.real.engine.posted) == ("ready", [])
    play.drain()


def test_a_load_reloads_what_is_there_otherwise_and_first_unloads_what_does_not_answer(
    play: Play,
) -> None:
    play.do("load", "one", 512)
    body = play.bring("one", "health")
    play.do("engine_loads", "m-one", 4096)
    play.do("go_on", *body)
    assert body == play.bring("one", "sent")
    answer_last(play, "ok")
    play.do("load", "two", 512)
    body = play.bring("two", "health")
    play.do("engine_loads", "m-two", 512)
    play.do("backend_dies", "m-two")
    play.do("go_on", *body)
    play.bring("two", "sent")
    answer_last(play, "ok")
    play.drain()
    assert play.real.engine.posted == ["load m-one", "unload m-two", "load m-two"]


def test_a_load_whose_backend_does_not_answer_has_failed(play: Play) -> None:
    body = to_warming(play, "one")
    answer_last(play, "hollow")
    play.do("go_on", *body)
    play.do("pass_time", 10_000)
    play.do("go_on", *body)
    assert play.now("one")["error"] == "engine.backend_not_answering"
    assert play.real.engine.loaded == {}
    play.drain()
    to_error(play, "two")
    play.drain()
