"""`hal0 incident`, and what `hal0 slot` and `hal0 engine` say of the same things."""

import json
import re

import pytest

from hal0.db import Database
from tests.ledger import make_slots
from tests.mishaps import count_loads, evict_all, load_all, note_loss, see
from tests.rows import make_slot, run_load
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("api_url")
HEADERS = "ID AT KIND ENGINE CULPRIT SLOTS BACK DETAIL"


def test_an_incident_is_told_with_what_it_cost_who_is_back_and_who_is_not(
    run: Run, db: Database
) -> None:
    make_slots(db, "one", "two", "evil")
    load_all(db, "one", "two")
    count_loads(db, 5, "two")
    job_id = evict_all(db)
    run_load(db)
    listed = run("incident", "list").out.splitlines()
    assert listed[0].split() == HEADERS.split()
    assert re.search(r"load_failed +default +evil +2 +1 +engine default dropped", listed[1])
    shown = run("incident", "show", 1)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("incident 1: load_failed at ")
    assert f"because of slot evil, model m-evil, job {job_id}: `hal0 job show" in shown.out
    one, two = shown.out.splitlines()[-2:]
    assert re.search(r"^one +ready +offline +evicted_by_engine +back since .*, after .* s$", one)
    assert two.endswith("away: parked after 5 automatic loads: load it to begin anew")
    as_json = json.loads(run("incident", "show", 1, "--json").out)
    assert [one["slot"] for one in as_json["slots"]] == ["one", "two"]


def test_incidents_are_narrowed_and_a_mistake_has_its_exit_code(run: Run, db: Database) -> None:
    make_slots(db, "one", "evil")
    load_all(db, "one")
    evict_all(db)
    for args, count in [
        (("--slot", "evil"), 1),
        (("--kind", "load_failed", "--since", "1h"), 1),
        (("--kind", "engine_lost"), 0),
        (("--since", "1"), 0),
        (("--engine", "default", "--limit", "1"), 1),
    ]:
        found = json.loads(run("incident", "list", *args, "--json").out)
        assert len(found["items"]) == count, args
    assert run("incident", "show", 9).code == 3
    assert run("incident", "list", "--kind", "boredom").code == 2


def test_slots_are_marked_that_a_machine_is_to_load_again_or_may_not(
    run: Run, db: Database
) -> None:
    make_slot(db, "calm")
    for slot in make_slots(db, "due", "later", "parked"):
        with db.write() as tx:
            tx.exec_driver_sql("UPDATE slots SET desired = 'loaded' WHERE id = ?", (slot.id,))
        note_loss(db, slot.name)
    count_loads(db, 1, "later")
    count_loads(db, 5, "parked")
    calm, due, later, parked = run("slot", "list").out.splitlines()[1:]
    assert calm.endswith(" -")
    assert due.endswith(" loads again")
    assert re.search(r" loads again, not before \S+ \S+ \w+$", later)
    assert parked.endswith(" parked: no machine loads it again")
    shown = run("slot", "show", "parked").out
    assert "restore:\n  cause: evicted_by_engine\n  model: m-parked\n" in shown
    assert "\nnote: parked after 5 automatic loads: load it to begin anew\n" in shown
    assert "effective:\n  idle_after_s: 300.0\n" in shown


def test_who_sets_up_a_slot_is_warned_of_an_engine_that_cannot_hold_all(
    run: Run, db: Database
) -> None:
    for name in ("a", "b"):
        make_slot(db, name, desired="loaded")
    see(db, max_models=1)
    made = run("slot", "create", "c", "--load-timeout-per-gb", "2.5")
    assert made.out == "slot c: created, offline\n"
    assert made.err.startswith("slot c: engine default holds no more than 1 at once, and 2 slots")
    assert run("slot", "set", "c", "--load-timeout-per-gb", "default").err == made.err
    assert run("slot", "list").out.splitlines()[1].endswith(" 1 warning")
    assert json.loads(run("slot", "show", "c", "--json").out)["load_timeout_s_per_gb"] is None


def test_engines_are_shown_with_version_what_they_have_and_what_is_nobodys(
    run: Run, db: Database
) -> None:
    before = run("engine", "list").out.splitlines()[1].split()
    assert before[3:6] == ["-", "-", "-"]
    see(db, version="11.7.0", max_models=4, models=["a", "theirs"], strangers=["theirs"])
    assert re.search(r" 11\.7\.0 +2 of 4 +theirs ", run("engine", "list").out)
    shown = run("engine", "show", "default")
    assert 'seen:\n  version: 11.7.0\n  max_models: 4\n  models: ["a", "theirs"]\n' in shown.out
    assert run("engine", "show", "nope").code == 3


def test_an_incident_is_acknowledged_once_by_whoever_was_first(run: Run, db: Database) -> None:
    make_slots(db, "one", "evil")
    load_all(db, "one")
    evict_all(db)
    said = run("incident", "ack", 1)
    assert re.fullmatch(r"incident 1 acknowledged by local, .*\n", said.out)
    first = json.loads(run("incident", "show", 1, "--json").out)["acked_at"]
    again = json.loads(run("incident", "ack", 1, "--json").out)
    assert (again["acked_at"], again["acked_by"]) == (first, "local")
    assert run("incident", "ack", 9).code == 3


def test_a_job_names_the_incident_that_it_made(run: Run, db: Database) -> None:
    make_slots(db, "chat", "evil")
    load_all(db, "chat")
    job_id = evict_all(db)
    shown = run("job", "show", job_id)
    assert "it made incident 1: `hal0 incident show 1` says what that cost" in shown.out
    assert json.loads(run("job", "show", job_id, "--json").out)["incident_id"] == 1
    assert "incident" not in run("job", "show", 1).out
