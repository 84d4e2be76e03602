"""Slots, chains, jobs and the lane, as they are written."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

KINDS = ("pull", "validate", "unload", "load")
TRANSIENT = ("pulling", "starting", "warming", "unloading")
DISPATCHABLE = ("ready", "serving", "idle")
UNFINISHED = ("queued", "running")

CRASH_LIMIT = 3
LOAD_MS, UNLOAD_MS, SETTLE_MS = 120_000, 60_000, 600_000
ENGINE_WAIT_MS, DRAIN_MS = 300_000, 30_000
IDLE_MS = 300_000
LIMIT_MS = {"load": LOAD_MS, "unload": UNLOAD_MS}
LATE = "preload.load_timeout"


class Key(NamedTuple):
    """What a load brings: a model with its options, of which `ctx_size` stands for all."""

    model: str
    ctx_size: int


class Answer(NamedTuple):
    """What the API says: status, code of an error, ids of jobs, and whether they are new."""

    status: int
    code: str | None = None
    jobs: tuple[int, ...] = ()
    how: str = ""


class File(NamedTuple):
    """What lies at a model's place: `good` or `bad`, and which one of that kind."""

    content: str
    number: int


class Stand(NamedTuple):
    """Where a slot stood: after how many transitions, and with which of its loads."""

    moves: int
    generation: int


class Mark(NamedTuple):
    """An unload that the engine has not settled."""

    job: int
    attempt: int
    process: int | None
    settle_by: int


class Breaker(NamedTuple):
    """Automatic loads of a slot in a row, and until when the next one waits."""

    sent: int
    last: int
    opens: int
    ready: int | None = None
    """Since when it has had its model, on this boot."""


class Window(NamedTuple):
    """What the last scan saw of a model's use, and since when it is unused (None: in use)."""

    generation: int
    used: int
    past_us: int | None
    """The engine's own word for the last use; None: it did not say."""
    since: int | None


@dataclass
class Incident:
    """One event of the engine, the job to blame, and the slots that it moved."""

    kind: str
    job: int | None = None
    moved: list[int] = field(default_factory=list)


@dataclass(eq=False)
class Chain:
    """What one request set going, and on whose behalf."""

    id: int
    slot: "Slot"
    position: int
    goal: str
    origin: str
    key: Key | None
    force: bool = False
    drain: int | None = None
    """How long its unload lets requests end."""
    guard: tuple[int, int] | None = None
    jobs: list["Job"] = field(default_factory=list)

    @property
    def open(self) -> list["Job"]:
        """Its unfinished jobs."""
        return [job for job in self.jobs if job.state in UNFINISHED]

    @property
    def sent(self) -> "Job | None":
        """The unfinished job of which the engine has the request."""
        return next((job for job in self.open if job.sent), None)


@dataclass(eq=False)
class Job:
    """One step of a chain; `sent` is the attempt that marked its request as sent."""

    id: int
    chain: Chain
    kind: str
    state: str = "queued"
    outcome: str | None = None
    attempt: int = 0
    crashes: int = 0
    sent: int = 0
    code: str | None = None
    worker: str | None = None
    not_before: int = 0
    waits_since: int | None = None
    spares: bool = False
    """It waits for whoever uses what it is to replace."""
    deadline: int = 0
    gave_way: int | None = None
    """When there was no room for a machine's load, on the wall clock."""
    file: File | None = None
    """Of a validate: what it found."""

    @property
    def slot(self) -> "Slot":
        """The slot it works on."""
        return self.chain.slot

    @property
    def step(self) -> int:
        """Its place in a load's chain."""
        return KINDS.index(self.kind)

    @property
    def model(self) -> str | None:
        """The model it is for."""
        return self.chain.key.model if self.chain.key else None


@dataclass(eq=False)
class Slot:
    """What is wanted, what is held, and what the engine was told last."""

    id: int
    name: str
    wants: Key
    state: str = "offline"
    desired: str = "unloaded"
    desired_by: str = "nobody"
    wake: str = "auto"
    pinned: bool = False
    set_up: int = 0
    """How often somebody changed what it is set up for."""
    held: Key | None = None
    told: str | None = None
    process: int | None = None
    generation: int = 0
    used: int = 0
    used_at: int = 0
    """On the wall clock."""
    error: tuple[str, int | None] | None = None
    """Code, and the job that failed."""
    is_cleared: bool = False
    """A machine has tried to unload what the engine has although the slot is in error."""
    mark: Mark | None = None
    bad: dict[Key, str] = field(default_factory=dict)
    """What was sent and failed, and how."""
    note: Key | None = None
    """What a machine is to load again."""
    breaker: Breaker | None = None
    window: Window | None = None
    leases: dict[tuple[str, int], int] = field(default_factory=dict)
    """Whose requests run, and of which generation: how many."""
    history: list[str] = field(default_factory=list)
    since: int = 0
    """When it came to its state, on the wall clock."""
    is_deleted: bool = False

    @property
    def cause(self) -> str:
        """Why it came to its state."""
        return self.history[-1].split()[1]

    @property
    def is_to_stay_unloaded(self) -> bool:
        """Whether a person wants it so, and no machine."""
        return self.desired == "unloaded" and self.desired_by in ("operator", "elsewhere")

    @property
    def stand(self) -> Stand:
        """Where it stands."""
        return Stand(len(self.history), self.generation)

    @property
    def is_served(self) -> bool:
        """Whether a request runs on what is loaded now."""
        return any(generation == self.generation for _, generation in self.leases)

    @property
    def model(self) -> str:
        """By which an entry of the engine's list would be this slot's."""
        return (self.held or self.note or self.wants).model

    def listed(self, loaded: Collection[str]) -> str | None:
        """Its entry in a list: its model's, else that of what the engine was told last."""
        return next((name for name in (self.model, self.told) if name in loaded), None)

    def holds(self, key: Key | None) -> bool:
        """Whether exactly this is ready to serve."""
        return self.state in DISPATCHABLE and self.held == key


@dataclass
class Lane:
    """A load that the engine has not settled."""

    job: Job
    attempt: int
    owner: str
    process: int | None
    settle_by: int
    answered: bool = False
