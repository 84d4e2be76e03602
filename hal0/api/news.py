"""What was committed since the last look, as server-sent events: read once, encoded once.

    transition    a row of the audit; its id is `<epoch>-<transition id>`
    slot          a slot of which anything has changed; as REST shows it
    slot_deleted  its id and name
    job           a job that was made, changed, or ended; its progress once a second at most
    incident      one that is new, or whose slots came back, or that was acknowledged

Only a transition has an id: it is a fact that stays. The others say how something is now, and a
snapshot says that of everything. What time alone changes, such as a breaker that opens, is told
with the next change. All of this runs in one thread.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, select

from hal0.api import engine_views, views
from hal0.api.slots import shown_slots
from hal0.clock import monotonic_ms, utc_now
from hal0.commits import Commits
from hal0.db import Database
from hal0.jobs.incident_queries import Incident, incidents_with_ids, unacknowledged
from hal0.jobs.queries import details
from hal0.jobs.traces import (
    JobTraces,
    Trace,
    Traces,
    jobs_since,
    jobs_with_ids,
    newest,
    slot_traces,
)
from hal0.settings import Settings
from hal0.slots.audit import AuditFilter, AuditRow, audit_page
from hal0.slots.queries import slots_with_ids
from hal0.tables import boots

PAGE: Final = 500
"""So many transitions are read at once."""
PROGRESS_MS: Final = 1000
MOST_INCIDENTS: Final = 100
"""So many that nobody acknowledged are in a snapshot: the newest."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found; `last_id` is the transition up to which all has been told."""

    epoch: int
    last_id: int
    news: bytes
    snapshot: bytes | None
    """How everything is at this look, if somebody asked for it."""
    is_anew: bool
    """Whether it is the first, or follows one that failed: nobody knows what lies between."""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of the audit as events, up to `last_id`; a gap = rows behind it are gone."""

    last_id: int
    data: bytes
    is_gap: bool


def event(name: str, data: bytes, event_id: str | None = None) -> bytes:
    """Return one server-sent event; `data` has no line feed in it."""
    with_id = b"" if event_id is None else b"id: %s\n" % event_id.encode()
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), with_id, data)


def encoded(content: Any) -> bytes:
    """Return JSON in one line."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace")


def epoch_of(tx: Connection) -> int:
    """Return the newest boot's: by it ids of one that lost rows to a power cut are told apart."""
    return tx.execute(select(func.max(boots.c.epoch))).scalar_one() or 0


def page_between(tx: Connection, epoch: int, behind: int, until: int) -> Page:
    """Return the next rows behind one id, up to another; ids have no gaps but where was pruned."""
    rows = [row for row in _rows(tx, behind) if row.id <= until]
    whole = [row for at, row in enumerate(rows, behind + 1) if row.id == at]
    is_gap = len(whole) < len(rows) or not rows
    return Page(whole[-1].id if whole else behind, b"".join(_told(whole, epoch)), is_gap)


def _rows(tx: Connection, behind: int) -> list[AuditRow]:
    return audit_page(tx, AuditFilter(), limit=PAGE, behind=behind)


def _told(rows: Collection[AuditRow], epoch: int) -> Iterator[bytes]:
    for row in rows:
        yield event("transition", encoded(views.transition_json(row)), f"{epoch}-{row.id}")


