"""What API processes write for requests of users: they enter, are forwarded, and leave."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.machine.reference.orders import NO_SLOT
from tests.machine.reference.rows import DISPATCHABLE, IDLE_MS, Answer, Slot
from tests.machine.reference.scans import Scans

APIS = ("north", "south")
NOT_FROM_HERE = Answer(409, "slot.illegal_transition")
NOT_THERE = Answer(503)
DRAINS = Answer(503, "slot.draining")


@dataclass(frozen=True)
class Asked:
    """A request that runs: whose it is, and what of a slot it was let in to use."""

    api: str
    slot: Slot
    generation: int

    @property
    def lease(self) -> tuple[str, int]:
        """By which row its slot serves."""
        return self.api, self.generation


class Users(Scans):
    """Requests for inference."""

    def __init__(self, workers: Iterable[str], max_models: int | None = None) -> None:
        super().__init__(workers, max_models)
        self.asked: list[Asked] = []
        """The requests that run, oldest first."""
        self.starts = dict.fromkeys(APIS, 1)
        """How often each API process began."""

    def admit(self, name: str, api: str) -> Answer:
        """A request enters what a slot holds; the slot serves before anything is forwarded."""
        slot = self.slot(name)
        if slot is None:
            return NO_SLOT
        if slot.state not in DISPATCHABLE:
            return NOT_THERE
        if self.drains_for(slot):
            return DRAINS
        if slot.state != "serving":
            self.move(slot, "serving", "request_started")
        one = Asked(self._alive(api), slot, slot.generation)
        self.asked.append(one)
        slot.leases[one.lease] = self._running(one)
        return Answer(200)

    def forward(self, number: int) -> str:
        """lease_checked_before_forward: only to what the slot holds still."""
        one = self.asked[number]
        slot = one.slot
        if (slot.generation, slot.state in DISPATCHABLE) != (one.generation, True):
            self.leave(number)
            return "refused"
        if not self.engine.is_up or slot.told not in self.engine.loaded:
            self.leave(number)
            return "lost"
        self.engine.use(slot.told)
        return "forwarded"

    def leave(self, number: int) -> None:
        """lease_generation: a request that ends touches nothing but what it was let in to."""
        one = self.asked.pop(number)
        slot = one.slot
        if slot.generation == one.generation:
            self.use(slot)
        if one.lease not in slot.leases:
            return
        slot.leases[one.lease] = self._running(one)
        if slot.leases[one.lease]:
            return
        del slot.leases[one.lease]
        if slot.state == "serving" and not slot.is_served:
            self.move(slot, "ready", "requests_done")

    def _running(self, one: Asked) -> int:
        return sum((other.slot, other.lease) == (one.slot, one.lease) for other in self.asked)

    def _alive(self, api: str) -> str:
        return f"{api} {self.starts[api]}"

    def kill_api(self, api: str) -> None:
        """kill -9: its clients are gone, its leases stay; another begins in its place."""
        self.asked = [one for one in self.asked if one.api != self._alive(api)]
        self.starts[api] += 1

    def clear_leases(self, slot: Slot) -> None:
        """What the dead left: where no lease of a living one is, the slot serves no more."""
        living = {self._alive(api) for api in self.starts}
        slot.leases = {lease: n for lease, n in slot.leases.items() if lease[0] in living}
        if slot.state == "serving" and not slot.is_served:
            is_idle = self.wall - slot.used_at >= IDLE_MS
            self.move(slot, "idle" if is_idle else "ready", "leases_cleared")

    def demote(self, name: str) -> Answer:
        """Nobody used the slot for a while."""
        slot = self.slot(name)
        if slot is None:
            return NO_SLOT
        if slot.state != "ready":
            return NOT_FROM_HERE
        self.move(slot, "idle", "demoted")
        return Answer(200)
