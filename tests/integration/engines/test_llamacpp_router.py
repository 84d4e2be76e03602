"""What llama.cpp's router alone does: loads that can be stopped, autoload, sleep, its own list."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from hal0.engines.base import LoadedModel
from hal0.engines.llamacpp import ASLEEP, LlamaCppEngine
from hal0.errors import EngineBadAnswer, EngineRefused
from tests.llama_server import LlamaServer, NoServer, find_server
from tests.tiny_gguf import write_tiny_gguf, write_tiny_shards

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(autouse=True)
def there_is_a_server() -> None:
    try:
        find_server()
    except NoServer as why:
        pytest.skip(str(why))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for seed, name in enumerate(("ga", "gb", "hangs")):
        write_tiny_gguf(folder / f"{name}.gguf", seed=seed)
    return folder


@asynccontextmanager
async def routing(models: Path, *args: str) -> AsyncIterator[tuple[LlamaCppEngine, LlamaServer]]:
    try:
        with LlamaServer(models, home=models.parent, args=args) as router:
            engine = LlamaCppEngine(router.url)
            yield engine, router
            await engine.close()
    except NoServer as why:
        pytest.skip(str(why))


def nothing() -> None:
    """An `on_sent` that nobody waits for."""


async def until(is_so: Callable[[], Awaitable[bool]], limit_s: float = 30) -> None:
    async with asyncio.timeout(limit_s):
        while not await is_so():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def names(engine: LlamaCppEngine) -> list[str]:
    models = (await engine.health()).models
    assert models is not None
    return sorted(model.name for model in models)


async def only(engine: LlamaCppEngine) -> LoadedModel:
    models = (await engine.health()).models
    assert models is not None
    return models[0]


def make_hang(models: Path) -> None:
    """Let a load of `hangs` wait for bytes that never come; the router has seen the file."""
    (models / "hangs.gguf").unlink()
    os.mkfifo(models / "hangs.gguf")


async def is_loading(router: LlamaServer, name: str) -> bool:
    async with httpx.AsyncClient(base_url=router.url) as client:
        listed = (await client.get("/models")).json()["data"]
    return any(one["id"] == name and one["status"]["value"] == "loading" for one in listed)


async def test_an_unload_stops_a_load_which_then_says_that_it_was_cancelled(models: Path) -> None:
    async with routing(models) as (engine, router):
        make_hang(models)
        await engine.load("ga", {}, nothing)
        sent: list[int] = []
        load = asyncio.create_task(engine.load("hangs", {}, lambda: sent.append(1)))
        await until(lambda: is_loading(router, "hangs"))
        assert await names(engine) == ["ga"]
        assert not load.done()
        assert await engine.unload("hangs", nothing)
        with pytest.raises(EngineRefused, match="cancelled by an unload") as caught:
            await load
        assert caught.value.evidence == {"cancelled": True}
        assert sent == [1]
        assert await names(engine) == ["ga"]
        assert not await engine.unload("hangs", nothing)


async def test_a_load_whose_process_was_killed_failed_and_was_not_cancelled(models: Path) -> None:
    async with routing(models) as (engine, router):
        make_hang(models)
        assert not await engine.unload("hangs", nothing)
        load = asyncio.create_task(engine.load("hangs", {}, nothing))
        await until(lambda: is_loading(router, "hangs"))
        router.child("hangs").kill()
        with pytest.raises(EngineRefused, match="could not load") as caught:
            await load
        assert "cancelled" not in caught.value.evidence


async def test_a_router_that_dies_in_a_load_leaves_it_unknown(models: Path) -> None:
    async with routing(models) as (engine, router):
        make_hang(models)
        load = asyncio.create_task(engine.load("hangs", {}, nothing))
        await until(lambda: is_loading(router, "hangs"))
        await asyncio.to_thread(router.kill)
        with pytest.raises(EngineBadAnswer, match="not known"):
            await load


async def test_a_router_that_loads_by_itself_is_never_made_to(models: Path) -> None:
    async with routing(models, "--models-autoload") as (engine, router):
        assert not await engine.answers(LoadedModel("ga"))
        assert await names(engine) == []
        async with httpx.AsyncClient(base_url=router.url, timeout=30) as client:
            assert (await client.get("/props", params={"model": "ga"})).status_code == 200
        assert await names(engine) == ["ga"]


async def test_a_router_that_does_not_count_says_when_it_is_busy_but_not_its_use(
    models: Path,
) -> None:
    async with routing(models) as (engine, router):
        command = [word for word in router.command if word != "--metrics"]
        router.stop()
        router.start(command)
        await engine.load("ga", {}, nothing)
        model = await only(engine)
        assert (model.last_use, model.busy) == (None, False)


async def test_a_model_that_sleeps_is_loaded_and_not_woken_by_looking(models: Path) -> None:
    async with routing(models, "--sleep-idle-seconds", "1") as (engine, _):
        await engine.load("ga", {}, nothing)

        async def is_asleep() -> bool:
            await asyncio.sleep(1.2)  # to be asked is to be used
            return (await only(engine)).last_use == ASLEEP

        await until(is_asleep)
        for _ in range(3):
            model = await only(engine)
            assert (model.last_use, model.busy) == (ASLEEP, False)
            assert await engine.answers(model)
        await engine.load("ga", {}, nothing)
        assert (await only(engine)).last_use == ASLEEP
        assert await engine.unload("ga", nothing)


async def test_a_limit_of_models_is_told(models: Path) -> None:
    async with routing(models, "--models-max", "2") as (engine, _):
        health = await engine.health()
        assert health.max_models == 2
        assert health.version is not None


async def test_a_model_of_several_files_is_its_first_shard(models: Path) -> None:
    shards = write_tiny_shards(models / "sharded", "tiny")
    async with routing(models) as (engine, _):
        resolved = await engine.resolve("sharded")
        assert resolved is not None
        assert (resolved.checkpoint, resolved.downloaded) == (str(shards[0]), True)
        await engine.load("sharded", {}, nothing)
        assert await names(engine) == ["sharded"]


async def test_a_folder_that_only_the_router_knows_is_told_with_what_to_do(models: Path) -> None:
    async with routing(models) as (engine, router):
        router.stop()
        router.start([*router.command, "--models-dir", "models"], cwd=models.parent)
        with pytest.raises(EngineBadAnswer, match="absolute --models-dir"):
            await engine.resolve("ga")
        await engine.load("ga", {}, nothing)
        model = await only(engine)
        assert model.checkpoint is None


async def test_a_server_of_one_model_is_no_router(models: Path) -> None:
    async with routing(models) as (engine, router):
        router.stop()
        at = ["--host", "127.0.0.1", "--port", str(router.port)]
        router.start([str(find_server()), *at, "--model", str(models / "ga.gguf")])
        with pytest.raises(EngineBadAnswer, match="is no router"):
            await engine.health()
