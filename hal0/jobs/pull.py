"""How `pull` brings a model's files to their place in the models folder.

A file that is there already, or that a hard link brings, needs no fetching: the slot shows
`pulling` only when bytes are copied. A model without a source is left to `validate`, which says
what is missing.
"""

from pathlib import Path

from sqlalchemy import Connection

from hal0 import points
from hal0.errors import PullError
from hal0.jobs.context import Body, Context
from hal0.jobs.ledger.claims import check, finish
from hal0.registry.catalog import RegisteredFile, model_by_id
from hal0.registry.place import place
from hal0.slots.transitions import move
from hal0.states import Cause, JobKind, Outcome, SlotState


def run(ctx: Context, body: Body) -> None:
    """Bring every file that has a source; skipped when all of them are there."""
    points.reach("pull.begun")
    held = body.held
    assert held.chain.model_id is not None
    with ctx.db.read() as tx:
        model = model_by_id(tx, held.chain.model_id)
    brought = {
        str(file.path): _bring(ctx, body, file, allow_copy=model.allow_copy)
        for file in model.files
        if file.source is not None
    }
    changed = any(how != "there" for how in brought.values())
    ctx.commit(lambda tx: _end(tx, body, {"files": brought}, changed))


def _bring(ctx: Context, body: Body, file: RegisteredFile, *, allow_copy: bool) -> str:
    assert file.source is not None
    if not file.source.startswith("/"):
        raise PullError(
            f"{file.source} is no absolute path; this hal0 brings local files only",
            evidence={"source": file.source},
        )
    try:
        return place(
            Path(file.source),
            file.path,
            allow_copy=allow_copy,
            on_fetch=lambda: _show_pulling(ctx, body, file),
            on_progress=lambda done, total: ctx.progress(body, "fetch", done, total),
            should_stop=lambda: ctx.should_stop(body),
        )
    except PullError:
        _show_pulling(ctx, body, file)  # a fetch that failed at its first step is one too (A4)
        raise


def _show_pulling(ctx: Context, body: Body, file: RegisteredFile) -> None:
    def write(tx: Connection) -> None:
        slot = check(tx, body.held)
        if slot.state in (SlotState.OFFLINE, SlotState.ERROR):
            evidence = {"source": file.source, "path": str(file.path)}
            move(tx, slot, SlotState.PULLING, Cause.FETCH_STARTED, body.held.act, evidence)

    ctx.commit(write)


def _end(tx: Connection, body: Body, result: dict[str, object], changed: bool) -> None:
    slot = check(tx, body.held)
    if body.held.chain.goal is JobKind.PULL and slot.state is SlotState.PULLING:
        move(tx, slot, SlotState.OFFLINE, Cause.PULLED, body.held.act)
    finish(tx, body.held, Outcome.DONE if changed else Outcome.SKIPPED, result)
