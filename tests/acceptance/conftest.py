"""An engine and a house around it, for tests with real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hal0.db import migrate
from hal0.settings import Settings
from tests.acceptance.house import House
from tests.fakes.lemond import Lemond
from tests.faulty import Faulty, build


@pytest.fixture
def lemond(tmp_path: Path) -> Iterator[Lemond]:
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    with Lemond(models, call_log=tmp_path / "calls.ndjson") as fake:
        yield fake


@pytest.fixture
def house(tmp_path: Path, lemond: Lemond) -> Iterator[House]:
    """One whose database is there already: a process that has to make it starts slowly."""
    with House(tmp_path, lemond.url) as house:
        migrate(Settings(home=house.home, engine_url=lemond.url))
        yield house


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that lets calls go wrong when it is told to."""
    return build(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def faulty(tmp_path: Path, shim: Path) -> Faulty:
    """Faults for the processes that are started with its `env`."""
    return Faulty(tmp_path / "faults", shim)
