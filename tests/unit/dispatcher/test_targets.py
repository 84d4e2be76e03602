"""What names mean: read from the rows once for many who ask, and never older than who asks."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection

from hal0.db import Database
from hal0.dispatcher.targets import Target, Targets
from hal0.errors import DatabaseLocked, ModelNotFound
from hal0.settings import Settings
from tests.ledger import make_slots

pytestmark = pytest.mark.anyio

LIMIT_S = 20


class Gated(Database):
    """Lets each look at the rows begin, and go on when it is told to, or fail."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.database, settings.busy_timeout_s)
        self.begun = 0
        self.fails = 0
        """Which of them fails, from 1."""
        self.may_end = threading.Semaphore(0)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with super().read() as tx:
            tx.exec_driver_sql("SELECT count(*) FROM slots").all()  # from now on it sees no more
            self.begun += 1
            this = self.begun
            assert self.may_end.acquire(timeout=LIMIT_S)
            if this == self.fails:
                raise DatabaseLocked("somebody writes")
            yield tx

    async def until_begun(self, looks: int) -> None:
        async with asyncio.timeout(LIMIT_S):
            while self.begun < looks:  # noqa: ASYNC110 - a thread counts
                await asyncio.sleep(0.01)


@pytest.fixture
async def gated(settings: Settings, db: Database, anyio_backend: str) -> AsyncIterator[Gated]:
    make_slots(db, "chat")
    database = Gated(settings)
    yield database
    database.close()


async def ask(targets: Targets, *names: str) -> "list[asyncio.Task[Target]]":
    """Ask, and see that each waits."""
    asking = [asyncio.create_task(targets.find(name)) for name in names]
    await asyncio.sleep(0)
    return asking


@pytest.mark.parametrize("fails", [False, True])
async def test_who_waited_for_a_look_that_came_to_nothing_is_given_the_names(
    gated: Gated, fails: bool
) -> None:
    first, second, third = await ask(Targets(gated), "chat", "chat", "chat")
    await gated.until_begun(1)
    first.cancel()
    await gated.until_begun(2)
    if fails:
        gated.fails = 2
    else:
        second.cancel()
    gated.may_end.release(2)
    with pytest.raises(DatabaseLocked if fails else asyncio.CancelledError):
        await second
    gated.may_end.release()
    await third


async def test_who_asked_while_a_look_ran_is_told_by_a_later_one(
    gated: Gated, db: Database
) -> None:
    targets = Targets(gated)
    (first,) = await ask(targets, "other")
    await gated.until_begun(1)
    make_slots(db, "other")
    second, third = await ask(targets, "other", "other")
    gated.may_end.release(2)
    with pytest.raises(ModelNotFound):
        await first
    await asyncio.gather(second, third)
    assert gated.begun == 2, "one look for all who waited"