class News:
    """What was told last, so that only what differs from it is told."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._settings = settings
        self._db = db
        self._commits = Commits(db.path)
        self._forget()

    def _forget(self) -> None:
        self._is_anew = True
        self._owes = False
        self._epoch = self._last_id = self._last_job = self._last_attempt = 0
        self._slot_traces: Traces = {}
        self._slots: dict[int, bytes] = {}
        self._job_rows: Mapping[int, Trace] = {}
        self._first_of_slot: Mapping[int, int] = {}
        self._hindrances: Trace = None
        self._progress: Traces = {}
        self._progress_ms: dict[int, int] = {}
        self._jobs: dict[int, bytes] = {}
        self._incidents: dict[int, bytes] = {}
        self._unsettled: set[int] = set()
        self._kept_snapshot: bytes | None = None  # but for when it was made

    def close(self) -> None:
        """Give back what is held; the next look is the first."""
        self._commits.close()
        self._forget()

    def look(self, *, with_snapshot: bool) -> Look:
        """Read what is new, if there is anything. Raises DatabaseError; the next one is anew."""
        news, is_anew = b"", self._is_anew
        try:
            if self._commits.any_new() or self._owes:
                with self._db.read() as tx:
                    news = b"".join(self._events(tx))
        except BaseException:
            self.close()
            raise
        if news or is_anew:
            self._kept_snapshot = None
        snapshot = self._snapshot() if with_snapshot else None
        return Look(self._epoch, self._last_id, b"" if is_anew else news, snapshot, is_anew)

    def _events(self, tx: Connection) -> Iterator[bytes]:
        self._owes = False
        self._epoch = epoch_of(tx)
        last_id, last_job, last_attempt = newest(tx)
        if self._is_anew:
            self._last_id, self._last_job, self._last_attempt = last_id, last_job, last_attempt
            self._is_anew = False
        rows = _rows(tx, self._last_id) if last_id > self._last_id else []
        yield from _told(rows, self._epoch)
        self._last_id = rows[-1].id if rows else self._last_id
        self._owes = self._last_id < last_id
        line = JobTraces(tx)
        changed = list(self._slot_events(tx, line))
        ended = self._ended(tx, last_job, last_attempt)
        changed += self._job_events(tx, line, ended)
        yield from changed
        concerned = {row.incident_id for row in rows if row.incident_id is not None}
        yield from self._incident_events(tx, concerned, is_quiet=not rows and not changed)

    def _ended(self, tx: Connection, last_job: int, last_attempt: int) -> set[int]:
        before = self._last_job, min(self._last_attempt, last_attempt)
        self._last_job, self._last_attempt = last_job, last_attempt
        return jobs_since(tx, *before) if before != (last_job, last_attempt) else set()

    def _slot_events(self, tx: Connection, line: JobTraces) -> Iterator[bytes]:
        before, now = self._slot_traces, slot_traces(tx, line)
        self._slot_traces = now
        for slot_id in before.keys() - now.keys():
            gone = json.loads(self._slots.pop(slot_id))
            yield event("slot_deleted", encoded({"id": slot_id, "name": gone["name"]}))
        changed = [slot_id for slot_id, trace in now.items() if before.get(slot_id) != trace]
        if not changed:
            return
        for slot in shown_slots(tx, self._settings, slots_with_ids(tx, changed)):
            text = encoded(slot)
            if self._slots.get(slot["id"]) != text:
                self._slots[slot["id"]] = text
                yield event("slot", text)

    def _job_events(self, tx: Connection, line: JobTraces, ended: set[int]) -> Iterator[bytes]:
        changed = ended | self._changed_jobs(line)
        self._job_rows, self._first_of_slot = line.rows, line.first_of_slot
        self._hindrances = line.hindrances
        now_ms = monotonic_ms()
        for detail in details(tx, jobs_with_ids(tx, changed)) if changed else ():
            job_id, text = detail.job.id, encoded(views.job_json(detail))
            self._progress[job_id] = line.progress.get(job_id)
            self._progress_ms[job_id] = now_ms
            if self._jobs.get(job_id) != text:
                self._jobs[job_id] = text
                yield event("job", text)
        for job_id in self._jobs.keys() - line.rows.keys():
            del self._jobs[job_id], self._progress[job_id], self._progress_ms[job_id]

    def _changed_jobs(self, line: JobTraces) -> set[int]:
        """Return what may be shown otherwise than before."""
        first, now_ms = line.first_of_slot, monotonic_ms()
        other_lines = {slot for slot in first if self._first_of_slot.get(slot) != first[slot]}
        changed = self._job_rows.keys() - line.rows.keys()
        for job_id, row in line.rows.items():
            is_moved = line.slot_of(job_id) in other_lines
            if is_moved or self._job_rows.get(job_id) != row:
                changed.add(job_id)
            elif self._progress.get(job_id) != line.progress[job_id]:
                if now_ms - self._progress_ms[job_id] >= PROGRESS_MS:
                    changed.add(job_id)
                else:
                    self._owes = True
        return changed | {*first.values()} if line.hindrances != self._hindrances else changed

    def _incident_events(
        self, tx: Connection, concerned: set[int], *, is_quiet: bool
    ) -> Iterator[bytes]:
        unseen = unacknowledged(tx, MOST_INCIDENTS)
        acknowledged = self._incidents.keys() - unseen
        changed = concerned | acknowledged | ({*unseen} - self._incidents.keys())
        if not is_quiet:
            changed |= self._unsettled
        for incident in incidents_with_ids(tx, changed) if changed else ():
            text = encoded(engine_views.incident_json(incident))
            if self._incidents.get(incident.id) != text:
                self._incidents[incident.id] = text
                yield event("incident", text)
            self._note_unsettled(incident)
        for incident_id in self._incidents.keys() - unseen:
            del self._incidents[incident_id]
            self._unsettled.discard(incident_id)

    def _note_unsettled(self, incident: Incident) -> None:
        if any(moved.back_at is None for moved in incident.moved):
            self._unsettled.add(incident.id)
        else:
            self._unsettled.discard(incident.id)

    def _snapshot(self) -> bytes:
        if self._kept_snapshot is None:
            parts = [
                b'"%s":[%s]' % (name, b",".join(kept[key] for key in sorted(kept)))
                for name, kept in (
                    (b"slots", self._slots),
                    (b"jobs", self._jobs),
                    (b"incidents", self._incidents),
                )
            ]
            self._kept_snapshot = b",".join(parts)
        known = {"epoch": self._epoch, "at": views.when(utc_now()), "last_id": self._last_id}
        data = b"%s,%s}" % (encoded(known)[:-1], self._kept_snapshot)
        return event("snapshot", data, f"{self._epoch}-{self._last_id}")
