"""`hal0 audit`: in every format, all of it, and as it happens."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hal0.cli.exits import Exit
from hal0.db import Database
from hal0.settings import Settings
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from tests.ledger import make_slots
from tests.mishaps import load_all
from tests.rows import slot_now
from tests.unit.cli.conftest import Run, serving

ROOT = Path(__file__).parents[3]


@pytest.fixture
def loaded(db: Database, api_url: str) -> Database:
    make_slots(db, "chat", "code")
    load_all(db, "chat")
    return db


def test_each_format_has_the_same_rows(run: Run, loaded: Database) -> None:
    table = run("audit").out.splitlines()
    lines = [json.loads(line) for line in run("audit", "--format", "ndjson").out.splitlines()]
    whole = json.loads(run("audit", "--format", "json").out)["items"]
    cells = list(csv.DictReader(io.StringIO(run("audit", "--format", "csv").out)))
    assert lines == whole == json.loads(run("audit", "--json").out)["items"]
    assert [row["id"] for row in cells] == [str(row["id"]) for row in lines]
    assert [row.split()[0] for row in table[1:]] == [str(row["id"]) for row in lines]
    assert json.loads(run("audit", "--slot", "chat", "--since", 999, "--format", "json").out) == {
        "items": []
    }


@pytest.mark.parametrize("form", ["json", "csv", "ndjson"])
def test_an_export_is_no_page_and_is_narrowed_like_one(
    run: Run, loaded: Database, form: str
) -> None:
    narrowed = ["--slot", "chat", "--since", "2h", "--filter", "actor:worker"]
    shown = run("audit", "--format", form, *narrowed)
    heads = {"json": 2, "csv": 1, "ndjson": 0}
    assert (shown.code, len(shown.out.splitlines())) == (0, heads[form] + 3)
    behind = run("audit", "--format", form, "--since", 4).out.splitlines()
    assert len(behind) == heads[form] + 1
    for wrong in (["--limit", 2], ["--json"]):
        assert run("audit", "--format", form, *wrong).code == 2
    twice = run("audit", "--format", form, "--slot", "chat", "--filter", "slot:chat")
    assert (twice.code, twice.out) == (2, "")


def test_what_has_no_end_is_no_document(run: Run, loaded: Database) -> None:
    for form in (["--format", "json"], ["--format", "csv"], ["--json"]):
        assert run("audit", "--follow", *form).code == 2


@contextmanager
def following(*args: str, url: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `hal0 audit --follow` as a process; end it."""
    command = [sys.executable, "-m", "hal0", "audit", "--follow", "--format", "ndjson", *args]
    env = {**os.environ, "HAL0_URL": url}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return slot and state of the next row that a process prints."""
    assert process.stdout is not None
    row = json.loads(process.stdout.readline())
    return row["slot"], row["to"]


def change(db: Database, slot: str, to: SlotState, cause: Cause) -> None:
    with db.write() as tx:
        move(tx, slot_now(db, slot), to, cause, Act("test"))


def test_it_follows_each_row_that_fits_once_until_ctrl_c(loaded: Database, api_url: str) -> None:
    with following("--filter", "slot:code since:2h", url=api_url) as process:
        assert read(process) == ("code", "offline")
        change(loaded, "chat", SlotState.IDLE, Cause.DEMOTED)
        change(loaded, "code", SlotState.STARTING, Cause.CHECKED)
        assert read(process) == ("code", "starting")
        change(loaded, "code", SlotState.OFFLINE, Cause.CANCELLED)
        assert read(process) == ("code", "offline")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == Exit.INTERRUPTED


def test_what_happened_while_the_api_was_away_is_told_when_it_is_back(
    settings: Settings, db: Database
) -> None:
    make_slots(db, "code")
    with ExitStack() as api:
        url = api.enter_context(serving(settings, db))
        with following(url=url) as process:
            assert read(process) == ("code", "offline")
            api.close()
            change(db, "code", SlotState.STARTING, Cause.CHECKED)
            api.enter_context(serving(settings, db, int(url.rpartition(":")[2])))
            assert read(process) == ("code", "starting")
