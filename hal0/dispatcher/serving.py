"""When a slot serves: its first request and its last one, and a lease for those between.

    acquire   from memory, while a lease is held and this process is seen to live; else by the rows
    release   once for each lease; when none has run for `serving_linger_s` the lease is given back

So a serving period costs two commits, and one each half a second in which its count changed. What
cannot be written is tried again until it is; who waits to enter is told. Whoever takes the slot
away takes the lease away with it (`slots.transitions.move`): the watch tells of that within a
quarter of a second, and what was known longer ago than `KNOWN_MS` admits nobody (ADR-0007).
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from hal0 import points
from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.dispatcher.edges import (
    Entered,
    Entering,
    NotDispatchable,
    enter,
    leave,
    note_speeds,
    recount,
)
from hal0.dispatcher.places import COUNT_MS, Door, Entry, Lease, Turn, full
from hal0.dispatcher.speeds import Speeds
from hal0.dispatcher.watch import Look, Watch
from hal0.dispatcher.writer import Write, Writer
from hal0.errors import DatabaseLocked
from hal0.jobs.owners import Beat
from hal0.settings import Settings
from hal0.slots.queries import Slot
from hal0.slots.times import room_of
from hal0.states import Cause, SlotState

ALIVE_MS: Final = 15_000
"""So old the last beat may be: whoever stood still for longer asks what became of the slot."""
KNOWN_MS: Final = 750
"""So old what is known of a slot may be: a forced unload waits a second before it is sent."""


class Serving:
    """The requests of this process, on every slot; belongs to one event loop."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        me: Callable[[], Beat | None],
        watch: Watch,
        speeds: Speeds,
        ring: Callable[[], None],
    ) -> None:
        """`me` tells as whom leases are held; `ring` wakes the workers."""
        self._settings = settings
        self._me = me
        self._watch = watch
        self._speeds = speeds
        self._ring = ring
        self._linger_ms = int(settings.serving_linger_s * 1000)
        self._doors: dict[int, Door] = {}
        self._is_ending = False
        self._writer = Writer(db, self._due, self._pause_s)

    async def start(self) -> None:
        """Begin to write; nobody enters before."""
        self._writer.start()

    async def end(self) -> None:
        """Give every lease back, if that can be written; nobody enters any more."""
        self._is_ending = True
        await self._writer.end()

    def in_flight(self, slot_id: int) -> int:
        """Return how many requests of this process run on what the slot holds."""
        door = self._doors.get(slot_id)
        return 0 if door is None or door.entry is None else door.entry.in_flight

    # -- in and out ---------------------------------------------------------------------------

    async def acquire(self, slot_id: int, request_id: str) -> Lease:
        """Return a place on what the slot holds, as soon as there is one; the slot serves then.

        Raises NotDispatchable, SlotDraining, SlotFull, DatabaseError; nothing is held then.
        """
        door = self._doors.get(slot_id)
        if door is None:
            door = self._doors[slot_id] = Door(slot_id)
        if door.has_place and self._is_sure(door):
            assert door.entry is not None
            return door.entry.enter(request_id)
        return await self._wait(door, request_id)

    async def _wait(self, door: Door, request_id: str) -> Lease:
        if not self._is_sure(door):
            self._ask(door)
        elif door.entry is not None and len(door.waiting) >= door.entry.room.max_waiting:
            raise full(door.entry)
        turn: Turn = asyncio.get_running_loop().create_future()
        door.waiting[turn] = request_id
        within_s = self._settings.wake_timeout_s
        limit = asyncio.get_running_loop().call_later(within_s, self._give_up, door, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(turn.result())
            raise
        finally:
            limit.cancel()
            door.waiting.pop(turn, None)

    def _give_up(self, door: Door, turn: Turn) -> None:
        """Refuse one who has waited long enough for a place; who takes a lease tells of that."""
        if turn.done():
            return
        if door.entry is not None and door.is_full:
            door.waiting.pop(turn, None)
            turn.set_exception(full(door.entry, self._settings.wake_timeout_s))
        else:
            asyncio.get_running_loop().call_later(COUNT_MS / 1000, self._give_up, door, turn)

    def release(self, lease: Lease) -> None:
        """Give a place back; the second time nothing happens. Never raises."""
        if lease.is_over:
            return
        lease.is_over = True
        entry = lease.entry
        entry.leave(lease, monotonic_ms())
        door = self._doors[entry.held.slot_id]
        if door.waiting:
            self._let_in(door, is_sure=self._is_sure(door))
        if not entry.in_flight and (not entry.is_open or self._linger_ms < COUNT_MS):
            self._writer.ring()

    def _is_sure(self, door: Door) -> bool:
        """Whether memory may admit: a lease is held, and nobody can have called us dead."""
        beat = self._me()
        return beat is not None and monotonic_ms() - beat.at_ms < ALIVE_MS and self._knows(door)

    def knows(self, lease: Lease) -> bool:
        """Tell whether a slot, as it was a moment ago, still held what a lease was taken on."""
        return lease.is_good and self._is_fresh(lease.entry)

    def _knows(self, door: Door) -> bool:
        entry = door.entry
        return entry is not None and entry.is_open and self._is_fresh(entry)

    def _is_fresh(self, entry: Entry) -> bool:
        return monotonic_ms() - max(entry.known_ms, self._watch.looked_ms) < KNOWN_MS

    def _let_in(self, door: Door, *, is_sure: bool) -> None:
        if is_sure:
            door.admit_waiting()
        else:
            self._ask(door)

    def _ask(self, door: Door) -> None:
        """Have the rows looked at, for those who wait or for those whose lease is in doubt."""
        door.is_asked = True
        self._writer.ring()

    # -- what others did ----------------------------------------------------------------------

    def _see(self, look: Look) -> None:
        door, slot = self._doors[look.slot.id], look.slot
        entry = door.entry
        if entry is None or slot.generation < entry.held.generation:
            return
        if slot.generation > entry.held.generation or not slot.is_dispatchable:
            self._lose(door, entry, slot)
        elif entry.key not in look.leases:
            # The look may be from before the lease was written.
            if look.began_ms > entry.written_ms and not door.is_being_written:
                self._shut(door, entry, has_lease=False)
        elif look.is_draining:
            self._shut(door, entry, has_lease=True)
        else:
            entry.room = room_of(slot, self._settings)
            if door.waiting and entry.is_open:
                self._let_in(door, is_sure=self._is_sure(door))

    def _lose(self, door: Door, entry: Entry, slot: Slot) -> None:
        """The slot has left what these requests run on, and their lease went with it."""
        self._forget(door)
        is_unloaded = slot.state is SlotState.UNLOADING or slot.cause == Cause.UNLOADED
        if is_unloaded and slot.generation == entry.held.generation:
            entry.cut()
        if door.waiting:
            self._ask(door)

    def _shut(self, door: Door, entry: Entry, *, has_lease: bool) -> None:
        """Let nobody in from memory: the slot drains, or its lease was taken for a dead one's."""
        entry.is_open = False
        if door.waiting or (entry.in_flight and not has_lease):
            self._ask(door)
        else:
            self._writer.ring()  # nobody lingers any more

    def _forget(self, door: Door) -> None:
        if door.entry is not None:
            door.entry.is_open, door.entry.is_gone = False, True
            door.entry = None
        if door.stop_watching is not None:
            door.stop_watching()
            door.stop_watching = None

    # -- what is written ----------------------------------------------------------------------

    def _due(self) -> list[Write]:
        now_ms = monotonic_ms()
        found = (self._due_of(door, now_ms) for door in self._doors.values())
        writes = [write for write in found if write is not None]
        if writes and (rows := self._speeds.rows()):  # those that get lost come with the next
            writes.append(Write(partial(note_speeds, rows=rows)))
        return writes

    def _pause_s(self) -> float | None:
        """Return for how long nothing is due unless somebody rings; None = for ever."""
        now_ms = monotonic_ms()
        next_ms = [
            door.entry.next_ms(now_ms, self._linger_ms)
            for door in self._doors.values()
            if door.entry is not None
        ]
        return max(0, min(next_ms) - now_ms) / 1000 if next_ms else None

    def _due_of(self, door: Door, now_ms: int) -> Write | None:
        """Return what is to be written of one slot now, if anything is."""
        is_asked, door.is_asked = door.is_asked, False
        entry = door.entry
        if is_asked and door.needs_a_lease and not self._is_ending:
            return self._entering(door)
        if entry is None:
            return None
        if self._is_ending or entry.is_left(now_ms, self._linger_ms):
            return self._leaving(door, entry)
        return self._counting(door, entry) if entry.is_miscounted(now_ms) else None

    def _entering(self, door: Door) -> Write | None:
        entry, me = door.entry, self._me()
        if me is None:
            door.refuse_waiting(_not_an_owner())
            return None
        wish = Entering(
            slot_id=door.slot_id,
            owner_id=me.owner_id,
            request_id=door.first_request_id,
            waiting=len(door.waiting),
            running=0 if entry is None else entry.in_flight,
            generation=None if entry is None else entry.held.generation,
        )

        def entered(answer: Entered | Exception) -> None:
            door.is_being_written = False
            if isinstance(answer, Entered):
                points.reach("serving.entered")
                self._hold(door, wish.owner_id, answer)
                return
            door.refuse_waiting(answer)
            if isinstance(answer, NotDispatchable) and door.entry is not None:
                self._lose(door, door.entry, answer.slot)

        def refused(error: Exception) -> None:
            door.is_being_written = False
            door.refuse_waiting(error)

        door.is_being_written = True
        return Write(partial(enter, wish=wish, settings=self._settings), entered, refused)

    def _hold(self, door: Door, owner_id: str, answer: Entered) -> None:
        """Let in who waited, for the lease is written."""
        if door.entry is not None and door.entry.held.generation != answer.held.generation:
            self._forget(door)
        if door.entry is None:
            door.entry = Entry(answer.held, owner_id, answer.room)
            door.stop_watching = self._watch.tell(door.slot_id, self._see)
        entry = door.entry
        entry.held, entry.room, entry.is_open = answer.held, answer.room, True
        entry.note_written(answer.in_flight, None, answer.at_ms)
        door.is_asked = False  # by those who came meanwhile
        self._let_in(door, is_sure=self._knows(door))
        if not entry.in_flight:
            entry.emptied_ms = monotonic_ms()

    def _leaving(self, door: Door, entry: Entry) -> Write:
        entry.is_open = False  # who comes now enters anew
        door.is_being_written = True

        def left(is_waited_for: bool) -> None:
            points.reach("serving.left")
            door.is_being_written = False
            self._forget(door)
            if is_waited_for:
                self._ring()
            if door.waiting:
                self._ask(door)

        def refused(_error: Exception) -> None:
            door.is_being_written = False
            entry.rest()

        request_id, ended_at = entry.last_request_id, entry.ended_at
        write = partial(leave, key=entry.key, request_id=request_id, ended_at=ended_at)
        return Write(write, left, refused)

    def _counting(self, door: Door, entry: Entry) -> Write:
        in_flight, ended_at = entry.in_flight, entry.ended_at

        def counted(at_ms: int | None) -> None:
            points.reach("serving.counted")
            if at_ms is not None:
                entry.note_written(in_flight, ended_at, at_ms)
            elif door.entry is entry:
                self._shut(door, entry, has_lease=False)

        def refused(_error: Exception) -> None:
            entry.rest()

        write = partial(recount, key=entry.key, in_flight=in_flight, ended_at=ended_at)
        return Write(write, counted, refused)


def _not_an_owner() -> DatabaseLocked:
    return DatabaseLocked(
        "this API has not been able to write its own row yet, so that nobody would know whose "
        "request it is; see what holds the database",
        retry_after_s=1,
    )
