"""An API process as an owner, and what /readyz knows of its writes."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from starlette.applications import Starlette

from hal0.api.app import create_app
from hal0.api.pulse import Pulse
from hal0.db import Database
from hal0.jobs.owners import is_alive, living_rows
from hal0.settings import Settings

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
