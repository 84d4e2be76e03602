"""How a slot looks as JSON: its row, the times that hold, and what a glance would not tell."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import cast

from hal0.api import answers, slot_answers
from hal0.api.views import problem_of, when
from hal0.jobs.ledger.breaker import Breaker
from hal0.jobs.outlook import hindrance, leftover, opens_at, passed_over
from hal0.jobs.restore import restore_of
from hal0.slots.fading import Fading
from hal0.slots.overview import SlotOverview, Speed
from hal0.slots.times import Room, Times
from hal0.states import Cause, Desired


@dataclass(frozen=True, slots=True)
class Beside:
    """What is shown of a slot that others do or did to it."""

    job_id: int | None
    """The job that runs or is first in its line."""
    breaker: Breaker | None
    fading: Fading
    is_passed_over: bool


def slot_json(seen: SlotOverview, times: Times, room: Room, beside: Beside) -> slot_answers.Slot:
    """Show a slot."""
    slot, breaker, fading = seen.slot, beside.breaker, beside.fading
    return {
        "id": slot.id,
        "name": slot.name,
        "state": slot.state,
        "since": when(slot.since),
        "cause": slot.cause,
        "engine": seen.engine,
        "model": seen.model,
        "wanted_model": seen.wanted_model,
        "desired": slot.desired,
        "desired_by": slot.desired_by,
        "options": cast(answers.Options, slot.options),
        "pinned": slot.pinned,
        "priority": slot.priority,
        "idle_after_s": slot.idle_after_s,
        "unload_after_s": slot.unload_after_s,
        "load_timeout_s": slot.load_timeout_s,
        "load_timeout_s_per_gb": slot.load_timeout_s_per_gb,
        "wake": slot.wake,
        "max_in_flight": slot.max_in_flight,
        "max_waiting": slot.max_waiting,
        "effective": cast(slot_answers.Effective, {**asdict(times), **asdict(room)}),
        "last_used_at": when(slot.last_used_at),
        "demotes_at": when(fading.demotes_at),
        "unloads_at": when(fading.unloads_at),
        "in_flight": seen.in_flight,
        "speed": _speed_json(seen.speed),
        "job_id": beside.job_id,
        "error": problem_of(slot.error),
        "restore": _restore_json(seen, breaker),
        "warnings": list(_warnings(seen, breaker, beside.is_passed_over)),
        "version": slot.version,
    }


def _speed_json(speed: Speed | None) -> slot_answers.Speed | None:
    if speed is None:
        return None
    return {
        "requests": speed.requests,
        "first_byte_ms": speed.first_byte_ms,
        "tokens_per_s": speed.tokens_per_s,
        "at": when(speed.at),
    }


def _restore_json(seen: SlotOverview, breaker: Breaker | None) -> slot_answers.Restore | None:
    noted = restore_of(seen.slot)
    if noted is None and breaker is None:
        return None
    return {
        "cause": None if noted is None else noted["cause"],
        "model": seen.to_restore,
        "because_of_job_id": None if noted is None else noted["job_id"],
        "sent": 0 if breaker is None else breaker.sent,
        "opens_at": when(opens_at(breaker)),
        "is_parked": breaker is not None and breaker.is_parked,
    }


def _warnings(seen: SlotOverview, breaker: Breaker | None, is_passed_over: bool) -> Iterator[str]:
    """Say what a glance at the state would not: a wish that did not, or cannot, come true."""
    slot = seen.slot
    if slot.is_dispatchable and slot.wanted_model_id not in (None, slot.model_id):
        yield (
            f"holds {seen.model}, {seen.wanted_model} is wanted: its last load did not succeed or "
            "is not done; see the jobs of this slot"
        )
    left = leftover(slot)
    if left is not None:
        yield left
    if is_passed_over:
        yield passed_over(seen)
    kept_away = hindrance(breaker, seen.to_restore)
    if slot.restore is not None and kept_away is not None:
        yield kept_away
    is_concerned = slot.desired is Desired.LOADED or slot.cause == Cause.CREATED
    is_too_small = seen.engine_holds is not None and seen.engine_holds < seen.meant_loaded
    if is_concerned and is_too_small:
        yield (
            f"engine {seen.engine} holds no more than {seen.engine_holds} at once, and "
            f"{seen.meant_loaded} slots are meant to be loaded: one load drops another's model. "
            "Raise the engine's limit, or unload a slot"
        )
