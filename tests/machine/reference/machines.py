"""What machines may ask for by themselves: to load again what was lost, to unload what is idle."""

from tests.machine.reference.orders import Orders, accepted
from tests.machine.reference.rows import DISPATCHABLE, Answer, Breaker, Key, Slot

REFUSED = Answer(409)
FIRST_MS, LONGEST_MS, PARKED_AFTER, HEALED_MS = 10_000, 300_000, 5, 300_000


class Machines(Orders):
    """Loads and unloads that no operator asked for."""

    def machine_load(self, name: str) -> Answer:
        """What is wanted is to be there again."""
        slot = self.slot(name)
        return Answer(404) if slot is None else self.load_again(slot, self.wish_of(slot))

    def wish_of(self, slot: Slot) -> Key:
        """What the slot held, or else is set up for."""
        return slot.held if slot.state in DISPATCHABLE and slot.held else slot.wants

    def load_again(self, slot: Slot, key: Key) -> Answer:
        """restore: note it, and begin at once where a machine may."""
        self.remind(slot, key)
        return self.restore(slot)

    def remind(self, slot: Slot, key: Key) -> None:
        """Note what is to be there again, if it is wanted."""
        if slot.desired == "loaded":
            slot.note = key

    def restore(self, slot: Slot) -> Answer:
        """machines_quiet, bad_key: turn a note into a chain; one that can never be is forgotten."""
        if slot.note is None or self.open_chains(slot) or self.is_held_back(slot):
            return REFUSED
        if slot.state == "error" and slot.error and slot.error[0] == "engine.lost":
            return REFUSED
        key, slot.note = slot.note, None
        if slot.state != "offline" or slot.desired != "loaded" or key in slot.bad:
            return REFUSED
        if self.is_taken(key.model, slot):
            return REFUSED
        return accepted(self.add_chain(slot, "load", "restore", key))

    def is_parked(self, slot: Slot) -> bool:
        """Whether only an operator may load this slot."""
        return slot.breaker is not None and slot.breaker.sent >= PARKED_AFTER

    def is_held_back(self, slot: Slot) -> bool:
        """Whether no machine may load this slot now."""
        return slot.breaker is not None and (self.is_parked(slot) or self.now < slot.breaker.opens)

    def count_automatic(self, slot: Slot) -> None:
        """One more was sent: the next waits twice as long."""
        sent = 1 + (slot.breaker.sent if slot.breaker else 0)
        pause = min(FIRST_MS * 2 ** (sent - 1), LONGEST_MS)
        slot.breaker = Breaker(sent, self.now, self.now + pause)

    def count_one_less(self, slot: Slot) -> None:
        """The last one was not sent after all."""
        if slot.breaker:
            sent, last = slot.breaker.sent - 1, slot.breaker.last
            slot.breaker = Breaker(sent, last, last) if sent else None

    def note_ready(self, slot: Slot) -> None:
        """From now on it is well, if it keeps its model."""
        if slot.breaker:
            slot.breaker = slot.breaker._replace(ready=self.now)

    def heal(self, slot: Slot) -> None:
        """It has kept its model for long enough."""
        ready = slot.breaker and slot.breaker.ready
        if ready is not None and self.now - ready >= HEALED_MS:
            slot.breaker = None

    def idle_unload(self, name: str) -> Answer:
        """As the idle scan does."""
        slot = self.slot(name)
        if slot is None:
            return Answer(404)
        return self.machine_unload(slot) if slot.state in DISPATCHABLE else REFUSED

    def machine_unload(self, slot: Slot) -> Answer:
        """A machine's unload carries what it saw (machine_guard)."""
        if self.open_chains(slot):
            return REFUSED
        chain = self.add_chain(slot, "unload", "idle", None)
        chain.guard = (slot.generation, slot.used)
        return accepted(chain)
