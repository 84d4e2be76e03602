"""The adapter against a server that behaves, and misbehaves, as lemond does."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hal0.engines.lemonade import LemonadeEngine
from hal0.engines.process import process_name
from hal0.errors import EngineBadAnswer, EngineRefused, EngineUnreachable
from tests.engine_process import EngineProcess
from tests.fakes.lemond import Lemond
from tests.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for seed, name in enumerate(("ga", "gb", "gc")):
        write_tiny_gguf(folder / f"{name}.gguf", seed=seed)
    write_tiny_gguf(folder / "truncated.gguf", broken="truncate")
    return folder


@pytest.fixture
def lemond(models: Path, tmp_path: Path) -> Iterator[Lemond]:
    with Lemond(models, call_log=tmp_path / "calls.ndjson") as running:
        yield running


def nothing() -> None:
    """An `on_sent` that nobody waits for."""


async def until(is_so: Callable[[], Any], limit_s: float = 10) -> None:
    async with asyncio.timeout(limit_s):
        while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def names(engine: LemonadeEngine) -> list[str]:
    models = (await engine.health()).models
    assert models is not None
    return sorted(model.name for model in models)


async def test_load_health_answers_unload(lemond: Lemond, models: Path) -> None:
    engine = LemonadeEngine(lemond.url)
    resolved = await engine.resolve("extra.ga")
    assert resolved is not None
    await engine.load(resolved.name, {"ctx_size": 512}, nothing)
    health = await engine.health()
    assert health.process == process_name(lemond.pid)
    found = health.find(frozenset({"nothing"}), str(models / "ga.gguf"))
    assert found is not None
    assert found.options["ctx_size"] == 512
    assert await engine.answers(found)
    lemond.script(models={"ga": {"backend": "refuse"}})
    assert not await engine.answers(found)
    assert await engine.unload("ga", nothing)
    assert not await engine.unload("ga", nothing)
    await engine.close()


@pytest.mark.slow
async def test_the_embedded_engine_is_spoken_to_alike(models: Path, tmp_path: Path) -> None:
    with EngineProcess(models, home=tmp_path, key="k1") as process:
        engine = LemonadeEngine(process.url, "k1")
        await engine.load("ga", {"llamacpp_args": "--threads 1"}, nothing)
        health = await engine.health()
        assert health.process == process_name(process.pid)
        assert health.models is not None
        assert (health.models[0].name, health.models[0].busy) == ("ga", False)
        assert await engine.answers(health.models[0])
        os.kill(health.models[0].pid or 0, signal.SIGKILL)
        assert not await engine.answers(health.models[0])
        with pytest.raises(EngineRefused, match="not within the file bounds"):
            await engine.load("truncated", {}, nothing)
        await engine.close()


async def test_what_its_own_app_saved_for_a_model_does_not_rule_a_load(lemond: Lemond) -> None:
    """`gb`, loaded last and past the adapter, shows when the server has unloaded what it may."""
    lemond.script(auto_evict_tick_s=0.02, auto_evict_second_s=0.2)
    saved = {"auto_evict": True, "evict_idle_timeout": 2, "downsize_idle_timeout": 1}
    for name in ("ga", "gb"):
        lemond.post(f"/v1/models/{name}/options", saved).raise_for_status()
    engine = LemonadeEngine(lemond.url)
    await engine.load("ga", {}, nothing)
    lemond.post("/v1/load", {"model_name": "gb"}).raise_for_status()
    await until(lambda: "gb" not in lemond.state()["loaded"])
    assert await names(engine) == ["ga"]
    await engine.close()


async def test_a_load_goes_on_after_its_caller_left(lemond: Lemond) -> None:
    engine = LemonadeEngine(lemond.url)
    lemond.script(models={"gb": {"load": "hang"}})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await engine.load("gb", {}, nothing)
    assert lemond.state()["loading"] == "gb"
    assert not await engine.unload("gb", nothing)
    lemond.script(models={"gb": {"load": "ok"}})
    await until(lambda: lemond.state()["loaded"] == ["gb"])
    assert await names(engine) == ["gb"]
    assert len(lemond.calls("/v1/load")) == 1
    await engine.close()


async def test_a_load_waits_for_the_one_before_it(lemond: Lemond) -> None:
    engine = LemonadeEngine(lemond.url)
    lemond.script(models={"ga": {"load": "hang"}})
    first = asyncio.create_task(engine.load("ga", {}, nothing))
    await until(lambda: lemond.state()["loading"] == "ga")
    second = asyncio.create_task(engine.load("gb", {}, nothing))
    await until(lambda: lemond.state()["waiting"] == 1)
    assert await names(engine) == []
    lemond.script(models={"ga": None})
    await asyncio.gather(first, second)
    assert await names(engine) == ["ga", "gb"]
    await engine.close()


@pytest.mark.parametrize(
    ("message", "left"), [("CUDA out of memory", []), ("x.gguf: No such file", ["ga"])]
)
async def test_a_failed_load_evicts_by_its_message(
    lemond: Lemond, message: str, left: list[str]
) -> None:
    engine = LemonadeEngine(lemond.url)
    lemond.script(models={"gb": {"load_fail": message}})
    await engine.load("ga", {}, nothing)
    with pytest.raises(EngineRefused, match=message) as caught:
        await engine.load("gb", {}, nothing)
    assert caught.value.evidence["engine_code"] == "model_load_error"
    assert await names(engine) == left
    await engine.close()


async def test_a_failed_load_evicts_when_the_script_says_so(lemond: Lemond) -> None:
    engine = LemonadeEngine(lemond.url)
    await engine.load("ga", {}, nothing)
    lemond.script(models={"gb": {"load_fail": "boom", "load_evicts": False, "load_times": 1}})
    with pytest.raises(EngineRefused, match="boom"):
        await engine.load("gb", {}, nothing)
    await engine.load("gb", {}, nothing)
    assert await names(engine) == ["ga", "gb"]
    await engine.close()


async def test_the_least_recently_used_makes_room(lemond: Lemond) -> None:
    engine = LemonadeEngine(lemond.url)
    lemond.script(max_loaded_models=2)
    for name in ("ga", "gb"):
        await engine.load(name, {}, nothing)
    await engine.load("ga", {}, nothing)
    await engine.load("gc", {}, nothing)
    assert await names(engine) == ["ga", "gc"]
    assert (await engine.health()).max_models == 2
    await engine.close()


async def test_a_server_that_dies_in_a_load_is_another_process_afterwards(lemond: Lemond) -> None:
    engine = LemonadeEngine(lemond.url)
    before = (await engine.health()).process
    lemond.script(models={"ga": {"load": "die"}})
    sent: list[int] = []
    with pytest.raises(EngineBadAnswer):
        await engine.load("ga", {}, lambda: sent.append(1))
    assert sent == [1]
    lemond.kill()  # has died already: waits for it to be gone
    with pytest.raises(EngineUnreachable):
        await engine.health()
    lemond.start()
    after = (await engine.health()).process
    assert None not in (before, after)
    assert before != after
    await engine.close()


async def test_what_health_may_leave_out(lemond: Lemond) -> None:
    engine = LemonadeEngine(lemond.url)
    await engine.load("ga", {}, nothing)
    lemond.script(models={"ga": {"entry": {"is_busy": None}, "entry_without": ["last_use"]}})
    models = (await engine.health()).models
    assert models is not None
    assert (models[0].busy, models[0].last_use) == (None, None)
    lemond.script(models={"ga": {"in_health": False}})
    assert await names(engine) == []
    lemond.script(health="no_list")
    assert (await engine.health()).models is None
    lemond.script(health="refuse")
    with pytest.raises(EngineRefused, match="503"):
        await engine.health()
    assert await engine.is_live()
    await engine.close()


async def test_a_stream_makes_its_model_busy_and_its_unload_wait(lemond: Lemond) -> None:
    engine = LemonadeEngine(lemond.url)
    lemond.script(models={"ga": {"chat": "hang"}})
    async with httpx.AsyncClient(base_url=lemond.url) as client:
        chat = asyncio.create_task(
            client.post("/v1/chat/completions", json={"model": "ga", "messages": []})
        )
        await until(lambda: lemond.state()["loaded"] == ["ga"])
        models = (await engine.health()).models
        assert models is not None
        assert models[0].busy is True
        unload = asyncio.create_task(engine.unload("ga", nothing))
        await until(lambda: lemond.calls("/v1/unload"))
        assert not unload.done()
        lemond.script(models={"ga": None})
        assert await unload
        assert (await chat).status_code == 200
    await engine.close()


@pytest.mark.parametrize("act", ["refuse", "dribble"])
async def test_a_scripted_load_fails_as_told(lemond: Lemond, act: str) -> None:
    engine = LemonadeEngine(lemond.url)
    lemond.script(models={"ga": {"load": act}})
    with pytest.raises(EngineRefused if act == "refuse" else TimeoutError):
        async with asyncio.timeout(1):
            await engine.load("ga", {}, nothing)
    await engine.close()
