"""One engine event and all that it cost, under one number: the only writer of incidents.

Somebody may say that they have seen one; it is told as before, and stays for ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, update

from hal0.clock import utc_now
from hal0.states import IncidentKind
from hal0.tables import incidents


@dataclass(frozen=True, slots=True)
class Culprit:
    """The load on whose account an engine dropped other models."""

    slot_id: int
    job_id: int
    kind: IncidentKind

    @property
    def restores(self) -> bool:
        """Whether what was lost comes back: not after a load that succeeded (LRU).

        Two slots would evict each other for ever.
        """
        return self.kind is not IncidentKind.LOAD_MADE_ROOM


def record(
    tx: Connection,
    engine_id: int,
    kind: IncidentKind,
    detail: str,
    *,
    culprit: Culprit | None = None,
    evidence: Mapping[str, object] | None = None,
) -> int:
    """Insert an incident and return its id; the transitions that it causes carry that."""
    incident_id: int = tx.execute(
        insert(incidents)
        .values(
            engine_id=engine_id,
            kind=kind,
            slot_id=None if culprit is None else culprit.slot_id,
            job_id=None if culprit is None else culprit.job_id,
            at=utc_now(),
            detail=detail,
            evidence=None if evidence is None else dict(evidence),
        )
        .returning(incidents.c.id)
    ).scalar_one()
    return incident_id


def acknowledge(tx: Connection, incident_id: int, actor: str) -> None:
    """Write who has seen an incident, and when; the first one stays. Needs a write transaction."""
    tx.execute(
        update(incidents)
        .where(incidents.c.id == incident_id, incidents.c.acked_at.is_(None))
        .values(acked_at=utc_now(), acked_by=actor)
    )


def counted(names: Sequence[str]) -> str:
    """Return `one model` or `3 models`, for a detail."""
    return "one model" if len(names) == 1 else f"{len(names)} models"
