"""The thread that shows that an API process is at work, and finds out whether it can write.

An API owns no job, but while it lies stopped in the middle of a transaction nobody can write: as an
owner with a row it can be seen and killed (`jobs.rescue.kill_stopped`). Its beats are soft writes.
When a write of this process has failed, a durable one is tried each second until it goes well, and
until then `/readyz` says why not. Nothing of this keeps the process from serving: reading goes on,
and so do requests for inference for as long as the last beat is young (`dispatcher.serving`). While
somebody goes by that, beats come more often.
"""

import contextlib
import logging
import threading
from typing import Final

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.errors import DatabaseError
from hal0.jobs.owners import Beat, Owner, note_end, note_seen
from hal0.settings import Settings

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
NEEDED_S: Final = 5.0
"""Seconds between two beats, at most, while somebody asks for the last one."""


class Pulse(threading.Thread):
    """Beats from its start until it is told to end; start it when the database is open."""

    def __init__(self, settings: Settings, db: Database) -> None:
        super().__init__(name="pulse", daemon=True)
        self._settings = settings
        self._db = db
        self._owner: Owner | None = None
        self._doubt: DatabaseError | None = None
        self._last: Beat | None = None
        self._is_needed = False
        self._is_run_unwritable = False
        self._ended = threading.Event()

    def doubt(self, error: DatabaseError) -> None:
        """Take note that a write of this process failed."""
        self._doubt = error

    def ensure_writable(self) -> None:
        """Raise what a change would meet now, as far as it is known; writes nothing itself."""
        if (doubt := self._doubt) is not None:
            raise doubt.with_traceback(None)
        self._db.ensure_undivided()
        self._db.ensure_room()

    def me(self) -> Beat | None:
        """Return this process as an owner, and when it last wrote that it is; None = never yet."""
        self._is_needed = True
        return self._last

    def start(self) -> None:
        """Beat once, waiting no longer than for a database in use, then go on in the thread.

        So the first request already finds that this process may hold a lease.
        """
        self._look_on()
        super().start()

    def run(self) -> None:
        """Look every second."""
        while not self._ended.wait(LOOK_S):
            self._look_on()

    def _look_on(self) -> None:
        try:
            self.look()
        except Exception:  # a pulse that ends would leave /readyz as it was, for ever
            log.exception("the pulse goes on")

    def look(self) -> None:
        """Renew the lock; beat if it is time, or if a write has failed."""
        was_well = self._doubt is None
        try:
            owner = self._renewed()
            if self._is_due or not was_well:
                self._beat(owner)
        except DatabaseError as error:
            self._doubt = error
            if was_well:
                log.warning("not ready until this has passed: %s", error.detail)
        except OSError as error:
            if not self._is_run_unwritable:  # once, not each second for a night
                log.warning("%s; give the run folder to this user (chown, chmod)", error)
            self._is_run_unwritable = True
        else:
            self._is_run_unwritable = False

    @property
    def _is_due(self) -> bool:
        if self._last is None:
            return True
        wait_s = self._settings.beat_s
        if self._is_needed:
            wait_s = min(wait_s, NEEDED_S)
        return monotonic_ms() - self._last.at_ms >= wait_s * 1000

    def _renewed(self) -> Owner:
        if self._owner is None:
            self._owner = Owner(self._settings.run, "api")
        self._owner.renew()
        return self._owner

    def _beat(self, owner: Owner) -> None:
        doubt, now_ms = self._doubt, monotonic_ms()
        self._is_needed = False
        with self._db.soft() if doubt is None else self._db.write() as tx:
            if self._last is not None:
                note_seen(tx, owner.id)
            else:
                owner.register(tx, self._settings.beat_s)
        self._last = Beat(owner.id, now_ms)
        if self._doubt is doubt:  # else another write has failed meanwhile
            self._doubt = None

    def end(self) -> None:
        """Stop beating, and write that this owner ended in good order, if that can be written."""
        self._ended.set()
        if self.is_alive():
            self.join(10)
        if self._owner is not None:
            with contextlib.suppress(DatabaseError), self._db.soft() as tx:
                note_end(tx, self._owner.id)
            self._owner.close()
