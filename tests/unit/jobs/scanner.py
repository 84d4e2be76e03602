"""Scans of an engine that says what a test lets it say, with the hours that pass between them."""

from dataclasses import replace
from typing import Any

from sqlalchemy import update

from hal0.engines.base import EngineHealth, LoadedModel
from hal0.jobs.reading import Reading
from hal0.jobs.scan import act_upon
from hal0.registry.roster import engine_named
from hal0.slots.queries import stands
from hal0.states import SlotState
from hal0.tables import slots
from tests.ledger import make_slots
from tests.machine.clock import Clock
from tests.rows import ask_load, run_load, slot_now
from tests.worker import Worker

PROCESS = "1-1"
"""The process that `send_load` says it sent to."""


class Scanner:
    """An engine as it would be read, and the scans of one worker."""

    def __init__(self, worker: Worker, clock: Clock) -> None:
        self.ctx, self.db, self.clock = worker.ctx, worker.db, clock
        self.models: dict[str, LoadedModel] = {}
        self.process = PROCESS

    def load(self, *names: str, **values: Any) -> None:
        """Make slots with loaded models: `m-<name>`."""
        make_slots(self.db, *names)
        for name in names:
            ask_load(self.db, name)
            run_load(self.db)
            self.models[name] = LoadedModel(f"m-{name}", last_use="100", busy=False)
        self.set_up(**values)

    def set_up(self, **values: Any) -> None:
        """Set every slot up so."""
        if values:
            with self.db.write() as tx:
                tx.execute(update(slots).values(**values))

    def says(self, name: str, **values: Any) -> None:
        """Let the engine say other things of a model from now on."""
        self.models[name] = replace(self.models[name], **values)

    def read(self) -> Reading:
        """Read what the engine says now; what follows is written later."""
        with self.db.read() as tx:
            engine = engine_named(tx, "default")
            before = stands(tx, engine.id)
        return Reading(engine, EngineHealth(self.process, tuple(self.models.values())), before)

    def scan(self) -> int:
        """Look at the engine now."""
        return act_upon(self.ctx, self.read())

    def scan_for(self, seconds: float, every_s: float = 30) -> None:
        """Scan every half minute for so long."""
        for _ in range(int(seconds / every_s)):
            self.clock.tick(int(every_s * 1000))
            self.scan()

    def state(self, name: str = "chat") -> SlotState:
        """Read a slot's state."""
        return slot_now(self.db, name).state
