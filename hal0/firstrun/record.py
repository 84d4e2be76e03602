"""What was found of the machine, as rows: the newest counts, those before it go with old jobs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from hal0.clock import utc_now
from hal0.errors import ProbeNotFound
from hal0.tables import probes


@dataclass(frozen=True, slots=True)
class Probe:
    """One look at the machine."""

    id: int
    at: datetime
    facts: Mapping[str, Any]


def keep(tx: Connection, facts: Mapping[str, Any]) -> Probe:
    """Insert what was found just now. Needs a write transaction."""
    row = tx.execute(insert(probes).values(at=utc_now(), facts=dict(facts)).returning(probes)).one()
    return Probe(row.id, row.at, row.facts)


def newest(tx: Connection) -> Probe:
    """Return what was found last; raises ProbeNotFound."""
    row = tx.execute(select(probes).order_by(probes.c.id.desc()).limit(1)).one_or_none()
    if row is None:
        raise ProbeNotFound(
            "nobody has looked at this machine yet: `hal0 setup`, or POST /api/v1/probe"
        )
    return Probe(row.id, row.at, row.facts)
