"""Requests for what a slot does not hold: they join a load, set one going, or are refused."""

from tests.machine.reference.orders import NO_SLOT, TAKEN, accepted
from tests.machine.reference.rows import DISPATCHABLE, Answer, Job, Key, Slot
from tests.machine.reference.users import Users

FULL_MS = 30_000
HELD_NOTHING = ("created", "cancelled", "pulled", "validated", "cleared")
"""Causes after which a slot is offline that had nothing to leave."""
UNLOADED = Answer(503, "slot.unloaded")
LOAD_FAILED = Answer(502, "slot.load_failed")
UNREACHABLE = Answer(502, "engine.unreachable")
PARKED = Answer(503, "slot.parked")
FULL = Answer(503, "slot.loading")


class Wakes(Users):
    """A machine's loads that requests ask for."""

    def wake(self, name: str) -> Answer:
        """Join what is under way, or begin a load; one request does it for all that wait."""
        slot = self.slot(name)
        if slot is None:
            return NO_SLOT
        if slot.state in DISPATCHABLE:
            return Answer(200)
        chains = self.open_chains(slot)
        if slot.state == "error" and not any(chain.goal == "load" for chain in chains):
            return LOAD_FAILED
        if chains:
            return self._join(chains[0].open[0])
        key = slot.note or slot.wants
        return self._refusal(slot, key) or self._begin_wake(slot, key)

    def _join(self, job: Job) -> Answer:
        """Nobody waits for a job that itself waits for an engine which is not there."""
        is_deferred = (job.state, job.outcome) == ("queued", "deferred")
        if is_deferred and job.kind != "pull" and self.away_since is not None:
            return UNREACHABLE
        return Answer(202, None, (job.id,), "joined")

    def _refusal(self, slot: Slot, key: Key) -> Answer | None:
        """Whose wish it is, bad_key, the breaker, and whether there is room."""
        was_unloaded = slot.cause == "unloaded"
        if slot.wake == "never" or (slot.wake == "auto" and slot.is_to_stay_unloaded):
            return UNLOADED
        if key in slot.bad:
            return LOAD_FAILED
        if self.away_since is not None:
            return UNREACHABLE
        if self.is_held_back(slot) and not was_unloaded:
            return PARKED
        if self.is_taken(key.model, slot):
            return TAKEN
        return FULL if self._has_given_way(slot) else None

    def _has_given_way(self, slot: Slot) -> bool:
        """Whether its last load gave way just now, and nothing has left the engine since."""
        asked = [
            job for job in self.jobs.values() if job.slot is slot and job.kind in ("load", "unload")
        ]
        last = max(asked, key=lambda job: (job.chain.position, job.step), default=None)
        at = None if last is None else last.gave_way
        if at is None or not 0 <= self.wall - at < FULL_MS:
            return False
        return not any(
            other.state == "offline" and other.cause not in HELD_NOTHING and other.since > at
            for other in self.all_slots
        )

    def _begin_wake(self, slot: Slot, key: Key) -> Answer:
        """It is wanted from now on; what was unloaded in good order was not lost."""
        if slot.cause == "unloaded":
            slot.breaker = None
        slot.desired, slot.desired_by, slot.note = "loaded", "wake", None
        return accepted(self.add_chain(slot, "load", "wake", key))
