"""What the engine has, who waits for its answers, and what one look at it tells."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.machine.reference.rows import Job, Key, Lane, Slot, Stand


@dataclass(eq=False)
class Body:
    """One attempt, and where it stands."""

    job: Job
    attempt: int
    worker: str
    at: str = "claimed"
    until: int = 0
    """When it waits no longer for the answer to what it sent."""
    watches: bool = False
    """It learns from the engine's list what became of its request."""
    verifies: bool = False
    """Its load was answered well, and is believed when the list and the backend say so too."""
    doubted: int | None = None
    places: bool = False
    """A load's: it first unloads what is listed and does not answer."""
    before: Mapping[int, Stand] | None = None
    """Where the slots stood when it was about to read the list."""
    found_held: bool = False
    """Whether the slot held what is wanted when the body began."""

    @property
    def sends(self) -> str:
        """What it asks the engine for."""
        return "unload" if self.places else self.job.kind


@dataclass(eq=False)
class Request:
    """What the engine has and has not answered; `reader` waits for it, or left it open."""

    kind: str
    key: Key
    reader: Body | None
    since: int


@dataclass
class Engine:
    """The inference server."""

    max_models: int | None = None
    process: int = 1
    is_up: bool = True
    loaded: dict[str, int] = field(default_factory=dict)
    """Model to ctx_size."""
    requests: list[Request] = field(default_factory=list)
    uses: dict[str, int] = field(default_factory=dict)
    """Model to its last use."""
    busy: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    """Listed, with a backend that does not answer."""
    acts: int = 0

    @property
    def is_full(self) -> bool:
        """Whether it would drop one model for the next."""
        return self.max_models is not None and len(self.loaded) >= self.max_models

    def serves(self, model: str | None) -> bool:
        """Whether a model is listed and its backend answers."""
        return model in self.loaded and model not in self.dead

    def use(self, model: str) -> None:
        """A request begins."""
        self.acts += 1
        self.uses[model] = self.acts

    def load(self, model: str, ctx_size: int) -> None:
        """LRU: the others go when there is no room for all."""
        if self.max_models == 1:
            self.clear()
        self.unload(model)
        self.loaded[model] = ctx_size
        self.use(model)

    def unload(self, model: str) -> None:
        """It and its backend are gone."""
        self.loaded.pop(model, None)
        self.busy.discard(model)
        self.dead.discard(model)

    def clear(self) -> None:
        """Nothing is loaded any more."""
        for model in list(self.loaded):
            self.unload(model)


@dataclass(frozen=True)
class Reading:
    """One look at the engine, and where the slots stood before it."""

    process: int
    loaded: Mapping[str, int]
    before: Mapping[int, Stand]
    set_up: Mapping[int, int]
    """How often each slot had been set up."""
    lane: Lane | None
    is_full_of_others: bool
    """It has no room left, and something that no slot is known to hold."""
    findings: tuple[tuple[str, Slot], ...]
    """What slots and the list say together that one of them did not know."""
