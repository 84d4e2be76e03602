"""What the rows say, in one form for both: of hal0's database, and of the reference."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from hal0.clock import boot_id
from hal0.slots.spec import load_key
from tests.machine.real.home import MODELS
from tests.machine.real.world import Real
from tests.machine.reference.rows import Key
from tests.machine.reference.world import Reference
from tests.rows import options

Seen = dict[str, Any]
Look = Callable[..., sqlite3.Cursor]
LOAD_KEYS = {
    load_key(number, options({"ctx_size": size})): Key(model, size)
    for number, model in enumerate(MODELS, 1)
    for size in (512, 4096)
}


def of_reference(reference: Reference) -> Seen:
    """Return what the reference holds to be written."""
    lane, engine = reference.lane, reference.engine
    return {
        "slots": {
            slot.name: {
                "id": slot.id,
                "state": slot.state,
                "desired": slot.desired,
                "desired by": slot.desired_by,
                "wants": slot.wants,
                "held": slot.held,
                "told": slot.told,
                "generation": slot.generation,
                "error": slot.error and slot.error[0],
                "unload mark": slot.mark and slot.mark[:2],
                "failed keys": set(slot.bad),
                "to restore": slot.note,
                "breaker": slot.breaker and (slot.breaker.sent, slot.breaker.opens),
                "history": slot.history,
                "leases": slot.leases,
            }
            for slot in reference.slots
        },
        "incidents": [(one.kind, one.job, one.moved) for one in reference.incidents],
        "chains": [
            (c.id, c.slot.id, c.position, c.goal, c.origin, c.key) for c in reference.chains
        ],
        "jobs": [
            (j.id, j.kind, j.state, j.outcome, j.attempt, j.crashes, j.sent, j.worker, j.code)
            for j in reference.jobs.values()
        ],
        "lane": lane and (lane.job.id, lane.attempt, lane.owner, int(lane.answered)),
        "bodies": {key: body.at for key, body in reference.bodies.items()},
        "engine": (engine.is_up, engine.loaded, engine.dead, engine.busy),
        "requests": [(one.kind, one.key.model) for one in reference.engine.requests],
    }


def of_real(real: Real) -> Seen:
    """Return what the database says in plain `sqlite3`, and where the bodies stand."""
    look, engine = real.auditor.execute, real.engine
    look("BEGIN")
    said = {
        "slots": _slots(look, real.names),
        "incidents": _incidents(look),
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
        "engine": (engine.is_up, engine.loaded, engine.dead, engine.busy),
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
_MOVED = """
SELECT incident_id, slot_id FROM transitions WHERE incident_id IS NOT NULL ORDER BY id
"""
_AUDIT = "SELECT slot_id, from_state, to_state, cause FROM transitions ORDER BY id"


def _key(row: sqlite3.Row, model: str = "model_id", given: str = "held") -> Key | None:
    if row[model] is None:
        return None
    return Key(MODELS[row[model] - 1], json.loads(row[given])["ctx_size"])


def _incidents(look: Look) -> list[tuple[str, int | None, list[int]]]:
    moved: dict[int, list[int]] = {}
    for incident_id, slot_id in look(_MOVED):
        moved.setdefault(incident_id, []).append(slot_id)
    rows = look("SELECT id, kind, job_id FROM incidents ORDER BY id")
    return [(row["kind"], row["job_id"], moved.get(row["id"], [])) for row in rows]


def _noted(restore: str | None) -> Key | None:
    wish = json.loads(restore or "null")
    return wish and Key(MODELS[wish["model_id"] - 1], wish["options"]["ctx_size"])


def _slots(look: Look, names: Mapping[str, str]) -> dict[str, Seen]:
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
    leases: dict[int, dict[tuple[str, int], int]] = {}
    for lease in look("SELECT * FROM leases"):
        of = leases.setdefault(lease["slot_id"], {})
        of[names[lease["owner_id"]], lease["generation"]] = lease["in_flight"]
    breakers = {
        row["slot_id"]: (row["sent"], row["opens_ms"] if row["is_now"] else 0)
        for row in look("SELECT *, sent_boot = ? AS is_now FROM breakers", [boot_id()])
    }
    return {
        row["name"]: {
            "id": row["id"],
            "state": row["state"],
            "desired": row["desired"],
            "desired by": row["desired_by"],
            "wants": _key(row, "wanted_model_id", "options"),
            "held": _key(row),
            "told": row["engine_model"],
            "generation": row["generation"],
            "error": row["code"],
            "unload mark": row["unload_job_id"] and (row["unload_job_id"], row["unload_attempt"]),
            "failed keys": bad.get(row["id"], set()),
            "to restore": _noted(row["restore"]),
            "breaker": breakers.get(row["id"]),
            "history": histories[row["id"]],
            "leases": leases.get(row["id"], {}),
        }
        for row in look(_SLOTS)
    }
