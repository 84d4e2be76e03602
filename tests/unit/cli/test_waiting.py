"""`--wait`: what is shown on the way, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import click
import pytest

from hal0.cli.waiting import WaitingCommand, wait_option
from hal0.db import Database
from hal0.errors import ChecksumMismatch
from tests.rows import claim_next, fail_next, make_model, make_slot, run_load, slot_now
from tests.unit.cli.conftest import Run


@pytest.fixture
def chat(db: Database, api_url: str) -> Database:
    make_model(db)
    make_slot(db, "chat", "tiny")
    return db


def _until(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def _soon(db: Database, work: Callable[[], Any]) -> threading.Thread:
    def wait_and_work() -> None:
        _until(lambda: slot_now(db).desired == "loaded")
        time.sleep(0.3)
        work()

    thread = threading.Thread(target=wait_and_work)
    thread.start()
    return thread


def test_a_load_is_followed_through_every_change_to_ready(run: Run, chat: Database) -> None:
    worker = _soon(chat, lambda: run_load(chat))
    done = run("slot", "load", "chat", "--wait", 20)
    worker.join()
    assert (done.code, done.out) == (0, "slot chat: ready (tiny)\n")
    assert [line for line in done.err.splitlines() if line.startswith("chat:")] == [
        "chat: offline → starting (checked)",
        "chat: starting → warming (load_sent)",
        "chat: warming → ready (loaded)",
    ]
    assert "job 1 pull queued" in done.err


def test_a_load_that_fails_tells_which_job_why_and_with_what_evidence(
    run: Run, chat: Database
) -> None:
    error = ChecksumMismatch("the bytes differ", evidence={"expected": "aa", "found": "bb"})
    worker = _soon(chat, lambda: fail_next(chat, error))
    done = run("slot", "load", "--wait", "chat")
    worker.join()
    assert (done.code, done.out) == (1, "")
    assert "job 1 (pull) of slot chat failed" in done.err
    assert "preload.checksum_mismatch: the bytes differ" in done.err
    assert "expected: aa" in done.err


def test_json_goes_to_stdout_and_everything_else_to_stderr(run: Run, chat: Database) -> None:
    worker = _soon(chat, lambda: run_load(chat))
    done = run("slot", "load", "chat", "--wait", "--json")
    worker.join()
    body = json.loads(done.out)
    assert (done.code, body["state"], len(body["results"])) == (0, "succeeded", 4)
    assert "→ ready" in done.err


def test_a_wait_that_runs_out_leaves_the_job_and_says_where_to_look(
    run: Run, chat: Database
) -> None:
    done = run("slot", "load", "chat", "--wait=0.3")
    assert (done.code, done.out) == (6, "")
    assert "`hal0 job show 4`" in done.err
    assert claim_next(chat).job.id == 1


def test_a_chain_that_somebody_cancels_is_no_success(run: Run, chat: Database) -> None:
    worker = _soon(chat, lambda: run("job", "cancel", 1))
    done = run("slot", "load", "chat", "--wait", 20)
    worker.join()
    assert done.code == 1


def test_ctrl_c_stops_watching_and_nothing_else(chat: Database) -> None:
    command = [sys.executable, "-m", "hal0", "slot", "load", "chat", "--wait"]
    watching = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert watching.stderr is not None
    assert "job 1 pull queued" in watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    out, err = watching.communicate(timeout=20)
    assert (watching.returncode, out) == (130, "")
    assert "jobs 1, 2, 3, 4 go on" in err
    assert claim_next(chat).job.id == 1


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--wait", "chat"], ("chat", float("inf"))),
        (["chat", "--wait"], ("chat", float("inf"))),
        (["--wait", "30", "chat"], ("chat", 30.0)),
        (["--wait=2.5", "chat"], ("chat", 2.5)),
        (["chat"], ("chat", None)),
        (["--", "--wait"], ("--wait", None)),
    ],
)
def test_wait_takes_seconds_or_stands_alone(
    args: list[str], expected: tuple[str, float | None]
) -> None:
    seen: list[tuple[str, float | None]] = []

    @click.command(cls=WaitingCommand)
    @click.argument("name")
    @wait_option
    def command(name: str, wait_s: float | None) -> None:
        seen.append((name, wait_s))

    command.main(args, standalone_mode=False)
    assert seen == [expected]


@pytest.mark.parametrize("bad", ["nan", "-1", "soon"])
def test_a_wait_that_is_no_time_is_usage(run: Run, chat: Database, bad: str) -> None:
    assert run("slot", "load", "chat", f"--wait={bad}").code == 2
