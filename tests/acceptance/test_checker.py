"""The checker of the campaigns accepts a true history and rejects each false one, by its point."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.house import House
from tests.chaos import false_rows
from tests.chaos.checker import check
from tests.chaos.client import LoggingClient
from tests.chaos.doctored import DOCTORS
from tests.chaos.evidence import Evidence
from tests.chaos.false_copy import Copy
from tests.chaos.sampler import Sampler
from tests.fakes.lemond import Lemond

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("checker")]

CASES = [(point, doctor) for point, doctors in DOCTORS.items() for doctor in doctors]


@pytest.fixture(scope="module")
def true(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """A history that real processes made: loads, a request, a refusal, deaths, a restoring."""
    folder = tmp_path_factory.mktemp("true")
    answers, calls = folder / "answers.ndjson", folder / "calls.ndjson"
    (folder / "home" / "models").mkdir(parents=True)
    with (
        Lemond(folder / "home" / "models", call_log=calls) as lemond,
        House(folder, lemond.url, HAL0_SCAN_S="0.5") as house,
    ):
        house.start_api()
        client = LoggingClient("client", lambda: house.url, answers)
        live(house, lemond, client)
        client.close()
        house.sql("PRAGMA wal_checkpoint(TRUNCATE)")
        yield Evidence(house.home / "hal0.db", answers, calls)


def live(house: House, lemond: Lemond, client: LoggingClient) -> None:
    for seed, name in enumerate(("chat", "code", "idle")):
        house.add_model(name, seed=seed)
        house.add_slot(name, name)
    armed = house.start_worker("load.sent:kill")
    client.ask("POST", "/api/v1/slots/chat/load", {})
    armed.wait(40)
    house.start_worker()
    house.wait_until("ready", "chat")
    client.ask("POST", "/v1/chat/completions", {"model": "chat", "messages": [], "max_tokens": 1})
    source = house.sources / "code.gguf"
    good = source.read_bytes()
    source.write_bytes(good[:-1] + bytes([good[-1] ^ 0xFF]))
    told = client.ask("POST", "/api/v1/slots/code/load", {})
    house.wait_until("error", "code")
    source.write_bytes(good)
    client.ask("POST", f"/api/v1/jobs/{told.body['jobs'][1]}/retry", {})
    house.wait_until("ready", "code")
    client.ask("POST", "/api/v1/slots/chat/load", {"options": {"ctx_size": 1024}})
    house.wait_settled()
    client.ask("POST", "/api/v1/slots/code/unload", {})
    house.wait_settled()
    lemond.kill()
    lemond.start()
    house.wait_until("idle", "chat")
    house.wait_settled()
    for path in ("slots/chat", "slots", "models", "jobs?limit=200", "transitions?limit=200"):
        assert client.ask("GET", f"/api/v1/{path}").is_success


def test_a_true_history_is_accepted(true: Evidence) -> None:
    assert check(true) == []
    assert len(true.loads()) == 4
    assert all(len(call.opened) == 1 for call in true.loads())
    assert true.rows("SELECT id FROM transitions WHERE to_state = 'serving'")


@pytest.mark.parametrize(
    ("point", "doctor"), CASES, ids=[f"{point}-{doctor.__name__}" for point, doctor in CASES]
)
def test_a_false_history_is_rejected(
    true: Evidence, tmp_path: Path, point: int, doctor: Callable[[Copy], None]
) -> None:
    copy = Copy(true, tmp_path)
    assert check(copy.evidence) == []
    doctor(copy)
    assert point in {violation.point for violation in check(copy.evidence)}


@pytest.mark.parametrize(
    "doctor",
    [
        false_rows.a_slot_serves_for_nobody,
        false_rows.a_slot_serves_for_a_dead_process,
        false_rows.a_slot_serves_by_the_lease_on_another_load,
        false_rows.a_request_runs_on_a_slot_that_does_not_serve,
    ],
)
def test_what_is_untrue_for_a_moment_is_seen_while_a_campaign_runs(
    true: Evidence, tmp_path: Path, doctor: Callable[[Copy], None]
) -> None:
    copy = Copy(true, tmp_path)
    sampler = Sampler(copy.evidence.database, nobody_s=0.0)
    with closing(sqlite3.connect(copy.evidence.database)) as connection:
        sampler.look(connection)
        assert sampler.seen == []
        doctor(copy)
        for _ in range(2):
            sampler.look(connection)
    assert {violation.point for violation in sampler.seen} >= {7}


def test_every_point_is_doctored() -> None:
    assert sorted(DOCTORS) == list(range(1, 11))
