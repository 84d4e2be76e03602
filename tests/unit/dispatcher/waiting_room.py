"""Requests that wait for a slot, with real rows and a real watch over them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import func, select

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.dispatcher.wake import Waker
from hal0.dispatcher.watch import Watch
from hal0.errors import (
    Hal0Error,
)
from hal0.jobs.ledger.rows import Claim
from hal0.settings import Settings
from hal0.slots.transitions import move
from hal0.states import Cause, JobKind, SlotState
from hal0.tables import chains
from tests.ledger import claim_kind
from tests.rows import (
    slot_now,
)

LIMIT_S = 20.0


class Room:
    """A waker over real rows, the rings that it made, and requests that wait."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self.db = db
        self.rings = 0
        self.waker = Waker(settings, db, Watch(db), self._ring)

    def _ring(self) -> None:
        self.rings += 1

    async def ask(self, name: str = "chat", request_id: str = "request-1") -> None:
        """Do what a request does whose slot cannot be acquired."""
        await self.waker.until_dispatchable(slot_now(self.db, name), request_id, "somebody")

    @asynccontextmanager
    async def asking(self, count: int = 1, name: str = "chat") -> AsyncIterator[list[Any]]:
        """Let so many requests wait; gives their tasks."""
        tasks = [
            asyncio.create_task(self.ask(name, f"request-{number}")) for number in range(count)
        ]
        try:
            slot_id = slot_now(self.db, name).id
            await self.until(lambda: self.waker.waiting(slot_id) == count)
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, is_so: Callable[[], Any]) -> None:
        """Poll until it is so."""
        until_ms = monotonic_ms() + LIMIT_S * 1000
        while not is_so():
            assert monotonic_ms() < until_ms, "not so in time"
            await asyncio.sleep(0.01)

    def chains(self) -> int:
        """Count what was ever enqueued."""
        with self.db.read() as tx:
            return tx.execute(select(func.count()).select_from(chains)).scalar_one()


MakeRoom = Callable[..., Room]


async def told(asking: Awaitable[None]) -> Hal0Error:
    """Return what a request is told."""
    with pytest.raises(Hal0Error) as refused:
        await asyncio.wait_for(asking, LIMIT_S)
    return refused.value


def advance(db: Database, to: SlotState, cause: Cause, held: Claim) -> None:
    """Move the slot on behalf of a job."""
    with db.write() as tx:
        move(tx, slot_now(db), to, cause, held.act)


def begin_to_validate(db: Database) -> Claim:
    """Let a worker begin with the validation."""
    held = claim_kind(db, JobKind.VALIDATE)
    advance(db, SlotState.STARTING, Cause.CHECKED, held)
    return held
