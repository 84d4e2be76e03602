"""`hal0 status`: failure first, else the slowest thing, else that all is well; `top --once` too."""

import json
import re
from datetime import datetime, timedelta
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sqlalchemy import insert, update

from hal0.cli.client import Api
from hal0.cli.glance import Looker
from hal0.cli.top import picture, shares
from hal0.clock import boot_id, utc_now
from hal0.db import Database
from hal0.errors import ChecksumMismatch
from hal0.tables import engines, job_progress, owners, slots
from tests.ledger import leave_unused, make_slots
from tests.mishaps import count_loads, evict_all, load_all, note_loss
from tests.rows import ask_load, claim_next, fail_next, make_slot, skip_to_load
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("api_url")


def start_worker(db: Database, silent_s: float = 0) -> None:
    """Let a worker have been seen, and the engine have answered."""
    seen_at = utc_now() - timedelta(seconds=silent_s)
    row = {"id": "owner-1", "kind": "worker", "pid": 1, "pid_start": 1, "boot_id": boot_id()}
    with db.write() as tx:
        tx.execute(insert(owners), {**row, "started_at": seen_at, "seen_at": seen_at})
        tx.execute(update(engines).values(healthy_boot_id=boot_id(), last_error=None))


def first_line(run: Run) -> str:
    return run("status").out.splitlines()[0]


def test_all_is_well_when_nothing_is_wrong_and_nothing_under_way(run: Run, db: Database) -> None:
    start_worker(db)
    assert first_line(run) == "all well, and no slot yet: `hal0 setup` makes one"
    make_slots(db, "one")
    make_slot(db, "two")
    load_all(db, "one")
    leave_unused(db, "one")
    done = run("status")
    assert (done.code, done.err) == (0, "")
    head, _, one, two = done.out.splitlines()
    assert head == "all well: 1 of 2 slots loaded, nothing to do"
    assert re.search(r"^one +ready +m-one .* idle in (5 min|4 min \d+ s), unloads in 5 min", one)
    assert re.search(r"^two +offline +- .* -$", two)


def test_who_does_nothing_is_told_before_what_follows_from_it(run: Run, db: Database) -> None:
    done = run("status")
    assert done.code == 1
    first, second = done.out.splitlines()
    assert first.startswith("worker: none runs, so jobs stay queued; `hal0 up` starts one, ")
    assert first.endswith(" (and 1 more)")
    assert second == "engine default: has not answered yet; `hal0 doctor` asks it"
    start_worker(db, silent_s=300)
    assert first_line(run).startswith("worker: none was seen since ")
    error = {"code": "engine.unreachable", "detail": "refused", "evidence": {}}
    with db.write() as tx:
        tx.execute(update(owners).values(seen_at=utc_now()))
        tx.execute(update(engines).values(last_error=error))
    told = "engine default: does not answer: engine.unreachable: refused; `hal0 doctor` asks it"
    assert first_line(run) == told


def test_slots_are_told_after_the_worker_and_the_engine_that_they_need(
    run: Run, db: Database
) -> None:
    start_worker(db, silent_s=300)
    make_slots(db, "evil", "one")
    evict_all(db)
    ask_load(db, "one")
    fail_next(db, ChecksumMismatch("bad bytes"))
    error = {"code": "engine.unreachable", "detail": "refused", "evidence": {}}
    with db.write() as tx:
        tx.execute(update(engines).values(last_error=error))
    troubles = json.loads(run("status", "--json").out)["troubles"]
    assert [one["subject"] for one in troubles] == [
        *("worker", "engine default"),
        *("slot evil", "slot one"),
    ]


def test_a_slot_in_error_is_told_with_code_job_time_and_what_mends_it(
    run: Run, db: Database
) -> None:
    start_worker(db)
    make_slots(db, "one", "evil")
    load_all(db, "one")
    job_id = evict_all(db)
    done = run("status")
    assert done.code == 1
    first, *rest = done.out.splitlines()
    assert re.fullmatch(
        rf"slot evil: in error since \S+ \S+ \w+ \(.*\), engine\.refused \(job {job_id}\); "
        rf"`hal0 slot show evil` says why; then `hal0 job retry {job_id} --wait`",
        first,
    )
    assert re.search(r"incident 1: load_failed .*; `hal0 incident ack 1`$", rest[-1])
    run("incident", "ack", 1)
    assert "incident" not in run("status").out


def test_a_load_that_failed_is_told_though_its_slot_is_not_in_error(run: Run, db: Database) -> None:
    start_worker(db)
    make_slots(db, "chat")
    asked = ask_load(db)
    fail_next(db, ChecksumMismatch("bad bytes"))
    first = first_line(run)
    job = asked.job_ids[0]
    assert first.startswith(f"slot chat: job {job} (pull) failed ")
    assert first.endswith(
        f"preload.checksum_mismatch; `hal0 job show {job}` says why; `hal0 job retry {job} --wait`"
    )


def test_else_the_job_that_runs_longest_is_told_with_how_far_it_is(run: Run, db: Database) -> None:
    start_worker(db)
    make_slots(db, "one", "two")
    first = ask_load(db, "one").job_ids[0]
    ask_load(db, "two")
    assert first_line(run) == f"slot one: job {first} pull of m-one: waits for a worker"
    held = claim_next(db)
    row = {"job_id": held.job.id, "attempt": held.job.attempt, "phase": "download"}
    row |= {"done_bytes": 512 * 2**20, "total_bytes": 2**30, "rate_bytes_s": 2.0**20}
    with db.write() as tx:
        tx.execute(insert(job_progress), {**row, "at": utc_now()})
    assert claim_next(db).job.slot_id != held.job.slot_id
    done = run("status")
    assert done.code == 0
    told = f"slot one: job {first} pull of m-one: download, 512.0 MiB of 1.0 GiB (50 %), 1.0 MiB/s"
    assert done.out.startswith(told)


