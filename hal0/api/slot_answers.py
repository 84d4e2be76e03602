"""What an answer says of a slot; shapes as in `answers.py`."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from hal0.api.answers import CauseName, Fault, Instant, Options
from hal0.states import Desired, DesiredBy, JobState, Origin, SlotState, Wake


class Effective(TypedDict, closed=True):
    """What holds for a slot: its own, else the settings'; of the first two times 0 = never."""

    idle_after_s: float
    unload_after_s: float
    load_timeout_s: float
    load_timeout_s_per_gb: float
    max_in_flight: int
    max_waiting: int


class Speed(TypedDict, closed=True):
    """How fast a slot answered its last requests, as medians; nothing of what was asked or said."""

    requests: Annotated[int, Field(description="of so many, 16 at most")]
    first_byte_ms: Annotated[float, Field(description="until the first byte of the answer")]
    tokens_per_s: Annotated[float | None, Field(description="null = the engine tells none")]
    at: Annotated[Instant, Field(description="when this was written")]


class Restore(TypedDict, closed=True):
    """What a machine is to load again, and the automatic loads of the slot in a row."""

    cause: Annotated[CauseName | None, Field(description="why; null = nothing is to be loaded")]
    model: str | None
    because_of_job_id: Annotated[int | None, Field(description="the load that cost the model")]
    sent: Annotated[int, Field(description="automatic loads in a row")]
    opens_at: Annotated[
        Instant | None,
        Field(description="not before may a machine send the next; null = now, or it is parked"),
    ]
    is_parked: Annotated[bool, Field(description="no machine loads it; an operator may")]


class Slot(TypedDict, closed=True):
    """A named place holding at most one model."""

    id: int
    name: str
    state: SlotState
    since: Instant
    cause: Annotated[CauseName, Field(description="why it came into this state")]
    engine: str
    model: Annotated[str | None, Field(description="what it holds")]
    wanted_model: Annotated[str | None, Field(description="what it is set up for")]
    desired: Desired
    desired_by: Annotated[DesiredBy, Field(description="who said so last")]
    options: Options
    pinned: bool
    priority: int
    idle_after_s: Annotated[float | None, Field(description="null = the default, 0 = never")]
    unload_after_s: Annotated[float | None, Field(description="null = the default, 0 = never")]
    load_timeout_s: Annotated[float | None, Field(description="null = the default")]
    load_timeout_s_per_gb: Annotated[
        float | None, Field(description="added for each 10⁹ bytes of files; null = the default")
    ]
    wake: Annotated[Wake, Field(description="whether a request loads it when it is offline")]
    max_in_flight: Annotated[int | None, Field(description="null = the default")]
    max_waiting: Annotated[int | None, Field(description="null = the default")]
    effective: Effective
    last_used_at: Instant | None
    demotes_at: Annotated[
        Instant | None, Field(description="when it becomes idle if nobody uses it; null = never")
    ]
    unloads_at: Annotated[
        Instant | None, Field(description="when it is unloaded if nobody uses it; null = never")
    ]
    in_flight: Annotated[int, Field(description="requests that it is serving")]
    speed: Annotated[Speed | None, Field(description="null = no request was answered yet")]
    job_id: Annotated[int | None, Field(description="the job that runs or is first in its line")]
    error: Fault | None
    restore: Restore | None
    warnings: list[str]
    version: int


class LoadPhases(TypedDict, closed=True):
    """What the seconds of a load went into, as far as attempts ended; they add up to it."""

    pull: float
    validate: float
    unload: float
    load: float
    waited: Annotated[float, Field(description="for a worker, or for the engine")]
    failed: Annotated[float, Field(description="for who retries it")]


class Load(TypedDict, closed=True):
    """A chain that was to load a slot."""

    chain_id: int
    job_id: Annotated[int, Field(description="the job that sends it to the engine")]
    model: str | None
    state: JobState
    origin: Origin
    actor: Annotated[str, Field(description="who asked for it")]
    caused_by: Annotated[int | None, Field(description="the job that made a machine ask for it")]
    asked_at: Instant
    ended_at: Instant | None
    seconds: Annotated[float, Field(description="all phases but `failed`")]
    phases: LoadPhases
    error: Fault | None


class Usual(TypedDict, closed=True):
    """Median seconds of the last 20 times with this model, by kind of work; null = never done."""

    pull: float | None
    validate: float | None
    load: float | None


class Loads(TypedDict, closed=True):
    """The newest loads of a slot, and how long such work usually takes."""

    usual_s: Usual
    items: list[Load]
    next_cursor: None
