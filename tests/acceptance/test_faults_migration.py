"""`hal0 db upgrade`, killed in the middle: the old database is left or the new one, whole."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hal0.db import revision
from hal0.settings import Settings
from hal0.tables import REVISION
from tests.acceptance.house import ROOT
from tests.acceptance.seen import IS_FULL_LENGTH
from tests.faulty import Faulty
from tests.older import FIRST, columns_of, make_first_schema, rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if IS_FULL_LENGTH else 120)]


def upgrade(settings: Settings, env: dict[str, str]) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "hal0", "db", "upgrade"],
        cwd=ROOT,
        env={**os.environ, "HAL0_HOME": str(settings.home), **env},
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    return done.returncode


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return list(connection.iterdump())


def test_an_upgrade_killed_at_any_write_leaves_the_old_or_the_new_schema_and_a_whole_copy(
    settings: Settings, faulty: Faulty
) -> None:
    """At the first write or sync of the database or its copy, at the third, the ninth ..."""
    make_first_schema(settings)
    path, copy = settings.database, settings.home / f"hal0.db.{FIRST}.backup"
    columns, before, whole = columns_of(path), rows(path), dump(path)
    deaths, nth = 0, 1
    while revision(path) == FIRST:
        faulty.order("change", nth=nth, act=signal.SIGKILL, path="/hal0.db")
        ended = upgrade(settings, faulty.env)
        assert ended in (0, -signal.SIGKILL)
        deaths += ended != 0
        found = revision(path)
        assert found in (FIRST, REVISION)
        assert dump(path) == whole if found == FIRST else rows(path, columns) == before
        assert not copy.exists() or dump(copy) == whole
        nth = nth + 1 if IS_FULL_LENGTH else nth * 3
    assert deaths >= 3
    assert upgrade(settings, {}) == 0
    assert (revision(path), rows(path, columns)) == (REVISION, before)
    assert dump(copy) == whole
