"""Behaviours C of an idle model, as a table of looks: pure, and with every clock in our hands."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.slots.idle import Limits, Sight, Use, Verdict, Window, look, use, verdict
from hal0.states import SlotState

BOOT = "boot-1"
READY = Sight(SlotState.READY, 1, "3792987", is_known=True, is_busy=False, leases=0)
IDLE = replace(READY, state=SlotState.IDLE)
LIMITS = Limits(300, 330, may_unload=True)


def at(seconds: float) -> int:
    return int(seconds * 1000)


def follow(
    *seen: tuple[float, Sight], limits: Limits = LIMITS
) -> tuple[list[Verdict], Window | None]:
    """Look again and again, the state as told by each sight; return what followed each time."""
    window: Window | None = None
    verdicts = []
    for seconds, sight in seen:
        found = use(window, sight)
        window = look(window, sight, BOOT, at(seconds))
        verdicts.append(verdict(window, found, sight.state, limits, at(seconds)))
    return verdicts, window


def last(*seen: tuple[float, Sight], limits: Limits = LIMITS) -> Verdict:
    return follow(*seen, limits=limits)[0][-1]


@pytest.mark.parametrize("last_use", ["0", "3792987", "99999999999"])
def test_first_sight_never_unloads_whatever_the_engine_says_of_the_last_use(last_use: str) -> None:
    """C1, L-1: the number is the engine's own and means nothing here."""
    assert last((1e6, replace(READY, seen=last_use))) is Verdict.NOTHING
    assert last((1e6, replace(IDLE, seen=last_use))) is Verdict.NOTHING


def test_unused_for_less_than_the_limit_is_not_idle() -> None:
    """C2"""
    looks = [(30.0 * n, READY) for n in range(10)]
    assert set(follow(*looks)[0]) == {Verdict.NOTHING}


def test_unused_for_long_enough_it_is_demoted_and_later_unloaded() -> None:
    """C3"""
    assert last((0, READY), (300, READY)) is Verdict.DEMOTE
    assert last((0, READY), (300, READY), (330, IDLE)) is Verdict.UNLOAD


def test_not_a_millisecond_before_the_full_time() -> None:
    assert last((0, READY), (299.999, READY)) is Verdict.NOTHING
    assert last((0, READY), (300, READY)) is Verdict.DEMOTE
    assert last((0, IDLE), (329.999, IDLE)) is Verdict.NOTHING
    assert last((0, IDLE), (330, IDLE)) is Verdict.UNLOAD


def test_it_is_seen_as_idle_before_it_is_unloaded_however_late_the_scan() -> None:
    assert last((0, READY), (5000, READY)) is Verdict.DEMOTE


def test_a_use_past_hal0_restarts_the_window() -> None:
    """C4, L-43: somebody talks to the engine directly."""
    used = replace(READY, seen="4000000")
    assert last((0, READY), (270, used), (540, used)) is Verdict.NOTHING
    assert last((0, READY), (270, used), (570, used)) is Verdict.DEMOTE


def test_another_load_of_the_slot_begins_a_window_though_the_number_is_the_same() -> None:
    """C5"""
    again = replace(READY, generation=2)
    assert last((0, READY), (290, again), (580, again)) is Verdict.NOTHING


@pytest.mark.parametrize(
    "unknown", [replace(READY, is_known=False), replace(READY, is_busy=None)], ids=["last", "busy"]
)
def test_what_the_engine_does_not_say_counts_as_use(unknown: Sight) -> None:
    """C6, L-44"""
    assert last((0, unknown), (1e5, unknown)) is Verdict.NOTHING
    assert last((0, READY), (299, unknown), (310, READY)) is Verdict.NOTHING
    assert last((0, READY), (299, unknown), (310, READY), (609, READY)) is Verdict.NOTHING
    assert last((0, READY), (299, unknown), (310, READY), (610, READY)) is Verdict.DEMOTE


