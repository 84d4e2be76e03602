"""The text of a filter on the command line: what the page takes, in the same words."""

import json

import pytest

from hal0.db import Database
from hal0.errors import EngineRefused
from tests.rows import ask_load, fail_next, make_model, make_slot, run_load
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("api_url")


@pytest.fixture(autouse=True)
def furnished(db: Database) -> None:
    """`chat` is loaded by jobs 1 to 4, job 5 of `broken` failed."""
    for slot in ("chat", "broken"):
        make_model(db, f"of-{slot}")
        make_slot(db, slot, f"of-{slot}")
    ask_load(db, "chat")
    run_load(db)
    ask_load(db, "broken")
    fail_next(db, EngineRefused("no"))


def test_jobs_and_the_audit_are_narrowed_by_terms(run: Run) -> None:
    jobs = json.loads(run("job", "list", "--filter", "state:failed since:1h", "--json").out)
    assert [job["id"] for job in jobs["items"]] == [5]
    rows = json.loads(run("audit", "--filter", "slot:chat state:ready", "--json").out)
    assert [row["to"] for row in rows["items"]] == ["ready"]


def test_a_retry_of_many_takes_terms_and_only_with_all(run: Run) -> None:
    counted = run("job", "retry", "--all", "--filter", "code:engine.refused", "--dry-run")
    assert (counted.code, "would be" in counted.out) == (0, True)
    none = run("job", "retry", "--all", "--filter", "slot:chat")
    assert none.out.endswith(": nothing to retry\n")
    assert run("job", "retry", 5, "--filter", "slot:chat").code == 2


def test_a_term_that_means_nothing_is_a_mistake_of_usage(run: Run) -> None:
    wrong = run("job", "list", "--filter", "colour:red")
    assert wrong.code == 2
    assert "'colour' is no key; use one of slot, state, kind" in wrong.err
