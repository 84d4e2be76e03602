"""The soak's checker accepts a true history and rejects each false one, by the rule broken."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.soak.checker import check
from tests.soak.evidence import END, Asked, Evidence, Forwarded, Period, Seat, Stay
from tests.soak.vitals import CACHED_BLOCKS, HEAP_BYTES, Vitals, leaks

LINGER = timedelta(seconds=0.5)
SERVES = Seat("s0", "serving", "request_started", 1, 1)
TAKEN = Seat("s0", "unloading", "forced", 1, 0)


def at(seconds: float) -> datetime:
    return datetime(2026, 1, 31, 12, tzinfo=UTC) + timedelta(seconds=seconds)


def asked(name: str, sent: float, ended: float, how: str = "whole", **told: Any) -> Asked:
    return Asked(name, told.pop("of", "s0"), at(sent), at(ended), how, **{"status": 200} | told)


def sent(name: str, began: float, ended: float, how: str = "whole", **told: Any) -> Forwarded:
    values = {"status": 200, "sha256": name if how == "whole" else None, "held": (SERVES,)} | told
    return Forwarded(name, "m0", at(began), at(ended), how, **values)


TRUE = Evidence(
    asked=(
        asked("early", 0.1, 0.2, status=503, code="slot.unloaded"),
        asked("joins", 0.3, 0.9, status=503, code="slot.loading", retry_after="2"),
        asked("first", 1.9, 3.0, sha256="first"),
        asked("slow", 2.5, 5.0, sha256="slow", of="m0"),
        asked("leaves", 3.0, 3.5, "left"),
        asked("cut", 9.9, 12.1, "error_event", code="slot.unloaded"),
        asked("late", 12.05, 12.2, status=503, code="slot.unloaded"),
        asked("lost", 12.5, 12.6, status=404, code="model.not_found", of="m9"),
    ),
    forwarded=(
        sent("first", 2.1, 2.9),
        sent("slow", 2.6, 4.8),
        sent("leaves", 3.1, 3.9, "gone"),
        sent("cut", 10.1, 12.2, "gone"),
        sent("late", 12.1, 12.2, "gone", held=(TAKEN,)),
    ),
    stays=(Stay("m0", at(1), at(13)),),
    periods=(
        Period("s0", 1, at(2), "first", at(6), "slow", "requests_done"),
        Period("s0", 1, at(10), "cut", at(12), None, "forced"),
    ),
    slots=frozenset({"s0"}),
)

Doctor = Callable[[Evidence], Evidence]


def told(request_id: str, **changes: Any) -> Doctor:
    """Let a client have been told otherwise."""
    return lambda true: replace(
        true, asked=tuple(replace(x, **changes) if x.id == request_id else x for x in true.asked)
    )


def got(name: str, **changes: Any) -> Doctor:
    """Let the engine have got it otherwise."""
    return lambda true: replace(
        true, forwarded=tuple(replace(x, **changes) if x.id == name else x for x in true.forwarded)
    )


def served(number: int, **changes: Any) -> Doctor:
    """Let a time of serving have been another."""

    def doctor(true: Evidence) -> Evidence:
        periods = list(true.periods)
        periods[number] = replace(periods[number], **changes)
        return replace(true, periods=tuple(periods))

    return doctor


def loaded(**changes: Any) -> Doctor:
    """Let the model have been there at another time."""
    return lambda true: replace(true, stays=(replace(true.stays[0], **changes),))


def unasked(request_id: str) -> Doctor:
    """Let no client have asked it."""
    return lambda true: replace(true, asked=tuple(x for x in true.asked if x.id != request_id))


def unseen(*request_ids: str) -> Doctor:
    """Let them never have reached the engine."""
    return lambda true: replace(
        true, forwarded=tuple(x for x in true.forwarded if x.id not in request_ids)
    )


def twice(true: Evidence) -> Evidence:
    return replace(true, forwarded=(*true.forwarded, true.forwarded[0]))


READY = replace(SERVES, state="ready", leases=0)
FALSE: dict[str, tuple[str, Doctor]] = {
    "the slot was ready": ("unserved", got("first", held=(READY,))),
    "nobody had a lease": ("unserved", got("first", held=(replace(SERVES, leases=0),))),
    "no slot held the model": ("unserved", got("first", held=())),
    "two slots held the model": ("unserved", got("first", held=(SERVES, SERVES))),
    "it was forwarded before the slot served": ("unserved", served(0, began_at=at(2.2))),
    "the slot ceased to serve before the end": ("unserved", served(0, ended_at=at(4.7))),
    "another load served": ("unserved", served(0, generation=2)),
    "what was taken went on for long": ("unserved", got("cut", ended_at=at(15))),
    "no row says that it served": (
        "unserved",
        lambda true: replace(true, periods=true.periods[:1]),
    ),
    "it served for a request that nobody made": ("idle", served(0, began_by="nobody")),
    "it served for a request of another time": ("idle", served(0, began_by="early")),
    "it ended for a request that nobody made": ("idle", served(0, ended_by="nobody")),
    "it did not end": ("idle", served(0, ended_at=END)),
    "it served on for nobody": ("idle", served(0, ended_at=at(16))),
    "nothing came to the engine": ("idle", unseen("first", "slow", "leaves")),
    "the model was not loaded yet": ("unloaded", loaded(began_at=at(2.2))),
    "the model was unloaded already": ("unloaded", loaded(ended_at=at(2.5))),
    "another model was loaded": ("unloaded", loaded(model="m1")),
    "nobody had asked": ("unloaded", unasked("first")),
    "another model was asked for": ("unloaded", told("slow", name="m1")),
    "an error of hal0's own": ("outcome", told("first", status=500, code="internal")),
    "an answer that did not come": ("outcome", told("first", how="hung", status=None)),
    "an answer without its end": ("outcome", told("first", how="torn")),
    "cut off though nobody used force": ("outcome", told("first", how="cut", status=None)),
    "a slot that is there is not found": (
        "outcome",
        told("early", status=404, code="model.not_found"),
    ),
    "told to come again in vain": ("outcome", told("early", retry_after="1")),
    "not told when to come again": ("outcome", told("joins", retry_after=None)),
    "another byte": ("torn", told("first", sha256="other")),
    "forwarded twice": ("torn", twice),
    "answered by nobody": ("torn", unseen("first")),
    "the engine's own refusal": ("torn", got("first", status=404)),
    "answered by the engine and refused": (
        "torn",
        told("first", status=503, code="slot.unloaded"),
    ),
    "broken off by the engine": ("torn", got("first", how="broken")),
}


def test_a_true_history_is_accepted() -> None:
    assert check(TRUE, LINGER) == []


def test_what_force_caught_just_after_another_time_of_serving_is_accepted() -> None:
    """It came after the force, and was left so soon that the earlier time might still be its."""
    history = replace(
        TRUE,
        asked=(
            asked("before", 9.9, 10.9, sha256="before"),
            asked("cut", 11.4, 12.1, "error_event", code="slot.unloaded"),
            asked("late", 12.05, 12.2, status=503, code="slot.unloaded"),
        ),
        forwarded=(
            sent("before", 10.1, 10.8),
            sent("cut", 11.6, 12.2, "gone"),
            sent("late", 12.1, 12.2, "gone", held=(TAKEN,)),
        ),
        periods=(
            Period("s0", 1, at(10), "before", at(11), "before", "requests_done"),
            Period("s0", 1, at(11.5), "cut", at(12), None, "forced"),
        ),
    )
    assert check(history, LINGER) == []


@pytest.mark.parametrize("what", FALSE)
def test_a_false_history_is_rejected(what: str) -> None:
    rule, doctor = FALSE[what]
    assert rule in {violation.rule for violation in check(doctor(TRUE), LINGER)}


HELD = Vitals(Counter({"main": 1}), Counter({"socket": 5}), 500_000, 30_000_000, 100_000)
REQUESTS = 4000


@pytest.mark.parametrize(
    "grown",
    [
        {"tasks": Counter({"main": 1, "listen": 1})},
        {"files": Counter({"socket": 6})},
        {"files": Counter({"socket": 4, "pipe": 1})},
        {"blocks": HELD.blocks + 2 * REQUESTS},
        {"heap_bytes": HELD.heap_bytes + HEAP_BYTES + 1},
    ],
)
def test_whatever_grows_with_requests_is_a_leak(grown: dict[str, Any]) -> None:
    assert list(leaks(HELD, replace(HELD, **grown), REQUESTS))


def test_what_caches_take_and_what_is_given_up_is_none() -> None:
    after = replace(HELD, tasks=Counter(), blocks=HELD.blocks + CACHED_BLOCKS, resident_kib=200_000)
    assert list(leaks(HELD, after, REQUESTS)) == []
