"""One thread that writes what is due, softly and all of it in one commit; nobody else waits for it.

What is due is asked for when somebody rings, and when it may be due by itself. What could not be
written is due again, as long as whoever asked for it says so.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from hal0.db import Database
from hal0.errors import DatabaseError

log = logging.getLogger(__name__)


def _nothing(_told: Any) -> None:
    """Do without being told."""


@dataclass(frozen=True, slots=True)
class Write:
    """Something to be written, and who is told, in the loop, how it went."""

    carry_out: Callable[[Connection], Any]
    take: Callable[[Any], None] = _nothing
    """Told the answer of `carry_out` when it is committed."""
    refuse: Callable[[Exception], None] = _nothing
    """Told why it is not."""


class Writer:
    """Belongs to one event loop. `due` takes what is to be written now; `pause_s` is until when."""

    def __init__(
        self,
        db: Database,
        due: Callable[[], Sequence[Write]],
        pause_s: Callable[[], float | None],
    ) -> None:
        self._db = db
        self._due = due
        self._pause_s = pause_s
        self._bell = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="serving")
        self._task: asyncio.Task[None] | None = None
        self._is_ending = False
        self._is_refused = False

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.get_running_loop().create_task(self._go_on(), name="serving")

    def ring(self) -> None:
        """Say that something is due."""
        self._bell.set()

    async def end(self) -> None:
        """Write what is due now, once, and stop."""
        self._is_ending = True
        self._bell.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown(wait=False)

    async def _go_on(self) -> None:
        is_last = False
        while not is_last:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await self._bell.wait()
            self._bell.clear()
            is_last = self._is_ending
            if writes := self._due():
                await self._write(writes)

    async def _write(self, writes: Sequence[Write]) -> None:
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._thread, self._commit, writes)
        except DatabaseError as error:
            if not self._is_refused:  # once, not twice a second for a night
                log.warning("leases wait for the database: %s", error.detail)
            self._is_refused = True
            self._refuse(writes, error)
        except Exception as error:  # a writer that ends would let slots serve for ever
            if len(writes) > 1:  # one that never can be written is to keep no other from it
                for write in writes:
                    await self._write([write])
                return
            log.exception("leases are not written")
            self._refuse(writes, error)
        else:
            self._is_refused = False
            for write, answer in zip(writes, answers, strict=True):
                write.take(answer)

    def _commit(self, writes: Sequence[Write]) -> list[Any]:
        with self._db.soft() as tx:
            return [write.carry_out(tx) for write in writes]

    @staticmethod
    def _refuse(writes: Sequence[Write], error: Exception) -> None:
        for write in writes:
            write.refuse(error)
