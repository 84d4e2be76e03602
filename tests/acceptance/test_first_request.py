"""Whoever comes first to an API that has just begun is served like anybody else."""

import socket

import httpx
import pytest

from tests.acceptance.house import House
from tests.fakes.lemond import Lemond

pytestmark = pytest.mark.slow


def test_the_first_request_after_a_start_is_served(house: House, lemond: Lemond) -> None:
    """It comes as soon as anything listens, so before any other."""
    api = house.start_api()
    house.add_model()
    house.add_slot()
    house.start_worker()
    house.load()
    house.wait_until("ready")
    for _ in range(3):
        house.stop(api)
        api = house.start("-m", "hal0", "api")
        house.wait_for(lambda: _listens(house))
        body = {"model": "chat", "messages": [], "max_tokens": 1}
        told = httpx.post(f"{house.url}/v1/chat/completions", json=body, timeout=30)
        assert told.status_code == 200, told.text


def _listens(house: House) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", house.port)) == 0
