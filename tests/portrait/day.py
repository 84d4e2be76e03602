"""A day of a busy hal0 as rows, written by the code that writes them when it runs.

Time stands still at each event; nothing serves, loads or fetches. The last one is now.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from freezegun import freeze_time
from sqlalchemy import insert, update

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.db import Database
from hal0.errors import ChecksumMismatch, EngineRefused, Hal0Error, LoadTimeout
from hal0.jobs import incidents
from hal0.jobs.ledger import claims
from hal0.jobs.ledger.rows import By
from hal0.slots.queries import slot_by_id, slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, IncidentKind, JobKind, Outcome, SlotState
from hal0.tables import engines, idle_windows, job_progress, owners, slots, speeds
from tests import ledger
from tests.rows import arrive, ask_load, ask_unload, claim_next, make_model, make_slot, slot_now

GIB: Final = 2**30
EMPTY: Final = {"model_id": None, "engine_model": None}
MODELS: Final = {
    "agent": ("gpt-oss-20b", 12.1),
    "chat": ("qwen3-8b-q4", 4.9),
    "coder": ("qwen3-coder-30b", 17.3),
    "embed": ("nomic-embed-v2", 0.3),
    "rerank": ("bge-reranker-v2", 0.6),
    "speech": ("kokoro-82m", 0.2),
    "summary": ("phi-4-mini", 2.3),
    "vision": ("llava-next-7b", 4.4),
}
BY: Final = By("laptop", "9f2c41ab")
BAD_FILE: Final = ChecksumMismatch(
    "main file bge-reranker-v2.gguf: its sha256 is 41abd7…, registered is 9f2c70…"
)
LATE: Final = LoadTimeout("the engine did not load llava-next-7b within 120 s")
REFUSED: Final = EngineRefused("llama-server failed to start", evidence={"ctx_size": 131072})


class Day:
    """Writes what happened so many hours ago."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._now = utc_now()

    def live(self) -> None:
        """Let all of it happen, in its order."""
        with self._ago(23.9):
            for slot, (model, gib) in MODELS.items():
                source = f"hf://example/{model}/{model}.gguf"
                make_model(self._db, model, source=source, size_bytes=int(gib * GIB))
                make_slot(self._db, slot, model)
        for hours, happen in sorted(self._events(), key=lambda event: -event[0]):
            with self._ago(hours):
                happen()
        self._now_at_work()

    def _events(self) -> Iterator[tuple[float, Callable[[], object]]]:
        for slot, hours, load_s in (
            *(("chat", 19, 41.0), ("chat", 6.6, 38.0), ("embed", 23.5, 2.0), ("coder", 23, 37.0)),
            *(("coder", 1.3, 39.0), ("vision", 22.6, 20.0), ("rerank", 22, 3.0)),
            *(("summary", 21, 9.0), ("summary", 10, 12.0), ("speech", 16, 1.0), ("speech", 3, 1.2)),
        ):
            yield hours, partial(self._load, slot, load_s)
        for slot, hours in (
            *(("chat", 8), ("coder", 1.4), ("coder", 0.4), ("vision", 6), ("rerank", 7)),
            *(("summary", 19), ("summary", 5), ("speech", 12)),
        ):
            yield hours, partial(self._unload, slot)
        yield 12, partial(self._rest, "chat")
        yield 14, partial(self._rest, "speech")
        yield 4, partial(self._load, "vision", 120, LATE)
        yield 2, partial(self._load, "rerank", 3, BAD_FILE, fails_in=JobKind.VALIDATE)
        yield 0.45, self._suffer
        yield 0.3, partial(ledger.serve, self._db, "chat", 3)
        yield 0.003, partial(self._rest, "embed")
        yield 14 / 3600, partial(self._begin_load, "coder")

    def _suffer(self) -> None:
        """Let a failed load drop what the engine had loaded, which is loaded again."""
        job_id = self._load("vision", 4, REFUSED)
        with self._db.write() as tx:
            slot = slot_named(tx, "vision")
            told = "the load of vision failed, and the engine dropped 2 models"
            kind = IncidentKind.LOAD_FAILED
            culprit = incidents.Culprit(slot.id, job_id, kind)
            incident_id = incidents.record(tx, slot.engine_id, kind, told, culprit=culprit)
            for name in ("chat", "embed"):
                act = Act("worker", job_id=job_id, incident_id=incident_id)
                lost = slot_named(tx, name)
                move(tx, lost, SlotState.OFFLINE, Cause.EVICTED_BY_ENGINE, act)
                tx.execute(update(slots).where(slots.c.id == lost.id).values(**EMPTY))
        self._load("embed", 2.0, by=ledger.RESTORE)
        self._load("chat", 38.0, by=ledger.RESTORE)

    def _load(
        self,
        slot: str,
        load_s: float,
        error: Hal0Error | None = None,
        fails_in: JobKind = JobKind.LOAD,
        by: By = BY,
    ) -> int:
        """Load it, or let that fail; return the job that ended it."""
        ask_load(self._db, slot, by=by)
        ledger.end(self._db, ledger.claim_kind(self._db, JobKind.PULL), Outcome.SKIPPED)
        held = claim_next(self._db)
        ledger.begin_validate(self._db, held)
        with self._later(0.1 * load_s):
            if error is not None and fails_in is JobKind.VALIDATE:
                ledger.fail(self._db, held, error)
                return held.job.id
            ledger.end(self._db, held)
            held = ledger.mark_sent(self._db, ledger.claim_kind(self._db, JobKind.LOAD))
        with self._later(1.1 * load_s):
            if error is None:
                arrive(self._db, held)
            else:
                ledger.free_lane(self._db, held)
                ledger.fail(self._db, held, error)
                self._forget(slot)
        return held.job.id

    def _begin_load(self, slot: str) -> None:
        ask_load(self._db, slot, by=BY)
        ledger.end(self._db, ledger.claim_kind(self._db, JobKind.PULL), Outcome.SKIPPED)
        held = claim_next(self._db)
        ledger.begin_validate(self._db, held)
        ledger.end(self._db, held)
        ledger.mark_sent(self._db, ledger.claim_kind(self._db, JobKind.LOAD))

    def _unload(self, slot: str) -> None:
        ask_unload(self._db, slot, by=BY)
        held = claim_next(self._db)
        with self._db.write() as tx:
            act, now = held.act, claims.check(tx, held)
            now = move(tx, now, SlotState.UNLOADING, Cause.OPERATOR_UNLOAD, act)
            tx.execute(update(slots).where(slots.c.id == now.id).values(**EMPTY))
            move(tx, slot_by_id(tx, now.id), SlotState.OFFLINE, Cause.UNLOADED, act)
            claims.finish(tx, held)

    def _forget(self, slot: str) -> None:
        with self._db.write() as tx:
            tx.execute(update(slots).where(slots.c.name == slot).values(**EMPTY))

    def _rest(self, slot: str) -> None:
        with self._db.write() as tx:
            move(tx, slot_named(tx, slot), SlotState.IDLE, Cause.DEMOTED, Act("scan"))

    def _now_at_work(self) -> None:
        """Let `agent` be fetched, `embed` be near its end, `chat` be quick, and all be well."""
        ask_load(self._db, "agent", by=BY)
        held = claim_next(self._db)
        ledger.begin_pull(self._db, held)
        done, whole = int(7.1 * GIB), int(12.1 * GIB)
        chat, embed, now = slot_now(self._db), slot_now(self._db, "embed"), utc_now()
        unused_s = 312
        me = {"id": "a-worker", "kind": "worker", "boot_id": boot_id(), "pid": 1, "pid_start": 1}
        at_work = {"job_id": held.job.id, "attempt": held.job.attempt, "phase": "download"}
        speed = {"requests": 9, "first_byte_ms": 80, "tokens_per_s": 41.2}
        with self._db.soft() as tx:
            tx.execute(insert(owners).values(**me, started_at=now, seen_at=now))
            tx.execute(
                insert(job_progress).values(
                    **at_work, done_bytes=done, total_bytes=whole, at=now, rate_bytes_s=48 * 2**20
                )
            )
            tx.execute(insert(speeds).values(slot_id=chat.id, **speed, at=now))
            tx.execute(
                insert(idle_windows).values(
                    slot_id=embed.id,
                    generation=embed.generation,
                    seen="unused",
                    since_boot=boot_id(),
                    since_ms=monotonic_ms() - unused_s * 1000,
                )
            )
            used_at = now - timedelta(seconds=unused_s)
            tx.execute(update(slots).where(slots.c.id == embed.id).values(last_used_at=used_at))
            well = {"healthy_boot_id": boot_id(), "last_health_at": now, "last_error": None}
            tx.execute(update(engines).values(**well))

    @contextmanager
    def _ago(self, hours: float) -> Iterator[None]:
        with _frozen(self._now - timedelta(hours=hours)):
            yield

    @contextmanager
    def _later(self, seconds: float) -> Iterator[None]:
        with _frozen(utc_now() + timedelta(seconds=seconds)):
            yield


@contextmanager
def _frozen(at: datetime) -> Iterator[None]:
    with freeze_time(at, tick=True):
        yield
