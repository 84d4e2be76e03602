"""What to see first: what is wrong, else what takes longest, else that all is well.

`hal0 status` says it once, `hal0 top` again and again. Causes stand before what follows from them:
without a worker, or an engine, slots cannot be well either.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from hal0.cli.client import Api, Json, path_of
from hal0.cli.lines import pace_of, share_of
from hal0.cli.times import clock_of, seconds_since, seconds_until, since
from hal0.clock import utc_now
from hal0.page.words import lasted

SILENT_S: Final = 60.0
"""After so long without a sign of life of any worker people are told; each gives one far sooner."""

MOST_JOBS: Final = 200
MOST_INCIDENTS: Final = 100
HELD: Final = ("ready", "serving", "idle")


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong: with what, since when if that is known, and what mends it."""

    subject: str
    said: str
    mend: str

    @property
    def sentence(self) -> str:
        """All of it."""
        return f"{self.subject}: {self.said}; {self.mend}"


@dataclass(frozen=True, slots=True)
class Glance:
    """How everything was at one look, as REST tells it."""

    slots: Sequence[Json]
    jobs: Sequence[Json]
    """Those that run, the one first that began first, then those that wait."""
    failed: Mapping[str, Json]
    """By slot the job that failed in its newest chain."""
    engines: Sequence[Json]
    workers: Sequence[Json]
    incidents: Sequence[Json]
    """Those that nobody acknowledged, newest first."""
    usual_s: Mapping[int, float]
    """By id of a running job how long such a job usually takes."""
    at: datetime = field(default_factory=utc_now)

    @property
    def troubles(self) -> list[Trouble]:
        """What is wrong, causes first."""
        return [*self._of_workers(), *self._of_engines(), *self._of_slots(), *self._of_loads()]

    def _of_workers(self) -> Iterator[Trouble]:
        mend = "`hal0 up` starts one, `hal0 doctor` says more"
        if not self.workers:
            yield Trouble("worker", "none runs, so jobs stay queued", mend)
            return
        last = max(worker["seen_at"] for worker in self.workers)
        if seconds_since(last) > SILENT_S:
            yield Trouble("worker", f"none was seen since {since(last)}", mend)

    def _of_engines(self) -> Iterator[Trouble]:
        for engine in self.engines:
            if engine["healthy"]:
                continue
            error, away_s = engine["last_error"], engine["unreachable_s"]
            if error is None:
                said = "has not answered yet"
            else:
                gone = "" if away_s is None else f" since {_ago(self.at, away_s)}"
                said = f"does not answer{gone}: {error['code']}: {error['detail']}"
            yield Trouble(f"engine {engine['name']}", said, "`hal0 doctor` asks it")

    def _of_slots(self) -> Iterator[Trouble]:
        for slot in sorted(self.slots, key=lambda slot: str(slot["since"])):
            if slot["state"] != "error":
                continue
            error = slot["error"] or {}
            job = f" (job {error['job_id']})" if error.get("job_id") else ""
            said = f"in error since {since(slot['since'])}, {error.get('code')}{job}"
            mend = mend_of(slot, self.failed.get(slot["name"]))
            why = f"`hal0 slot show {slot['name']}` says why"
            yield Trouble(f"slot {slot['name']}", said, f"{why}; {mend}")

    def _of_loads(self) -> Iterator[Trouble]:
        in_error = {slot["name"] for slot in self.slots if slot["state"] == "error"}
        for name, job in self.failed.items():
            if name in in_error or job["kind"] == "unload":
                continue
            code = (job["error"] or {}).get("code")
            said = f"job {job['id']} ({job['kind']}) failed {since(job['ended_at'])}, {code}"
            why = f"`hal0 job show {job['id']}` says why"
            yield Trouble(f"slot {name}", said, f"{why}; `hal0 job retry {job['id']} --wait`")

    @property
    def sentence(self) -> str:
        """What to say if only one thing can be said."""
        troubles = self.troubles
        if troubles:
            more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
            return troubles[0].sentence + more
        if self.jobs:
            job = self.jobs[0]
            named = f"slot {job['slot']}: job {job['id']} {job['kind']} of {job['model']}"
            return f"{named}: {self.progress_of(job)}"
        if not self.slots:
            return "all well, and no slot yet: `hal0 setup` makes one"
        loaded = sum(slot["state"] in HELD for slot in self.slots)
        return f"all well: {loaded} of {_counted(len(self.slots), 'slot')} loaded, nothing to do"

    def progress_of(self, job: Json) -> str:
        """Return how far a job is, as far as anyone knows, and what a queued one waits for."""
        if job["state"] != "running":
            return f"waits for {job['waiting_for']}" if job["waiting_for"] else "waits for a worker"
        at = job["progress"] or {}
        ran = lasted(seconds_since(job["started_at"]))
        usual_s = self.usual_s.get(job["id"])
        told = [str(at.get("phase") or job["kind"])]
        if at.get("total_bytes"):
            told.append(share_of(at["done_bytes"], at["total_bytes"]))
            told.append(pace_of(at["rate_bytes_s"], at["left_s"]))
        told.append(f"for {ran}" if usual_s is None else f"for {ran} of usually {lasted(usual_s)}")
        return ", ".join(filter(None, told))


