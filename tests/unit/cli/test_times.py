"""Times are those of the clock on the wall, with its zone; what is sent and stored stays UTC."""

import json
import time
from collections.abc import Iterator

import pytest

from hal0.cli.times import clock_of, hour_of, in_local_time
from hal0.db import Database
from hal0.settings import Settings
from tests.ledger import make_slots
from tests.mishaps import count_loads, evict_all, load_all, note_loss
from tests.rows import ask_load
from tests.unit.cli.conftest import Run

ZONE = "CXT-05:30"  # POSIX: five and a half hours before UTC, wherever a list of zones is missing


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    yield
    monkeypatch.delenv("TZ")
    time.tzset()


def test_an_instant_is_told_in_the_zone_of_the_machine() -> None:
    assert clock_of("2026-11-22T20:07:02.999999Z") == "2026-11-23 01:37:02 CXT"
    assert clock_of(None) == "-"
    assert hour_of("2026-11-22T20:07:02.999999Z") == "01:37:02.999 CXT"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("not before 2026-11-22T20:07:02Z.", "not before 2026-11-23 01:37:02 CXT."),
        ('{"at": "2026-11-22T20:07:02.5Z"}', '{"at": "2026-11-23 01:37:02 CXT"}'),
        ("/models/2026-11-22T20:07:02Z.gguf", "/models/2026-11-22T20:07:02Z.gguf"),
        ("2026-99-22T20:07:02Z", "2026-99-22T20:07:02Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_a_sentence_has_its_times_told_so_but_no_name_of_a_file(text: str, told: str) -> None:
    assert in_local_time(text) == told


COMMANDS = """
status
top --once
slot list
slot show one
slot show evil
job list
job show 8
job show 9
audit
events
incident list
incident show 1
"""


def test_no_command_tells_people_a_time_of_utc(run: Run, db: Database, api_url: str) -> None:
    make_slots(db, "one", "evil")
    load_all(db, "one")
    evict_all(db)
    note_loss(db, "one")
    count_loads(db, 1, "one")
    ask_load(db, "one")
    for line in COMMANDS.strip().splitlines():
        shown = run(*line.split()).out
        assert in_local_time(shown) == shown, line
        assert " CXT" in shown, line


def test_a_token_s_times_are_local_too(
    run: Run, db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAL0_HOME", str(settings.home))
    made = run("token", "create", "alice", "--role", "writer", "--expires", "30d")
    assert " CXT; it is not shown again" in made.err
    for line in (["token", "list"], ["token", "show", "alice"]):
        shown = run(*line).out
        assert in_local_time(shown) == shown
        assert " CXT" in shown
    assert run("token", "show", "bob").code == 3


def test_json_and_what_is_asked_stay_utc(run: Run, db: Database, api_url: str) -> None:
    make_slots(db, "one")
    at = json.loads(run("audit", "--json").out)["items"][0]["at"]
    assert at.endswith("Z")
    shown = run("audit", "--format", "ndjson").out
    assert json.loads(shown)["at"] == at
    local = clock_of(at)[:19]
    assert json.loads(run("audit", "--since", local, "--json").out)["items"] != []
