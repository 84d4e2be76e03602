"""Workers in this process and a Lemonade that misbehaves when told to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hal0 import points
from hal0.db import Database
from hal0.settings import Settings
from tests.fakes.lemond import Lemond
from tests.ledger import serve
from tests.machine.clock import Clock
from tests.rows import ask_load
from tests.unit.jobs.scanner import Scanner
from tests.worker import Worker, add_lemond, equip

MakeWorker = Callable[..., Worker]


@pytest.fixture
def make_worker(db: Database, settings: Settings) -> Iterator[MakeWorker]:
    """Workers with settings of their own, closed at the end."""
    made: list[Worker] = []

    def make(**changes: Any) -> Worker:
        made.append(Worker(db, settings, **changes))
        return made[-1]

    yield make
    points.arm(None)
    for worker in made:
        worker.close()


@pytest.fixture
def worker(make_worker: MakeWorker) -> Worker:
    return make_worker(load_timeout_s=15)


@pytest.fixture
def lemond(db: Database, settings: Settings, tmp_path: Path) -> Iterator[Lemond]:
    """A fake Lemonade over the models folder, registered as the engine `lemond`."""
    with Lemond(settings.models, call_log=tmp_path / "calls.ndjson") as server:
        add_lemond(db, server)
        yield server


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The time, which passes when a test says so."""
    with Clock() as clock:
        yield clock


@pytest.fixture
def scanner(db: Database, settings: Settings, clock: Clock) -> Iterator[Scanner]:
    """An engine as a test lets it be read, and the scans of one worker."""
    worker = Worker(db, settings)
    yield Scanner(worker, clock)
    worker.close()


@pytest.fixture
def serving(db: Database, lemond: Lemond, worker: Worker) -> Worker:
    """A worker whose slot `chat` is loaded and serves one request."""
    worker.ctx.cut_s = 0.0
    equip(db, "chat")
    ask_load(db)
    worker.work()
    serve(db)
    return worker
