"""What must hold when nothing is left to do (`quiet` of the protocol's model)."""

from collections.abc import Mapping
from typing import Final

from tests.machine.reference.rows import DISPATCHABLE, LATE, TRANSIENT, Key, Slot
from tests.machine.reference.world import Reference

LEFT_OFFLINE: Final = {"evicted_by_engine", "cancelled"}
"""Causes after which a slot stays as it is though it is wanted: another was loaded in its place."""


def not_at_rest(reference: Reference, wanted: Mapping[Slot, tuple[Key | None, int]]) -> str:
    """Say what is not as it must be; nothing = all is well.

    `wanted`: what was accepted last for a slot for which nothing went wrong since.
    """
    if reference.lane or reference.bodies:
        return "a lane or a body is left over"
    told = ((slot, _wrong_with(reference, slot, wanted)) for slot in reference.slots)
    return "; ".join(f"slot {slot.name} {wrong}" for slot, wrong in told if wrong)


def _wrong_with(
    reference: Reference, slot: Slot, wanted: Mapping[Slot, tuple[Key | None, int]]
) -> str:
    if reference.open_chains(slot):
        return "has a job for ever"
    if slot.state in TRANSIENT:
        return f"stays {slot.state}"
    if slot in wanted and slot.held != wanted[slot][0]:
        return f"is {slot.state} with {slot.held}, and {wanted[slot][0]} is wanted"
    if slot.desired == "loaded" and slot.state == "offline" and not _says_why(reference, slot):
        return "does not come back"
    return _disagreement(reference, slot)


def _disagreement(reference: Reference, slot: Slot) -> str:
    """The slot and its engine tell the same, or a machine may not touch what is there."""
    engine, entry = reference.engine, slot.listed(reference.engine.loaded)
    if slot.state in DISPATCHABLE:
        is_so = slot.held and engine.loaded.get(slot.held.model) == slot.held.ctx_size
        return "" if is_so else "holds what its engine has not"
    if slot.state == "offline" and entry == slot.model:
        may_not = not engine.serves(entry) or LATE in slot.bad.values()
        return "" if may_not else "does not know what its engine has"
    if slot.state == "error" and entry and slot.told:
        return "" if slot.is_cleared or slot.pinned else "is in error, and its engine has its model"
    return ""


def _says_why(reference: Reference, slot: Slot) -> bool:
    """Why no machine loads what is wanted: it failed, is parked, had no room, was set up anew.

    Or it was gone before a restart, or before another's took its place: nobody knows why.
    """
    causes = [line.split()[1] for line in slot.history]
    begins = ("created", "loaded", "adopted")
    since = max(at for at, cause in enumerate(causes) if cause in begins)
    loads = [one for one in reference.chains if (one.slot, one.goal) == (slot, "load")]
    newest = max(loads, key=lambda chain: chain.position, default=None)
    has_failed = newest is not None and any(job.state == "failed" for job in newest.jobs)
    had_no_room = bool(LEFT_OFFLINE.intersection(causes[since:]))
    is_unclear = causes[-1] == "unloaded_elsewhere" and slot.process != reference.engine.process
    why = (slot.bad, slot.note, slot.set_up, has_failed, had_no_room, is_unclear)
    return any(why)
