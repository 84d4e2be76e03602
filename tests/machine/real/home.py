"""Settings, database, web application, model files, and workers that start and end."""

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, update
from starlette.testclient import TestClient

from hal0.api.app import create_app
from hal0.db import Database, back_up, prepare_home
from hal0.jobs.bell import Bell
from hal0.jobs.boot import first_act
from hal0.jobs.context import Context
from hal0.jobs.owners import Owner
from hal0.jobs.survey import Survey
from hal0.settings import Settings
from hal0.slots.leases import LeaseKey
from hal0.tables import owners
from tests.gguf_bytes import header, padded, tensor
from tests.machine.clock import Clock
from tests.machine.engine import Killed, ScriptedEngine, SteppedBody, SteppedRoom
from tests.rows import make_model, make_slot

T = TypeVar("T")
BodyKey = tuple[int, int]
"""Job and attempt."""
SLOTS: Final = ("one", "two")
MODELS: Final = ("m-one", "m-two", "m-spare")
APIS: Final = ("north", "south")
GGUF: Final = padded(header((), (tensor(),)), 64)
NOBODYS_PID: Final = 2**22 + 1
"""Beyond any pid: an owner whose lock is free is seen to be dead."""


@dataclass(frozen=True)
class Asked:
    """A request that runs under a lease of its API process."""

    lease: LeaseKey


class Home:
    """What hal0 needs to run, all in one process.

    It serves one play after another: `reset` puts everything back to two offline slots.
    """

    def __init__(self, home: Path, migrated: Path, clock: Clock) -> None:
        self.clock = clock
        self.settings = Settings(home=home)
        prepare_home(self.settings)
        self._template = home / "template.db"
        self.db = Database(self.settings.database)
        self.engine = ScriptedEngine(self._checkpoint)
        self.workers: dict[str, Context] = {}
        self.names: dict[str, str] = {}
        """Owner id to the name of the worker, or of the API process with how often it began."""
        self.bodies: dict[BodyKey, SteppedBody] = {}
        self.seen: Survey | None = None
        self.apis: dict[str, Owner] = {}
        self.asked: list[Asked] = []
        """The requests that run, oldest first."""
        self._api = TestClient(
            create_app(self.settings, self.db), base_url="http://127.0.0.1:13310"
        )
        self._api.__enter__()
        self._make_template(migrated)
        self.auditor = self._audit()

    def _make_template(self, migrated: Path) -> None:
        shutil.copy(migrated, self.settings.database)
        first_act(self.db, "local")
        for model in MODELS:
            make_model(self.db, model)
        for name in SLOTS:
            make_slot(self.db, name, f"m-{name}")
        back_up(self.settings.database, self._template)

    def _audit(self) -> sqlite3.Connection:
        """Return a connection as anyone's who looks into the database."""
        auditor = sqlite3.connect(
            self.settings.database, isolation_level=None, check_same_thread=False
        )
        auditor.row_factory = sqlite3.Row
        return auditor

    def reset(self, workers: Sequence[str], max_models: int | None = None) -> None:
        """Begin anew: slots `one` and `two`, a file for each of their models, these workers."""
        for name in list(self.workers):
            self._end(name)
        self.auditor.close()
        self.db.close()
        for path in self.settings.home.glob("hal0.db*"):
            path.unlink()
        shutil.copy(self._template, self.settings.database)
        self.auditor = self._audit()
        self.engine = ScriptedEngine(self._checkpoint, max_models)
        self.names, self.bodies, self.seen, self.asked = {}, {}, None, []
        self._start_apis()
        for model in MODELS:
            self._put(model, "good")
        for name in workers:
            self._start(name)

    def close(self) -> None:
        """End every thread and connection."""
        for name in list(self.workers):
            self._end(name)
        self._end_apis()
        self._api.__exit__(None, None, None)
        self.auditor.close()
        self.db.close()

    def _start(self, name: str) -> None:
        """A worker of this process, whose owner dies when its lock is free."""
        owner = Owner(self.settings.run, "worker")
        with self.db.write() as tx:
            owner.register(tx)
            mine = update(owners).where(owners.c.id == owner.id)
            tx.execute(mine.values(pid=NOBODYS_PID + len(self.names)))
        ctx = Context(self.settings, self.db, owner, Bell(self.settings.run, owner.id))
        ctx.engines.close()
        ctx.engines = SteppedRoom(self.engine)
        ctx.cut_s = 0.0
        self.workers[name] = ctx
        self.names[owner.id] = name

    def _start_apis(self) -> None:
        """API processes that live, of this boot."""
        self._end_apis()
        for name in APIS:
            self._start_api(name)

    def _start_api(self, name: str) -> None:
        """An API process, which dies as a worker does."""
        owner = Owner(self.settings.run, "api")
        with self.db.write() as tx:
            owner.register(tx)
            mine = update(owners).where(owners.c.id == owner.id)
            tx.execute(mine.values(pid=NOBODYS_PID + len(self.names)))
        self.apis[name] = owner
        starts = sum(other.split()[0] == name for other in self.names.values())
        self.names[owner.id] = f"{name} {starts + 1}"

    def _end_apis(self) -> None:
        for owner in self.apis.values():
            owner.close()

    def _file(self, model: str) -> Path:
        return self.settings.models / f"{model}.gguf"

    def _checkpoint(self, model: str) -> str:
        return str(self._file(model))

    def _write(self, write: Callable[[Connection], T]) -> T:
        with self.db.write() as tx:
            return write(tx)

    def _put(self, model: str, content: str) -> None:
        """Give the model another file, of these bytes."""
        new = self._file(model).with_suffix(".new")
        new.write_bytes(GGUF if content == "good" else b"no model")
        new.replace(self._file(model))

    def _of(self, worker: str) -> list[BodyKey]:
        return sorted(key for key, body in self.bodies.items() if body.worker == worker)

    def _end(self, worker: str) -> None:
        """Whatever runs there is gone, and nobody reads its answers."""
        for key in self._of(worker):
            body = self.bodies.pop(key)
            if body.at != "claimed":
                body.go(Killed())
        ctx = self.workers.pop(worker)
        ctx.stopping.set()  # late answers that are read here say nothing any more
        ctx.bell.close()
        ctx.owner.close()

    def _forget_ended(self) -> None:
        self.bodies = {key: body for key, body in self.bodies.items() if body.at != "ended"}
