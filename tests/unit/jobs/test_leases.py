"""Leases of API processes that died: cleared by workers, with a row; nothing is unloaded."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update

from hal0.clock import boot_id, utc_now
from hal0.db import Database
from hal0.jobs.leases import clear_leases
from hal0.jobs.owners import note_end
from hal0.jobs.rescue import Watch, look_after
from hal0.processes import start_ticks
from hal0.settings import Settings
from hal0.states import SlotState
from hal0.tables import leases, owners, slots
from tests.apis import history_since_ready, the_leases
from tests.ledger import make_slots, serve, served
from tests.rows import ask_load, ask_unload, run_load, slot_now
from tests.worker import Worker

API = """
import sys
from pathlib import Path
from hal0.db import Database
from hal0.jobs.owners import Owner
from hal0.settings import Settings
settings = Settings(home=Path(sys.argv[1]))
owner = Owner(settings.run, "api")
with Database(settings.database).write() as tx:
    owner.register(tx)
print(owner.id, flush=True)
sys.stdin.read()
"""


class Process:
    """An API's process, which holds its lock and does nothing."""

    def __init__(self, settings: Settings) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", API, str(settings.home)],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.id = self._process.stdout.readline().strip()
        assert self.id.startswith("api-")

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def api(db: Database, settings: Settings) -> Iterator[Process]:
    """A living API's process."""
    process = Process(settings)
    yield process
    process.kill()


@pytest.fixture
def chat(db: Database) -> Database:
    """The database, in which slot `chat` is ready, and `one` and `two` are living APIs."""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    row = {"kind": "api", "boot_id": boot_id(), "pid": 1, "pid_start": start_ticks(1)}
    now = {"started_at": utc_now(), "seen_at": utc_now()}
    with db.write() as tx:
        tx.execute(insert(owners), [{"id": name, **row, **now} for name in ("one", "two")])
    return db


def end_owner(db: Database, owner_id: str = "one") -> None:
    with db.soft() as tx:
        note_end(tx, owner_id)


def test_the_slot_of_an_api_that_was_killed_is_ready_and_keeps_its_model(
    chat: Database, worker: Worker, api: Process
) -> None:
    serve(chat, requests=3, api=api.id)
    watch = Watch()
    look_after(worker.ctx, watch, bodies_beat=True)
    assert the_leases(chat) == {api.id: 3}, "it lives"
    api.kill()
    look_after(worker.ctx, watch, bodies_beat=True)
    assert the_leases(chat) == {}
    assert history_since_ready(chat)[-1] == "serving>ready leases_cleared"
    assert slot_now(chat).model_id is not None


def test_what_another_api_serves_goes_on(chat: Database, worker: Worker) -> None:
    serve(chat, api="one")
    serve(chat, api="two")
    end_owner(chat)
    assert clear_leases(worker.ctx) == 0
    assert the_leases(chat) == {"two": 1}
    assert slot_now(chat).state is SlotState.SERVING
    served(chat, api="two")
    assert slot_now(chat).state is SlotState.READY


@pytest.mark.parametrize(
    ("unused_s", "idle_after_s", "to"),
    [(301, 300, "idle"), (299, 300, "ready"), (9999, 0, "ready")],
)
def test_a_slot_that_nobody_used_for_long_is_idle_at_once(
    chat: Database, worker: Worker, unused_s: float, idle_after_s: float, to: str
) -> None:
    serve(chat, api="one")
    with chat.soft() as tx:
        used_at = utc_now() - timedelta(seconds=unused_s)
        tx.execute(update(slots).values(last_used_at=used_at, idle_after_s=idle_after_s))
    end_owner(chat)
    assert clear_leases(worker.ctx) == 1
    assert history_since_ready(chat)[-1] == f"serving>{to} leases_cleared"


def test_leases_of_who_never_was_an_owner_or_went_in_good_order_are_cleared_too(
    chat: Database, worker: Worker
) -> None:
    serve(chat, api="nobody")
    assert clear_leases(worker.ctx) == 1
    serve(chat, api="one")
    end_owner(chat)
    assert clear_leases(worker.ctx) == 1
    assert slot_now(chat).state is SlotState.READY


def test_a_slot_that_serves_without_a_lease_is_put_right(chat: Database, worker: Worker) -> None:
    """Somebody deleted the row: nobody would ever end the period."""
    serve(chat, api="one")
    with chat.soft() as tx:
        tx.execute(delete(leases))
    assert clear_leases(worker.ctx) == 1
    assert history_since_ready(chat)[-1] == "serving>ready leases_cleared"


def test_an_older_generations_lease_keeps_no_slot_serving(chat: Database, worker: Worker) -> None:
    serve(chat, api="one")
    with chat.soft() as tx:
        tx.execute(update(leases).values(generation=0))
    assert clear_leases(worker.ctx) == 1
    assert slot_now(chat).state is SlotState.READY


def test_of_two_workers_one_writes_it(chat: Database, worker: Worker) -> None:
    other = Worker(chat, worker.settings)
    serve(chat, api="nobody")
    assert [clear_leases(ctx) for ctx in (worker.ctx, other.ctx)] == [1, 0]
    other.close()


def test_a_look_that_finds_nothing_writes_nothing(chat: Database, worker: Worker) -> None:
    serve(chat, api="one")
    with chat.soft():
        assert clear_leases(worker.ctx) == 0


def test_an_unload_that_waited_for_the_dead_ones_requests_runs(
    chat: Database, worker: Worker
) -> None:
    serve(chat, api="one")
    ask_unload(chat, drain_timeout_s=600.0)
    end_owner(chat)
    assert clear_leases(worker.ctx) == 1
    assert worker.claim().job.kind == "unload"
    with chat.read() as tx:
        assert tx.execute(select(leases)).all() == []