def mend_of(slot: Json, failed: Json | None) -> str:
    """Return the command that gets a slot out of its error, once its cause is gone."""
    if failed is not None:
        return f"then `hal0 job retry {failed['id']} --wait`"
    if (slot["error"] or {}).get("job_id") is None:
        return f"it comes back with its engine: `hal0 engine show {slot['engine']}`"
    return f"then `hal0 slot load {slot['name']} --wait`"


class Looker:
    """Looks again and again; how long work usually takes it asks once for each job."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self._usual_s: dict[int, float | None] = {}

    def look(self) -> Glance:
        """Return how everything is. Raises ApiDown, Refused."""
        ready = self.api.get("/readyz")
        running = list(self.api.items(path_of("jobs"), MOST_JOBS, state="running"))
        running.sort(key=lambda job: str(job["started_at"]))
        queued = list(self.api.items(path_of("jobs"), MOST_JOBS, state="queued"))
        incidents = self.api.items(path_of("incidents"), MOST_INCIDENTS)
        failed = self.api.get(path_of("jobs", "failed"))["items"]
        return Glance(
            slots=list(self.api.items(path_of("slots"))),
            jobs=[*running, *reversed(queued)],
            failed={job["slot"]: job for job in failed},
            engines=list(self.api.items(path_of("engines"))),
            workers=ready["workers"],
            incidents=[one for one in incidents if one["acked_at"] is None],
            usual_s=self._usual(running),
        )

    def _usual(self, running: Sequence[Json]) -> dict[int, float]:
        asked: dict[int, float | None] = {}
        for job in running:
            if job["id"] in self._usual_s:
                asked[job["id"]] = self._usual_s[job["id"]]
                continue
            usual: dict[str, Any] = self.api.get(path_of("slots", job["slot"], "loads"), limit=1)
            asked[job["id"]] = usual["usual_s"].get(job["kind"])
        self._usual_s = asked
        return {job_id: usual_s for job_id, usual_s in asked.items() if usual_s is not None}


def about(slot: Json, glance: Glance) -> str | None:
    """Return in a few words what happens to a slot, or keeps it from being well."""
    job = next((job for job in glance.jobs if job["id"] == slot["job_id"]), None)
    if job is not None:
        return f"job {job['id']} {job['kind']}: {glance.progress_of(job)}"
    if slot["state"] == "error":
        return str((slot["error"] or {}).get("code"))
    return coming_back(slot) or fading(slot)


def coming_back(slot: Json) -> str | None:
    """Return whether, and when, a machine loads a slot again that lost its model."""
    restore = slot["restore"] or {}
    if slot["state"] in HELD:
        return None
    if restore.get("is_parked"):
        return "parked: no machine loads it again"
    if restore.get("opens_at"):
        return f"loads again, not before {clock_of(restore['opens_at'])}"
    return "loads again" if restore.get("cause") else None


def fading(slot: Json) -> str | None:
    """Return when a slot that nobody uses becomes idle, or is unloaded."""
    told = [
        _coming("idle", slot["demotes_at"]),
        _coming("unloads", slot["unloads_at"]),
    ]
    return ", ".join(filter(None, told)) or None


def _coming(what: str, at: str | None) -> str | None:
    """Say what comes; what is overdue comes when its engine is looked at, and answers."""
    if at is None:
        return None
    left_s = seconds_until(at)
    return f"{what} in {lasted(left_s)}" if left_s else f"{what} at the next look"


def _ago(at: datetime, seconds: float) -> str:
    return since((at - timedelta(seconds=seconds)).isoformat())


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
