"""What the process answers about itself: `/livez`, `/readyz`, and the closed lists of this version.

Shapes as in `answers.py`, which has those of slots, jobs and all else.
"""

from typing_extensions import TypedDict

from hal0.api.answers import Code, Instant
from hal0.states import Cause, IncidentKind, JobKind, JobState, Outcome, SlotState

Edge = TypedDict("Edge", {"from": SlotState | None, "to": SlotState, "cause": Cause}, closed=True)


class CodeAndStatus(TypedDict, closed=True):
    """An error by its code."""

    code: Code
    http_status: int


class EngineAndStrangers(TypedDict, closed=True):
    """An engine, and the models in it that belong to no slot, by its own names."""

    name: str
    strangers: list[str]


class Meta(TypedDict, closed=True):
    """The closed lists of this version, and its engines."""

    version: str
    schema_revision: str
    home: str
    states: list[SlotState]
    edges: list[Edge]
    causes: list[Cause]
    kinds: list[JobKind]
    job_states: list[JobState]
    outcomes: list[Outcome]
    incident_kinds: list[IncidentKind]
    engines: list[EngineAndStrangers]
    error_codes: list[CodeAndStatus]


class Live(TypedDict, closed=True):
    """The process answers."""

    live: bool
    version: str


class Worker(TypedDict, closed=True):
    """A worker process that nobody has seen end."""

    id: str
    pid: int
    started_at: Instant
    seen_at: Instant


class Ready(TypedDict, closed=True):
    """The database can be read and has this schema."""

    ready: bool
    version: str
    schema_revision: str
    workers: list[Worker]
