"""Which instant `hal0 audit --since` asks the API for."""

import json
import time
from collections.abc import Iterator

import click
import pytest
from freezegun import freeze_time

from hal0.cli.since import Since, Until
from hal0.db import Database
from tests.rows import make_slot
from tests.unit.cli.conftest import Run


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The zone of this machine, nine hours ahead of UTC the whole year."""
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("90s", "2026-11-01T11:58:30+00:00"),
        ("90m", "2026-11-01T10:30:00+00:00"),
        ("2h", "2026-11-01T10:00:00+00:00"),
        ("3 d", "2026-10-29T12:00:00+00:00"),
        ("1w", "2026-10-25T12:00:00+00:00"),
        ("2026-11-01", "2026-10-31T15:00:00+00:00"),
        ("2026-11-01 12:30", "2026-11-01T03:30:00+00:00"),
        ("2026-11-01T12:30:15.5", "2026-11-01T03:30:15.500000+00:00"),
        ("2026-11-01T12:30:00Z", "2026-11-01T12:30:00+00:00"),
        ("2026-11-01T12:30:00-02:00", "2026-11-01T14:30:00+00:00"),
        ("14:00", "2026-11-01T05:00:00+00:00"),
        ("02:30:15", "2026-10-31T17:30:15+00:00"),
        ("17", "17"),
        ("0", "0"),
    ],
)
def test_it_is_so_long_ago_or_a_time_of_this_machine_or_an_id(given: str, asked: str) -> None:
    with freeze_time("2026-11-01 12:00:00"):
        assert Since().convert(given, None, None) == asked


@pytest.mark.parametrize(
    "given",
    [
        "",
        "yesterday",
        "2 hours",
        "-2h",
        "2h30m",
        "2026-13-01",
        "999999999w",
        "0001-01-01",
        "1e3",
        "25:00",
    ],
)
def test_what_is_no_instant_is_refused_with_examples(given: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is no time: give 90m, 2h or 3d"):
        Since().convert(given, None, None)


@pytest.mark.usefixtures("in_tokyo")
def test_an_end_is_a_time_and_no_id() -> None:
    with freeze_time("2026-11-01 12:00:00"):
        assert Until().convert("20:30", None, None) == "2026-11-01T11:30:00+00:00"
    with pytest.raises(click.BadParameter, match=r"'17' is no time: give 90m, 2h or 3d"):
        Until().convert("17", None, None)


@pytest.fixture
def old(db: Database) -> None:
    """A slot of weeks ago, made before there is a thread that a freeze could stumble upon."""
    with freeze_time("2026-11-01 12:00:00"):
        make_slot(db, "old")


@pytest.mark.usefixtures("old", "api_url")
def test_the_audit_is_told_until_then(run: Run, db: Database) -> None:
    make_slot(db, "new")
    for form in ("table", "csv", "ndjson"):
        done = run("audit", "--until", "2026-11-02", "--format", form)
        assert (done.code, "old" in done.out, "new" in done.out) == (0, True, False)
    assert json.loads(run("audit", "--until", "2026-11-01", "--json").out)["items"] == []
    for ends in (("--until", "1h"), ("--filter", "slot:new until:1h")):
        assert run("audit", "--follow", *ends).code == 2


@pytest.mark.usefixtures("old", "api_url")
def test_the_audit_is_told_since_then(run: Run, db: Database) -> None:
    make_slot(db, "new")
    for since, slots in [
        ("1h", ["new"]),
        ("2026-10-31", ["old", "new"]),
        ("2026-11-02 13:00", ["new"]),
        (1, ["new"]),
        (0, ["old", "new"]),
    ]:
        done = run("audit", "--since", since, "--json")
        assert [row["slot"] for row in json.loads(done.out)["items"]] == slots, since
    refused = run("audit", "--since", "yesterday")
    assert (refused.code, refused.out) == (2, "")
    assert "--since" in refused.err
    assert "'yesterday' is no time: give" in " ".join(refused.err.split())
