"""The event stream of a real API: it ends when the API is told to stop, frees who leaves, and is
taken up again in the next process, however far behind."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hal0.api.news import PAGE
from hal0.db import open_database
from hal0.jobs.boot import first_act
from hal0.settings import Settings
from tests.acceptance.house import House
from tests.bench.history import go_round
from tests.ledger import eventually
from tests.rows import make_slot

pytestmark = pytest.mark.slow
NOBODY = "http://127.0.0.1:9"
FAR = 30_000


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path, NOBODY) as house:
        db = open_database(Settings(home=house.home, engine_url=NOBODY))
        first_act(db, "test")
        make_slot(db, "chat")
        db.close()
        yield house


def events(house: House, last_event_id: str | None = None) -> Iterator[tuple[str, str | None, Any]]:
    """Yield name, id and data of the events of a stream, until it ends."""
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    with (
        httpx.Client(base_url=house.url, timeout=30) as client,
        client.stream("GET", "/api/v1/events", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        told: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line and name:
                told[name] = value
            elif not line:
                if "data" in told:
                    yield told["event"], told.get("id"), json.loads(told["data"])
                told = {}


def streams(house: House) -> int:
    """Return how many the API says listen."""
    text = house.client.get("/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("hal0_event_streams ")]
    return int(float(line.split()[1]))


def test_an_api_that_is_told_to_stop_ends_its_streams_and_is_gone_at_once(house: House) -> None:
    api = house.start_api()
    told: list[str] = []

    def listen() -> None:
        told.extend(name for name, *_ in events(house))

    listeners = [threading.Thread(target=listen) for _ in range(20)]
    for listener in listeners:
        listener.start()
    eventually(lambda: len(told) == len(listeners))
    began = time.monotonic()
    assert house.stop(api, signal.SIGTERM) == 0
    took_s = time.monotonic() - began
    for listener in listeners:
        listener.join()  # each saw an end, not a connection that broke
    assert told == ["snapshot"] * len(listeners)
    assert took_s < 4, "a stream was cut off after the five seconds of grace, not ended"


def test_who_leaves_is_forgotten(house: House) -> None:
    house.start_api()
    for _ in range(30):
        assert next(events(house))[0] == "snapshot"
    eventually(lambda: streams(house) == 0)


def test_a_stream_is_taken_up_again_in_the_next_process_however_far_behind(house: House) -> None:
    api = house.start_api()
    _, last_id, snapshot = next(events(house))
    house.stop(api, signal.SIGKILL)
    db = open_database(Settings(home=house.home, engine_url=NOBODY))
    go_round(db, ["chat"], FAR)
    db.close()
    house.unchecked = "its transitions are copies"
    house.start_api()
    rows = []
    for name, event_id, data in events(house, last_id):
        if name != "transition":
            break
        assert event_id == f"{snapshot['epoch']}-{data['id']}"
        rows.append(data["id"])
    assert (name, data["last_id"]) == ("snapshot", rows[-1])
    assert rows == list(range(snapshot["last_id"] + 1, rows[-1] + 1))
    assert len(rows) > FAR - PAGE
