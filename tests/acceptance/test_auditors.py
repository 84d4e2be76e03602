"""README's recipes for auditors, on a database that real processes wrote, in plain `sqlite3`.

One story is told to a house; every recipe is then run with no code of hal0, read-only, and what it
says is compared with the story: slots, causes, who, and seconds that add up.
"""

import json
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hal0.audit_views import VIEWS
from tests.acceptance.house import House
from tests.fakes.lemond import Lemond
from tests.recipes import recipes

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("auditors")]

Row = dict[str, Any]
PARTS = ("pull_s", "validate_s", "unload_s", "load_s", "failed_s", "waited_s")
ROUNDING_S = 0.0005


def tell(house: House, lemond: Lemond) -> None:
    """Let a house go through what an auditor would ask about."""
    house.start_api()
    house.start_worker()
    house.add_model("smol", seed=1)
    house.add_slot("chat", "smol")
    house.load("chat")
    house.wait_until("ready", "chat")
    refuse_mend_and_retry(house)
    evict_all(house, lemond)
    house.post("/api/v1/slots/chat/unload")
    house.wait_until("offline", "chat")
    lemond.drop("coder")  # as somebody may in the engine's own app
    house.wait_until("offline", "code")
    house.client.delete("/api/v1/slots/big").raise_for_status()
    house.wait_settled()


def refuse_mend_and_retry(house: House) -> None:
    """Load a corrupt file; mend it, and retry the job that refused it."""
    source = house.add_model("coder", seed=2)
    good = source.read_bytes()
    source.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    house.add_slot("code", "coder")
    refused = house.load("code")["jobs"][1]
    house.wait_until("error", "code")
    source.write_bytes(good)
    house.post(f"/api/v1/jobs/{refused}/retry")
    house.wait_until("ready", "code")


def evict_all(house: House, lemond: Lemond) -> None:
    """Let a load fail inside the engine, which drops all else; wait until that is back."""
    lemond.script(models={"huge": {"load_fail": "llama-server failed to start"}})
    house.add_model("huge", seed=3)
    house.add_slot("big", "huge")
    house.load("big")
    house.wait_until("error", "big")
    for name in ("chat", "code"):
        house.wait_until("idle", name)
    house.wait_settled()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("auditors")
    models = folder / "home" / "models"
    models.mkdir(parents=True)
    with (
        Lemond(models, call_log=folder / "calls.ndjson") as lemond,
        House(folder, lemond.url, HAL0_SCAN_S="1") as house,
    ):
        tell(house, lemond)
        yield house


