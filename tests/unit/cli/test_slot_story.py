"""What an operator asks of a slot, or a job, is answered by showing it."""

import json
import re

import pytest

from hal0.db import Database
from hal0.errors import ChecksumMismatch
from hal0.states import JobKind
from tests.ledger import begin_validate, claim_kind, fail, leave_unused, make_slots
from tests.mishaps import evict_all, load_all
from tests.rows import ask_load, fail_next, run_load
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("api_url")
AT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+"


def told(run: Run, slot: str) -> dict[str, str]:
    """Return the lines about a slot by what they begin with."""
    lines = run("slot", "show", slot).out.partition("\n\n")[0].splitlines()
    return dict(line.split(": ", 1) for line in lines)


def test_why_a_slot_is_in_error_and_what_mends_it(run: Run, db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    held = claim_kind(db, JobKind.VALIDATE)
    begin_validate(db, held)
    evidence = {"expected": "aa", "found": "bb"}
    fail(db, held, ChecksumMismatch("its bytes differ", evidence=evidence))
    shown = told(run, "chat")
    assert re.fullmatch(rf"error, model m-chat, since {AT} \(.*\)", shown["slot chat"])
    job = held.job.id
    assert shown["why"] == f"a job failed (job_failed), job {job} validate, asked for by local"
    assert shown["error"] == "preload.checksum_mismatch: its bytes differ"
    assert (shown["  expected"], shown["  found"]) == ("aa", "bb")
    assert shown["to mend it"] == f"remove the cause, then `hal0 job retry {job} --wait`"


def test_what_evicted_it_also_when_it_is_back(run: Run, db: Database) -> None:
    make_slots(db, "one", "evil")
    load_all(db, "one")
    job_id = evict_all(db)
    shown = told(run, "one")
    assert shown["why"].startswith("the engine dropped it (evicted_by_engine)")
    assert shown["why"].endswith("`hal0 incident show 1` says what else")
    run_load(db)
    leave_unused(db, "one")
    shown = told(run, "one")
    evicted = shown["last evicted"]
    assert re.match(rf"{AT} by its engine, on account of slot evil \(job {job_id}\); ", evicted)
    assert evicted.endswith("`hal0 incident show 1`")
    assert shown["next"].startswith("idle in ")
    assert "last evicted" not in told(run, "evil")


def test_an_eviction_of_a_deleted_slot_is_not_told_of_the_one_with_its_name(
    run: Run, db: Database
) -> None:
    make_slots(db, "one", "evil")
    load_all(db, "one")
    evict_all(db)
    assert run("slot", "delete", "one", "--force").code == 0
    run("slot", "create", "one")
    assert "last evicted" not in told(run, "one")
    assert told(run, "one")["last load"] == "none"


def test_who_loaded_it_last_how_long_that_took_and_how_long_is_usual(
    run: Run, db: Database
) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    shown = told(run, "chat")
    last = rf"job 4 of m-chat, asked for by local, {AT}, succeeded after \S+ s"
    assert re.match(last, shown["last load"])
    assert re.fullmatch(r"load \S+ s", shown["usual of m-chat"])
    assert "last that succeeded" not in shown


def test_a_load_that_failed_does_not_hide_the_one_that_succeeded(run: Run, db: Database) -> None:
    make_slots(db, "one", "evil")
    load_all(db, "one")
    evict_all(db)
    fail_next(db, ChecksumMismatch("bad"))
    shown = told(run, "one")
    assert shown["last load"].endswith(": preload.checksum_mismatch")
    assert "succeeded after" in shown["last that succeeded"]


def test_a_job_tells_its_attempts_its_chain_and_what_mends_it(run: Run, db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    fail_next(db, ChecksumMismatch("its bytes differ", evidence={"found": "bb"}))
    shown = run("job", "show", 1).out
    first, asked, why, found, mend, attempt, chain, *rest = shown.splitlines()
    assert first == "job 1 pull of slot chat, model m-chat: failed"
    assert re.fullmatch(rf"asked for by local, {AT}", asked)
    assert (why, found) == ("preload.checksum_mismatch: its bytes differ", "  found: bb")
    assert mend == "to mend it: remove the cause, then `hal0 job retry 1 --wait`"
    assert re.fullmatch(rf"attempt 1: {AT}, failed after \S+ s", attempt)
    assert chain == "chain 1, to load: failed"
    assert rest[0].startswith("  job 1 pull: failed, ")
    assert rest[1] == "  job 2 validate: cancelled"
    assert set(json.loads(run("job", "show", 1, "--json").out)) >= {"attempts", "progress"}


def test_many_jobs_are_cancelled_when_they_were_counted(run: Run, db: Database) -> None:
    make_slots(db, "one", "two")
    for slot in ("one", "two"):
        ask_load(db, slot)
    counted = run("job", "cancel", "--all", "--filter", "slot:one", "--dry-run")
    assert counted.out.splitlines()[1].split() == ["one", "1", "pull", "queued", "would", "be"]
    assert run("job", "cancel", "--all", "--slot", "one").out.splitlines()[1].endswith("cancelled")
    left = json.loads(run("job", "list", "--state", "queued", "--json").out)["items"]
    assert {job["slot"] for job in left} == {"two"}
    nothing = run("job", "cancel", "--all", "--slot", "one")
    assert nothing.out == "no job is queued or runs: nothing to cancel\n"
    for bad in ((), (5, "--all"), (5, "--dry-run"), (5, "--kind", "pull")):
        assert run("job", "cancel", *bad).code == 2


def test_lists_say_names_alone_when_that_is_asked(run: Run, db: Database) -> None:
    make_slots(db, "one", "two", "evil")
    load_all(db, "one")
    evict_all(db)
    for args, names in [
        (["slot", "list"], ["evil", "one", "two"]),
        (["model", "list"], ["m-evil", "m-one", "m-two"]),
        (["engine", "list"], ["default"]),
        (["incident", "list"], ["1"]),
        (["job", "list", "--limit", "2"], ["12", "11"]),
    ]:
        assert run(*args, "--quiet").out.splitlines() == names
    assert run("slot", "list", "-q", "--json").out.startswith("{")
    assert run("model", "show", "m-one").out.splitlines()[-1] == "slots       one (offline)"
