"""One worker in this process: a real context with a real engine room, its jobs run when told to.

    worker = Worker(db, settings, load_timeout_s=1)
    held = worker.work_up_to(JobKind.LOAD)     # pull, validate, unload are run, the load is claimed
    worker.run(held)                           # to its written end
    with worker.running(held): ...             # or in a thread of its own

Two of them stand for two processes, except that they cannot be killed.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hal0.db import Database
from hal0.jobs import runner
from hal0.jobs.bell import Bell
from hal0.jobs.context import Context
from hal0.jobs.ledger.rows import Claim
from hal0.jobs.owners import Owner, note_end
from hal0.jobs.rounds import Rounds
from hal0.jobs.scan import scan
from hal0.registry.roster import EngineRow, add_engine, engine_named
from hal0.settings import Settings
from hal0.states import JobKind, SlotState
from tests.fakes.lemond import Lemond
from tests.ledger import LIMIT_S, try_claim
from tests.rows import ask_load, ask_unload, make_model, make_slot, slot_now
from tests.tiny_gguf import write_tiny_gguf


class Worker:
    """A worker's means; it does nothing by itself."""

    def __init__(self, db: Database, settings: Settings, **changes: Any) -> None:
        self.db = db
        self.settings = settings.model_copy(update=changes)
        owner = Owner(settings.run, "worker")
        with db.write() as tx:
            owner.register(tx)
        own = Database(settings.database, self.settings.busy_timeout_s)
        self.ctx = Context(self.settings, own, owner, Bell(settings.run, owner.id))

    @property
    def id(self) -> str:
        """The owner id that its claims carry."""
        return self.ctx.owner.id

    def claim(self) -> Claim:
        """Claim the next runnable job; there must be one."""
        held = try_claim(self.db, self.id)
        assert held is not None, "nothing is runnable"
        return held

    def run(self, held: Claim) -> None:
        """Run a claimed job to its written end."""
        runner.run(self.ctx, held)

    def work_up_to(self, kind: JobKind) -> Claim:
        """Run jobs until one of this kind is claimed; return it, not begun."""
        while (held := self.claim()).job.kind is not kind:
            self.run(held)
        return held

    def work(self) -> list[Claim]:
        """Run jobs until nothing is runnable."""
        done = []
        while (held := try_claim(self.db, self.id)) is not None:
            self.run(held)
            done.append(held)
        return done

    def look_round(self) -> None:
        """Look at the engines whose turn it is, to the end."""
        rounds = Rounds(self.ctx)
        rounds.begin()
        rounds.wait()

    @contextmanager
    def running(self, held: Claim) -> Iterator[threading.Thread]:
        """Run a claimed job in a thread, which must have ended when the block is left."""
        thread = threading.Thread(target=self.run, args=(held,))
        thread.start()
        try:
            yield thread
        finally:
            thread.join(LIMIT_S)
            assert not thread.is_alive(), "the body has not ended"

    def close(self) -> None:
        """End in good order."""
        self.ctx.stopping.set()
        with self.db.write() as tx:
            note_end(tx, self.id)
        self.ctx.close()


def add_lemond(db: Database, lemond: Lemond, settle_s: float = 60) -> EngineRow:
    """Register the fake as the engine `lemond`, or give it another settle time."""
    row = {"name": "lemond", "kind": "lemonade", "url": lemond.url, "settle_s": settle_s}
    with db.write() as tx:
        return add_engine(tx, {**row, "key_file": None})


def the_lemond(db: Database) -> EngineRow:
    """Read the engine `lemond`."""
    with db.read() as tx:
        return engine_named(tx, "lemond")


def equip(db: Database, *names: str, **values: Any) -> None:
    """Make slots of the engine `lemond`, each with a real model file: `m-<name>`."""
    for seed, name in enumerate(names):
        write_tiny_gguf(db.path.parent / "models" / f"m-{name}.gguf", seed=seed)
        make_model(db, f"m-{name}")
        make_slot(db, name, f"m-{name}", engine="lemond", **values)


def look(db: Database, worker: Worker) -> int:
    """Scan the engine `lemond` now; return how many slots moved or got work."""
    return scan(worker.ctx, the_lemond(db))


def load_all(db: Database, worker: Worker, *names: str) -> None:
    """Equip slots, load each as an operator, and let a scan see it."""
    equip(db, *names)
    for name in names:
        ask_load(db, name)
    worker.work()
    look(db, worker)


def unload_in_vain(db: Database, lemond: Lemond, worker: Worker) -> None:
    """Have the engine refuse to unload `m-chat` from now on: it keeps it, its slot is in error."""
    lemond.script(models={"m-chat": {"unload": "fail"}})
    ask_unload(db)
    worker.work()
    assert slot_now(db).state is SlotState.ERROR


def load_there(lemond: Lemond, model: str, **more: object) -> None:
    """Load a model in the engine's own app."""
    body = {"model_name": model, "by": "its own app", **more}
    lemond.post("/v1/load", body).raise_for_status()


def loads(lemond: Lemond) -> list[str]:
    """Return the models that the engine was asked to load, in order."""
    return [call["body"]["model_name"].removeprefix("extra.") for call in lemond.calls("/v1/load")]


def unloads(lemond: Lemond) -> list[str]:
    """Return the models that the engine was asked to unload, in order."""
    calls = lemond.calls("/v1/unload")
    return [call["body"]["model_name"].removeprefix("extra.") for call in calls]
