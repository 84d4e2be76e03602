"""What became of the slots that somebody has in use, or waits for: all of them at one look.

A process that changes a slot tells nobody; it commits rows. So one task reads the rows, four times
a second, of all slots that somebody here asked to see; there is none while nobody does. It needs no
thread and no connection for each who waits.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.errors import DatabaseError
from hal0.jobs.ledger.drains import draining
from hal0.jobs.ledger.rows import Job, slots_with_work, unfinished_jobs
from hal0.slots.leases import LeaseKey, keys_of
from hal0.slots.queries import Slot, slots_with_ids

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Look:
    """A slot as one look found it; `began_ms` is when the look began, on the monotonic clock."""

    slot: Slot
    jobs: tuple[Job, ...]
    """What is not finished, in its order."""
    is_draining: bool
    leases: Collection[LeaseKey]
    began_ms: int


Tell = Callable[[Look], None]


class Changes:
    """What one who waits for a slot is told of it."""

    def __init__(self) -> None:
        self._known: object = None
        self._slot: Slot | None = None
        self._is_news = asyncio.Event()

    def see(self, look: Look) -> None:
        """Take note of a look."""
        found = (replace(look.slot, last_used_at=None), look.jobs)
        if found != self._known:
            self._known, self._slot = found, look.slot
            self._is_news.set()

    async def next(self, timeout_s: float) -> Slot | None:
        """Return the slot as soon as its row or its jobs are others than at the last call.

        The first call returns it as the first look finds it. None = not within `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_news.wait()
        except TimeoutError:
            return None
        self._is_news.clear()
        return self._slot


class Watch:
    """Looks at slots while somebody asks to see them; to be used in one event loop."""

    def __init__(self, db: Database, look_s: float = LOOK_S) -> None:
        self._db = db
        self._look_s = look_s
        # Its own: the loop's may all wait for who holds the database, and reading need not.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self._tells: dict[int, list[Tell]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._is_blind = False
        self.looked_ms = 0
        """When the last look that succeeded began, on the monotonic clock."""

    @property
    def is_looking(self) -> bool:
        """Whether anybody asked to see a slot."""
        return bool(self._tells)

    @contextmanager
    def slot(self, slot_id: int) -> Iterator[Changes]:
        """Watch a slot for as long as the block runs."""
        changes = Changes()
        stop = self.tell(slot_id, changes.see)
        try:
            yield changes
        finally:
            stop()

    def tell(self, slot_id: int, what: Tell) -> Callable[[], None]:
        """Have `what` called, in the loop, with every look at a slot, until the answer is called.

        What a look finds may be older than what the caller has written since it began.
        """
        self._tells.setdefault(slot_id, []).append(what)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look_on(), name="watch")

        def stop() -> None:
            told = self._tells.get(slot_id, [])
            if what in told:
                told.remove(what)
            if not told:
                self._tells.pop(slot_id, None)

        return stop

    async def _look_on(self) -> None:
        loop = asyncio.get_running_loop()
        while self._tells:
            try:
                looks = await loop.run_in_executor(self._thread, self._look, tuple(self._tells))
            except DatabaseError as error:
                if not self._is_blind:  # once, not four times a second for a night
                    log.warning("slots in use are not seen: %s", error.detail)
                self._is_blind = True
            except Exception:  # a watch that ends would let requests pass that must not
                log.exception("the watch goes on")
            else:
                self._is_blind = False
                for look in looks:
                    self.looked_ms = look.began_ms
                    self._spread(look)
            await asyncio.sleep(self._look_s)

    def _look(self, slot_ids: tuple[int, ...]) -> list[Look]:
        began_ms = monotonic_ms()
        with self._db.read() as tx:
            at_work, leases = slots_with_work(tx), keys_of(tx, slot_ids)
            return [
                Look(
                    slot,
                    tuple(unfinished_jobs(tx, slot.id)) if slot.id in at_work else (),
                    slot.id in at_work and draining(tx, slot.id) is not None,
                    leases.get(slot.id, ()),
                    began_ms,
                )
                for slot in slots_with_ids(tx, slot_ids)
            ]

    def _spread(self, look: Look) -> None:
        for what in tuple(self._tells.get(look.slot.id, ())):
            try:
                what(look)
            except Exception:  # others asked to see it too, and other slots
                log.exception("slot %s was seen, and who asked failed", look.slot.name)
