"""An unload while requests run, with real processes: they end, are told, or hold nobody up."""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.house import House
from tests.acceptance.shared_house import clear, shared_house, unloads_of
from tests.fakes.lemond import Lemond

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("draining")]
TOKEN_S = 0.05
ERROR = b'data: {"error"'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Lemond]]:
    with shared_house(tmp_path_factory.mktemp("drain"), HAL0_SCAN_S="1") as (house, lemond):
        house.add_model()
        yield house, lemond


@pytest.fixture
def lemond(place: tuple[House, Lemond]) -> Lemond:
    return place[1]


@pytest.fixture
def house(place: tuple[House, Lemond]) -> Iterator[House]:
    """A house whose slot `chat` is ready; its model takes its time for each word."""
    house, lemond = place
    lemond.script(models={"tiny": {"chat_token_delay_s": TOKEN_S, "chat_tokens": 1000}})
    house.add_slot()
    house.load()
    house.wait_until("ready")
    yield house
    clear(house, lemond)


class Talk(threading.Thread):
    """A stream of so many words; `heard` is what came of it."""

    def __init__(self, house: House, words: int) -> None:
        super().__init__(daemon=True)
        self._url = f"{house.url}/v1/chat/completions"
        self._words = words
        self.heard = b""
        self.start()
        house.wait_for(lambda: b"word" in self.heard)

    def run(self) -> None:
        body = {**_said(self._words), "stream": True}
        try:
            with httpx.stream("POST", self._url, json=body, timeout=60) as answer:
                for chunk in answer.iter_raw():
                    self.heard += chunk
        except httpx.TransportError:
            pass  # what was heard until then tells

    def ended(self) -> bytes:
        """Wait for its end."""
        self.join(40)
        assert not self.is_alive()
        return self.heard


def _said(words: int) -> dict[str, Any]:
    content = [{"role": "user", "content": "hello"}]
    return {"model": "chat", "messages": content, "max_tokens": words}


def _unload(house: House, **body: Any) -> int:
    return int(house.post("/api/v1/slots/chat/unload", body)["jobs"][0])


def _refused(house: House) -> httpx.Response:
    """Ask until the API has seen that the slot drains: it looks four times a second."""
    answers: list[httpx.Response] = []

    def ask() -> bool:
        answers.append(httpx.post(f"{house.url}/v1/chat/completions", json=_said(1), timeout=30))
        return answers[-1].status_code != 200

    house.wait_for(ask)
    return answers[-1]


def test_requests_that_run_end_whole_and_new_ones_are_told_when_to_come_again(
    house: House, lemond: Lemond
) -> None:
    unloads = unloads_of(lemond, "tiny")
    talk = Talk(house, 150)
    unload = _unload(house, drain_timeout_s=30)
    refused = _refused(house)
    assert (refused.status_code, refused.json()["code"]) == (503, "slot.draining")
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    house.wait_for(lambda: house.sql("SELECT sum(in_flight) FROM leases") == [(1,)])
    told = house.get(f"/api/v1/jobs/{unload}")
    assert told["waiting_for"].startswith("1 running request of this slot to end, since ")
    assert (told["state"], told["attempt"], told["attempts"]) == ("queued", 0, [])
    assert (unloads_of(lemond, "tiny"), talk.is_alive()) == (unloads, True)
    assert talk.ended().endswith(b"data: [DONE]\n\n")
    house.wait_until("offline")
    assert [one["outcome"] for one in house.get(f"/api/v1/jobs/{unload}")["attempts"]] == ["done"]
    assert house.path_of()[-4:] == ["serving", "ready", "unloading", "offline"]


def test_a_request_that_does_not_end_in_time_keeps_its_model(house: House, lemond: Lemond) -> None:
    unloads = unloads_of(lemond, "tiny")
    talk = Talk(house, 80)
    unload = _unload(house, drain_timeout_s=0.5)
    house.wait_for(lambda: house.get(f"/api/v1/jobs/{unload}")["state"] == "failed")
    assert house.get(f"/api/v1/jobs/{unload}")["error"]["code"] == "slot.drain_timeout"
    again = httpx.post(f"{house.url}/v1/chat/completions", json=_said(1), timeout=30)
    assert again.status_code == 200
    assert talk.ended().endswith(b"data: [DONE]\n\n")
    house.wait_until("ready")
    assert unloads_of(lemond, "tiny") == unloads


def test_a_forced_unload_tells_the_streams_before_it_takes_their_model(house: House) -> None:
    talk = Talk(house, 1000)
    _unload(house, force=True)
    last = talk.ended().strip().rpartition(b"\n")[2]
    assert last.startswith(ERROR), last
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"]
    house.wait_until("offline")
    assert ("serving", "unloading", "forced") in house.edges()
    assert house.sql("SELECT count(*) FROM leases") == [(0,)]


def test_the_requests_of_an_api_that_died_hold_no_unload_up(tmp_path: Path) -> None:
    (tmp_path / "home" / "models").mkdir(parents=True)
    with (
        Lemond(tmp_path / "home" / "models", call_log=tmp_path / "calls.ndjson") as lemond,
        House(tmp_path, lemond.url) as house,
    ):
        lemond.script(models={"tiny": {"chat_token_delay_s": TOKEN_S, "chat_tokens": 1000}})
        api = house.start_api()
        house.start_worker()
        house.add_model()
        house.add_slot()
        house.load()
        house.wait_until("ready")
        talk = Talk(house, 1000)
        _unload(house, drain_timeout_s=600)
        house.stop(api, signal.SIGKILL)
        talk.ended()
        house.wait_for(lambda: house.sql("SELECT state FROM slots") == [("offline",)])
        causes = [cause for (cause,) in house.sql("SELECT cause FROM transitions ORDER BY id")]
        assert causes[-4:] == ["request_started", "leases_cleared", "operator_unload", "unloaded"]
