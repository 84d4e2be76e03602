"""A request for a slot that holds nothing, with real APIs and a worker: A14, A15, and waking."""

import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.house import House, free_port
from tests.acceptance.shared_house import clear, loads_of, shared_house
from tests.fakes.lemond import Lemond

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wake_on_request")]
SAID = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Lemond, str]]:
    """A house with two APIs; the address of the second."""
    folder = tmp_path_factory.mktemp("wake")
    with shared_house(folder, HAL0_WAKE_TIMEOUT_S="20", HAL0_SCAN_S="0.5") as (house, lemond):
        port = free_port()
        was, house.env["HAL0_BIND"] = house.env["HAL0_BIND"], f"127.0.0.1:{port}"
        house.start("-m", "hal0", "api")
        house.env["HAL0_BIND"] = was
        second = f"http://127.0.0.1:{port}"
        house.wait_for(lambda: _is_up(second))
        house.add_model()
        yield house, lemond, second


@pytest.fixture
def house(place: tuple[House, Lemond, str]) -> Iterator[House]:
    yield place[0]
    clear(place[0], place[1])


@pytest.fixture
def lemond(place: tuple[House, Lemond, str]) -> Lemond:
    return place[1]


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez").status_code == 200
    except httpx.TransportError:
        return False


def _ask(url: str, name: str = "chat") -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json={"model": name, **SAID}, timeout=60)


def _chats(lemond: Lemond) -> int:
    return len(lemond.calls("/v1/chat/completions"))


def test_many_requests_at_two_apis_load_the_model_once_and_are_all_answered(
    house: House, lemond: Lemond, place: tuple[House, Lemond, str]
) -> None:
    house.add_slot()
    lemond.script(models={"tiny": {"load_delay_s": 1.0}})
    before = loads_of(lemond, "tiny")
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        urls = [house.url, place[2]] * 30
        answers = list(pool.map(_ask, urls))
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    assert loads_of(lemond, "tiny") == before + 1
    assert house.path_of()[1:5] == ["starting", "warming", "ready", "serving"]
    of_slot = "slot_id = (SELECT max(id) FROM slots)"  # the house had others before
    wakes = house.sql(f"SELECT count(*) FROM chains WHERE origin = 'wake' AND {of_slot}")
    assert wakes == [(1,)]
    assert house.slot()["desired"] == "loaded"
    house.wait_for(lambda: house.slot()["speed"])
    speed = house.slot()["speed"]
    assert 0 < speed["requests"] <= 16
    assert speed["first_byte_ms"] >= 0
    assert speed["tokens_per_s"] > 0


def test_what_an_operator_unloaded_is_not_forwarded_and_not_loaded(
    house: House, lemond: Lemond
) -> None:
    house.add_slot()
    assert _ask(house.url).status_code == 200
    house.post("/api/v1/slots/chat/unload")
    house.wait_until("offline")
    chats, loads = _chats(lemond), loads_of(lemond, "tiny")
    refused = _ask(house.url)
    assert (refused.status_code, refused.json()["code"]) == (503, "slot.unloaded")
    assert refused.json()["error"]["code"] == "slot.unloaded"
    assert "retry-after" not in refused.headers
    house.client.patch("/api/v1/slots/chat", json={"wake": "always"}).raise_for_status()
    assert _ask(house.url).status_code == 200
    assert (_chats(lemond), loads_of(lemond, "tiny")) == (chats + 1, loads + 1)


def test_what_a_machine_unloaded_is_loaded_by_the_next_request(
    house: House, lemond: Lemond
) -> None:
    house.add_slot("nap", idle_after_s=0.2, unload_after_s=0.5)
    for _ in range(3):
        assert _ask(house.url, "nap").status_code == 200
        house.wait_until("offline", "nap")
    assert house.slot("nap")["cause"] == "unloaded"
    causes = [cause for _, _, cause in house.edges("nap")]
    assert (causes.count("loaded"), causes.count("idle_unload")) == (3, 3)
    of_slot = "slot_id = (SELECT max(id) FROM slots)"
    assert house.sql(f"SELECT count(*) FROM breakers WHERE sent > 1 AND {of_slot}") == [(0,)]
    house.post("/api/v1/slots/nap/unload")  # it is so already, and from now on by this wish
    refused = _ask(house.url, "nap")
    assert (refused.status_code, refused.json()["code"]) == (503, "slot.unloaded")
    assert house.slot("nap")["desired_by"] == "operator"


def test_a_slot_whose_load_fails_tells_all_who_wait_and_is_not_asked_again(
    house: House, lemond: Lemond
) -> None:
    house.add_slot()
    lemond.script(
        models={"tiny": {"load_fail": "llama-server failed to start", "load_delay_s": 0.5}}
    )
    before = loads_of(lemond, "tiny")
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(_ask, [house.url] * 10))
    codes = {(answer.status_code, answer.json()["code"]) for answer in answers}
    assert codes == {(502, "slot.load_failed")}
    assert all("retry-after" not in answer.headers for answer in answers)
    failed = house.slot()["error"]
    assert {answer.json()["job_id"] for answer in answers} == {failed["job_id"]}
    assert _ask(house.url).json()["evidence"]["code"] == failed["code"]
    assert loads_of(lemond, "tiny") == before + 1


def test_a_request_that_goes_away_while_it_waits_leaves_nothing_behind(
    house: House, lemond: Lemond
) -> None:
    house.add_slot()
    chats = _chats(lemond)
    lemond.script(models={"tiny": {"load_delay_s": 1.5}})
    body = {"model": "chat", **SAID}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{house.url}/v1/chat/completions", json=body, timeout=0.7)
    house.wait_until("ready")
    assert _chats(lemond) == chats
    assert house.slot()["in_flight"] == 0


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[tuple[House, Lemond]]:
    with shared_house(tmp_path, HAL0_WAKE_TIMEOUT_S="0.5") as (house, lemond):
        house.add_model()
        yield house, lemond


def test_a_load_that_takes_longer_than_a_request_waits_says_when_to_come_again(
    hasty: tuple[House, Lemond],
) -> None:
    house, lemond = hasty
    house.add_slot(load_timeout_s=30)
    lemond.script(models={"tiny": {"load_delay_s": 4.0}})
    began = time.monotonic()
    refused = _ask(house.url)
    assert time.monotonic() - began < 4
    assert (refused.status_code, refused.json()["code"]) == (503, "slot.loading")
    house.wait_until("warming")
    refused = _ask(house.url)
    assert 20 <= int(refused.headers["retry-after"]) <= 30
    house.wait_until("ready")
    assert _ask(house.url).status_code == 200
