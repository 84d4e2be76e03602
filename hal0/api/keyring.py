"""The tokens as one API process knows them: read from the table at most once a second.

So a request costs no look at the database, and what another process revokes holds within a second.
What this process creates or revokes holds at once.
"""

import asyncio
import contextlib
from typing import Final

from starlette.concurrency import run_in_threadpool

from hal0.access.closed import was_closed
from hal0.access.tokens import NOTED_EACH, Token, Tokens, all_tokens, note_use
from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.errors import DatabaseError

MAX_AGE_MS: Final = 1000
_NOTED_EACH_MS: Final = int(NOTED_EACH.total_seconds() * 1000)


class Keyring:
    """What was read last, and until when that is good; for one event loop."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._held = Tokens()
        self._good_until_ms = 0
        self._forgotten = 0
        self._noted_ms: dict[int, int] = {}
        self._reading = asyncio.Lock()

    async def tokens(self) -> Tokens:
        """Return the tokens, no more than a second old; raises DatabaseError, never guesses."""
        if monotonic_ms() < self._good_until_ms:
            return self._held
        async with self._reading:
            if monotonic_ms() < self._good_until_ms:
                return self._held
            began_ms, forgotten = monotonic_ms(), self._forgotten
            self._held = await run_in_threadpool(self._read)
            if forgotten == self._forgotten:  # else it may have been read before that change
                self._good_until_ms = began_ms + MAX_AGE_MS
            return self._held

    def forget(self) -> None:
        """Read again for the next request: this process has changed the table."""
        self._forgotten += 1
        self._good_until_ms = 0

    async def note_use(self, token: Token) -> None:
        """Write that a token was used, once a minute.

        A database that cannot be written is told by whoever needs to write it.
        """
        now_ms = monotonic_ms()
        noted_ms = self._noted_ms.get(token.id)
        if noted_ms is not None and now_ms - noted_ms < _NOTED_EACH_MS:
            return
        self._noted_ms[token.id] = now_ms
        with contextlib.suppress(DatabaseError):
            await run_in_threadpool(self._write_use, token.id)

    def _read(self) -> Tokens:
        with self._db.read() as tx:
            return all_tokens(tx, was_closed=was_closed(self._db.path))

    def _write_use(self, token_id: int) -> None:
        with self._db.soft() as tx:
            note_use(tx, token_id)