def test_a_job_under_way_is_told_with_how_long_such_work_usually_takes(
    run: Run, db: Database
) -> None:
    make_slots(db, "one", "evil")
    load_all(db, "one")
    evict_all(db)
    assert skip_to_load(db).job.kind == "load"
    (line,) = (line for line in run("top", "--once").out.splitlines() if " load " in line)
    assert re.search(r"load, for \S+ s of usually \S+ s$", line)


def test_json_says_all_of_it_and_the_same_code(run: Run, db: Database) -> None:
    make_slots(db, "one")
    done = run("status", "--json")
    told = json.loads(done.out)
    assert (done.code, told["well"]) == (1, False)
    assert [one["subject"] for one in told["troubles"]] == ["worker", "engine default"]
    assert [one["name"] for one in told["slots"]] == ["one"]


def test_top_as_json_says_what_status_says(run: Run, db: Database) -> None:
    start_worker(db)
    make_slots(db, "one")
    ask_load(db, "one")
    done = run("top", "--json")
    told, same = json.loads(done.out), json.loads(run("status", "--json").out)
    assert (done.code, told.keys()) == (0, same.keys())
    assert ([job["id"] for job in told["jobs"]], told["slots"]) == ([1, 2, 3, 4], same["slots"])


def test_a_slot_that_has_its_model_again_is_not_loaded_again(run: Run, db: Database) -> None:
    start_worker(db)
    make_slots(db, "one")
    note_loss(db, "one")
    count_loads(db, 2, "one")
    assert "loads again, not before" in run("status").out
    load_all(db, "one")
    note_loss(db, "one")
    count_loads(db, 2, "one")
    for command in ("status", "slot list"):
        done = run(*command.split())
        assert re.search(r"^one +ready ", done.out, re.MULTILINE)
        assert "loads again" not in done.out


def test_when_a_slot_fades_is_told_as_the_page_and_the_scan_count_it(
    run: Run, db: Database
) -> None:
    """A last use says nothing of it: who looks at an engine that was away begins anew."""
    start_worker(db)
    make_slots(db, "one", "three", "two")
    load_all(db, "one", "three", "two")
    with db.write() as tx:
        tx.execute(update(slots).values(last_used_at=utc_now() - timedelta(hours=1)))
    leave_unused(db, "one", for_s=100)
    leave_unused(db, "two", for_s=320)
    _, _, one, three, two = run("status").out.splitlines()
    assert re.search(r" idle in 3 min( \d+ s)?, unloads in 3 min \d+ s$", one)
    assert three.endswith(" -"), "in use, or not looked at yet"
    assert re.search(r" idle at the next look, unloads in \d+\.?\d* s$", two)
    demotes_at = json.loads(run("slot", "show", "one", "--json").out)["demotes_at"]
    assert 190 < (datetime.fromisoformat(demotes_at) - utc_now()).total_seconds() <= 200


def drawn(url: str, width: int, height: int) -> list[str]:
    terminal = Console(width=width, height=height, file=StringIO(), legacy_windows=False)
    with terminal.capture() as captured:
        terminal.print(picture(Looker(Api(url)).look(), None, terminal))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_terminal_too_low_for_all_has_slots_and_jobs_and_says_what_is_missing(
    db: Database, api_url: str
) -> None:
    start_worker(db)
    names = [f"slot-{number:02}" for number in range(20)]
    make_slots(db, *names)
    for name in names[:5]:
        ask_load(db, name)
    lines = drawn(api_url, 80, 24)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    begins = [line.split()[0] for line in lines if line]
    assert {"SLOT", "slot-00", "JOB"} <= set(begins)
    assert "… `hal0 slot list` has all" in lines
    assert "… `hal0 job list` has all" in lines
    whole = drawn(api_url, 200, 60)
    assert [line for line in whole if "…" in line] == []
    assert "slot-19" in [line.split()[0] for line in whole if line]


@given(st.lists(st.integers(0, 200), min_size=1, max_size=5), st.integers(-5, 100))
def test_each_part_gets_what_it_wants_or_as_much_as_any(wanted: list[int], room: int) -> None:
    given_ = shares(wanted, room)
    assert sum(given_) <= max(0, room)
    most = max(given_)
    for want, got in zip(wanted, given_, strict=True):
        assert got == want or got >= most - 1
    if sum(wanted) <= room:
        assert given_ == wanted


def test_without_an_api_status_and_top_say_so(run: Run, nobody_answers: str) -> None:
    for name in ("status", "top"):
        done = run(name)
        assert (done.code, done.out) == (7, "")
        assert "cannot be reached" in done.err


@pytest.mark.parametrize("args", [["top"], ["top", "--once"]])
def test_top_where_nobody_watches_shows_slots_and_jobs_once(
    run: Run, db: Database, args: list[str]
) -> None:
    start_worker(db)
    make_slots(db, "one")
    ask_load(db, "one")
    done = run(*args)
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == [
        *("SLOT", "one"),
        *("JOB", "1", "2", "3", "4"),
    ]
