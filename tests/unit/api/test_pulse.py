"""An API process as an owner, and what /readyz knows of its writes."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import freezegun
import httpx
import pytest
from starlette.applications import Starlette

from hal0.api.app import create_app
from hal0.api.pulse import NEEDED_S, Pulse
from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.errors import DatabaseLocked
from hal0.jobs.owners import is_alive, living_rows
from hal0.settings import Settings
from tests.ledger import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def hasty(db: Database) -> Iterator[Database]:
    """The same database, for who does not wait."""
    database = Database(db.path, busy_timeout_s=0.02)
    yield database
    database.close()


@pytest.fixture
def app(settings: Settings, hasty: Database) -> Iterator[Starlette]:
    app = create_app(settings, hasty)
    yield app
    app.state.pulse.end()


def owners_of(db: Database) -> list[tuple[str, bool]]:
    with db.read() as tx:
        rows = tx.exec_driver_sql("SELECT kind, ended_at IS NULL FROM owners").all()
    return [(kind, bool(lives)) for kind, lives in rows]


def test_an_api_is_an_owner_from_its_start_to_its_end(settings: Settings, db: Database) -> None:
    pulse = Pulse(settings, db)
    pulse.look()
    with db.read() as tx:
        (row,) = living_rows(tx)
    assert row.kind == "api"
    assert is_alive(row, settings.run)
    pulse.start()
    pulse.end()
    assert owners_of(db) == [("api", False)]
    assert list((settings.run / "owners").iterdir()) == []


def test_whoever_meets_an_api_that_has_started_finds_it_an_owner(
    settings: Settings, db: Database
) -> None:
    """Else its first request would be refused: nobody would know whose lease it is."""
    for _ in range(10):
        pulse = Pulse(settings, db)
        pulse.start()
        found = pulse.me()
        pulse.end()
        assert found is not None


def test_an_api_starts_also_when_it_cannot_register_and_waits_no_longer_than_a_write(
    settings: Settings, db: Database, hasty: Database
) -> None:
    pulse = Pulse(settings, hasty)
    with db.write():
        pulse.start()
        assert pulse.me() is None
    eventually(lambda: pulse.me() is not None)
    pulse.end()


def test_an_api_that_cannot_register_does_so_when_it_can(
    settings: Settings, db: Database, hasty: Database
) -> None:
    pulse = Pulse(settings, hasty)
    with db.write():
        pulse.look()
        pulse.look()
    assert owners_of(db) == []
    pulse.look()
    assert owners_of(db) == [("api", True)]
    pulse.end()


async def test_ready_is_who_wrote_after_what_could_not_be_written(
    app: Starlette, api: httpx.AsyncClient, db: Database
) -> None:
    pulse = app.state.pulse
    pulse.look()
    with db.write():
        assert (await api.get("/readyz")).status_code == 200, "nobody has tried"
        assert (await api.post("/api/v1/slots", json={"name": "chat"})).status_code == 503
        for _ in range(2):
            refused = await api.get("/readyz")
            assert (refused.status_code, refused.json()["code"]) == (503, "db.locked")
            assert refused.headers["retry-after"] == "1"
            pulse.look()
    assert (await api.get("/readyz")).status_code == 503, "it has not been tried again"
    pulse.look()
    assert (await api.get("/readyz")).status_code == 200


async def test_whoever_asks_whether_it_is_ready_makes_it_write_nothing(
    app: Starlette, api: httpx.AsyncClient, db: Database
) -> None:
    app.state.pulse.look()
    with closing(sqlite3.connect(db.path)) as other:
        before = other.execute("PRAGMA data_version").fetchone()
        for _ in range(3):
            assert (await api.get("/readyz")).status_code == 200
            app.state.pulse.look()
        assert other.execute("PRAGMA data_version").fetchone() == before


def test_an_api_knows_who_it_is_and_when_it_last_could_write_it(
    settings: Settings, db: Database, hasty: Database
) -> None:
    pulse = Pulse(settings, hasty)
    with db.write():
        pulse.look()
        assert pulse.me() is None, "nobody would know whose leases it takes"
    before_ms = monotonic_ms()
    pulse.look()
    first = pulse.me()
    assert first is not None
    assert first.at_ms >= before_ms
    with db.read() as tx:
        assert [row.id for row in living_rows(tx)] == [first.owner_id]
    with db.write():
        pulse.doubt(DatabaseLocked("a write of a test has failed"))
        pulse.look()
        assert pulse.me() == first, "a beat that is not written is none"
    pulse.look()
    second = pulse.me()
    assert second is not None
    assert second.at_ms > first.at_ms
    pulse.end()


@pytest.mark.parametrize(("is_needed", "waits_s"), [(True, NEEDED_S), (False, 20.0)])
def test_an_api_beats_more_often_while_somebody_goes_by_its_beats(
    settings: Settings, db: Database, is_needed: bool, waits_s: float
) -> None:
    pulse = Pulse(settings.model_copy(update={"beat_s": 20.0}), db)
    with freezegun.freeze_time("2026-01-01") as clock:
        pulse.look()
        if is_needed:
            pulse.me()
        for passed_s, beats in ((waits_s - 1, False), (1, True)):
            clock.tick(passed_s)
            before = rows_of_owners(db)
            pulse.look()
            assert (rows_of_owners(db) != before) == beats
    pulse.end()


def rows_of_owners(db: Database) -> list[tuple[object, ...]]:
    with db.read() as tx:
        return [tuple(row) for row in tx.exec_driver_sql("SELECT * FROM owners")]
