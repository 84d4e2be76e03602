"""A first token that cannot be made leaves the home as open as it was."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from hal0.access import tokens
from hal0.access.closed import open_if_refused, was_closed
from hal0.access.roles import Role
from hal0.api.app import create_app
from hal0.cli import main
from hal0.db import Database, open_database
from hal0.errors import Hal0Error
from hal0.settings import Settings
from tests.small_disk import MIB, filled, small_disk


def make(db: Database, name: str = "alice") -> None:
    with open_if_refused(db), db.write() as tx:
        tokens.create(tx, name, Role.WRITER, "local")


def refuse_rows(db: Database) -> None:
    """Let every row of a token be refused, behind the file that closes the home."""
    with db.write() as tx:
        tx.execute(
            text("CREATE TRIGGER no BEFORE INSERT ON tokens BEGIN SELECT RAISE(ABORT, 'no'); END")
        )


@pytest.fixture
def cramped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A home on a disk of its own."""
    with small_disk(tmp_path / "home", 4 * MIB) as home:
        monkeypatch.setenv("HAL0_HOME", str(home))
        yield Settings.load()


def test_a_row_that_is_refused_takes_the_file_away_again(db: Database) -> None:
    refuse_rows(db)
    with pytest.raises(Hal0Error):
        make(db)
    assert not was_closed(db.path)


def test_a_home_that_was_closed_stays_closed_when_a_token_is_refused(db: Database) -> None:
    make(db)
    with db.write() as tx:
        tx.execute(text("DELETE FROM tokens"))
    refuse_rows(db)
    with pytest.raises(Hal0Error):
        make(db)
    assert was_closed(db.path)


def test_a_token_that_another_makes_meanwhile_keeps_the_home_closed(db: Database) -> None:
    other = Database(db.path)

    def make_after_another() -> None:
        with open_if_refused(db):
            make(other, "bob")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        make_after_another()
    other.close()
    assert was_closed(db.path)


def test_a_full_disk_refuses_the_first_token_in_a_sentence_and_leaves_nothing(
    cramped: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    open_database(cramped).close()
    with filled(cramped.home):
        assert main(["token", "create", "alice", "--role", "writer"]) == 1
        assert not was_closed(cramped.database)
    told = capsys.readouterr().err
    assert told.endswith("make room on its disk [db.full]\n")
    assert told.count("\n") == 1
    assert main(["token", "create", "alice", "--role", "writer"]) == 0
    assert was_closed(cramped.database)


@pytest.mark.anyio
async def test_a_full_disk_is_told_by_the_api_and_leaves_it_open(cramped: Settings) -> None:
    db = open_database(cramped)
    transport = httpx.ASGITransport(create_app(cramped, db))
    body = {"name": "alice", "role": "writer"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:13310") as api:
        with filled(cramped.home):
            refused = await api.post("/api/v1/tokens", json=body)
            assert (refused.status_code, refused.json()["code"]) == (507, "db.full")
            assert (await api.get("/api/v1/slots")).status_code == 200
        assert not was_closed(cramped.database)
        assert (await api.post("/api/v1/tokens", json=body)).status_code == 201
    db.close()
