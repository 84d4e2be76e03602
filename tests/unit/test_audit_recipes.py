"""README has a recipe for every view, shows what it prints, and says what every column means."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hal0.audit_views import VIEWS
from tests.recipes import part, recipes


def columns(path: Path, statement: str) -> list[str]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return [column[0] for column in connection.execute(statement).description]


def meanings() -> dict[str, set[str]]:
    """Return which columns README describes, by view or `all`."""
    described: dict[str, set[str]] = {}
    for row in re.findall(r"^\| (`audit_\w+`|all) \| (.+?) \| .+ \|$", part(), re.MULTILINE):
        described.setdefault(row[0].strip("`"), set()).update(re.findall(r"`(\w+)`", row[1]))
    return described


def test_every_view_has_a_recipe_and_every_recipe_reads_a_view() -> None:
    assert sorted(recipes()) == sorted(VIEWS)


def test_a_recipe_reads_one_view_and_nothing_else() -> None:
    for recipe in recipes().values():
        assert re.findall(r"\bFROM (\w+)", recipe.sql) == [recipe.view]
        assert recipe.sql.rstrip().endswith(";")
        assert recipe.question.endswith("?")


@pytest.mark.parametrize("view", VIEWS)
def test_the_output_that_readme_shows_is_of_this_recipe(migrated_file: Path, view: str) -> None:
    recipe = recipes()[view]
    assert recipe.columns_shown == columns(migrated_file, recipe.sql)
    assert len(recipe.shown.splitlines()) > 4, "it shows no row"


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_of_a_view_is_described(migrated_file: Path, view: str) -> None:
    described = meanings()
    there = columns(migrated_file, f"SELECT * FROM {view}")
    assert len(there) == len(set(there))
    assert set(there) - described["all"] == described[view] - described["all"]


def test_nothing_is_described_that_is_not_there(migrated_file: Path) -> None:
    described = meanings()
    assert set(described) == {"all", *VIEWS}
    there = {column for view in VIEWS for column in columns(migrated_file, f"SELECT * FROM {view}")}
    assert described["all"] <= there
