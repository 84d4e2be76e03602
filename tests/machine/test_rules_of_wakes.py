"""What requests may set going for slots that hold nothing: a machine's loads, by its rules."""

import pytest

from tests.machine.arrivals import answer_last, to_idle, to_ready
from tests.machine.play import Play


def _told(play: Play, slot: str = "one") -> tuple[int, str | None]:
    """Status and code that a request for a slot gets."""
    answer = play.do("wake", slot)
    return answer.status, answer.code


def _unused(play: Play, slot: str = "one") -> None:
    """Let a machine unload what nobody uses."""
    play.do("idle_unload", slot)
    play.bring(slot, "sent")
    answer_last(play, "ok")


def _wanted(play: Play, slot: str = "one") -> tuple[str, str]:
    now = play.now(slot)
    return now["desired"], now["desired by"]


def _load(play: Play, slot: str = "one") -> None:
    play.bring(slot, "sent")
    answer_last(play, "ok")


def test_a_request_loads_what_a_machine_unloaded_and_the_next_ones_join(play: Play) -> None:
    to_idle(play, "one")
    _unused(play)
    assert _wanted(play) == ("unloaded", "idle")
    begun = play.do("wake", "one")
    assert (begun.status, len(begun.jobs)) == (202, 4)
    joined = play.do("wake", "one")
    assert (joined.how, joined.jobs) == ("joined", begun.jobs[:1])
    _load(play)
    assert play.now("one")["history"][-1] == "warming>ready loaded"
    assert _wanted(play) == ("loaded", "wake")
    assert play.do("wake", "one").status == 200
    play.drain()


def test_what_an_operator_wants_unloaded_stays_so_though_a_machine_has_unloaded_it(
    play: Play,
) -> None:
    to_idle(play, "one")
    _unused(play)
    assert play.do("unload", "one").how == "already"
    assert _told(play) == (503, "slot.unloaded")
    play.do("set_wake", "one", "always")
    assert _told(play) == (202, None)
    play.drain()
    assert play.now("one")["state"] == "ready"


def test_what_somebody_unloads_at_the_engine_is_woken_until_a_second_look(play: Play) -> None:
    """The first may only have come while he loads it anew."""
    to_ready(play, "one")
    to_ready(play, "two")
    for slot in ("one", "two"):
        play.do("engine_loses", f"m-{slot}")
    play.do("scan", play.workers[0])
    assert _told(play, "one") == (202, None)
    play.do("scan", play.workers[0])
    assert _wanted(play, "two") == ("unloaded", "elsewhere")
    assert _told(play, "two") == (503, "slot.unloaded")
    play.drain()
    assert (play.now("one")["state"], play.now("two")["state"]) == ("ready", "offline")


def test_a_request_takes_no_other_slots_model_away(small: Play) -> None:
    to_ready(small, "two")
    assert _told(small) == (202, None)
    small.work_out()
    assert small.now("one")["history"][-1] == "starting>offline cancelled"
    assert _told(small) == (503, "slot.loading")
    small.do("pass_time", 31_000)
    assert _told(small) == (202, None)
    small.work_out()
    assert _told(small) == (503, "slot.loading")
    _unused(small, "two")
    assert _told(small) == (202, None), "another has left"
    small.drain()
    assert (small.now("one")["state"], small.now("two")["state"]) == ("ready", "offline")
    assert small.real.engine.posted == ["load m-two", "unload m-two", "load m-one"]


def test_a_load_that_failed_is_sent_by_no_request(play: Play) -> None:
    _told(play)
    play.bring("one", "sent")
    answer_last(play, "fail")
    assert _told(play) == (502, "slot.load_failed")
    play.do("unload", "one")
    play.work_out()
    assert _told(play) == (503, "slot.unloaded")
    play.do("set_wake", "one", "always")
    assert _told(play) == (502, "slot.load_failed")
    play.drain()
    assert play.real.engine.posted == ["load m-one"]


def test_requests_count_like_a_restore_until_the_slot_is_parked(play: Play) -> None:
    for pause in (10, 20, 40, 80):
        assert _told(play) == (202, None)
        _load(play)
        play.do("engine_loses", "m-one")
        play.do("scan", play.workers[0])
        assert _told(play) == (503, "slot.parked")
        play.do("pass_time", pause * 1000)
    assert _told(play) == (202, None)
    _load(play)
    play.do("engine_loses", "m-one")
    play.do("scan", play.workers[0])
    play.do("pass_time", 3_600_000)
    assert _told(play) == (503, "slot.parked")
    play.do("load", "one", 4096)
    play.drain()
    assert play.now("one")["state"] == "ready"


def test_an_engine_that_is_away_is_asked_for_nothing_and_waited_for_by_nobody(play: Play) -> None:
    play.do("engine_dies")
    begun = play.do("wake", "one")
    assert begun.status == 202, "nobody has looked"
    play.work_out()
    assert _told(play) == (202, None)
    play.do("scan", play.workers[0], "hung")
    assert _told(play) == (502, "engine.unreachable")
    assert _told(play, "two") == (502, "engine.unreachable")
    play.do("engine_starts")
    play.drain()
    assert play.now("one")["state"] == "ready"


@pytest.mark.parametrize("death", ["kill", "stop"])
def test_a_wake_survives_the_worker_that_has_sent_its_load(play: Play, death: str) -> None:
    _told(play)
    play.bring("one", "sent")
    play.replace(0, death)
    play.do("rescue", play.workers[1])
    assert play.do("wake", "one").how == "joined"
    play.drain()
    assert play.now("one")["history"][-1] == "warming>ready loaded"
    assert play.real.engine.posted == ["load m-one"]