def answer(home: Path, view: str) -> list[Row]:
    """Run the recipe of a view."""
    path = (home / "hal0.db").as_uri()
    with closing(sqlite3.connect(f"{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(recipes()[view].sql)]


def only(rows: list[Row], **having: object) -> list[Row]:
    return [row for row in rows if having.items() <= row.items()]


def test_the_times_in_state_are_those_of_the_story(told: House) -> None:
    rows = answer(told.home, "audit_time_in_state")
    times = {
        slot: {row["state"]: row["times"] for row in only(rows, slot=slot)}
        for slot in ("chat", "code", "big")
    }
    assert times == {
        "chat": {"offline": 3, "starting": 2, "warming": 2, "ready": 1, "idle": 1, "unloading": 1},
        "code": {"offline": 3, "starting": 3, "warming": 2, "ready": 1, "idle": 1, "error": 1},
        "big": {"offline": 1, "starting": 1, "warming": 1, "error": 1},
    }
    assert {(row["slot"], row["state"]) for row in only(rows, is_now=1)} == {
        ("chat", "offline"),
        ("code", "offline"),
    }
    (life,) = told.sql(
        "SELECT (julianday(deleted_at) - julianday(created_at)) * 86400 FROM slots "
        "WHERE name = 'big'"
    )
    spent = sum(row["seconds"] for row in only(rows, slot="big"))
    assert spent == pytest.approx(life[0], abs=4 * ROUNDING_S + 0.001)


def test_what_failed_is_told_with_its_error_and_what_became_of_it(told: House) -> None:
    refused, failed = sorted(
        answer(told.home, "audit_failed_jobs"), key=lambda row: str(row["failed_at"])
    )
    assert (refused["slot"], refused["kind"], refused["model"]) == ("code", "validate", "coder")
    assert (refused["code"], refused["state"]) == ("preload.checksum_mismatch", "succeeded")
    assert (failed["slot"], failed["kind"], failed["model"]) == ("big", "load", "huge")
    assert (failed["code"], failed["state"]) == ("engine.refused", "failed")
    details = told.sql("SELECT detail FROM audit_failed_jobs ORDER BY failed_at")
    assert "coder.gguf: its sha256 is" in details[0][0]
    assert "llama-server failed to start" in details[1][0]


def test_the_seconds_of_each_load_add_up_to_what_the_engine_and_the_rows_say(told: House) -> None:
    rows = sorted(answer(told.home, "audit_loads"), key=lambda row: str(row["asked_at"]))
    assert [(row["slot"], row["model"], row["outcome"], row["code"]) for row in rows] == [
        ("chat", "smol", "done", None),
        ("code", "coder", "done", None),
        ("big", "huge", "failed", "engine.refused"),
        ("chat", "smol", "done", None),
        ("code", "coder", "done", None),
    ]
    for row in rows:
        assert all(row[part] >= 0 for part in PARTS)
        assert sum(row[part] for part in PARTS) == pytest.approx(row["total_s"], abs=1e-6)
        assert row["validate_s"] > 0
        assert row["load_s"] > 0
        assert (row["failed_s"] > 0) == (row is rows[1])  # it lay failed until it was retried
    chains = told.sql(
        "SELECT (julianday(max(j.ended_at)) - julianday(min(c.created_at))) * 86400 "
        "FROM chains c JOIN jobs j ON j.chain_id = c.id WHERE c.goal = 'load' GROUP BY c.id"
    )
    for row, (whole_s,) in zip(rows, chains, strict=True):
        assert row["total_s"] == pytest.approx(whole_s, abs=0.01)  # jobs end just before attempts


def test_the_last_day_tells_who_did_what(told: House) -> None:
    rows = answer(told.home, "audit_last_day")
    changes = [row for row in rows if row["cause"] is not None]
    assert len(changes) == told.sql("SELECT count(*) FROM transitions")[0][0]
    asked = [(row["asked_by"], row["slot"], row["what"]) for row in rows if row["cause"] is None]
    load = "asked for load of"
    job = told.sql("SELECT id FROM jobs WHERE state = 'failed'")[0][0]
    assert asked == [
        ("local", "chat", f"{load} smol"),
        ("local", "code", f"{load} coder"),
        ("local", "code", "retried validate of coder"),
        ("local", "big", f"{load} huge"),
        ("reconcile", "chat", f"{load} smol, because of job {job}"),
        ("reconcile", "code", f"{load} coder, because of job {job}"),
        ("local", "chat", "asked for unload"),
        (None, "big", "deleted"),
    ]
    evicted = only(changes, cause="evicted_by_engine")
    assert [(row["asked_by"], row["done_by"], row["slot"]) for row in evicted] == [
        (None, "worker", "chat"),
        (None, "worker", "code"),
    ]
    (lost,) = only(changes, cause="unloaded_elsewhere")
    assert (lost["asked_by"], lost["done_by"], lost["slot"]) == ("reconcile", "reconcile", "code")
    again = only(changes, slot="chat", what="warming → idle")
    assert [(row["asked_by"], row["done_by"]) for row in again] == [("reconcile", "worker")]
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)


def test_the_incident_tells_which_slots_it_moved_and_when_they_were_back(told: House) -> None:
    rows = answer(told.home, "audit_incidents")
    assert [(row["kind"], row["culprit"], row["moved_slot"], row["cause"]) for row in rows] == [
        ("load_failed", "big", "chat", "evicted_by_engine"),
        ("load_failed", "big", "code", "evicted_by_engine"),
    ]
    for row in rows:
        moved = told.sql(
            "SELECT t.at FROM transitions t JOIN slots s ON s.id = t.slot_id "
            "WHERE s.name = ? AND t.to_state = 'idle'",
            row["moved_slot"],
        )
        assert row["back_at"] == moved[0][0]
        assert row["at"] < row["back_at"]


@pytest.mark.parametrize("view", VIEWS)
def test_the_command_sqlite3_says_the_same(told: House, view: str) -> None:
    program = shutil.which("sqlite3")
    if program is None:
        pytest.skip("the command sqlite3 is not installed; Python's module ran the recipes")
    done = subprocess.run(
        [program, "-readonly", "-json", str(told.home / "hal0.db"), recipes()[view].sql],
        capture_output=True,
        text=True,
        check=True,
    )
    found, expected = json.loads(done.stdout), answer(told.home, view)
    if view == "audit_time_in_state":
        for rows in (found, expected):  # time went on, and may have put another state first
            rows.sort(key=lambda row: (row["slot"], row["state"]))
            for row in rows:
                row["seconds"] = row["seconds"] >= 0
    assert found == expected


def test_the_recipes_run_also_when_nothing_of_hal0_does(tmp_path: Path, lemond: Lemond) -> None:
    """Without a process the write-ahead log is gone, and a reader must do without it."""
    with House(tmp_path, lemond.url) as house:
        house.start_api()
        house.start_worker()
        house.add_model()
        house.add_slot()
        house.load()
        house.wait_until("ready")
        for process in house.processes:
            assert house.stop(process, signal.SIGTERM) == 0
        assert not (house.home / "hal0.db-wal").exists()
        before = (house.home / "hal0.db").read_bytes()
        assert [row["outcome"] for row in answer(house.home, "audit_loads")] == ["done"]
        for view in recipes():
            answer(house.home, view)
        assert (house.home / "hal0.db").read_bytes() == before
