"""What the ledger says, and one step of a worker's work, for tests that stand for workers."""

import fcntl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.db import Database
from hal0.errors import EngineRefused, Hal0Error
from hal0.jobs import reconcile
from hal0.jobs.ledger import claims
from hal0.jobs.ledger.lane import Lane, Sending, lanes, mark_load_sent, mark_unload_sent, release
from hal0.jobs.ledger.rows import By, Claim, Job, job_by_id, unfinished_jobs
from hal0.jobs.owners import FOLDER
from hal0.jobs.reading import Reading
from hal0.jobs.rescue import rescue
from hal0.jobs.survey import survey
from hal0.registry.roster import add_engine
from hal0.slots import leases
from hal0.slots.leases import LeaseKey
from hal0.slots.queries import Slot, slot_by_id, slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, Origin, Outcome, SlotState
from hal0.tables import failed_keys, idle_windows, incidents, transitions
from tests.rows import claim_next, make_model, make_slot, slot_now

SENDING = Sending("tiny", "1-1", timeout_s=60, settle_s=60)
RESTORE = By("reconcile", origin=Origin.RESTORE)
IDLE = By("scan", origin=Origin.IDLE)
LIMIT_S = 20.0
ADOPTED = ["offline>starting checked", "starting>warming load_sent", "warming>ready adopted"]
"""A slot's history when it takes over what its engine has already."""


def make_slots(db: Database, *names: str) -> list[Slot]:
    """Create slots of these names, each with a model of its own: `m-<name>`."""
    for name in names:
        make_model(db, f"m-{name}")
    return [make_slot(db, name, f"m-{name}") for name in names]


def add_far_engine(db: Database) -> None:
    """Add a second engine, `far`, at which nobody listens."""
    row = {"name": "far", "kind": "lemonade", "url": "http://127.0.0.1:1", "settle_s": 60}
    with db.write() as tx:
        add_engine(tx, {**row, "key_file": None})


def try_claim(
    db: Database, owner_id: str = "owner-1", *, heavy: bool = True, fetches: bool = True
) -> Claim | None:
    """Claim the next runnable job, if there is one."""
    with db.soft() as tx:
        return claims.claim(tx, owner_id, heavy=heavy, fetches=fetches)


def end(db: Database, held: Claim, outcome: Outcome = Outcome.DONE) -> None:
    """Let the claimed job succeed."""
    with db.write() as tx:
        claims.finish(tx, held, outcome)


def fail(db: Database, held: Claim, error: Hal0Error | None = None) -> None:
    """Let the claimed job fail."""
    with db.write() as tx:
        claims.fail(tx, held, error or EngineRefused("a failure of a test"))


def die(db: Database, held: Claim, crash_limit: int = 3) -> None:
    """Let the owner die: the job is rescued as a dead owner's."""
    with db.write() as tx:
        rescue(tx, held, crash_limit)


def sleeping_owner(run: Path, owner_id: str) -> "subprocess.Popen[bytes]":
    """Start a process that does nothing, and holds the lock of an owner as long as it lives."""
    lock = run / FOLDER / owner_id
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return subprocess.Popen(["sleep", "60"], pass_fds=[file.fileno()])


def leave_unused(db: Database, *names: str, for_s: float = 0.0) -> None:
    """Let the scans have seen for so long that nobody uses these slots' models."""
    for name in names:
        slot = slot_now(db, name)
        window = {"generation": slot.generation, "seen": "x", "since_boot": boot_id()}
        window["since_ms"] = monotonic_ms() - int(for_s * 1000)
        with db.soft() as tx:
            new = insert(idle_windows).prefix_with("OR REPLACE")
            tx.execute(new.values(slot_id=slot.id, **window))


def begin_validate(db: Database, held: Claim) -> None:
    """Do what `validate` does first."""
    with db.write() as tx:
        move(tx, claims.check(tx, held), SlotState.STARTING, Cause.CHECKED, held.act)


def begin_pull(db: Database, held: Claim) -> None:
    """Do what `pull` does first when bytes are to be fetched."""
    with db.write() as tx:
        move(tx, claims.check(tx, held), SlotState.PULLING, Cause.FETCH_STARTED, held.act)


def mark_sent(db: Database, held: Claim, sending: Sending = SENDING) -> Claim:
    """Write the mark of a load or an unload; return the claim with its mark."""
    with db.write() as tx:
        if held.job.kind is JobKind.LOAD:
            mark_load_sent(tx, held, sending)
        else:
            move(tx, claims.check(tx, held), SlotState.UNLOADING, _cause(held), held.act)
            mark_unload_sent(tx, held, sending)
        return claims.renewed(tx, held)


