"""What an engine has loaded, read once, and where its slots stood before; concludes nothing.

Who writes by a reading compares the slot's last transition with the one in it, so that a list that
is older than the slot's state moves nothing.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sqlalchemy import Connection

from hal0.clock import monotonic_ms
from hal0.engines.base import Engine, EngineHealth, LoadedModel
from hal0.errors import (
    DatabaseError,
    EngineError,
    EngineRefused,
    EngineUnauthorized,
    EngineUnreachable,
)
from hal0.jobs.context import Context
from hal0.jobs.ledger.lane import Lane, lane_of
from hal0.registry.catalog import model_by_id
from hal0.registry.roster import (
    EngineRow,
    note_absence,
    note_failure,
    note_health,
    note_presence,
)
from hal0.slots.queries import Slot, Stand, is_only_served_since, stands

HEALTH_S: Final = 30.0
QUICK_S: Final = 5.0
"""For who looks again soon: a health that is not read now is read then."""
ANSWER_S: Final = 10.0
"""Longer than an adapter asks a backend, so that one which hangs is known not to answer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One health of an engine, and where its slots stood before it was read."""

    engine: EngineRow
    health: EngineHealth
    before: Mapping[int, Stand]
    """Where the slots stood, by slot id."""
    lane: Lane | None = None
    """What was in the engine's lane."""
    began_ms: int = field(default_factory=monotonic_ms)
    """When that was, on the monotonic clock."""

    def is_true_of(self, tx: Connection, slot: Slot) -> bool:
        """Tell whether a slot stands where it stood, but for requests that came and went.

        Those of a busy one do at every look: it would never be found where it stood.
        """
        before = self.before.get(slot.id)
        if before is None or before.generation != slot.generation:
            return False
        return before == slot.stand or is_only_served_since(tx, slot.id, before.transition_id)

    def lists(self, tx: Connection, slot: Slot) -> bool:
        """Tell whether the engine has what this slot holds, or was last told to load.

        Two entries of one name and none of its file: that may be it, so nothing is lost.
        """
        names, checkpoint = known_by(tx, slot)
        same_name = sum(model.name in names for model in self.health.models or ())
        return self.health.find(names, checkpoint) is not None or same_name > 1

    def is_of_another_process(self, process: str | None) -> bool:
        """Tell whether the engine is certainly not `process`; unknown is not certain."""
        return None not in (process, self.health.process) and process != self.health.process

    def is_of(self, process: str | None) -> bool:
        """Tell whether the engine is certainly still `process`."""
        return process is not None and process == self.health.process


def known_by(tx: Connection, slot: Slot) -> tuple[frozenset[str], str | None]:
    """Return the names and the file by which an engine's entry would be this slot's."""
    model_id = slot.model_id if slot.model_id is not None else slot.wanted_model_id
    return known_as(tx, model_id, slot.engine_model)


def known_as(
    tx: Connection, model_id: int | None, engine_model: str | None
) -> tuple[frozenset[str], str | None]:
    """Return the names and the file of this model at an engine that calls it `engine_model`."""
    names = {engine_model} if engine_model else set()
    if model_id is None:
        return frozenset(names), None
    model = model_by_id(tx, model_id)
    return frozenset(names | {model.name}), str(model.main.path)


def read_health(ctx: Context, engine: EngineRow, timeout_s: float = HEALTH_S) -> Reading:
    """Note where the slots stand, then read the engine's health. Raises EngineError."""
    began_ms = monotonic_ms()
    with ctx.db.read() as tx:
        before = stands(tx, engine.id)
        lane = lane_of(tx, engine.id)
    try:
        health = ctx.engines.ask(engine, lambda e: e.health(), timeout_s)
    except EngineError as error:
        note_softly(ctx, partial(_note_error, engine_id=engine.id, error=error))
        raise
    note_softly(ctx, lambda tx: note_health(tx, engine.id, health.process))
    return Reading(engine, health, before, lane, began_ms)


def _note_error(tx: Connection, engine_id: int, error: EngineError) -> None:
    """Remember why there is no list; a refusal is an answer, so somebody is there."""
    if isinstance(error, EngineUnreachable):
        note_absence(tx, engine_id, error.as_row())
        return
    note_failure(tx, engine_id, error.as_row())
    if isinstance(error, (EngineRefused, EngineUnauthorized)):
        note_presence(tx, engine_id)


def note_softly(ctx: Context, write: Callable[[Connection], None]) -> None:
    """Write softly what was seen; a database that is busy makes no reading worse."""
    with contextlib.suppress(DatabaseError), ctx.db.soft() as tx:
        write(tx)


def try_health(ctx: Context, engine: EngineRow, timeout_s: float) -> Reading | None:
    """Read the engine's health if it can be had; None = it cannot."""
    try:
        return read_health(ctx, engine, timeout_s)
    except EngineError:
        return None


def who_answers(
    ctx: Context, engine: EngineRow, listed: Sequence[LoadedModel]
) -> list[LoadedModel]:
    """Return those entries whose backends answer, all asked at once; no answer in time is none."""
    calls = [partial(_ask, entry) for entry in listed]
    said = ctx.engines.ask_all(engine, calls, ANSWER_S)
    return [entry for entry, answer in zip(listed, said, strict=True) if answer is True]


async def _ask(entry: LoadedModel, adapter: Engine) -> bool:
    return await adapter.answers(entry)
