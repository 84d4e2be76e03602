"""What the rows say, in one form for both: of hal0's database, and of the reference."""

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from hal0.slots.spec import load_key
from tests.machine.real.home import MODELS
from tests.machine.real.world import Real
from tests.machine.reference.rows import Key
from tests.machine.reference.world import Reference
from tests.rows import options

Seen = dict[str, Any]
Look = Callable[[str], sqlite3.Cursor]
LOAD_KEYS = {
    load_key(number, options({"ctx_size": size})): Key(model, size)
    for number, model in enumerate(MODELS, 1)
    for size in (512, 4096)
}


def of_reference(reference: Reference) -> Seen:
    """Return what the reference holds to be written."""
    lane = reference.lane
    return {
        "slots": {
            slot.name: {
                "id": slot.id,
                "state": slot.state,
                "desired": slot.desired,
                "wants": slot.wants,
                "held": slot.held,
                "told": slot.told,
                "generation": slot.generation,
                "error": slot.error and slot.error[0],
                "unload mark": slot.mark and slot.mark[:2],
                "failed keys": slot.bad,
                "history": slot.history,
            }
            for slot in reference.slots
        },
        "chains": [
            (c.id, c.slot.id, c.position, c.goal, c.origin, c.key) for c in reference.chains
        ],
        "jobs": [
            (j.id, j.kind, j.state, j.outcome, j.attempt, j.crashes, j.sent, j.worker, j.code)
            for j in reference.jobs.values()
        ],
        "lane": lane and (lane.job.id, lane.attempt, lane.owner, int(lane.answered)),
        "bodies": {key: body.at for key, body in reference.bodies.items()},
        "engine": (reference.engine.is_up, reference.engine.loaded),
        "requests": [(one.kind, one.key.model) for one in reference.engine.requests],
    }


def of_real(real: Real) -> Seen:
    """Return what the database says in plain `sqlite3`, and where the bodies stand."""
    look = real.auditor.execute
    look("BEGIN")
    said = {
        "slots": _slots(look),
        "chains": [
            (c["id"], c["slot_id"], c["position"], c["goal"], c["origin"], _key(c))
            for c in look("SELECT *, options AS held FROM chains ORDER BY id")
        ],
        "jobs": [
            (*tuple(job)[:7], real.names.get(job["owner_id"]), job["code"]) for job in look(_JOBS)
        ],
        "lane": next(
            (
                (lane["job_id"], lane["attempt"], real.names[lane["owner_id"]], lane["is_answered"])
                for lane in look("SELECT * FROM engine_lane")
            ),
            None,
        ),
    }
    look("COMMIT")
    return {
        **said,
        "bodies": {key: body.at for key, body in real.bodies.items()},
        "engine": (real.engine.is_up, real.engine.loaded),
        "requests": [(one.kind, one.model) for one in real.engine.requests],
    }


_JOBS = """
SELECT id, kind, state, outcome, attempt, crashes, ifnull(sent_attempt, 0), owner_id,
       error ->> '$.code' AS code FROM jobs ORDER BY id
"""
_SLOTS = """
SELECT *, held_options AS held, error ->> '$.code' AS code FROM slots
WHERE deleted_at IS NULL ORDER BY id
"""
_AUDIT = "SELECT slot_id, from_state, to_state, cause FROM transitions ORDER BY id"


def _key(row: sqlite3.Row, model: str = "model_id", given: str = "held") -> Key | None:
    if row[model] is None:
        return None
    return Key(MODELS[row[model] - 1], json.loads(row[given])["ctx_size"])


def _slots(look: Look) -> dict[str, Seen]:
    """An audit chain that is broken is no history: each row begins where the one before ended."""
    histories: dict[int, list[str]] = {}
    ends: dict[int, str] = {}
    for slot_id, from_state, to_state, cause in look(_AUDIT):
        assert from_state == ends.get(slot_id), "the audit chain is broken"
        ends[slot_id] = to_state
        histories.setdefault(slot_id, []).append(f"{from_state or ''}>{to_state} {cause}")
    bad: dict[int, set[Key]] = {}
    for slot_id, key in look("SELECT slot_id, load_key FROM failed_keys"):
        bad.setdefault(slot_id, set()).add(LOAD_KEYS[key])
    return {
        row["name"]: {
            "id": row["id"],
            "state": row["state"],
            "desired": row["desired"],
            "wants": _key(row, "wanted_model_id", "options"),
            "held": _key(row),
            "told": row["engine_model"],
            "generation": row["generation"],
            "error": row["code"],
            "unload mark": row["unload_job_id"] and (row["unload_job_id"], row["unload_attempt"]),
            "failed keys": bad.get(row["id"], set()),
            "history": histories[row["id"]],
        }
        for row in look(_SLOTS)
    }
