"""What the engine has, and what its list means for slots."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.machine.reference.orders import Orders
from tests.machine.reference.rows import DISPATCHABLE, File, Job, Key, Lane, Slot


@dataclass(eq=False)
class Body:
    """One attempt, and where it stands."""

    job: Job
    attempt: int
    worker: str
    at: str = "claimed"
    watches: bool = False
    found_held: bool = False
    """Whether the slot held what is wanted when the body began."""


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
    requests: list[Request] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """A health, and where the slots stood before it was read."""

    process: int
    loaded: frozenset[str]
    before: dict[int, int]
    lane: Lane | None


class Losses(Orders):
    """An engine beside the rows, and slots whose model it has no more."""

    def __init__(self, max_models: int | None = None) -> None:
        super().__init__()
        self.engine = Engine(max_models)
        self.files: dict[str, File] = {}
        self.bodies: dict[tuple[int, int], Body] = {}
        """By job and attempt: those that have not ended."""

    def put_file(self, model: str, content: str) -> None:
        """Another file lies there, which is `good` or `bad`."""
        self.acts += 1
        self.files[model] = File(content, self.acts)

    def read(self) -> Reading:
        """Note where the slots stand, then read the engine's health."""
        before = {slot.id: len(slot.history) for slot in self.slots}
        return Reading(self.engine.process, frozenset(self.engine.loaded), before, self.lane)

    def lists(self, slot: Slot, loaded: Iterable[str]) -> bool:
        """Whether a list has what the slot holds, or was last told to load."""
        return bool({slot.told, (slot.held or slot.wants).model} & set(loaded))

    def is_lost(self, slot: Slot, reading: Reading) -> bool:
        """reconcile_cas_transition, reconcile_skips_unfinished"""
        return (
            slot.state in DISPATCHABLE
            and reading.before.get(slot.id) == len(slot.history)
            and not self.open_chains(slot)
            and not self.lists(slot, reading.loaded)
        )

    def mark_lost(self, culprit: Slot, *, restores: bool = True) -> None:
        """Whom a load cost its model; a failed one's victims come back."""
        reading = self.read()
        lost = [s for s in self.slots if s is not culprit and self.is_lost(s, reading)]
        for slot in lost:
            key = slot.held
            if slot.process in (None, reading.process) and key:
                self.move(slot, "offline", "evicted_by_engine")
                slot.held = slot.told = None
                if restores:
                    self.restore(slot, key)

    def write_loss(self, slot: Slot, process: int) -> bool:
        """Tell whether the slot was lost with the process that had it."""
        is_restart = slot.process not in (None, process)
        self.move(slot, "offline", "engine_restarted" if is_restart else "unloaded_elsewhere")
        slot.held = slot.told = None
        return is_restart

    def use(self, slot: Slot) -> None:
        """A slot is used now."""
        self.acts += 1
        slot.used = self.acts

    def holds_claim(self, body: Body) -> bool:
        """fence: whether the body's attempt is still the one that runs."""
        return (body.job.state, body.job.attempt) == ("running", body.attempt)
