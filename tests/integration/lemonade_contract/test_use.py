"""When lemond takes a model for used and for busy: `last_use`, `is_busy`, `is_streaming`."""

import time

import httpx
import pytest

from tests.fakes.lemond import Lemond
from tests.integration.lemonade_contract.facts import chat, health, load, talking, until


def now_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000


def test_last_use_is_the_start_of_a_request_on_the_monotonic_clock(lemond: Lemond) -> None:
    load(lemond, "ga")
    before = now_ms()
    with talking(lemond, "ga"):
        began = health(lemond)["ga"]["last_use"]
        assert type(began) is int
        assert before <= began <= now_ms()
    until(lambda: not health(lemond)["ga"]["is_busy"])
    assert health(lemond)["ga"]["last_use"] == began


def test_a_stream_makes_busy_at_once_and_streaming_with_its_first_word(lemond: Lemond) -> None:
    load(lemond, "ga")
    lemond.script(models={"ga": {"chat": "hang"}})
    with httpx.Client(base_url=lemond.url, timeout=60) as client:
        question = {"model": "ga", "messages": [], "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=question) as answer:
            assert answer.status_code == 200
            entry = health(lemond)["ga"]
            assert (entry["is_busy"], entry["is_streaming"]) == (True, False)
            assert (entry["status"], entry["backend_health"]) == ("in_use", "busy")
            lines = answer.iter_lines()
            assert next(lines) == ": ping"
            lemond.script(models={"ga": {"chat": "ok", "chat_tokens": 9_999}})
            lemond.script(models={"ga": {"chat_token_delay_s": 0.05}})
            until(lambda: health(lemond)["ga"]["is_streaming"])
            assert '"role": "assistant"' in next(line for line in lines if "data:" in line)
    until(lambda: not health(lemond)["ga"]["is_busy"])
    assert not health(lemond)["ga"]["is_streaming"]


@pytest.mark.parametrize("how", ["load", "chat", "embeddings", "slots"])
def test_what_counts_as_a_use(lemond: Lemond, how: str) -> None:
    load(lemond, "ga")
    before = health(lemond)["ga"]["last_use"]
    until(lambda: now_ms() > before)
    if how == "load":
        load(lemond, "ga")
    elif how == "chat":
        chat(lemond, "ga")
    elif how == "embeddings":
        asked = lemond.post("/v1/embeddings", {"model": "ga", "input": "x"})
        assert asked.status_code == 501
    else:
        lemond.get("/v1/slots")
    assert health(lemond)["ga"]["last_use"] > before


def test_what_counts_as_none(lemond: Lemond) -> None:
    load(lemond, "ga")
    before = health(lemond)["ga"]["last_use"]
    until(lambda: now_ms() > before)
    for path in ("/v1/health", "/v1/models", "/metrics", "/v1/stats"):
        lemond.get(path).raise_for_status()
    lemond.post("/internal/pin", {"model_name": "ga", "pinned": True}).raise_for_status()
    assert health(lemond)["ga"]["last_use"] == before


def test_a_chat_that_names_no_model_goes_to_the_most_recent(lemond: Lemond) -> None:
    for name in ("ga", "gb"):
        load(lemond, name)
    chat(lemond, "ga")
    body = {"messages": [], "max_tokens": 1}
    assert lemond.post("/v1/chat/completions", body).json()["model"] == "ga"
    assert lemond.get("/v1/health").json()["model_loaded"] == "ga"


def test_an_idle_model_is_unloaded_where_all_of_them_are(lemond: Lemond) -> None:
    load(lemond, "ga", evict_idle_timeout=1, downsize_idle_timeout=0, pinned=True)
    load(lemond, "gb", evict_idle_timeout=1, downsize_idle_timeout=0)
    load(lemond, "gc", auto_evict=False, evict_idle_timeout=1)
    lemond.post("/internal/set", {"auto_evict": True}).raise_for_status()
    until(lambda: "gb" not in health(lemond))
    assert sorted(health(lemond)) == ["ga", "gc"]


def test_a_downsized_model_serves_again(lemond: Lemond) -> None:
    load(lemond, "ga", auto_evict=True, evict_idle_timeout=3600, downsize_idle_timeout=1)
    until(lambda: health(lemond)["ga"]["status"] == "downsized")
    pid = health(lemond)["ga"]["pid"]
    assert chat(lemond, "ga").status_code == 200
    until(lambda: health(lemond)["ga"]["status"] == "downsized")
    assert health(lemond)["ga"]["pid"] == pid
