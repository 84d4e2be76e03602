"""What machines do not do by themselves for a slot, and why, in words for people."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from hal0.jobs.ledger.breaker import Breaker
from hal0.jobs.survey import timed_out
from hal0.slots.overview import SlotOverview
from hal0.slots.queries import Slot
from hal0.states import SlotState

TO_THE_SECOND: Final = "%Y-%m-%dT%H:%M:%SZ"


def opens_at(breaker: Breaker | None) -> datetime | None:
    """Return when a machine may load a slot again; None = now, or never (parked)."""
    waits = breaker is not None and breaker.refuses and not breaker.is_parked
    return breaker.opens_at if breaker is not None and waits else None


def hindrance(breaker: Breaker | None, model: str | None) -> str | None:
    """Say what keeps a machine from loading `model` again; None = nothing does."""
    if breaker is None or not breaker.refuses:
        return None
    if breaker.is_parked:
        return f"parked after {_loads(breaker.sent)}: load it to begin anew"
    return (
        f"a machine loads {model or 'it'} again no earlier than "
        f"{breaker.opens_at.strftime(TO_THE_SECOND)} ({_loads(breaker.sent)} so far)"
    )


def leftover(slot: Slot) -> str | None:
    """Say that the engine may have what a job could not load, or unload; None = it has not.

    A slot that is in error for its engine's absence comes back by itself: no job made that error.
    """
    if slot.state is not SlotState.ERROR or (slot.error or {}).get("job_id") is None:
        return None
    if slot.engine_model is None:
        return None
    return (
        f"{slot.engine_model} may be loaded still; `hal0 slot load {slot.name}` takes it over, "
        f"`hal0 slot unload {slot.name}` unloads it"
    )


def is_passed_over(tx: Connection, seen: SlotOverview) -> bool:
    """Whether the engine has what a slot wants, and no machine adopts it: its load was too slow."""
    slot = seen.slot
    is_empty = slot.state in (SlotState.OFFLINE, SlotState.ERROR) and slot.engine_model is None
    return is_empty and seen.wanted_model in seen.engine_has and timed_out(tx, slot)


def passed_over(seen: SlotOverview) -> str:
    """Say so, and how the slot gets it."""
    return (
        f"the engine has {seen.wanted_model}, and no machine takes it over, for a load of it was "
        f"too slow: `hal0 slot load {seen.slot.name}` does"
    )


def _loads(count: int) -> str:
    return "1 automatic load" if count == 1 else f"{count} automatic loads"