@pytest.mark.parametrize(
    ("limits", "after_s", "state", "expected"),
    [
        (Limits(86400, 86430, True), 86399, SlotState.READY, Verdict.NOTHING),
        (Limits(86400, 86430, True), 86400, SlotState.READY, Verdict.DEMOTE),
        (Limits(0, 0, True), 1e7, SlotState.READY, Verdict.NOTHING),
        (Limits(300, 0, True), 1e7, SlotState.IDLE, Verdict.NOTHING),
        (Limits(0, 330, True), 330, SlotState.READY, Verdict.UNLOAD),
        (Limits(300, 330, False), 1e7, SlotState.IDLE, Verdict.NOTHING),
        (Limits(300, 330, False), 300, SlotState.READY, Verdict.DEMOTE),
    ],
    ids=["long", "long over", "never", "never unloaded", "never idle", "kept", "kept, demoted"],
)
def test_limits_are_what_was_set(
    limits: Limits, after_s: float, state: SlotState, expected: Verdict
) -> None:
    """C7, C12, C13, L-2"""
    sight = replace(READY, state=state)
    assert last((0, sight), (after_s, sight), limits=limits) is expected


def test_a_stream_of_ten_minutes_whose_last_use_is_its_start_keeps_the_window_shut() -> None:
    """C14: no earlier than 300 s after its end."""
    busy = replace(READY, is_busy=True)
    looks = [(30.0 * n, busy) for n in range(21)]
    ended = (630.0, READY)
    assert last(*looks, ended, (929, READY)) is Verdict.NOTHING
    assert last(*looks, ended, (930, READY)) is Verdict.DEMOTE


def test_a_lease_of_ours_is_use_whatever_the_engine_says() -> None:
    ours = replace(READY, leases=1)
    assert last((0, READY), (5000, ours)) is Verdict.NOTHING


def test_an_idle_model_that_is_used_past_hal0_is_ready_again() -> None:
    assert last((0, IDLE), (30, replace(IDLE, seen="4000000"))) is Verdict.WAKE
    assert last((0, IDLE), (30, replace(IDLE, is_busy=True))) is Verdict.WAKE
    assert last((0, IDLE), (30, replace(IDLE, is_known=False))) is Verdict.NOTHING, "no proof"


def test_after_a_gap_of_the_scans_nobody_knows_what_was_used() -> None:
    """C15"""
    before = look(None, READY, BOOT, 0)
    window = look(before, READY, BOOT, at(3600), is_gap=True)
    assert verdict(window, Use.NONE, SlotState.READY, LIMITS, at(3600)) is Verdict.NOTHING
    assert window.since_ms == at(3600)


def test_another_boot_of_the_host_begins_a_window() -> None:
    before = look(None, READY, "boot-0", at(1e6))
    assert look(before, READY, BOOT, at(5)).since_ms == at(5)


def test_a_look_that_finds_nothing_new_returns_the_same_window() -> None:
    """So that nothing is written for it."""
    for sight in (READY, replace(READY, is_busy=True), replace(READY, is_known=False)):
        window = look(None, sight, BOOT, 0)
        assert look(window, sight, BOOT, at(30)) is window


SIGHTS = st.builds(
    Sight,
    state=st.sampled_from([SlotState.READY, SlotState.IDLE]),
    generation=st.integers(1, 2),
    seen=st.sampled_from(["1", "2"]),
    is_known=st.booleans(),
    is_busy=st.sampled_from([True, False, None]),
    leases=st.integers(0, 1),
)


@given(st.lists(st.tuples(st.integers(0, 60), SIGHTS, st.booleans()), min_size=1, max_size=40))
def test_a_window_is_never_longer_than_nobody_used_the_model(
    looks: list[tuple[int, Sight, bool]],
) -> None:
    """Whatever is seen: no verdict before the full time after the last look that showed use."""
    window: Window | None = None
    now_s = last_use_s = 0
    before: Sight | None = None
    for gap_s, sight, is_gap in looks:
        now_s += gap_s
        shows_use = sight.leases > 0 or sight.is_busy is not False or not sight.is_known
        if (
            before is None
            or is_gap
            or shows_use
            or (before.seen, before.generation) != (sight.seen, sight.generation)
        ):
            last_use_s = now_s
        found = use(window, sight)
        window = look(window, sight, BOOT, at(now_s), is_gap=is_gap)
        follows = verdict(window, found, sight.state, LIMITS, at(now_s))
        if follows is Verdict.DEMOTE:
            assert now_s - last_use_s >= 300
        elif follows is Verdict.UNLOAD:
            assert now_s - last_use_s >= 330
        before = sight
