"""When each engine is looked at: in turns that all workers share, each in a thread of its own.

So one that hangs keeps no other waiting, nor a thread that has jobs to do. An engine that is well
is looked at every `scan_s`; one that is not, or that owes its slots something, every few seconds:
by what is so at each tick, not by what was when the last look ended.
"""

import contextlib
import logging
import threading
from typing import Final

from sqlalchemy import Connection

from hal0.db import Database
from hal0.errors import DatabaseError, Hal0Error
from hal0.jobs.context import Context
from hal0.jobs.periodic import end_turn, hold_turn, make_due, take_turn
from hal0.jobs.scan import owes, scan
from hal0.registry.roster import EngineRow, all_engines
from hal0.settings import Settings

log = logging.getLogger(__name__)

UNWELL_S: Final = 2.0
"""Seconds between two looks at an engine that did not answer, or that owes its slots something."""


def interval_s(tx: Connection, engine: EngineRow, settings: Settings) -> float:
    """Return the seconds that lie between two looks at an engine as it is now."""
    is_calm = engine.is_well and not owes(tx, engine.id)
    return settings.scan_s if is_calm else min(UNWELL_S, settings.scan_s)


def look_soon(db: Database, engine_id: int) -> None:
    """Have a worker begin to look at an engine as soon as it can: what rows say is in doubt."""
    make_due(db, _turn_of(engine_id))


class Rounds:
    """The looks that are under way in this process: one an engine at most."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._looks: dict[int, threading.Thread] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Begin to look at the engines whose turn it is; wait for none of them."""
        ctx = self._ctx
        with self._lock:
            self._looks = {key: look for key, look in self._looks.items() if look.is_alive()}
            for engine_id in self._looks:
                hold_turn(ctx.db, _turn_of(engine_id))
            with ctx.db.read() as tx:
                waiting = {
                    engine.id: (engine, interval_s(tx, engine, ctx.settings))
                    for engine in all_engines(tx)
                    if engine.id not in self._looks
                }
            for engine, wait_s in waiting.values():
                if take_turn(ctx.db, _turn_of(engine.id), wait_s):
                    self._look_at(engine)

    def _look_at(self, engine: EngineRow) -> None:
        look = threading.Thread(
            target=_look, args=(self._ctx, engine), name=f"scan {engine.name}", daemon=True
        )
        self._looks[engine.id] = look
        look.start()

    def wait(self) -> None:
        """Wait until the looks that are under way have ended; a stop ends them."""
        for look in list(self._looks.values()):
            look.join()


def _look(ctx: Context, engine: EngineRow) -> None:
    """Look at one engine, so that its trouble is not another's, and give its turn back."""
    try:
        scan(ctx, engine)
    except Hal0Error as error:
        log.warning("engine %s is not scanned: %s", engine.name, error.detail)
    except Exception:  # a bug in one look must not keep the turn, or end the rounds
        if not ctx.stopping.is_set():
            log.exception("engine %s is not scanned", engine.name)
    finally:
        with contextlib.suppress(DatabaseError):  # then it comes free by itself
            end_turn(ctx.db, _turn_of(engine.id))


def _turn_of(engine_id: int) -> str:
    return f"scan:{engine_id}"
