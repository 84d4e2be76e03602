"""Files and databases that are not as they should be, under a hal0 that runs."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hal0.cli import main
from tests.acceptance.house import House
from tests.rows import contents

pytestmark = pytest.mark.slow
NOBODY = "http://127.0.0.1:9"
Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    settings = {"HAL0_BUSY_TIMEOUT_S": "0.2", "HAL0_ENGINE_WAIT_S": "0"}
    with House(tmp_path, NOBODY, **settings) as house:
        yield house


@pytest.fixture
def hal0(house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line; return its exit code and what it wrote to stderr."""
    monkeypatch.setenv("HAL0_HOME", str(house.home))
    monkeypatch.setenv("HAL0_URL", f"http://127.0.0.1:{house.port}")

    def run(*args: str) -> tuple[int, str]:
        code = main(args)
        return code, capsys.readouterr().err

    return run


@contextmanager
def locked(house: House) -> Iterator[None]:
    """Hold the database's write lock as another program would."""
    with closing(sqlite3.connect(house.home / "hal0.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_a_locked_database_is_said_to_be_so_and_the_same_request_works_afterwards(
    house: House, hal0: Cli
) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    path = house.home / "hal0.db"
    before = contents(path, without="owners")
    key = {"Idempotency-Key": "load-1"}
    with locked(house):
        refused = house.client.post("/api/v1/slots/chat/load", headers=key)
        assert (refused.status_code, refused.json()["code"]) == (503, "db.locked")
        assert int(refused.headers["retry-after"]) >= 1
        said = f"another process holds {path}: database is locked; end it, or try again later"
        assert refused.json()["detail"] == said
        assert hal0("slot", "load", "chat") == (7, f"hal0: {said} [db.locked]\n")
        assert house.client.get("/readyz").json()["code"] == "db.locked"
        assert house.get("/livez")["live"] is True
        assert house.slot()["state"] == "offline"
    assert contents(path, without="owners") == before
    house.wait_for(lambda: house.client.get("/readyz").status_code == 200)
    again = house.client.post("/api/v1/slots/chat/load", headers=key)
    assert (again.status_code, "idempotent-replayed" in again.headers) == (202, False)
    assert hal0("slot", "load", "chat")[0] == 0
    assert house.sql("SELECT count(*) FROM chains") == [(1,)]


def test_a_database_that_is_damaged_meanwhile_is_said_to_be_so_until_a_copy_is_there(
    house: House, hal0: Cli
) -> None:
    api = house.start_api()
    house.add_slot(model=None)
    path = house.home / "hal0.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (len(whole) - 4096))
    for refused in (
        house.client.get("/api/v1/slots"),
        house.client.get("/readyz"),
        house.client.post("/api/v1/slots", json={"name": "code"}),
    ):
        assert (refused.status_code, refused.json()["code"]) == (500, "db.corrupt")
        assert f"{path} is damaged or no database: " in refused.json()["detail"]
        assert "put a copy in its place" in refused.json()["detail"]
        assert "Traceback" not in refused.text
    assert house.client.get("/livez").status_code == 200
    code, said = hal0("slot", "list")
    assert (code, "put a copy in its place [db.corrupt]" in said) == (1, True)
    assert house.stop(api) == 0
    for part in house.home.glob("hal0.db*"):
        part.unlink()
    path.write_bytes(whole)
    house.start_api()
    assert house.slot()["state"] == "offline"


def missing(place: Path) -> None:
    pass


def folder(place: Path) -> None:
    place.mkdir()


def link_to_itself(place: Path) -> None:
    place.symlink_to(place)


@pytest.mark.parametrize("put", [missing, folder, link_to_itself])
def test_a_source_that_is_no_file_fails_its_job_by_name_and_can_be_mended(
    house: House, hal0: Cli, put: Callable[[Path], None]
) -> None:
    house.start_api()
    house.start_worker()
    good = house.add_model(register=False)
    place = house.sources / "wanted.gguf"
    put(place)
    house.post("/api/v1/models", {"name": "tiny", "source": str(place)}, status=201)
    house.add_slot()
    code, said = hal0("slot", "pull", "chat", "--wait", "30")
    assert code == 1
    assert "hal0: job 1 (pull) of slot chat failed" in said
    assert f"pull.source_not_found: the source {place} " in said
    assert house.slot()["error"]["code"] == "pull.source_not_found"
    assert list(house.models.iterdir()) == []
    if put is folder:
        place.rmdir()
    place.unlink(missing_ok=True)
    good.rename(place)
    assert hal0("job", "retry", "1", "--wait", "30")[0] == 0
    assert (house.models / "tiny.gguf").is_file()


def test_without_an_engine_a_load_fails_by_its_address_and_the_file_is_there(
    house: House, hal0: Cli
) -> None:
    house.start_api()
    house.start_worker()
    house.add_model()
    house.add_slot()
    code, said = hal0("slot", "load", "chat", "--wait", "30")
    assert code == 1
    assert "engine.unreachable: no engine accepts connections at http://127.0.0.1:9" in said
    slot = house.slot()
    assert (slot["state"], slot["error"]["code"]) == ("error", "engine.unreachable")
    assert (slot["desired"], slot["wanted_model"]) == ("loaded", "tiny")
    assert (house.models / "tiny.gguf").is_file()
