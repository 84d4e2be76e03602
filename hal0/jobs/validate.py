"""How `validate` finds a model fit to load, before every load (ADR-0007).

The files are checked by `registry.preload`; then the engine is asked which file it would open by
this model's name, and it must be this one (design 7.5). What was found goes into the job's result,
where the `load` of the same chain reads it: file identities, the engine's name for the model.
"""

import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from hal0 import points
from hal0.clock import monotonic_ms
from hal0.engines.base import EngineModel
from hal0.errors import EngineError, EngineFileDiffers, EngineTimeout, EngineUnreachable
from hal0.jobs.context import Body, Context
from hal0.jobs.engine_room import Stopping
from hal0.jobs.engine_wait import defer, has_to_wait
from hal0.jobs.ledger.claims import check, finish
from hal0.registry.catalog import Model, model_by_id
from hal0.registry.preload import CheckedFile, Progress, validate_files
from hal0.registry.roster import EngineRow, engine_by_id
from hal0.slots.transitions import move
from hal0.states import Cause, JobKind, SlotState

RESOLVE_S: Final = 30.0
NOTICE_S: Final = 8.0
"""Lemonade's folder watcher notices a new file within 3 s; how long hal0 gives it."""


def run(ctx: Context, body: Body) -> None:
    """Check files and engine; end with the facts that the load needs."""
    points.reach("validate.begun")
    held = body.held
    ctx.commit(lambda tx: _begin(tx, body))
    with ctx.db.read() as tx:
        assert held.chain.model_id is not None
        model = model_by_id(tx, held.chain.model_id)
        engine = engine_by_id(tx, held.job.engine_id)
    checked = validate_files(
        [file.to_check for file in model.files],
        format=model.format,
        verdicts=ctx.verdicts,
        rehash=held.chain.rehash and held.job.deferred_boot is None,  # read once, not per wait
        on_progress=lambda at: _report(ctx, body, at),
        should_stop=lambda: ctx.should_stop(body),
    )
    points.reach("validate.hashed")
    result: dict[str, Any] = {"files": [_fact(file) for file in checked]}
    try:
        named = _resolve(ctx, body, engine, model)
        result |= {"engine_model": named.name, "checkpoint": named.checkpoint, "type": named.type}
    except EngineError as error:
        if held.chain.goal is JobKind.LOAD and has_to_wait(ctx, held, error):
            defer(ctx, held, error)
            return
        if not isinstance(error, (EngineUnreachable, EngineTimeout)):
            raise
        result |= {"engine_model": None, "skipped": f"the engine was not asked: {error.detail}"}
    points.reach("validate.resolved")
    ctx.commit(lambda tx: _end(tx, body, result))


def _begin(tx: Connection, body: Body) -> None:
    slot = check(tx, body.held)
    if slot.state in (SlotState.OFFLINE, SlotState.PULLING, SlotState.ERROR):
        move(tx, slot, SlotState.STARTING, Cause.CHECKED, body.held.act)


def _end(tx: Connection, body: Body, result: dict[str, Any]) -> None:
    slot = check(tx, body.held)
    if body.held.chain.goal is JobKind.VALIDATE and slot.state is SlotState.STARTING:
        move(tx, slot, SlotState.OFFLINE, Cause.VALIDATED, body.held.act)
    finish(tx, body.held, result=result)


def _report(ctx: Context, body: Body, at: Progress) -> None:
    ctx.progress(body, at.phase, at.done_bytes, at.total_bytes)


def _fact(checked: CheckedFile) -> dict[str, Any]:
    return {
        "path": str(checked.file.path),
        "role": checked.file.role,
        "identity": checked.identity.as_json(),
        "sha256": checked.sha256,
        "remembered": checked.is_remembered,
        "skipped": list(checked.skipped),
    }


def _resolve(ctx: Context, body: Body, engine: EngineRow, model: Model) -> EngineModel:
    """Ask the engine until it knows the model, or long enough; raises EngineFileDiffers."""
    until_ms = monotonic_ms() + int(NOTICE_S * 1000)
    while True:
        found = ctx.engines.ask(engine, lambda e: e.resolve(model.name), RESOLVE_S)
        if found is not None and found.downloaded:
            break
        if monotonic_ms() >= until_ms:
            raise _differs(engine, model, found, "it does not have it")
        if ctx.should_stop(body):
            raise Stopping
        time.sleep(0.2)
    if found.checkpoint is None or not _is_same_file(Path(found.checkpoint), model.main.path):
        raise _differs(engine, model, found, f"it would open {found.checkpoint}")
    registered = [file.path for file in model.files]
    for other in found.others:
        if not any(_is_same_file(Path(other), path) for path in registered):
            raise _differs(engine, model, found, f"it would open {other} too, which nobody checked")
    return found


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _differs(
    engine: EngineRow, model: Model, found: EngineModel | None, how: str
) -> EngineFileDiffers:
    return EngineFileDiffers(
        f"engine {engine.name} was asked for model {model.name}, which must be "
        f"{model.main.path}: {how}; let it see the models folder, or rename the model",
        evidence={
            "engine": engine.name,
            "expected": str(model.main.path),
            "found": None if found is None else found.checkpoint,
        },
    )
