"""How a request comes to a lease: by its slot's name or its model's, and by waking what sleeps."""

import asyncio
import logging
from typing import Final

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.dispatcher.edges import NotDispatchable
from hal0.dispatcher.places import Held, Lease
from hal0.dispatcher.serving import Serving
from hal0.dispatcher.targets import Target, Targets
from hal0.dispatcher.wake import Waker
from hal0.errors import DatabaseError, SlotLoading
from hal0.jobs.rounds import look_soon
from hal0.registry.roster import EngineRow, engine_by_id
from hal0.slots.queries import Slot, slot_by_id

log = logging.getLogger(__name__)

WAKES: Final = 2
"""A slot that is lost again as soon as it is loaded is not waited for any longer."""
RECHECK_S: Final = 10.0
"""How long a request waits until a worker has looked at its engine: a tick, and a slow health."""
LOOK_S: Final = 0.5
ASKED_EACH_MS: Final = 1000
"""How often an engine is asked to be looked at: many requests may fail at once."""


class Admission:
    """The way in, for the requests of one process."""

    def __init__(self, db: Database, serving: Serving, waker: Waker) -> None:
        self._db = db
        self._targets = Targets(db)
        self._serving = serving
        self._waker = waker
        self._asked_ms: dict[int, int] = {}

    async def admit(self, model: str, request_id: str, actor: str) -> Lease:
        """Return a lease on the slot that is meant; release it.

        Waits for its model to be loaded. Raises ModelNotFound, ModelAmbiguous, DatabaseError, what
        `Serving.acquire` raises, and what `Waker.until_dispatchable` does.
        """
        target = await self._targets.find(model)
        for _ in range(WAKES):
            if (lease := await self._enter(target, request_id)) is not None:
                return lease
            target, slot = await self._targets.find_now(model)
            if not slot.is_dispatchable:
                await self._waker.until_dispatchable(slot, request_id, actor)
        if (lease := await self._enter(target, request_id)) is not None:
            return lease
        raise SlotLoading(
            f"the slot of {model!r} has changed again before it was reached; see its transitions",
            evidence={"model": model},
            retry_after_s=1,
        )

    async def _enter(self, target: Target, request_id: str) -> Lease | None:
        """Return a lease on what is meant; None = the slot does not hold it, or nothing."""
        try:
            lease = await self._serving.acquire(target.slot_id, request_id)
        except NotDispatchable:
            return None
        if target.is_met_by(lease.held):
            return lease
        self._serving.release(lease)
        return None

    async def is_gone(self, held: Held) -> bool:
        """Have the engine looked at; tell whether the rows then say that it lost what was held."""
        asked_ms = monotonic_ms()
        while monotonic_ms() - asked_ms < RECHECK_S * 1000:
            await self.doubt(held)  # again: another request's may have been answered before this
            slot, engine = await asyncio.to_thread(self._look, held)
            if not slot.is_dispatchable or slot.generation != held.generation:
                return True
            if (engine.list_ms or 0) > asked_ms:
                return False
            await asyncio.sleep(LOOK_S)
        return False

    def _look(self, held: Held) -> tuple[Slot, EngineRow]:
        with self._db.read() as tx:
            return slot_by_id(tx, held.slot_id), engine_by_id(tx, held.engine.id)

    async def doubt(self, held: Held) -> None:
        """Ask the workers to look at an engine at once: its answer says that rows are untrue."""
        engine_id, now_ms = held.engine.id, monotonic_ms()
        if now_ms - self._asked_ms.get(engine_id, -ASKED_EACH_MS) < ASKED_EACH_MS:
            return
        self._asked_ms[engine_id] = now_ms
        try:
            await asyncio.to_thread(look_soon, self._db, engine_id)
        except DatabaseError as error:
            log.warning("engine %s is looked at later: %s", held.engine.name, error.detail)
