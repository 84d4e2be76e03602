"""How long one look at an engine takes, and how that grows with the slots that it has.

The code is that of a worker's scan; the engine answers in this process, so that what is measured is
hal0's own part of it: read the rows, lay the list beside them, write what is new, which is nothing.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

from sqlalchemy import Engine as SqlEngine
from sqlalchemy import event

from hal0.db import open_database
from hal0.engines.base import Engine, EngineHealth, LoadedModel
from hal0.jobs.bell import Bell
from hal0.jobs.boot import first_act
from hal0.jobs.context import Context
from hal0.jobs.engine_room import Call, EngineRoom
from hal0.jobs.owners import Owner
from hal0.jobs.scan import scan
from hal0.registry.catalog import RegisteredFile, register
from hal0.registry.roster import EngineRow, engine_named
from hal0.settings import Settings
from hal0.slots.queries import slots_of_engine
from hal0.slots.transitions import Act, create
from hal0.states import Desired
from tests.bench.enqueue import NOWHERE
from tests.bench.table import Row, Spread, judged, ratios
from tests.bench.workshop import Workshop
from tests.rows import options

T = TypeVar("T")
SIZES: Final = (10, 100, 1_000)
ROUNDS: Final = 60
LIMIT_MS: Final = 100.0
READS: Final = ("SELECT", "WITH", "BEGIN", "PRAGMA")


class Here:
    """An engine that has every model of its slots, answers at once, and counts how often."""

    def __init__(self, models: list[LoadedModel]) -> None:
        self.models = tuple(models)
        self.health_reads = 0

    async def health(self) -> EngineHealth:
        self.health_reads += 1
        return EngineHealth("1-1", self.models, version="11.7")

    async def answers(self, model: LoadedModel) -> bool:
        return model in self.models


class Room(EngineRoom):
    """The room of workers, with one engine in it that needs no wire."""

    def __init__(self, engine: Here) -> None:
        super().__init__(threading.Event())
        self._engine = engine

    async def _call(self, row: EngineRow, call: Call[T]) -> T:
        return await call(cast(Engine, self._engine))


class Scanner:
    """A home with so many slots, all of them loaded, and who looks at them."""

    def __init__(self, folder: Path, count: int) -> None:
        settings = Settings(home=folder, engine_url=NOWHERE)
        db = open_database(settings)
        first_act(db, "bench")
        owner = Owner(settings.run, "worker")
        with db.write() as tx:
            owner.register(tx)
        self.ctx = Context(settings, db, owner, Bell(settings.run, owner.id))
        self.ctx.engines.close()
        self.engine = Here(self._make_slots(count))
        self.ctx.engines = Room(self.engine)

    def _make_slots(self, count: int) -> list[LoadedModel]:
        listed = []
        with self.ctx.db.write() as tx:
            engine_id = engine_named(tx, "default").id
            for number in range(count):
                name = f"m-{number:04}"
                path = self.ctx.settings.models / f"{name}.gguf"
                file = RegisteredFile("main", path, None, None, None)
                setup = {
                    "name": f"slot-{number:04}",
                    "engine_id": engine_id,
                    "wanted_model_id": register(tx, name, "gguf", [file], allow_copy=False).id,
                    "options": options(),
                    "desired": Desired.LOADED,
                    "pinned": False,
                    "priority": 0,
                    "generation": 0,
                    "version": 0,
                }
                create(tx, setup, Act("bench"))
                listed.append(LoadedModel(name, str(path), last_use="1", busy=False))
        return listed

    def __enter__(self) -> Self:
        """Let the first scan adopt what is there, the next ones begin the windows of its use."""
        for _ in range(3):
            scan(self.ctx, self.row)
        with self.ctx.db.read() as tx:
            assert all(slot.is_dispatchable for slot in slots_of_engine(tx, self.row.id))
        return self

    @property
    def row(self) -> EngineRow:
        """The engine as a turn of scans reads it."""
        with self.ctx.db.read() as tx:
            return engine_named(tx, "default")

    def __exit__(self, *exc: object) -> None:
        self.ctx.close()

    def one(self) -> float:
        """Scan once; return milliseconds."""
        row = self.row
        began_ns = time.monotonic_ns()
        changed = scan(self.ctx, row)
        took_ms = (time.monotonic_ns() - began_ns) / 1e6
        assert changed == 0
        return took_ms

    def cost(self) -> "Cost":
        """Scan once; return what it took."""
        before, row = self.engine.health_reads, self.row
        with noted() as statements:
            scan(self.ctx, row)
        return Cost(self.engine.health_reads - before, statements)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one scan asks of the engine and of the database."""

    health_reads: int
    statements: list[str]

    @property
    def written(self) -> list[str]:
        """The tables that were written, one for each statement."""
        return [text.split()[1] for text in self.statements if not text.upper().startswith(READS)]


@contextmanager
def noted() -> Iterator[list[str]]:
    """Note each statement."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(statement.lstrip())

    event.listen(SqlEngine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(SqlEngine, "before_cursor_execute", note)


def measure(shop: Workshop) -> list[Row]:
    """Look in turn at an engine with ten slots, with a hundred, with a thousand."""
    small, middle, large = (Scanner(shop.folder / f"{count}", count) for count in SIZES)
    with small, middle, large:
        cost = large.cost()
        took: dict[str, list[float]] = {str(count): [] for count in SIZES}
        for number in range(ROUNDS):
            turns = list(zip(SIZES, (small, middle, large), strict=True))
            for count, scanner in reversed(turns) if number % 2 else turns:
                took[str(count)].append(scanner.one())
    few, some, many = (took[str(count)] for count in SIZES)
    spread = Spread.of(many)
    growth = ratios(many, few)
    reads, slots_written = cost.health_reads, sum(table != "engines" for table in cost.written)
    return [
        Row(
            what=f"scan of {SIZES[-1]:,} loaded slots",
            figure=f"{spread.p50:.0f} ms",
            spread=f"{spread} ms",
            to_reach=f"< {LIMIT_MS:g} ms",
            verdict=judged(spread.p50 < LIMIT_MS and (reads, slots_written) == (1, 0)),
            how=f"health reads {reads}, writes of slots {slots_written}; {ROUNDS} scans",
            samples=took,
        ),
        Row(
            what=f"the same / of {SIZES[0]} slots",
            figure=f"{growth.p50:.1f} x",
            spread=str(growth),
            to_reach=f"<= {SIZES[-1] // SIZES[0]} x",
            verdict=judged(growth.p50 <= SIZES[-1] / SIZES[0]),
            how=f"{Spread.of(few).p50:.1f} ms, of {SIZES[1]} {Spread.of(some).p50:.1f} ms",
        ),
    ]
