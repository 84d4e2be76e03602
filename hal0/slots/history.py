"""What a slot was over a stretch of time, read from its transitions, and what made it what it is.

A busy slot changes with each request, a million times a day. So the newest `MOST_ROWS` changes of a
stretch are read as they are, and what lies before them is looked up at `SAMPLES` instants; errors,
which are rare and may be short, are all read.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, select, type_coerce

from hal0.states import EDGES, Cause, SlotState
from hal0.tables import UtcTime, as_text, chains, jobs, transitions

MOST_ROWS: Final = 1000
SAMPLES: Final = 250
OF_ERRORS: Final = frozenset(edge.cause for edge in EDGES if edge.to is SlotState.ERROR)
"""By these a slot comes into error, and into nothing else; an index finds them."""


@dataclass(frozen=True, slots=True)
class Span:
    """A slot was in one state from an instant to the next change, or to the end of the look."""

    state: SlotState
    began_at: datetime
    ended_at: datetime


class _Seen(NamedTuple):
    """A slot's state from an instant on."""

    to_state: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """The change that brought a slot where it is; `asked_by` asked for the job that made it."""

    cause: Cause
    actor: str
    at: datetime
    job_id: int | None
    incident_id: int | None
    asked_by: str | None
    from_state: SlotState | None


def spans(tx: Connection, slot_id: int, since: datetime, until: datetime) -> list[Span]:
    """Return what the slot was between two instants, oldest first, without gaps."""
    newest = (
        select(transitions.c.to_state, transitions.c.at)
        .where(transitions.c.slot_id == slot_id, transitions.c.at < until)
        .order_by(transitions.c.id.desc())
        .limit(MOST_ROWS)
    )
    rows: list[_Seen] = []
    for row in tx.execute(newest):
        rows.append(_Seen(*row))
        if row.at <= since:  # it was in this state when the look begins
            break
    rows.reverse()
    if len(rows) == MOST_ROWS and rows[0].at > since:
        rows = _looked_up(tx, slot_id, since, rows[0].at) + rows
    ends = [row.at for row in rows[1:]] + [until] * bool(rows)
    return [
        Span(SlotState(row.to_state), max(row.at, since), max(end, since))
        for row, end in zip(rows, ends, strict=True)
        if end > since
    ]


def _looked_up(tx: Connection, slot_id: int, since: datetime, until: datetime) -> list[_Seen]:
    """Return what the slot was at some instants of a stretch, and when it came into error."""
    step = (until - since) / SAMPLES
    instants = [as_text(since + step * at) for at in range(SAMPLES)]
    wanted = func.json_each(json.dumps(instants)).table_valued("value")
    at = type_coerce(wanted.c.value, UtcTime)
    next_id = (
        select(transitions.c.id)
        .where(transitions.c.at > at)
        .order_by(transitions.c.at, transitions.c.id)
        .limit(1)
        .correlate(wanted)
        .scalar_subquery()
    )
    before = transitions.alias("before")
    state = (
        select(before.c.to_state)
        .where(before.c.slot_id == slot_id, before.c.id < next_id)
        .order_by(before.c.id.desc())
        .limit(1)
        .correlate(wanted)
        .scalar_subquery()
    )
    errors = select(transitions.c.to_state, transitions.c.at).where(
        transitions.c.cause.in_(OF_ERRORS),
        transitions.c.slot_id == slot_id,
        transitions.c.to_state == SlotState.ERROR,
        transitions.c.at.between(since, until),
    )
    seen = [_Seen(*row) for row in tx.execute(select(state, at)) if row[0] is not None]
    seen += [_Seen(*row) for row in tx.execute(errors)]
    return sorted(seen, key=lambda one: one.at)


def last_changes(tx: Connection, transition_ids: Collection[int]) -> dict[int, Change]:
    """Return these transitions by the id of their slot."""
    rows = tx.execute(
        select(
            transitions.c.slot_id,
            transitions.c.cause,
            transitions.c.actor,
            transitions.c.at,
            transitions.c.job_id,
            transitions.c.incident_id,
            transitions.c.from_state,
            chains.c.actor.label("asked_by"),
        )
        .join(jobs, jobs.c.id == transitions.c.job_id, isouter=True)
        .join(chains, chains.c.id == jobs.c.chain_id, isouter=True)
        .where(transitions.c.id.in_(transition_ids))
    )
    return {
        row.slot_id: Change(
            Cause(row.cause),
            row.actor,
            row.at,
            row.job_id,
            row.incident_id,
            row.asked_by,
            None if row.from_state is None else SlotState(row.from_state),
        )
        for row in rows
    }
