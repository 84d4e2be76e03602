"""What an answer says of engines and of what happened at them; shapes as in `answers.py`."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from hal0.api.answers import CauseName, Evidence, Instant, Refusal
from hal0.engines.connect import KINDS
from hal0.states import IncidentKind, SlotState


class Seen(TypedDict, closed=True):
    """What the engine said of itself when a scan last got its list."""

    version: str | None
    max_models: Annotated[int | None, Field(description="it holds no more; null = no limit, or ?")]
    models: Annotated[list[str], Field(description="what it has loaded, by its own names")]
    strangers: Annotated[list[str], Field(description="those of them that belong to no slot")]


class Engine(TypedDict, closed=True):
    """An inference server and what was last seen of it."""

    id: int
    name: str
    kind: Annotated[str, Field(json_schema_extra={"enum": list(KINDS)})]
    url: str
    key_file: str | None
    settle_s: Annotated[float, Field(description="after that it owes no answer to a load")]
    process: str | None
    healthy: Annotated[
        bool, Field(description="it answered since the host started, and when last asked")
    ]
    unreachable_s: Annotated[
        float | None, Field(description="nobody is there for so long; null = somebody is")
    ]
    last_health_at: Instant | None
    last_error: Refusal | None
    seen: Annotated[Seen | None, Field(description="null = no list was ever read")]


class Culprit(TypedDict, closed=True):
    """The load on whose account an engine dropped other models."""

    slot: str
    model: str | None
    job_id: int | None


_Moved = TypedDict(
    "_Moved",
    {
        "slot": str,
        "from": Annotated[SlotState, Field(description="the state that it was in")],
        "to": SlotState,
    },
)


class MovedSlot(_Moved, closed=True):
    """A slot that an incident moved."""

    cause: CauseName
    at: Instant
    back_at: Annotated[Instant | None, Field(description="when it had a model again")]
    why_away: Annotated[str | None, Field(description="why it has none yet; null = it is back")]
    transition_id: int


class Incident(TypedDict, closed=True):
    """One event of an engine, and all that it cost."""

    id: int
    at: Instant
    kind: IncidentKind
    engine: str
    detail: str
    culprit: Culprit | None
    slots: list[MovedSlot]
    evidence: Evidence | None
    acked_at: Annotated[Instant | None, Field(description="null = nobody has acknowledged it")]
    acked_by: str | None
