"""How engines, and what happened at them, look as JSON."""

from typing import cast

from hal0.api import answers, engine_answers
from hal0.api.views import when
from hal0.jobs.incident_queries import Incident, MovedSlot
from hal0.registry.roster import EngineRow
from hal0.states import SlotState


def engine_json(engine: EngineRow) -> engine_answers.Engine:
    """Show an engine and what was last seen of it; of its key only where it is kept."""
    away_ms = engine.away_ms
    return {
        "id": engine.id,
        "name": engine.name,
        "kind": engine.kind,
        "url": engine.url,
        "key_file": engine.key_file,
        "settle_s": engine.settle_s,
        "process": engine.process,
        "healthy": engine.is_well,
        "unreachable_s": None if away_ms is None else away_ms / 1000,
        "last_health_at": when(engine.last_health_at),
        "last_error": cast(answers.Refusal | None, engine.last_error),
        "seen": cast(engine_answers.Seen | None, engine.seen),
    }


def incident_json(incident: Incident) -> engine_answers.Incident:
    """Show an incident with all that it cost."""
    return {
        "id": incident.id,
        "at": when(incident.at),
        "kind": incident.kind,
        "engine": incident.engine,
        "detail": incident.detail,
        "culprit": _culprit_json(incident),
        "slots": [_moved_json(moved) for moved in incident.moved],
        "evidence": incident.evidence,
        "acked_at": when(incident.acked_at),
        "acked_by": incident.acked_by,
    }


def _culprit_json(incident: Incident) -> engine_answers.Culprit | None:
    if incident.culprit is None:
        return None
    return {
        "slot": incident.culprit,
        "model": incident.culprit_model,
        "job_id": incident.culprit_job_id,
    }


def _moved_json(moved: MovedSlot) -> engine_answers.MovedSlot:
    return {
        "slot": moved.slot,
        "from": SlotState(moved.from_state),
        "to": SlotState(moved.to_state),
        "cause": moved.cause,
        "at": when(moved.at),
        "back_at": when(moved.back_at),
        "why_away": moved.why_away,
        "transition_id": moved.transition_id,
    }
