"""An API or a worker that dies where requests enter and leave a slot: none serves for nobody then.

The armed process must really die there, by SIGKILL: a point that no code reaches fails its test.
"""

import signal
import subprocess
import threading
from typing import Any

import httpx
import pytest

from tests.acceptance.house import House
from tests.fakes.lemond import Lemond

pytestmark = pytest.mark.slow

SERVING = [
    *("serving.entered", "serving.counted", "serving.left"),
    *("wake.enqueued", "leases.cleared"),
]
TOKEN_S = 0.05


class Asked(threading.Thread):
    """A request for a stream of so many words, whose API may die; `heard` is what came of it."""

    def __init__(self, house: House, words: int = 1) -> None:
        super().__init__(daemon=True)
        self._url = f"{house.url}/v1/chat/completions"
        content = [{"role": "user", "content": "hello"}]
        self._body = {"model": "chat", "messages": content, "max_tokens": words, "stream": True}
        self.heard = b""
        self.start()

    def run(self) -> None:
        try:
            with httpx.stream("POST", self._url, json=self._body, timeout=60) as answer:
                for chunk in answer.iter_raw():
                    self.heard += chunk
        except httpx.TransportError:
            pass  # what was heard until then tells

    @property
    def is_whole(self) -> bool:
        """Whether it was answered to the end."""
        return self.heard.endswith(b"data: [DONE]\n\n")

    def ended(self) -> "Asked":
        """Wait for its end."""
        self.join(40)
        assert not self.is_alive()
        return self


def dies(process: "subprocess.Popen[bytes]") -> bool:
    return process.wait(40) == -signal.SIGKILL


def armed_api(house: House, lemond: Lemond, point: str) -> "subprocess.Popen[bytes]":
    """Have a slot ready whose model takes its time, and an API that dies at `point`."""
    lemond.script(models={"tiny": {"chat_token_delay_s": TOKEN_S, "chat_tokens": 1000}})
    first = house.start_api()
    house.add_model()
    house.add_slot()
    house.start_worker()
    house.load()
    house.wait_until("ready")
    house.stop(first)
    return house.start_api(f"{point}:kill")


def rows(house: House, query: str) -> list[Any]:
    return [value for (value,) in house.sql(query)]


def causes(house: House) -> list[Any]:
    """Why the slot changed since it was loaded."""
    found = rows(house, "SELECT cause FROM transitions ORDER BY id")
    return found[found.index("loaded") + 1 :]


def chats(lemond: Lemond) -> int:
    return len(lemond.calls("/v1/chat/completions"))


def serves_nobody(house: House) -> bool:
    is_serving = rows(house, "SELECT count(*) FROM slots WHERE state = 'serving'")
    return (is_serving, rows(house, "SELECT count(*) FROM leases")) == ([0], [0])


def test_killed_when_a_request_has_entered_nothing_was_forwarded_and_the_slot_is_ready_again(
    house: House, lemond: Lemond
) -> None:
    armed = armed_api(house, lemond, "serving.entered")
    asked = Asked(house)
    assert dies(armed)
    assert (asked.ended().heard, chats(lemond)) == (b"", 0)
    house.wait_for(lambda: serves_nobody(house))
    assert causes(house) == ["request_started", "leases_cleared"]
    house.start_api()
    assert Asked(house).ended().is_whole
    house.wait_for(lambda: serves_nobody(house))
    house.check_audit()


def test_killed_when_requests_are_counted_none_of_them_is_counted_any_more(
    house: House, lemond: Lemond
) -> None:
    armed = armed_api(house, lemond, "serving.counted")
    first = Asked(house, words=1000)
    house.wait_for(lambda: b"word" in first.heard)
    second = Asked(house, words=1000)
    assert dies(armed)
    assert not first.ended().is_whole
    assert not second.ended().is_whole
    house.wait_for(lambda: serves_nobody(house))
    house.start_api()
    assert house.slot()["in_flight"] == 0
    assert Asked(house).ended().is_whole
    house.wait_for(lambda: serves_nobody(house))
    house.check_audit()


def test_killed_when_the_last_request_has_left_what_waited_for_that_is_done(
    house: House, lemond: Lemond
) -> None:
    """The ring is lost with the process: workers look for themselves."""
    armed = armed_api(house, lemond, "serving.left")
    asked = Asked(house, words=40)
    house.wait_for(lambda: b"word" in asked.heard)
    house.post("/api/v1/slots/chat/unload", {"drain_timeout_s": 600})
    assert dies(armed)
    assert asked.ended().is_whole
    house.wait_for(lambda: rows(house, "SELECT state FROM slots") == ["offline"])
    assert serves_nobody(house)
    assert causes(house) == ["request_started", "requests_done", "operator_unload", "unloaded"]
    house.check_audit()


def test_killed_when_a_load_was_asked_for_on_account_of_a_request_it_is_loaded_once(
    house: House, lemond: Lemond
) -> None:
    """The ring is lost with the process, and so is who asked: the wish is not."""
    first = house.start_api()
    house.add_model()
    house.add_slot()
    house.start_worker()
    house.stop(first)
    armed = house.start_api("wake.enqueued:kill")
    asked = Asked(house)
    assert dies(armed)
    assert (asked.ended().heard, chats(lemond)) == (b"", 0)
    house.wait_for(lambda: rows(house, "SELECT state FROM slots") == ["ready"])
    house.start_api()
    assert Asked(house).ended().is_whole
    assert rows(house, "SELECT origin FROM chains") == ["wake"]
    assert len(lemond.calls("/v1/load")) == 1
    house.wait_for(lambda: serves_nobody(house))
    house.check_audit()


def test_a_worker_killed_when_it_cleared_leases_has_lost_nothing_of_what_waited_for_them(
    house: House, lemond: Lemond
) -> None:
    """One kill at each: the API with its requests, and the worker that noticed."""
    lemond.script(models={"tiny": {"chat_token_delay_s": TOKEN_S, "chat_tokens": 1000}})
    api = house.start_api()
    house.add_model()
    house.add_slot()
    armed = house.start_worker("leases.cleared:kill")
    house.load()
    house.wait_until("ready")
    asked = Asked(house, words=1000)
    house.wait_for(lambda: b"word" in asked.heard)
    house.post("/api/v1/slots/chat/unload", {"drain_timeout_s": 600})
    house.stop(api, signal.SIGKILL)
    assert dies(armed)
    assert not asked.ended().is_whole
    assert serves_nobody(house)
    house.start_worker()
    house.wait_for(lambda: rows(house, "SELECT state FROM slots") == ["offline"])
    assert causes(house) == ["request_started", "leases_cleared", "operator_unload", "unloaded"]
    house.check_audit()
