"""Who of this process's requests may go on with a slot now, and who waits: in memory alone.

    Door    one slot: the generation that is held, and who waits in front of it, in order
    Entry   one generation of it: how many requests run, and what is written of them
    Lease   one request's place in it

Belongs to one event loop. When a lease is taken, counted and given back is decided in `serving`.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from hal0.clock import monotonic_ms, utc_now
from hal0.errors import SlotFull
from hal0.registry.roster import EngineRow
from hal0.slots.leases import LeaseKey
from hal0.slots.times import Room

log = logging.getLogger(__name__)

COUNT_MS: Final = 500
"""A count is written at most this often; so long rests, too, what could not be written."""
COME_AGAIN_S: Final = 1.0
"""Nobody knows when a place is free; so soon a client may ask again for one."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a slot holds, as a request needs to know it."""

    slot_id: int
    slot: str
    generation: int
    model_id: int | None
    engine_model: str
    """What the engine calls it."""
    engine: EngineRow


class Lease:
    """One request's place; it keeps its slot serving until it is released."""

    __slots__ = ("entry", "held", "is_over", "request_id")

    def __init__(self, entry: "Entry", request_id: str) -> None:
        self.entry = entry
        self.held = entry.held
        self.request_id = request_id
        self.is_over = False

    @property
    def is_good(self) -> bool:
        """Whether the slot, as far as is known, still holds what this was taken on."""
        return not self.entry.is_gone

    @property
    def is_cut(self) -> bool:
        """Whether the model was taken from under the request by force."""
        return self.entry.is_cut

    def on_cut(self, call: Callable[[], None]) -> None:
        """Have `call` called once, in the loop, when the request is cut; now, when it is."""
        if self.entry.is_cut:
            call()
        else:
            self.entry.cuts[self] = call


Turn = asyncio.Future[Lease]


@dataclass(eq=False, slots=True)
class Entry:
    """The requests of this process that run on one generation of a slot."""

    held: Held
    owner_id: str
    room: Room
    is_open: bool = True
    """Whether others may enter without a look at the rows."""
    is_gone: bool = False
    """The slot has left this generation: no row says anything of its requests any more."""
    is_cut: bool = False
    in_flight: int = 0
    emptied_ms: int = 0
    """Since when none runs, if none does."""
    last_request_id: str = ""
    """Which one entered or left last."""
    cuts: dict[Lease, Callable[[], None]] = field(default_factory=dict)

    ended_at: datetime | None = None
    """When the last one ended, if that is not written yet."""
    written: int = 0
    """How many the lease says, since `written_ms`."""
    written_ms: int = 0
    known_ms: int = 0
    """When the rows last said that the lease is held."""
    rest_until_ms: int = 0
    """Nothing is written before, for it could not be."""

    @property
    def key(self) -> LeaseKey:
        """Whose lease this is, and on what."""
        return LeaseKey(self.held.slot_id, self.held.generation, self.owner_id)

    def enter(self, request_id: str) -> Lease:
        """Let one more request run."""
        self.in_flight += 1
        self.last_request_id = request_id
        return Lease(self, request_id)

    def leave(self, lease: Lease, now_ms: int) -> None:
        """Let it run no more."""
        self.in_flight -= 1
        self.last_request_id = lease.request_id
        self.ended_at = utc_now()
        if self.cuts:
            self.cuts.pop(lease, None)
        if not self.in_flight:
            self.emptied_ms = now_ms

    def cut(self) -> None:
        """Tell every request that runs that its model is taken away."""
        self.is_cut = True
        calls, self.cuts = tuple(self.cuts.values()), {}
        for call in calls:
            try:
                call()
            except Exception:  # the others are to be told all the same
                log.exception("a request of slot %s was not cut", self.held.slot)

    # -- what is to be written ----------------------------------------------------------------

    def note_written(self, in_flight: int, ended_at: datetime | None, known_ms: int) -> None:
        """Take note of what the rows say since a moment ago."""
        self.written, self.written_ms, self.known_ms = in_flight, monotonic_ms(), known_ms
        if self.ended_at is ended_at:
            self.ended_at = None

    def rest(self) -> None:
        """Write nothing for a moment, for it could not be written."""
        self.rest_until_ms = monotonic_ms() + COUNT_MS

    def is_left(self, now_ms: int, linger_ms: int) -> bool:
        """Whether the lease is to be given back now."""
        if self.in_flight or now_ms < self.rest_until_ms:
            return False
        return not self.is_open or now_ms >= self.emptied_ms + linger_ms

    def is_miscounted(self, now_ms: int) -> bool:
        """Whether the lease is to be written anew now."""
        is_news = self.in_flight != self.written or self.ended_at is not None
        return is_news and now_ms >= max(self.written_ms + COUNT_MS, self.rest_until_ms)

    def next_ms(self, now_ms: int, linger_ms: int) -> int:
        """Return when one of the two may be so without anybody's word."""
        next_ms = self.written_ms + COUNT_MS
        if next_ms <= now_ms:
            next_ms = now_ms + COUNT_MS
        if not self.in_flight:
            next_ms = min(next_ms, self.emptied_ms + linger_ms)
        return max(next_ms, self.rest_until_ms)


