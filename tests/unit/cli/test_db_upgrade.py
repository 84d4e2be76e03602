"""`hal0 db upgrade` of an older database: not while it is in use, not without a copy."""

import sqlite3
from contextlib import closing

import pytest

from hal0.cli import main
from hal0.db import Database, back_up
from hal0.jobs.owners import Owner
from hal0.settings import Settings
from tests.rows import make_slot


def _make_older(settings: Settings) -> None:
    with closing(sqlite3.connect(settings.database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")


def test_an_upgrade_is_refused_while_a_worker_uses_the_database(
    db: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HAL0_HOME", str(settings.home))
    owner = Owner(settings.run, "worker")
    with db.write() as tx:
        owner.register(tx)
    _make_older(settings)
    assert main(["db", "upgrade"]) == 5
    assert f"in use (pid {owner.row.pid})" in capsys.readouterr().err
    assert not list(settings.home.glob("*.backup"))
    owner.close()


def test_a_copy_is_whole_although_the_database_is_in_use(db: Database, settings: Settings) -> None:
    make_slot(db, "chat")
    to = settings.home / "copy.db"
    with db.read():
        back_up(settings.database, to)
    with closing(sqlite3.connect(to)) as copy:
        assert copy.execute("PRAGMA quick_check").fetchone() == ("ok",)
        assert copy.execute("SELECT name, state FROM slots").fetchall() == [("chat", "offline")]