def serve(db: Database, slot: str = "chat", requests: int = 1, api: str = "an-api") -> None:
    """Let requests run that came through an API process."""
    with db.soft() as tx:
        now = slot_named(tx, slot)
        if now.state is not SlotState.SERVING:
            now = move(tx, now, SlotState.SERVING, Cause.REQUEST_STARTED, Act("dispatcher"))
        leases.hold(tx, LeaseKey(now.id, now.generation, api), requests)


def served(db: Database, slot: str = "chat", api: str = "an-api") -> None:
    """Let the last request of an API process end."""
    with db.soft() as tx:
        now = slot_named(tx, slot)
        leases.give_back(tx, LeaseKey(now.id, now.generation, api))
        leases.note_use(tx, now.id, now.generation, utc_now())
        if not leases.is_held(tx, now.id, now.generation):
            move(tx, now, SlotState.READY, Cause.REQUESTS_DONE, Act("dispatcher"))


def _cause(held: Claim) -> Cause:
    return Cause.REPLACED if held.chain.goal is JobKind.LOAD else Cause.OPERATOR_UNLOAD


def free_lane(db: Database, held: Claim) -> bool:
    """Let the engine settle this load."""
    with db.write() as tx:
        return release(tx, held.job.engine_id, held.job.id, held.job.attempt)


def claim_kind(db: Database, kind: JobKind, owner_id: str = "owner-1") -> Claim:
    """Skip jobs with nothing to do until one of this kind is claimed."""
    while (held := claim_next(db, owner_id)).job.kind is not kind:
        end(db, held, Outcome.SKIPPED)
    return held


def job(db: Database, job_id: int) -> Job:
    """Read a job."""
    with db.read() as tx:
        return job_by_id(tx, job_id)


def job_states(db: Database, job_ids: tuple[int, ...]) -> list[str]:
    """Read the states of jobs."""
    return [job(db, job_id).state.value for job_id in job_ids]


def outcomes(db: Database, job_ids: tuple[int, ...]) -> list[str | None]:
    """Read the outcomes of jobs."""
    return [job(db, job_id).outcome for job_id in job_ids]


def unfinished(db: Database, slot: str = "chat") -> list[int]:
    """Return the ids of a slot's unfinished jobs in their order."""
    with db.read() as tx:
        return [one.id for one in unfinished_jobs(tx, slot_now(db, slot).id)]


def slot_of(db: Database, held: Claim) -> Slot:
    """Read the slot of a claim."""
    with db.read() as tx:
        return slot_by_id(tx, held.job.slot_id)


def the_lanes(db: Database) -> list[Lane]:
    """Read every load that is not settled."""
    with db.read() as tx:
        return lanes(tx)


def incident_kinds(db: Database) -> list[str]:
    """Return of what kind the incidents are, oldest first."""
    with db.read() as tx:
        return list(tx.execute(select(incidents.c.kind).order_by(incidents.c.id)).scalars())


def history(db: Database, slot: str = "chat") -> list[str]:
    """Return a slot's audit as `from>to cause`, oldest first, without its creation."""
    t = transitions.c
    rows = select(t.from_state, t.to_state, t.cause).order_by(t.id)
    with db.read() as tx:
        found = tx.execute(rows.where(t.slot_id == slot_now(db, slot).id)).all()
    return [f"{row.from_state}>{row.to_state} {row.cause}" for row in found[1:]]


def has_failed_key(db: Database, slot: str = "chat") -> bool:
    """Tell whether a load that was sent and failed is remembered of this slot."""
    rows = select(failed_keys.c.job_id).where(failed_keys.c.slot_id == slot_now(db, slot).id)
    with db.read() as tx:
        return tx.execute(rows).first() is not None


def write_reading(tx: Connection, reading: Reading) -> int:
    """Write what a reading means for its slots; every backend answers."""
    if reading.health.models is None:
        return 0
    seen = survey(tx, reading)
    return reconcile.apply(tx, seen, reconcile.findings(seen), list(reading.health.models))


def eventually(is_so: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
    """Poll until the condition holds; fails after `limit_s`."""
    until_ms = monotonic_ms() + int(limit_s * 1000)
    while not is_so():
        assert monotonic_ms() < until_ms, f"not so within {limit_s:g} s"
        threading.Event().wait(0.02)


def never(is_so: Callable[[], Any], for_s: float = 1.0) -> None:
    """Poll for a while that the condition does not hold."""
    until_ms = monotonic_ms() + int(for_s * 1000)
    while monotonic_ms() < until_ms:
        assert not is_so()
        threading.Event().wait(0.05)
