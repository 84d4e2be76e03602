"""Point 1: what a client was told is what the rows say.

A job that it was told about is there, and ended or visibly queued. An attempt, a change or a slot's
state that it was shown is in the rows unchanged, for what can be read is written.
"""

from collections.abc import Iterator
from typing import Final

from tests.chaos.evidence import Answer, Json
from tests.chaos.reading import Reading

DESCRIPTION: Final = "/api/v1/openapi.json"
"""Its examples promise nothing."""

ENDED: Final = {"succeeded", "failed", "cancelled"}


class Promises:
    """Every answer of a client, held against the rows."""

    def __init__(self, read: Reading, *, is_quiet: bool) -> None:
        self._read = read
        self._is_quiet = is_quiet
        self._moves = {row["id"]: row for row in read.moves}
        self._was = {(row["slot_id"], row["to_state"], row["at"]) for row in read.moves}
        self._models = {row["name"] for row in read.models.values()}

    def broken(self) -> Iterator[str]:
        """Yield every promise that the rows do not keep."""
        for answer in self._read.told:
            for job_id in _promised_jobs(answer):
                yield from self._is_kept(job_id, answer)
            for shown in answer.objects() if answer.path != DESCRIPTION else ():
                yield from self._is_true(shown, answer)

    def _is_kept(self, job_id: int, answer: Answer) -> Iterator[str]:
        job = self._read.jobs.get(job_id)
        if job is None:
            yield f"job {job_id} is lost; it was promised by {answer.method} {answer.path}"
        elif self._is_quiet and job["state"] not in {*ENDED, "queued"}:
            yield f"job {job_id} is {job['state']} for ever"

    def _is_true(self, shown: Json, answer: Answer) -> Iterator[str]:
        if {"chain_id", "attempts", "kind"} <= shown.keys():
            yield from self._is_true_of_job(shown)
        elif {"from", "to", "cause", "id"} <= shown.keys():
            yield from self._is_true_of_move(shown)
        elif {"state", "since", "version", "id"} <= shown.keys():
            if (shown["id"], shown["state"], shown["since"]) not in self._was:
                since = f"{shown['state']} since {shown['since']}"
                yield f"slot {shown['name']} was shown as {since}, which no row says"
        elif {"format", "files"} <= shown.keys() and shown["name"] not in self._models:
            yield f"model {shown['name']} is lost; it was shown by {answer.method} {answer.path}"

    def _is_true_of_job(self, shown: Json) -> Iterator[str]:
        job = self._read.jobs.get(shown["id"])
        if job is None:
            yield f"job {shown['id']} is lost; it was shown as {shown['state']}"
            return
        for told in shown["attempts"]:
            row = self._read.attempts.get((shown["id"], told["attempt"]))
            said = tuple(told[name] for name in ("owner", "started_at", "ended_at", "outcome"))
            kept = ("owner_id", "started_at", "ended_at", "outcome")
            if row is None or said != tuple(row[name] for name in kept):
                yield f"attempt {told['attempt']} of job {shown['id']} is not as it was shown"
        is_same = (job["state"], job["outcome"]) == (shown["state"], shown["outcome"])
        if shown["state"] in ENDED and not is_same and not self._read.retries(job["chain_id"]):
            yield f"job {job['id']} was shown as {shown['state']} and is {job['state']}"

    def _is_true_of_move(self, shown: Json) -> Iterator[str]:
        row = self._moves.get(shown["id"])
        said = (shown["from"], shown["to"], shown["cause"], shown["at"])
        if row is None or said != (row["from_state"], row["to_state"], row["cause"], row["at"]):
            yield f"transition {shown['id']} is not as it was shown"


def _promised_jobs(answer: Answer) -> Iterator[int]:
    for shown in answer.objects():
        jobs = shown.get("jobs")
        if isinstance(jobs, list):
            yield from (job if isinstance(job, int) else int(job["id"]) for job in jobs)
