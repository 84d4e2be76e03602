"""A request whose answer was lost, sent again with its `Idempotency-Key` to a real API."""

import signal
import threading

import httpx
import pytest

from tests.acceptance.house import House

pytestmark = pytest.mark.slow
KEY = {"Idempotency-Key": "load-of-this-morning"}


def chains(house: House) -> int:
    return int(house.sql("SELECT count(*) FROM chains")[0][0])


def test_an_order_whose_api_died_before_it_answered_is_heard_of_and_not_done_again(
    house: House,
) -> None:
    api = house.start_api()
    house.add_model()
    house.add_slot()
    house.stop(api)
    api = house.start_api(point="api.enqueued:kill")
    with pytest.raises(httpx.TransportError):
        house.client.post("/api/v1/slots/chat/load", headers=KEY)
    assert api.wait(30) == -signal.SIGKILL
    assert chains(house) == 1
    house.start_api()
    house.post("/api/v1/slots/chat/unload")  # a load after it would be a third chain
    assert chains(house) == 2
    again = house.client.post("/api/v1/slots/chat/load", headers=KEY)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.json() == {
        "already": False,
        "chain_id": 1,
        "jobs": [1, 2, 3, 4],
        "deduplicated": False,
    }
    assert chains(house) == 2
    assert house.slot()["desired"] == "unloaded"


def test_of_two_requests_at_once_with_one_key_one_makes_a_chain(house: House) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    answers: list[httpx.Response] = []
    together = threading.Barrier(2)

    def load() -> None:
        with httpx.Client(base_url=house.client.base_url, timeout=30) as client:
            together.wait(20)
            answers.append(client.post("/api/v1/slots/chat/load", headers=KEY))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert chains(house) == 1
    assert [(answer.status_code, answer.json()["deduplicated"]) for answer in answers] == [
        (202, False)
    ] * 2
    replayed = sorted(answer.headers.get("idempotent-replayed", "") for answer in answers)
    assert replayed == ["", "true"]
    house.start_worker()
    waited = house.client.post("/api/v1/slots/chat/load", headers={**KEY, "Prefer": "wait=30"})
    assert (waited.status_code, waited.json()["state"]) == (200, "succeeded")
    assert chains(house) == 1
