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
from sqlalchemy import select

from hal0.cli.lines import Lines
from hal0.cli.waiting import WaitingCommand, wait_option
from hal0.clock import utc_now
from hal0.db import Database
from hal0.errors import ChecksumMismatch, Hal0Error
from hal0.jobs.ledger.claims import check, claim, fail, finish
from hal0.slots.transitions import move
from hal0.states import Cause, Outcome, SlotState
from hal0.tables import job_progress, jobs
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


def _soon(db: Database, work: Callable[[], Any], on: int | None = None) -> threading.Thread:
    """Work when a load was asked for, or when job `on` is there."""

    def is_asked() -> bool:
        with db.read() as tx:
            found = tx.execute(select(jobs.c.id).where(jobs.c.id == on)).first()
        return slot_now(db).desired == "loaded" if on is None else found is not None

    def wait_and_work() -> None:
        _until(is_asked)
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
    assert [line for line in done.err.splitlines() if "→" in line] == [
        "chat: offline → starting (checked)",
        "chat: starting → warming (load_sent)",
        "chat: warming → ready (loaded)",
    ]
    assert "job 1 pull queued" in done.err


def test_every_change_and_the_end_of_every_job_are_shown_in_their_order(
    run: Run, chat: Database
) -> None:
    worker = _soon(chat, lambda: run_load(chat))
    done = run("slot", "load", "chat", "--wait", 20)
    worker.join()
    seen_by_chance = (" queued", " running")  # what a job is in at a look
    assert [line for line in done.err.splitlines() if not line.endswith(seen_by_chance)] == [
        "chat: job 1 pull: nothing to do",
        "chat: job 2 validate: nothing to do",
        "chat: job 3 unload: nothing to do",
        "chat: offline → starting (checked)",
        "chat: starting → warming (load_sent)",
        "chat: warming → ready (loaded)",
        "chat: job 4 load: done",
    ]


def _end(db: Database, files: dict[str, str] | list[dict[str, str]], outcome: str) -> None:
    held = claim_next(db)
    with db.write() as tx:
        finish(tx, held, Outcome(outcome), {"files": files})


@pytest.mark.parametrize(
    ("files", "outcome", "said"),
    [
        ({"/m/tiny.gguf": "there"}, "skipped", "slot chat: tiny: nothing to fetch"),
        ({}, "skipped", "slot chat: tiny: nothing to fetch"),
        (
            {"/m/tiny.gguf": "linked"},
            "done",
            "slot chat: tiny: 1 file linked: source and model are one file",
        ),
        (
            {"a": "downloaded", "b": "there", "c": "downloaded"},
            "done",
            "slot chat: tiny: 2 files downloaded, 1 file there already",
        ),
    ],
)
def test_a_pull_ends_with_what_it_brought(
    run: Run, chat: Database, files: dict[str, str], outcome: str, said: str
) -> None:
    worker = _soon(chat, lambda: _end(chat, files, outcome), on=1)
    done = run("slot", "pull", "chat", "--wait", 20)
    worker.join()
    assert (done.code, done.out) == (0, f"{said}\n")


def test_a_validation_ends_with_how_many_files_are_good(run: Run, chat: Database) -> None:
    worker = _soon(chat, lambda: _end(chat, [{"path": "a"}, {"path": "b"}], "done"), on=1)
    done = run("slot", "validate", "chat", "--wait", 20)
    worker.join()
    assert (done.code, done.out) == (0, "slot chat: tiny: 2 files checked, good\n")


def _into_error(db: Database, error: Hal0Error) -> None:
    """Fail the validation of a load, which has begun."""
    _end(db, {}, "skipped")
    held = claim_next(db)
    with db.write() as tx:
        move(tx, check(tx, held), SlotState.STARTING, Cause.CHECKED, held.act)
        fail(tx, held, error)


def test_a_pull_into_a_slot_in_error_says_that_it_is_still_so(run: Run, chat: Database) -> None:
    run("slot", "load", "chat")
    _into_error(chat, ChecksumMismatch("the bytes differ"))
    worker = _soon(chat, lambda: _end(chat, {"a": "linked"}, "done"), on=5)
    done = run("slot", "pull", "chat", "--again", "--wait", 20)
    worker.join()
    assert done.out.splitlines() == [
        "slot chat: tiny: 1 file linked: source and model are one file",
        "slot chat: still in error (preload.checksum_mismatch); `hal0 slot load chat`",
    ]
    line = run("slot", "list").out.splitlines()[1]
    assert "preload.checksum_mismatch" in line
    run("slot", "load", "chat")
    _end(chat, {}, "skipped")
    with chat.write() as tx:
        held = claim(tx, "owner-1")
        assert held
        move(tx, check(tx, held), SlotState.STARTING, Cause.CHECKED, held.act)
    line = run("slot", "list").out.splitlines()[1]
    assert line.split()[1] == "starting"
    assert "preload." not in line, "what an earlier job left is no error of this one"


def test_an_advice_names_the_slot_and_the_job_that_it_is_about(run: Run, chat: Database) -> None:
    advice = "put it to /IDS/SLOT, or `hal0 slot pull SLOT --again`; then `hal0 job retry ID`"
    worker = _soon(chat, lambda: _into_error(chat, ChecksumMismatch(advice)))
    done = run("slot", "load", "chat", "--wait", 20)
    worker.join()
    told = "put it to /IDS/SLOT, or `hal0 slot pull chat --again`; then `hal0 job retry 2`"
    assert told in done.err
    assert told in run("job", "show", 2).out
    assert told in run("slot", "show", "chat").out


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


def test_json_names_the_slot_in_its_advice_too(run: Run, chat: Database) -> None:
    error = ChecksumMismatch("bad bytes; then `hal0 slot load SLOT`, or `hal0 job retry ID`")
    worker = _soon(chat, lambda: fail_next(chat, error))
    told = json.loads(run("slot", "load", "chat", "--wait", "--json").out)
    worker.join()
    advice = "bad bytes; then `hal0 slot load chat`, or `hal0 job retry 1`"
    assert [one["error"]["detail"] for one in told["results"]] == [advice] * 4


def test_what_a_job_is_in_again_and_again_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Lines()
    for _ in range(3):
        shown.progress("chat: job 4 load: waits for engine default", 0, 0)
        shown.progress("chat: job 4 load running", 0, 0)
    shown.line("chat: offline → starting (checked)")
    for done in (10, 15, 25):
        shown.progress("chat: job 4 load: download", done, 100)
    assert capsys.readouterr().err.splitlines() == [
        "chat: job 4 load: waits for engine default",
        "chat: job 4 load running",
        "chat: offline → starting (checked)",
        "chat: job 4 load: download (10 %)",
        "chat: job 4 load: download (20 %)",
    ]


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
    assert "`hal0 job show 1`" in done.err
    assert claim_next(chat).job.id == 1


def test_a_wait_that_runs_out_names_the_job_that_runs(run: Run, chat: Database) -> None:
    run("slot", "load", "chat")
    _end(chat, {}, "skipped")
    held = claim_next(chat)
    done = run("slot", "load", "chat", "--wait=0.3")
    assert done.code == 6
    assert "job 2 (validate) is running; `hal0 job show 2`" in done.err
    row = {"job_id": 2, "attempt": held.job.attempt, "phase": "hash", "at": utc_now()}
    with chat.write() as tx:
        tx.execute(job_progress.insert(), {**row, "done_bytes": 1, "total_bytes": 3})
    assert run("job", "list").out.splitlines()[3].endswith("hash 33 %")


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
