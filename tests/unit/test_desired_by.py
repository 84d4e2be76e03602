"""Who wanted the slots of an older database as they are: 0005 tells it from their rows."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from hal0.db import migrate
from hal0.settings import Settings
from hal0.states import DesiredBy
from tests.older import AT, make_first_schema

LOADED = (
    ("offline", "starting", "checked"),
    ("starting", "warming", "load_sent"),
    ("warming", "ready", "loaded"),
)
UNLOADED = ("unloading", "offline", "unloaded")


class Past(NamedTuple):
    """What became of a slot: its chains as (goal, origin), its transitions, what is wanted now."""

    chains: tuple[tuple[str, str], ...]
    moves: tuple[tuple[str, str, str], ...]
    desired: str = "unloaded"


LOAD, UNLOAD, IDLE = ("load", "operator"), ("unload", "operator"), ("unload", "idle")
PASTS = {
    "new": (Past((), ()), DesiredBy.NOBODY),
    "checked": (Past((("validate", "operator"),), ()), DesiredBy.NOBODY),
    "loaded": (Past((LOAD,), LOADED, "loaded"), DesiredBy.OPERATOR),
    "restored": (Past((LOAD, ("load", "restore")), LOADED, "loaded"), DesiredBy.OPERATOR),
    "cancelled": (Past((LOAD,), ()), DesiredBy.OPERATOR),
    "told": (
        Past((LOAD, UNLOAD), (*LOADED, ("ready", "unloading", "operator_unload"), UNLOADED)),
        DesiredBy.OPERATOR,
    ),
    "unused": (
        Past((LOAD, IDLE), (*LOADED, ("ready", "unloading", "idle_unload"), UNLOADED)),
        DesiredBy.IDLE,
    ),
    "told-later": (
        Past((LOAD, IDLE, UNLOAD), (*LOADED, ("ready", "unloading", "idle_unload"), UNLOADED)),
        DesiredBy.OPERATOR,
    ),
    "cleared": (
        Past((LOAD, UNLOAD, IDLE), (*LOADED, ("ready", "unloading", "operator_unload"), UNLOADED)),
        DesiredBy.OPERATOR,
    ),
    "elsewhere": (
        Past((LOAD,), (*LOADED, ("ready", "offline", "unloaded_elsewhere"))),
        DesiredBy.ELSEWHERE,
    ),
    "lost": (
        Past((LOAD,), (*LOADED, ("ready", "offline", "unloaded_elsewhere")), "loaded"),
        DesiredBy.OPERATOR,
    ),
}


def _write(database: Path, name: str, past: Past) -> None:
    """Write a slot's past through the triggers of that schema."""
    with closing(sqlite3.connect(database)) as connection, connection:
        slot_id = connection.execute(
            "INSERT INTO slots (name, engine_id, wanted_model_id, model_id, options, desired, "
            "pinned, priority, generation, version, created_at) "
            "VALUES (?, 1, 1, 1, '{}', ?, 0, 0, 0, 0, ?)",
            (name, past.desired, AT),
        ).lastrowid
        connection.executemany(
            "INSERT INTO chains (slot_id, position, goal, origin, actor, rehash, force, created_at)"
            " SELECT ?, max(position) + 1, ?, ?, 'somebody', 0, 0, ? FROM chains",
            [(slot_id, goal, origin, AT) for goal, origin in past.chains],
        )
        connection.executemany(
            "INSERT INTO transitions (slot_id, from_state, to_state, cause, at, actor, generation)"
            " VALUES (?, ?, ?, ?, ?, 'somebody', 0)",
            [(slot_id, *move, AT) for move in ((None, "offline", "created"), *past.moves)],
        )


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return by whom the slots are wanted as they are, after the upgrade."""
    settings = Settings(home=tmp_path_factory.mktemp("older") / "home")
    make_first_schema(settings, at="0004")
    for name, (past, _) in PASTS.items():
        _write(settings.database, name, past)
    migrate(settings)
    with closing(sqlite3.connect(settings.database)) as connection:
        return dict(connection.execute("SELECT name, desired_by FROM slots"))


@pytest.mark.parametrize("name", PASTS)
def test_an_upgrade_tells_from_the_rows_who_wanted_a_slot_as_it_is(
    upgraded: dict[str, str], name: str
) -> None:
    assert upgraded[name] == PASTS[name][1]
