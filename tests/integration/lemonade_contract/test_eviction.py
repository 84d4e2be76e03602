"""Which models lemond drops, and when: LRU of a pool, evict-all, what is busy, pinned or killed."""

from pathlib import Path

import pytest

from tests.fakes.lemond import Lemond
from tests.integration.lemonade_contract.facts import (
    aside,
    chat,
    health,
    load,
    talking,
    unload,
    until,
)
from tests.tiny_gguf import write_tiny_gguf


def test_the_vendors_lemond_has_room_for_one_model_of_each_type(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name in ("ga", "gb", "nomic-embed"):
        write_tiny_gguf(models / f"{name}.gguf")
    with Lemond(models, max_loaded_models=1) as lemond:
        assert load(lemond, "nomic-embed").status_code == 200
        assert load(lemond, "ga", pinned=False).status_code == 200
        assert list(health(lemond)) == ["nomic-embed", "ga"]
        assert load(lemond, "gb").status_code == 200
        assert list(health(lemond)) == ["nomic-embed", "gb"]
        assert health(lemond)["nomic-embed"]["slot_pool"] == "standard/embedding"
        vectors = lemond.post("/v1/embeddings", {"model": "nomic-embed", "input": "x"})
        assert vectors.json()["data"][0]["object"] == "embedding"
        limits = lemond.get("/v1/health").json()["max_models"]
        assert set(limits.values()) == {1}


def test_a_load_that_fails_has_already_cost_the_least_recently_used(lemond: Lemond) -> None:
    lemond.script(max_loaded_models=2, models={"gc": {"load_fail": "x.so: not found"}})
    for name in ("ga", "gb"):
        load(lemond, name)
    chat(lemond, "ga")
    assert load(lemond, "gc").status_code == 500
    assert list(health(lemond)) == ["ga"]


def test_what_is_pinned_is_no_victim_of_its_pool(lemond: Lemond) -> None:
    lemond.script(max_loaded_models=2)
    load(lemond, "ga", pinned=True)
    load(lemond, "gb")
    load(lemond, "gc")
    assert list(health(lemond)) == ["ga", "gc"]


def test_a_failed_load_empties_all_pools_and_is_tried_once_more(lemond: Lemond) -> None:
    lemond.script(models={"ga": {"type": "embedding"}, "gc": {"load_fail": "out of memory"}})
    load(lemond, "ga", pinned=True)
    load(lemond, "gb")
    before = len(lemond.calls(phase="opened"))
    assert load(lemond, "gc").status_code == 500
    assert health(lemond) == {}
    opened = [line["model"] for line in lemond.calls(phase="opened")[before:]]
    assert opened == ["gc", "gc"]


def test_the_second_try_may_work(lemond: Lemond) -> None:
    lemond.script(models={"gc": {"load_fail": "out of memory", "retry_works": True}})
    load(lemond, "ga")
    assert load(lemond, "gc").status_code == 200
    assert list(health(lemond)) == ["gc"]


def test_a_backend_that_hangs_is_given_up_twice(lemond: Lemond) -> None:
    lemond.script(global_timeout_s=0.1, models={"gc": {"load": "hang"}})
    load(lemond, "ga")
    before = len(lemond.calls(phase="opened"))
    answer = load(lemond, "gc")
    assert "llama-server failed to start" in answer.json()["error"]["message"]
    assert len(lemond.calls(phase="opened")) == before + 2
    assert health(lemond) == {}


def test_an_argument_that_llama_server_does_not_know_evicts_everything(lemond: Lemond) -> None:
    load(lemond, "ga")
    assert load(lemond, "gb", llamacpp_args="--no-such-flag").status_code == 500
    assert health(lemond) == {}


def test_an_unload_of_everything_leaves_what_stays_busy(lemond: Lemond) -> None:
    load(lemond, "ga")
    load(lemond, "gb")
    with talking(lemond, "ga"):
        lemond.script(evict_grace_s=0.1)
        assert lemond.post("/v1/unload", {}).status_code == 200
        assert list(health(lemond)) == ["ga"]


def test_while_an_unload_waits_all_wait_that_look_at_models(lemond: Lemond) -> None:
    load(lemond, "ga")
    load(lemond, "gb")
    with aside() as start:
        with talking(lemond, "ga") as stream:
            waiting = [start(unload, lemond, "ga")]
            until(lambda: lemond.state()["evicting"] == "ga")
            waiting += [start(lemond.get, path, 60) for path in ("/v1/health", "/metrics")]
            waiting += [start(load, lemond, "gb"), start(chat, lemond, "gb")]
            waiting += [start(unload, lemond, "gb")]
            for path in ("/live", "/v1/models", "/v1/models/ga", "/v1/downloads"):
                assert lemond.get(path).status_code == 200
            assert [call.done() for call in (stream, *waiting)] == [False] * 7
        assert [call.result().status_code for call in (stream, *waiting)] == [200] * 7


def test_a_chat_that_waited_for_an_unload_loads_the_model_again(lemond: Lemond) -> None:
    load(lemond, "ga")
    with aside() as start:
        with talking(lemond, "ga"):
            gone = start(unload, lemond, "ga")
            until(lambda: lemond.state()["evicting"] == "ga")
            late = start(chat, lemond, "ga")
            assert lemond.get("/live").status_code == 200
        assert (gone.result().status_code, late.result().status_code) == (200, 200)
    assert list(health(lemond)) == ["ga"]


def test_a_chat_whose_backend_is_killed_is_asked_again(lemond: Lemond) -> None:
    load(lemond, "ga", ctx_size=2048)
    pid = health(lemond)["ga"]["pid"]
    lemond.script(models={"ga": {"chat": "hang"}})
    with aside() as start:
        answer = start(chat, lemond, "ga")
        until(lambda: lemond.state()["busy"] == ["ga"])
        lemond.drop("ga")
        lemond.script(models={"ga": {"chat": "ok"}})
        assert answer.result().status_code == 200
    entry = health(lemond)["ga"]
    assert entry["pid"] != pid
    assert entry["recipe_options"]["ctx_size"] == 2048


@pytest.mark.parametrize(("given", "ctx_size"), [({}, 512), ({"ctx_size": None}, 1024)])
def test_an_omitted_option_is_the_saved_one_and_null_is_not(
    lemond: Lemond, given: dict[str, None], ctx_size: int
) -> None:
    load(lemond, "ga", ctx_size=512, save_options=True)
    pid = health(lemond)["ga"]["pid"]
    assert load(lemond, "ga", **given).status_code == 200
    entry = health(lemond)["ga"]
    assert entry["recipe_options"]["ctx_size"] == ctx_size
    assert (entry["pid"] == pid) is (ctx_size == 512)
