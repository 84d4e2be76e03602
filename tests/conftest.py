"""What every test may ask for: settings of an empty home, and a real migrated database in it."""

import gc
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import freezegun
import pytest

from hal0.db import Database, migrate, prepare_home
from hal0.settings import Settings
from hal0.where import PREFIX

freezegun.configure(extend_ignore_list=["anyio", "asyncio", "uvicorn", "huey"])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect tests without Python's searches for garbage, and spare later ones what stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what may take minutes: begun last, it would be waited for alone."""

    def limit_s(item: pytest.Item) -> float:
        timeout = item.get_closest_marker("timeout")
        return float(timeout.args[0]) if timeout else 0.0

    items.sort(key=limit_s, reverse=True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))


@pytest.fixture(autouse=True)
def what_a_program_sets_for_its_process_ends_with_the_test() -> Iterator[None]:
    """Called in a test, a program's main sets the umask of the test's own process."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database fresh from the migrations, to be copied: making one takes 0.15 s."""
    settings = Settings(home=tmp_path_factory.mktemp("template"))
    migrate(settings)
    connection = sqlite3.connect(settings.database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return settings.database


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", pull_private_hosts=("127.0.0.1",))


@pytest.fixture
def db(settings: Settings, migrated_file: Path) -> Iterator[Database]:
    prepare_home(settings)
    shutil.copy(migrated_file, settings.database)
    database = Database(settings.database, settings.busy_timeout_s)
    yield database
    database.close()
