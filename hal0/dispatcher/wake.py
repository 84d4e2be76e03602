"""What a request does whose slot holds nothing: it joins a load, sets one going, or is refused.

However many requests wait for a slot, one task looks at its rows and asks for one load, in one
durable commit; between processes the ledger sees to that. Who waits holds neither a thread nor a
connection, waits no longer than `wake_timeout_s`, and is told at once when there is nothing more to
wait for. No more than `max_waiting` wait in one process.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from hal0 import points
from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.dispatcher.prospects import Prospect, prospect
from hal0.dispatcher.watch import Watch
from hal0.errors import Hal0Error, SlotFull, SlotLoading
from hal0.jobs.ledger.rows import By, Chain
from hal0.jobs.wakes import request_wake
from hal0.settings import Settings
from hal0.slots.queries import Slot
from hal0.slots.times import room_of
from hal0.states import Origin

LOOK_S: Final = 1.0
"""So often rows are looked at of which nothing new was heard: a lost word costs no more."""


class Waker:
    """The slots that requests of this process wait for."""

    def __init__(
        self, settings: Settings, db: Database, watch: Watch, ring: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._db = db
        self._watch = watch
        self._ring = ring
        self._lines: dict[int, _Line] = {}

    async def until_dispatchable(self, slot: Slot, request_id: str, actor: str) -> None:
        """Return when the slot may be acquired; may be cancelled at any time.

        Raises SlotLoading, SlotUnloaded, SlotLoadFailed, SlotParked, SlotFull, EngineUnreachable,
        SlotHasNoModel, SlotNotFound, ModelTaken, DatabaseError.
        """
        most = room_of(slot, self._settings).max_waiting
        line = self._lines.get(slot.id) or self._begin(slot, By(actor, request_id, Origin.WAKE))
        if line.waiting >= max(1, most):
            raise line.full(most)
        line.waiting += 1
        try:
            await line.end(self._settings.wake_timeout_s if most else 0.0)
        finally:
            line.waiting -= 1
            if not line.waiting:
                self._close(line)

    def waiting(self, slot_id: int) -> int:
        """Return how many requests wait for a slot."""
        line = self._lines.get(slot_id)
        return 0 if line is None else line.waiting

    def _begin(self, slot: Slot, by: By) -> "_Line":
        line = _Line(slot)
        line.task = asyncio.create_task(self._see_through(line, by))
        line.task.add_done_callback(lambda _: self._close(line))
        self._lines[slot.id] = line
        return line

    def _close(self, line: "_Line") -> None:
        """Let the next request begin anew; what the line has committed goes on."""
        if self._lines.get(line.slot.id) is line:
            del self._lines[line.slot.id]
        line.task.cancel()

    async def _see_through(self, line: "_Line", by: By) -> Hal0Error | None:
        """Return None when the slot is dispatchable, or what everybody in line is told."""
        try:
            with self._watch.slot(line.slot.id) as changes:
                while True:
                    line.prospect = await asyncio.to_thread(self._look, line, by)
                    line.is_seen.set()
                    if line.prospect.slot.is_dispatchable:
                        return None
                    await changes.next(LOOK_S)
        except Hal0Error as error:
            return error
        finally:
            line.is_seen.set()

    def _look(self, line: "_Line", by: By) -> Prospect:
        """Read what there is to hope for; set a load going if there is none and may be one."""
        seen = self._read(line)
        if not seen.may_wake:
            return seen
        with self._db.write() as tx:
            accepted = request_wake(tx, line.slot, by)
        if accepted is not None:
            points.reach("wake.enqueued")
            self._ring()
        return self._read(line)

    def _read(self, line: "_Line") -> Prospect:
        with self._db.read() as tx:
            seen = prospect(tx, line.slot, line.load, self._settings)
        line.load = seen.load or line.load
        return seen


class _Line:
    """The requests of this process that wait for one slot, and the task that looks for them."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.waiting = 0
        self.task: asyncio.Task[Hal0Error | None]
        self.is_seen = asyncio.Event()
        self.prospect: Prospect | None = None
        self.load: Chain | None = None

    async def end(self, within_s: float) -> None:
        """Return when the slot is dispatchable; raise what there is to be told, or SlotLoading."""
        until_ms = monotonic_ms() + within_s * 1000
        await self.is_seen.wait()  # a request that may not wait wakes its slot all the same
        left_s = max(0.0, (until_ms - monotonic_ms()) / 1000)
        await asyncio.wait((self.task,), timeout=left_s)
        if not self.task.done():
            raise self._loading()
        if (error := self.task.result()) is not None:
            raise error.with_traceback(None)

    def full(self, most: int) -> SlotFull:
        """Return what a request is told for which there is no place."""
        return SlotFull(
            f"{self.waiting} requests wait for slot {self.slot.name} already, of at most {most}",
            evidence={"slot": self.slot.name, "waiting": self.waiting, "max_waiting": most},
            retry_after_s=self._loading().retry_after_s,
        )

    def _loading(self) -> SlotLoading:
        if self.prospect is None:
            return SlotLoading(f"slot {self.slot.name} is {self.slot.state}")
        return self.prospect.as_error()
