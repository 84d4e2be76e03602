"""What a slot says of requests for inference, on the command line."""

import json
from typing import Any

import pytest
from sqlalchemy import insert

from hal0.clock import utc_now
from hal0.db import Database
from hal0.slots.queries import Slot
from hal0.tables import speeds
from tests.ledger import serve
from tests.rows import ask_load, make_model, make_slot, run_load
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("api_url")


def _shown(run: Run) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(run("slot", "show", "chat", "--json").out)
    return shown


def test_waking_and_limits_are_given_and_taken_back(run: Run) -> None:
    given = ["--wake", "never", "--max-in-flight", 2, "--max-waiting", 0]
    assert run("slot", "create", "chat", *given).code == 0
    made = _shown(run)
    assert (made["wake"], made["max_in_flight"], made["max_waiting"]) == ("never", 2, 0)
    assert run("slot", "set", "chat", "--wake", "always", "--max-waiting", "default").code == 0
    made = _shown(run)
    assert (made["wake"], made["max_in_flight"], made["max_waiting"]) == ("always", 2, None)
    assert "wake                   always\n" in run("slot", "show", "chat").out


@pytest.mark.parametrize(
    "args", [["--wake", "soon"], ["--max-in-flight", "many"], ["--max-waiting", "1.5"]]
)
def test_nonsense_is_usage(run: Run, db: Database, args: list[str]) -> None:
    make_slot(db)
    assert run("slot", "set", "chat", *args).code == 2


def _note_speed(db: Database, slot: Slot, tokens_per_s: float | None) -> None:
    row = {"slot_id": slot.id, "requests": 3, "first_byte_ms": 12.5, "at": utc_now()}
    with db.soft() as tx:
        tx.execute(insert(speeds), {**row, "tokens_per_s": tokens_per_s})


def test_the_speed_of_a_slot_is_shown(run: Run, db: Database) -> None:
    _note_speed(db, make_slot(db), 40.0)
    shown = run("slot", "show", "chat").out
    assert "speed:\n  requests: 3\n  first_byte_ms: 12.5\n  tokens_per_s: 40.0\n" in shown


def test_the_list_has_the_requests_in_flight_and_the_speed_of_each_slot(
    run: Run, db: Database
) -> None:
    make_model(db, "tiny")
    quick = make_slot(db, "chat", "tiny")
    _note_speed(db, quick, 40.04)
    _note_speed(db, make_slot(db, "embed"), None)
    make_slot(db, "spare")
    ask_load(db)
    run_load(db)
    serve(db, requests=7)
    head, *listed = (line.split() for line in run("slot", "list").out.splitlines())
    place = head.index("REQ")
    assert head[place : place + 2] == ["REQ", "TOK/S"]
    assert [(one[0], *one[place : place + 2]) for one in listed] == [
        ("chat", "7", "40.0"),
        ("embed", "-", "-"),
        ("spare", "-", "-"),
    ]
