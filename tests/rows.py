"""Builders of rows, through the public writers only."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import update

from hal0.clock import utc_now
from hal0.db import Database
from hal0.engines.options import parse
from hal0.errors import Hal0Error
from hal0.jobs.ledger import breaker, claims, intake
from hal0.jobs.ledger.intake import Accepted, Wish
from hal0.jobs.ledger.lane import Sending, mark_load_sent, release
from hal0.jobs.ledger.rows import By, Claim
from hal0.registry.catalog import Model, RegisteredFile, model_named, register
from hal0.registry.roster import engine_named
from hal0.slots.queries import Slot, slot_by_id, slot_named
from hal0.slots.transitions import Act, create, move
from hal0.states import Cause, Desired, JobKind, Outcome, SlotState
from hal0.tables import slots

OPERATOR = By("local", "request-of-a-test")


def options(given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return complete, canonical options, as the API stores them."""
    return parse(given or {}).model_dump(mode="json")


def make_model(
    db: Database,
    name: str = "tiny",
    path: Path | None = None,
    *,
    source: str | None = None,
    size_bytes: int | None = None,
    sha256: str | None = None,
    file_format: str = "gguf",
    allow_copy: bool = False,
) -> Model:
    """Register a model of one file; `path` defaults to its place in the models folder."""
    place = path or db.path.parent / "models" / f"{name}.gguf"
    file = RegisteredFile("main", place, source, size_bytes, sha256)
    with db.write() as tx:
        return register(tx, name, file_format, [file], allow_copy=allow_copy)


def make_slot(
    db: Database,
    name: str = "chat",
    model: str | None = None,
    *,
    engine: str = "default",
    **values: Any,
) -> Slot:
    """Create a slot, offline, set up for the registered model of this name."""
    with db.write() as tx:
        wanted = None if model is None else model_named(tx, model).id
        row = {
            "name": name,
            "engine_id": engine_named(tx, engine).id,
            "wanted_model_id": wanted,
            "options": options(),
            "desired": Desired.UNLOADED,
            "pinned": False,
            "priority": 0,
            "generation": 0,
            "version": 0,
        }
        return create(tx, {**row, **values}, Act("local"))


def contents(database: Path, without: str = "") -> dict[str, list[Any]]:
    """Return every row of every table of a database, but of one table."""
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        names = [name for (name,) in tables if name != without]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def but_its_epoch(database: Path) -> dict[str, list[Any]]:
    """Return every row that a restore leaves as the copy has it."""
    rows = contents(database, without="boots")
    rows["sqlite_sequence"] = [row for row in rows["sqlite_sequence"] if row[0] != "boots"]
    return rows


def slot_now(db: Database, name: str = "chat") -> Slot:
    """Read a slot."""
    with db.read() as tx:
        return slot_named(tx, name)


def ask_load(db: Database, slot: str = "chat", by: By = OPERATOR, **wish: Any) -> Accepted:
    """Want a slot loaded, as the API does."""
    wish.setdefault("drain_timeout_s", 30.0)
    with db.write() as tx:
        return intake.request_load(tx, slot_named(tx, slot), Wish(JobKind.LOAD, **wish), by)


def ask_unload(db: Database, slot: str = "chat", by: By = OPERATOR, **wish: Any) -> Accepted:
    """Want a slot empty, as the API does."""
    wish.setdefault("drain_timeout_s", 30.0)
    with db.write() as tx:
        return intake.request_unload(tx, slot_named(tx, slot), Wish(JobKind.UNLOAD, **wish), by)


def claim_next(db: Database, owner_id: str = "owner-1") -> Claim:
    """Claim the next runnable job; there must be one."""
    with db.soft() as tx:
        held = claims.claim(tx, owner_id)
    assert held is not None, "nothing is runnable"
    return held


def skip_to_load(db: Database, owner_id: str = "owner-1") -> Claim:
    """Run pull, validate and unload of the only chain with nothing to do; claim its load."""
    for _ in range(3):
        held = claim_next(db, owner_id)
        with db.write() as tx:
            claims.finish(tx, held, Outcome.SKIPPED)
    return claim_next(db, owner_id)


def send_load(db: Database, owner_id: str = "owner-1") -> Claim:
    """Do as `skip_to_load`, and mark the load as sent."""
    held = skip_to_load(db, owner_id)
    with db.write() as tx:
        mark_load_sent(tx, held, Sending("tiny", "1-1", timeout_s=60, settle_s=60))
    return held


def run_load(db: Database, owner_id: str = "owner-1") -> Claim:
    """Do as `send_load`, and let the engine answer: the slot is ready."""
    held = send_load(db, owner_id)
    arrive(db, held)
    return held


def arrive(db: Database, held: Claim) -> None:
    """Let the engine answer to a load that was sent: the slot is ready."""
    with db.write() as tx:
        slot = claims.check(tx, held)
        model_id, wanted = held.load_key_args
        tx.execute(
            update(slots)
            .where(slots.c.id == slot.id)
            .values(model_id=model_id, held_options=dict(wanted), last_used_at=utc_now())
        )
        move(tx, slot_by_id(tx, slot.id), SlotState.READY, Cause.LOADED, held.act)
        breaker.note_ready(tx, slot.id)
        release(tx, held.job.engine_id, held.job.id, held.job.attempt)
        claims.finish(tx, held)


def fail_next(db: Database, error: Hal0Error, owner_id: str = "owner-1") -> Claim:
    """Claim the next runnable job and fail it."""
    held = claim_next(db, owner_id)
    with db.write() as tx:
        claims.fail(tx, held, error)
    return held