@dataclass(eq=False, slots=True)
class Door:
    """One slot, as this process's requests meet it."""

    slot_id: int
    entry: Entry | None = None
    waiting: OrderedDict[Turn, str] = field(default_factory=OrderedDict)
    """Who waits for a place, in order, with the id of the request."""
    is_asked: bool = False
    """Whether the rows are to be looked at before anybody enters."""
    is_being_written: bool = False
    """Whether a lease is being taken, or given back."""
    stop_watching: Callable[[], None] | None = None

    @property
    def has_place(self) -> bool:
        """Whether one more may enter at once."""
        entry = self.entry
        return (
            entry is not None
            and entry.is_open
            and entry.in_flight < entry.room.max_in_flight
            and not self.waiting
        )

    @property
    def is_full(self) -> bool:
        """Whether as many run as may."""
        entry = self.entry
        return entry is not None and entry.in_flight >= entry.room.max_in_flight

    @property
    def first_request_id(self) -> str:
        """On behalf of which request a lease is taken."""
        last = "" if self.entry is None else self.entry.last_request_id
        return next(iter(self.waiting.values()), last)

    @property
    def needs_a_lease(self) -> bool:
        """Whether somebody waits, or runs whose lease is in doubt."""
        entry = self.entry
        is_bare = entry is not None and not entry.is_open and entry.in_flight > 0
        return bool(self.waiting) or is_bare

    def admit_waiting(self) -> None:
        """Let enter who waits as long as there are places; refuse who came too late to wait."""
        entry = self.entry
        assert entry is not None, "nobody enters what is not held"
        while self.waiting and entry.in_flight < entry.room.max_in_flight:
            turn, request_id = self.waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(entry.enter(request_id))
        while len(self.waiting) > entry.room.max_waiting:
            turn, _ = self.waiting.popitem()
            if not turn.done():
                turn.set_exception(full(entry))

    def refuse_waiting(self, error: Exception) -> None:
        """Tell everybody who waits why nobody enters."""
        while self.waiting:
            turn, _ = self.waiting.popitem()
            if not turn.done():
                turn.set_exception(copy(error))


def full(entry: Entry, waited_s: float | None = None) -> SlotFull:
    """Return what is said to one who may not even wait, or has waited for so long."""
    room = entry.room
    wait = f"{room.max_waiting} wait" if waited_s is None else f"none ended in {waited_s:g} s"
    return SlotFull(
        f"slot {entry.held.slot} answers {room.max_in_flight} requests of this API at once and "
        f"{wait}; come again, or give the slot larger limits",
        evidence={
            "slot": entry.held.slot,
            "max_in_flight": room.max_in_flight,
            "max_waiting": room.max_waiting,
        },
        retry_after_s=COME_AGAIN_S,
    )
