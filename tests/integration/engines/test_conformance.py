"""What hal0 counts on with every engine: one suite, unchanged, over each that there is here."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import httpx
import pytest

from hal0.engines.base import Engine, LoadedModel
from hal0.errors import EngineRefused, EngineUnauthorized, EngineUnreachable
from tests.integration.engines.rigs import REAL_URL, Rig, chat, headers, question

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

NOBODY = "http://127.0.0.1:1"


def nothing() -> None:
    """An `on_sent` that nobody waits for."""


async def until(is_so: Callable[[], Awaitable[bool]], limit_s: float = 30) -> None:
    async with asyncio.timeout(limit_s):
        while not await is_so():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def loaded(engine: Engine) -> dict[str, LoadedModel]:
    models = (await engine.health()).models
    assert models is not None
    return {model.name: model for model in models}


@pytest.mark.skipif(REAL_URL is not None, reason="it is there")
def test_a_real_lemond_is_tried_too() -> None:
    pytest.skip(
        "no HAL0_TEST_LEMONADE_URL (with HAL0_TEST_LEMONADE_MODELS, HAL0_TEST_LEMONADE_KEY)"
    )


async def test_it_is_live_and_says_which_process_it_is(rig: Rig, engine: Engine) -> None:
    assert await engine.is_live()
    first, second = await engine.health(), await engine.health()
    assert first.process == second.process
    assert first.process is not None or not rig.is_ours
    assert first.max_models is None


async def test_health_lists_what_is_loaded_by_its_file(rig: Rig, engine: Engine) -> None:
    assert await loaded(engine) == {}
    for count, name in enumerate(("ga", "gb"), 1):
        await engine.load(name, {}, nothing)
        health = await engine.health()
        assert len(health.models or ()) == count
        found = health.find(frozenset(), str(rig.models / f"{name}.gguf"))
        assert found is not None
        assert found.name == name
        assert await engine.answers(found)


async def test_a_name_is_resolved_to_the_file_that_would_be_opened(
    rig: Rig, engine: Engine
) -> None:
    known = await engine.resolve("ga")
    assert known is not None
    assert (known.name, known.downloaded, known.others) == ("ga", True, ())
    assert known.checkpoint == str(rig.models / "ga.gguf")
    assert await engine.resolve("nobody") is None


async def test_a_file_that_came_later_is_known(rig: Rig, engine: Engine) -> None:
    os.link(rig.models / "ga.gguf", rig.models / "later.gguf")

    async def is_known() -> bool:
        return await engine.resolve("later") is not None

    try:
        await until(is_known)
        await engine.load("later", {}, nothing)
        assert list(await loaded(engine)) == ["later"]
        await engine.unload("later", nothing)
    finally:
        (rig.models / "later.gguf").unlink()


async def test_a_load_that_is_there_already_is_harmless(engine: Engine) -> None:
    sent: list[int] = []
    for _ in range(2):
        await engine.load("ga", {}, lambda: sent.append(1))
        assert list(await loaded(engine)) == ["ga"]
    assert sent == [1, 1]


async def test_two_loads_of_one_model_at_once_both_end_well(engine: Engine) -> None:
    await asyncio.gather(*(engine.load("ga", {}, nothing) for _ in range(2)))
    assert list(await loaded(engine)) == ["ga"]


async def test_a_bad_file_is_refused(rig: Rig, engine: Engine) -> None:
    await engine.load("ga", {}, nothing)
    sent: list[int] = []
    with pytest.raises(EngineRefused) as caught:
        await engine.load("truncated", {}, lambda: sent.append(1))
    assert sent == [1]
    assert "truncated" in caught.value.detail
    assert list(await loaded(engine)) == (["ga"] if rig.keeps_others else [])


async def test_an_unknown_model_cannot_be_loaded(engine: Engine) -> None:
    with pytest.raises(EngineRefused) as caught:
        await engine.load("nobody", {}, nothing)
    assert caught.value.evidence["http_status"] == 404


async def test_an_unload_says_whether_there_was_anything(engine: Engine) -> None:
    for name in ("ga", "gb"):
        await engine.load(name, {}, nothing)
    assert await engine.unload("ga", nothing)
    assert list(await loaded(engine)) == ["gb"]
    assert not await engine.unload("ga", nothing)
    assert not await engine.unload("nobody", nothing)
    assert list(await loaded(engine)) == ["gb"]


@pytest.mark.parametrize("name", ["", " ", "a\nb"])
async def test_a_name_that_is_none_is_not_sent(rig: Rig, name: str) -> None:
    """To unload nothing in particular means to Lemonade to unload everything."""
    engine = rig.adapter(NOBODY, None)
    for call in (engine.load(name, {}, nothing), engine.unload(name, nothing)):
        with pytest.raises(ValueError, match="names no model"):
            await call
    with pytest.raises(ValueError, match="names no model"):
        await engine.resolve(name)
    await engine.close()


async def test_an_option_that_is_none_is_not_sent(rig: Rig) -> None:
    engine = rig.adapter(NOBODY, None)
    for options in ({"llamacpp_args": "--port 1"}, {"ctx_size": 1}, {"autoload": True}):
        with pytest.raises(ValueError, match=next(iter(options))):
            await engine.load("ga", options, nothing)
    await engine.close()


async def test_last_use_changes_with_each_use_and_with_nothing_else(
    rig: Rig, engine: Engine
) -> None:
    await engine.load("ga", {}, nothing)
    await engine.load("gb", {}, nothing)
    seen = [(await loaded(engine))["ga"].last_use for _ in range(2)]
    for _ in range(2):
        (await asyncio.to_thread(chat, rig, "ga")).raise_for_status()
        await until_idle(engine)
        seen.append((await loaded(engine))["ga"].last_use)
    (await asyncio.to_thread(chat, rig, "gb")).raise_for_status()
    seen.append((await loaded(engine))["ga"].last_use)
    assert None not in seen
    never, still_never, once, twice, still_twice = seen
    assert never == still_never
    assert len({never, once, twice}) == 3
    assert twice == still_twice


async def until_idle(engine: Engine) -> None:
    async def is_idle() -> bool:
        return (await loaded(engine))["ga"].busy is False

    await until(is_idle)


async def test_a_model_is_busy_while_it_streams_and_not_after(rig: Rig, engine: Engine) -> None:
    await engine.load("ga", {}, nothing)
    assert (await loaded(engine))["ga"].busy is False
    body = question("ga", 8000) | {"stream": True}
    async with (
        httpx.AsyncClient(base_url=rig.url, headers=headers(rig), timeout=30) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as stream,
    ):
        chunks = stream.aiter_bytes()  # dropped, it would end the stream
        await anext(chunks)
        assert (await loaded(engine))["ga"].busy is True
    await until_idle(engine)


async def test_a_model_whose_process_is_dead_does_not_answer(rig: Rig, engine: Engine) -> None:
    if not rig.is_ours:
        pytest.skip("this engine is not ours to hurt")
    await engine.load("ga", {}, nothing)
    model = (await loaded(engine))["ga"]
    assert await engine.answers(model)
    await asyncio.to_thread(rig.kill_backend, "ga", model.pid)

    async def is_known_dead() -> bool:
        return not await engine.answers(model)

    await until(is_known_dead)


async def test_a_wrong_key_is_unauthorized(rig: Rig) -> None:
    if rig.key is None:
        pytest.skip("this engine asks for no key")
    for key in ("wrong", None):
        engine = rig.adapter(rig.url, key)
        assert await engine.is_live()
        with pytest.raises(EngineUnauthorized):
            await engine.health()
        with pytest.raises(EngineUnauthorized):
            await engine.load("ga", {}, nothing)
        with pytest.raises(EngineUnauthorized):
            await engine.unload("ga", nothing)
        await engine.close()


async def test_nothing_is_sent_to_an_engine_that_is_gone_and_another_comes(
    rig: Rig, engine: Engine
) -> None:
    if not rig.is_ours:
        pytest.skip("this engine is not ours to hurt")
    before = (await engine.health()).process
    await asyncio.to_thread(rig.stop)
    sent: list[int] = []
    try:
        assert not await engine.is_live()
        for call in (
            engine.health(),
            engine.resolve("ga"),
            engine.load("ga", {}, lambda: sent.append(1)),
            engine.unload("ga", lambda: sent.append(1)),
        ):
            with pytest.raises(EngineUnreachable) as caught:
                await call
            assert caught.value.is_gone
    finally:
        await asyncio.to_thread(rig.start)
    assert sent == []
    after = (await engine.health()).process
    assert None not in (before, after)
    assert before != after
    assert await loaded(engine) == {}
