"""What tests of the dispatcher stand on: a slot that is ready, a waiting room, the whole of it."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hal0.db import Database, prepare_home
from hal0.settings import Settings
from tests.ledger import make_slots
from tests.rows import ask_load, run_load
from tests.unit.dispatcher.rig import Rig, rig
from tests.unit.dispatcher.waiting_room import MakeRoom, Room

# -- slots of which processes of `tests.apis` hold leases ------------------------------------------


@pytest.fixture(scope="session")
def ready_file(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which slot `chat` is ready, to be copied: its load takes a dozen commits."""
    settings = Settings(home=tmp_path_factory.mktemp("ready"))
    shutil.copy(migrated_file, settings.database)
    database = Database(settings.database, settings.busy_timeout_s)
    make_slots(database, "chat")
    ask_load(database)
    run_load(database)
    database.close()
    return settings.database


@pytest.fixture
def chat(settings: Settings, ready_file: Path) -> Iterator[Database]:
    """A database in which slot `chat` is ready; it takes the place of `db`."""
    prepare_home(settings)
    shutil.copy(ready_file, settings.database)
    database = Database(settings.database, settings.busy_timeout_s)
    yield database
    database.close()


# -- requests that wait for a slot -----------------------------------------------------------------


@pytest.fixture
def make_room(settings: Settings, db: Database) -> MakeRoom:
    def make(**changes: Any) -> Room:
        return Room(settings.model_copy(update={"wake_timeout_s": 60.0, **changes}), db)

    return make


@pytest.fixture
def room(make_room: MakeRoom) -> Room:
    return make_room()


@pytest.fixture
def at_once(make_room: MakeRoom) -> Room:
    """One in which no request waits: it is told what there is to be told."""
    return make_room(wake_timeout_s=0)


# -- a dispatcher before an engine -----------------------------------------------------------------


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """A slot is seen to be given back at once."""
    return settings.model_copy(update={"serving_linger_s": 0.0})


@pytest.fixture
async def at(quick: Settings, db: Database, anyio_backend: str) -> AsyncIterator[Rig]:
    """A dispatcher with a slot that is ready."""
    async with rig(quick, db) as found:
        yield found
