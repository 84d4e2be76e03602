"""`hal0 events`: what it prints, how it goes on where the API was away, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from hal0.cli.exits import Exit
from hal0.clock import utc_now
from hal0.db import Database
from hal0.slots.transitions import Act, move
from hal0.states import Cause, Outcome, SlotState
from hal0.tables import incidents
from tests.ledger import end, make_slots
from tests.mishaps import evict_all, load_all
from tests.rows import ask_load, claim_next, slot_now
from tests.unit.cli.conftest import Run

ROOT = Path(__file__).parents[3]


def start_moving(db: Database) -> None:
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.STARTING, Cause.CHECKED, Act("test"))


@contextmanager
def following(*args: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `hal0 events --follow` as a process; end it as Ctrl-C does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hal0", "events", "--follow", *args],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read(process: "subprocess.Popen[str]") -> str:
    """Return the next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_without_follow_it_says_how_everything_is(run: Run, db: Database, api_url: str) -> None:
    make_slots(db, "chat", "code")
    asked = ask_load(db)
    shown = run("events")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert [line.partition(" since")[0] for line in lines[:2]] == [
        "slot chat: offline",
        "slot code: offline",
    ]
    first, *rest = asked.job_ids
    assert lines[2] == f"job {first} pull of chat: queued"
    assert lines[3].startswith(f"job {rest[0]} validate of chat: queued, waits for job {first} (")


def test_as_json_each_line_is_an_event_and_since_begins_behind_one(
    run: Run, db: Database, api_url: str
) -> None:
    make_slots(db, "chat")
    (snapshot,) = map(json.loads, run("events", "--json").out.splitlines())
    assert snapshot["event"] == "snapshot"
    start_moving(db)
    row, snapshot = map(
        json.loads, run("events", "--json", "--since", snapshot["id"]).out.splitlines()
    )
    assert (row["event"], row["data"]["to"], row["id"]) == (
        "transition",
        "starting",
        snapshot["id"],
    )
    lines = run("events", "--since", "9-0").out.splitlines()
    assert lines[0].startswith("some events are not told: 9-0 is of another boot")


@pytest.mark.parametrize("since", ["foo", "12", "1-", "-1", "1-2-3", "1 -2", ""])
def test_what_is_no_event_s_id_is_refused_in_words(run: Run, api_url: str, since: str) -> None:
    shown = run("events", "--since", since)
    assert (shown.code, shown.out) == (Exit.USAGE, "")
    assert f"{since!r} is no event's id" in " ".join(shown.err.split())


def test_it_follows_what_happens_until_ctrl_c(db: Database, api_url: str) -> None:
    make_slots(db, "chat")
    with following() as process:
        assert read(process).startswith("slot chat: offline since ")
        start_moving(db)
        assert read(process).endswith(" slot chat: offline > starting checked by test")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == Exit.INTERRUPTED


def test_a_job_is_told_when_it_is_otherwise_and_an_incident_with_who_is_back(
    run: Run, db: Database, api_url: str
) -> None:
    make_slots(db, "one", "two", "evil")
    load_all(db, "one", "two")
    evict_all(db)
    with following() as process:
        lines = [read(process) for _ in range(12)]
        assert lines[-1].endswith("dropped 2 models on account of job 12; 0 of 2 slots are back")
        end(db, claim_next(db), Outcome.SKIPPED)
        assert read(process) == "job 13 pull of one: nothing to do"
        assert read(process) == "job 14 validate of one: queued"
    with db.write() as tx:
        tx.execute(update(incidents).values(acked_at=utc_now(), acked_by="ops"))
    assert "incident" not in run("events").out


def test_nobody_there_from_the_start_is_a_failure(run: Run, nobody_answers: str) -> None:
    shown = run("events", "--follow")
    assert shown.code == Exit.DOWN
    assert "cannot be reached" in shown.err


class Interrupted:
    """An API that breaks its first stream off in the middle of an event."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.asked: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        row = {"id": 1, "at": "2026-01-01T00:00:00.000000Z", "slot": "chat", "from": None}
        row |= {"to": "offline", "cause": "created", "actor": "test", "job_id": None}
        streams = [
            self._event(row, 1) + ": ping\n\nevent: transition\nid: 1-2\nda",
            self._event({**row, "cause": "again"}, 2),
        ]
        while streams:
            line, _ = self.listener.accept()
            with closing(line):
                request = line.recv(65536).decode()
                self.asked.append(request)
                is_stream = request.startswith("GET /api/v1/events ")
                line.sendall(self._answer(streams.pop(0) if is_stream else "{}"))
                while not streams and line.recv(1):  # until the client has gone
                    pass

    @staticmethod
    def _event(data: dict[str, Any], number: int) -> str:
        return f"event: transition\nid: 1-{number}\ndata: {json.dumps(data)}\n\n"

    @staticmethod
    def _answer(body: str) -> bytes:
        head = f"HTTP/1.1 {HTTPStatus.OK.value} OK\r\nConnection: close\r\n\r\n"
        return (head + body).encode()


def test_where_a_stream_broke_off_it_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Interrupted()
    monkeypatch.setenv("HAL0_URL", f"http://127.0.0.1:{api.listener.getsockname()[1]}")
    with following() as process, closing(api.listener):
        assert read(process).endswith("slot chat: new > offline created by test")
        assert read(process).endswith("slot chat: new > offline again by test")
        assert "Last-Event-ID" not in api.asked[0]
        assert "Last-Event-ID: 1-1\r\n" in api.asked[-1]
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "ended the stream; it is asked again until Ctrl-C" in process.stderr.read()
