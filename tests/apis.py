"""API processes as far as serving goes, in this event loop; several stand for several processes.

    async with Api(db, settings, serving_linger_s=0) as api:
        lease = await api.acquire()

They cannot be killed, but they can be called dead, stand still, or find the database refused.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, insert, select

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.db import Database
from hal0.dispatcher.places import Lease
from hal0.dispatcher.serving import Serving
from hal0.dispatcher.speeds import Speeds
from hal0.dispatcher.watch import LOOK_S, Watch
from hal0.errors import DatabaseError, DatabaseUnwritable
from hal0.jobs.owners import Beat
from hal0.processes import start_ticks
from hal0.settings import Settings
from hal0.tables import leases, owners
from tests.ledger import history
from tests.rows import slot_now

LIMIT_S = 20.0


class CountedDatabase(Database):
    """Knows how many soft transactions were asked for, and refuses them when it is told to."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked = 0
        self.refusal: DatabaseError | None = None

    @contextmanager
    def soft(self) -> Iterator[Connection]:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        with super().soft() as tx:
            yield tx


class MoodyDatabase(Database):
    """Cannot be read while it is told to be away."""

    is_away = False

    def read(self) -> AbstractContextManager[Connection]:
        if self.is_away:
            raise DatabaseUnwritable("it is away")
        return super().read()


class Api:
    """One process: an owner with a row, which beats well until told otherwise, and its serving."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        name: str = "api-1",
        look_s: float = LOOK_S,
        busy_timeout_s: float = 5.0,
        **changes: Any,
    ) -> None:
        self.name = name
        self.rows = db
        self.db = CountedDatabase(db.path, busy_timeout_s)
        self.speeds = Speeds()
        self.watch = Watch(self.db, look_s)
        self.last_beat_ms: int | None = None
        """When it beat for the last time; None = just now."""
        self.is_owner = True
        settings = settings.model_copy(update=changes)
        self.rings = 0
        """How often the workers were woken."""
        self.serving = Serving(settings, self.db, self._me, self.watch, self.speeds, self._ring)

    def _ring(self) -> None:
        self.rings += 1

    def _me(self) -> Beat | None:
        if not self.is_owner:
            return None
        return Beat(self.name, monotonic_ms() if self.last_beat_ms is None else self.last_beat_ms)

    async def __aenter__(self) -> Self:
        row = {"id": self.name, "kind": "api", "boot_id": boot_id(), "pid": os.getpid()}
        now = {"started_at": utc_now(), "seen_at": utc_now()}
        with self.rows.soft() as tx:
            tx.execute(insert(owners).values(**row, **now, pid_start=start_ticks(os.getpid())))
        await self.serving.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.db.refusal = None
        await self.serving.end()
        self.db.close()

    async def acquire(self, slot: str = "chat", request_id: str = "request-1") -> Lease:
        """Take a place."""
        return await self.serving.acquire(slot_now(self.rows, slot).id, request_id)

    async def acquire_many(self, count: int, slot: str = "chat") -> list[Lease]:
        """Take so many places at once."""
        asked = (self.acquire(slot, f"request-{number}") for number in range(1, count + 1))
        return list(await asyncio.gather(*asked))

    def release(self, *held: Lease) -> None:
        """Give places back."""
        for lease in held:
            self.serving.release(lease)

    def in_flight(self, slot: str = "chat") -> int:
        """Return how many requests run here."""
        return self.serving.in_flight(slot_now(self.rows, slot).id)

    def watches(self) -> bool:
        """Whether any slot is watched: whether anything is held."""
        return self.watch.is_looking


def the_leases(db: Database) -> dict[str, int]:
    """Return, by owner, how many requests the leases say."""
    with db.read() as tx:
        rows = tx.execute(select(leases.c.owner_id, leases.c.in_flight)).all()
    return {row.owner_id: row.in_flight for row in rows}


async def until(is_so: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
    """Poll, while the loop goes on, until the condition holds; fails after `limit_s`."""
    until_ms = monotonic_ms() + int(limit_s * 1000)
    while not is_so():
        assert monotonic_ms() < until_ms, f"not so within {limit_s:g} s"
        await asyncio.sleep(0.01)


def history_since_ready(db: Database, slot: str = "chat") -> list[str]:
    """Return a slot's audit as `from>to cause` since its model was loaded last."""
    rows = history(db, slot)
    return rows[len(rows) - rows[::-1].index("warming>ready loaded") :]
