"""All that a checker reads, once: rows and logs, and which call of the engine came of which row."""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tests.chaos.evidence import Evidence, LoadCall, Row

WRITTEN_MS: Final = 2
"""The engine's log cuts its times to milliseconds."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The row that says that a load is on its way, and all calls that came of it."""

    mark: Row
    calls: tuple[LoadCall, ...]


def is_adoption(mark: Row) -> bool:
    """Tell a slot that came to hold what the engine had from one whose load was sent."""
    return mark["evidence"] is not None and json.loads(mark["evidence"]).get("sent") is False


class Reading:
    """One reading of the evidence."""

    def __init__(self, evidence: Evidence) -> None:
        self.told = evidence.told()
        self.loads = evidence.loads()
        self.slots = {row["id"]: row for row in evidence.rows("SELECT * FROM slots")}
        engines = evidence.rows("SELECT id, process FROM engines")
        self.processes = {row["id"]: row["process"] for row in engines}
        self.moves = evidence.rows("SELECT * FROM transitions ORDER BY id")
        self.jobs = {row["id"]: row for row in evidence.rows("SELECT * FROM jobs")}
        self.chains = {row["id"]: row for row in evidence.rows("SELECT * FROM chains")}
        self.attempts = {
            (row["job_id"], row["attempt"]): row
            for row in evidence.rows("SELECT * FROM job_attempts ORDER BY started_at")
        }
        self.models = {
            row["id"]: row
            for row in evidence.rows(
                "SELECT models.id, name, path, sha256 FROM models "
                "JOIN model_files ON model_id = models.id AND position = 0"
            )
        }
        self.incidents = {row["id"]: row for row in evidence.rows("SELECT * FROM incidents")}
        self.breakers = {row["slot_id"] for row in evidence.rows("SELECT slot_id FROM breakers")}
        self.leases = evidence.rows("SELECT * FROM leases")
        living = evidence.rows("SELECT id FROM owners WHERE ended_at IS NULL")
        self.living = {row["id"] for row in living}
        self.failed_keys = {row["slot_id"] for row in evidence.rows("SELECT * FROM failed_keys")}
        self.sent, self.unmarked = self._sent_loads()

    def retries(self, chain_id: int) -> int:
        """Count what may have retried this chain: also requests whose answer was lost."""
        mine = {
            f"/api/v1/jobs/{row['id']}/retry"
            for row in self.jobs.values()
            if row["chain_id"] == chain_id
        }
        return sum(
            answer.method == "POST"
            and answer.path in mine | {"/api/v1/jobs/retry"}
            and (answer.status is None or answer.is_success)
            for answer in self.told
        )

    def chain_of(self, sent: Sent) -> Row:
        """Return the chain of a load that was sent."""
        return self.chains[self.jobs[sent.mark["job_id"]]["chain_id"]]

    def _sent_loads(self) -> tuple[list[Sent], list[LoadCall]]:
        """Put each call to the newest mark of its model before it; some have none."""
        marks = [row for row in self.moves if row["cause"] == "load_sent" and not is_adoption(row)]
        calls: dict[int, list[LoadCall]] = defaultdict(list)
        unmarked = []
        for call in self.loads:
            latest = datetime.fromisoformat(call.at) + timedelta(milliseconds=WRITTEN_MS)
            before = [
                row
                for row in marks
                if self._model_of(row) == call.model and datetime.fromisoformat(row["at"]) <= latest
            ]
            if before:
                calls[before[-1]["id"]].append(call)
            else:
                unmarked.append(call)
        return [Sent(row, tuple(calls[row["id"]])) for row in marks], unmarked

    def _model_of(self, mark: Row) -> str | None:
        model = self.models.get(self.jobs[mark["job_id"]]["model_id"])
        return None if model is None else str(model["name"])
