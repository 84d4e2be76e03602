"""The thread that keeps a worker honest: its beats, rescue of others, its bell and its lock.

Not a Huey task: it must run while every worker thread is busy. It feeds the service manager's
watchdog too, so that one that hangs, or finds that the database cannot be read, ends its process.
"""

import logging
import threading
from typing import Final

from hal0.clock import monotonic_ms
from hal0.jobs.context import Context
from hal0.jobs.rescue import Watch, look_after
from hal0.notify import Watchdog

log = logging.getLogger(__name__)

TICK_S: Final = 0.5
END_S: Final = 10.0
"""How long a look that has begun may take to end."""


class Supervisor(threading.Thread):
    """Looks around every half a second until it is told to end."""

    def __init__(self, ctx: Context) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._ctx = ctx
        self._ended = threading.Event()
        self._watch = Watch()
        self._next_beat_ms = 0
        self._watchdog = Watchdog()
        self._is_run_unwritable = False

    def run(self) -> None:
        """Beat, rescue, renew, until the end."""
        while not self._ended.wait(TICK_S):
            self.look()

    def look(self) -> None:
        """Do one round."""
        now = monotonic_ms()
        beats = now >= self._next_beat_ms
        if beats:
            self._next_beat_ms = now + int(self._ctx.settings.beat_s * 1000)
        try:
            self._renew()
            look_after(self._ctx, self._watch, beats)
            self._watchdog.feed_if_due(self._ctx.db.ensure_readable)
        except Exception:  # a supervisor that ends would make its process look silent
            log.exception("supervision goes on")

    def _renew(self) -> None:
        try:
            self._ctx.owner.renew()
            if not self._ctx.bell.is_hung():
                self._ctx.bell.rehang()
        except OSError as error:
            if not self._is_run_unwritable:  # once, not twice a second for a night
                log.warning("%s; give the run folder to this user (chown, chmod)", error)
            self._is_run_unwritable = True
        else:
            self._is_run_unwritable = False

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self.join(END_S)
