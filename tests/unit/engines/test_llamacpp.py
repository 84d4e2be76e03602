"""What the router's answers mean, and what is said to it, without a router."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.engines.base import EngineModel, LoadedModel
from hal0.engines.llamacpp import LlamaCppEngine
from hal0.engines.llamacpp_answers import (
    counters_of,
    is_busy_by,
    is_busy_by_slots,
    last_use_of,
    limits_of,
    listed_of,
)
from hal0.errors import EngineBadAnswer, EngineRefused, EngineUnauthorized
from tests.llama_server import AS_IN_README

pytestmark = pytest.mark.anyio

METRICS = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 25
llamacpp:prompt_tokens_cached_total 24
llamacpp:tokens_predicted_total 2
llamacpp:tokens_predicted_seconds_total 2e-06
llamacpp:n_decode_total 3
llamacpp:requests_processing 0
llamacpp:requests_deferred 0
"""


def entry(name: str, value: object = "unloaded", *args: str, **more: object) -> dict[str, Any]:
    """One model of the list, as the router gives it."""
    command = ["/opt/llama-server", "--port", "4711", "--alias", name, *args]
    return {"id": name, "aliases": [], "status": {"value": value, "args": command} | more}


def ga(value: str = "unloaded", *args: str, **more: object) -> dict[str, Any]:
    return entry("ga", value, "--model", "/m/ga.gguf", *args, **more)


class Router:
    """Answers with what it is told to; each list is given once, the last one for ever."""

    def __init__(self, *lists: object) -> None:
        self.lists = list(lists)
        self.answers: dict[str, httpx.Response] = {}
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url.path in self.answers:
            return self.answers[request.url.path]
        if request.url.path == "/models":
            listed = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
            if isinstance(listed, httpx.Response):
                return listed
            return httpx.Response(200, json={"data": listed})
        if request.url.path == "/props":
            return httpx.Response(200, json={"role": "router", "max_instances": 0})
        if request.url.path == "/metrics":
            return httpx.Response(200, text=METRICS)
        return httpx.Response(200, json={"success": True})


@asynccontextmanager
async def adapter(
    router: Callable[[httpx.Request], httpx.Response],
) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine("http://router.test", "k1", httpx.MockTransport(router))
    yield engine
    await engine.close()


def nothing() -> None:
    """An `on_sent` that nobody waits for."""


async def only(engine: LlamaCppEngine) -> LoadedModel:
    models = (await engine.health()).models
    assert models is not None
    return models[0]


def refusal(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": status, "message": message}})


@pytest.mark.parametrize(
    "listed",
    [
        None,
        {},
        "ga",
        [None],
        [{}],
        [{"id": "ga"}],
        [{"id": "", "status": {"value": "loaded"}}],
        [{"id": "ga", "status": {"value": None}}],
        [{"id": "ga", "status": {"value": "failed"}}],
        [ga("loaded"), {"id": "gb", "status": "loaded"}],
    ],
)
async def test_a_list_that_is_none_is_unknown_and_nobody_is_asked(listed: object) -> None:
    router = Router(listed)
    async with adapter(router) as engine:
        assert (await engine.health()).models is None
        with pytest.raises(EngineBadAnswer, match="no list"):
            await engine.resolve("ga")
    assert {request.url.path for request in router.asked} == {"/props", "/models"}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=9))
def test_no_body_of_a_list_is_a_surprise(value: object) -> None:
    assert listed_of({"data": value}) in (None, ())
    assert listed_of({"data": [{"id": "ga", "status": value}]}) is None
    status = {"value": "loaded", "args": value, "exit_code": value}
    assert listed_of({"data": [{"id": "ga", "status": status, "aliases": value}]}) is not None
    assert is_busy_by_slots(value) in (None, True, False)


async def test_what_is_loaded_is_told_with_its_file_and_its_use() -> None:
    router = Router([ga("loaded"), entry("gb"), entry("gc", "loading"), entry("gd", "sleeping")])
    async with adapter(router) as engine:
        health = await engine.health()
    assert health.models == (
        LoadedModel("ga", "/m/ga.gguf", last_use="4711/25/24/2/3", busy=False),
        LoadedModel("gd", None, last_use="asleep", busy=False, is_asleep=True),
    )
    assert (health.max_models, health.process) == (None, None)  # another machine's


async def test_whatever_is_asked_about_one_model_cannot_load_it() -> None:
    router = Router([entry("g/a&autoload=1", "loaded")])
    router.answers["/metrics"] = refusal(501, "not supported")
    async with adapter(router) as engine:
        model = await only(engine)
        await engine.answers(model)
        await engine.resolve("gz&autoload=1")
        await engine.load(model.name, {}, nothing)
        await engine.unload("gz", nothing)
    about_one = [request.url for request in router.asked if "model" in request.url.params]
    assert [url.path for url in about_one] == ["/metrics", "/slots", "/props"]
    for url in about_one:
        assert url.params.multi_items() == [("model", model.name), ("autoload", "0")]
    others = [request.url.query for request in router.asked if request.url not in about_one]
    assert set(others) == {b"", b"reload=1"}


async def test_who_does_not_say_what_it_does_may_be_at_work() -> None:
    router = Router([ga("loaded")])
    for path, answer in (
        ("/metrics", refusal(501, "not supported")),
        ("/slots", refusal(501, "not supported")),
    ):
        router.answers[path] = answer
    async with adapter(router) as engine:
        model = await only(engine)
        assert (model.last_use, model.busy) == (None, None)
        router.answers["/slots"] = httpx.Response(200, json=[{"is_processing": True}])
        assert (await only(engine)).busy is True
        router.answers["/slots"] = httpx.Response(200, text="none")
        assert (await only(engine)).busy is None


@pytest.mark.parametrize(
    ("text", "last_use", "busy"),
    [
        (METRICS, "1/25/24/2/3", False),
        (METRICS.replace("processing 0", "processing 1"), "1/25/24/2/3", True),
        (METRICS.replace("deferred 0", "deferred 2"), "1/25/24/2/3", True),
        ("llamacpp:n_decode_total 7\n", "1/7", None),
        ("", None, None),
        ("no page of counters at all\n", None, None),
    ],
)
def test_counters_tell_use_and_work(text: str, last_use: str | None, busy: bool | None) -> None:
    counters = counters_of(text)
    assert (last_use_of("1", counters), is_busy_by(counters)) == (last_use, busy)


@pytest.mark.parametrize("body", [None, {}, [], [{}], [{"is_processing": 1}], ["x"]])
def test_slots_that_are_none_say_nothing(body: object) -> None:
    assert is_busy_by_slots(body) is None


@pytest.mark.parametrize("limit", [0, -1, None, "4", True, 2.0])
def test_no_limit_and_nonsense_are_no_limit(limit: object) -> None:
    assert limits_of({"max_instances": limit}) == {}
    assert limits_of({"max_instances": 4}) == {"llm": 4}


async def test_a_name_may_be_an_alias_but_another_s_own_name_goes_before() -> None:
    named = ga() | {"aliases": ["gb", "nick"]}
    own = entry("gb", "unloaded", "-m", "/m/gb.gguf")
    async with adapter(Router([named, own])) as engine:
        assert await engine.resolve("nick") == EngineModel("ga", "/m/ga.gguf", True)
        assert await engine.resolve("gb") == EngineModel("gb", "/m/gb.gguf", True)


async def test_a_name_that_is_not_listed_is_looked_for_anew() -> None:
    router = Router([], [ga()])
    async with adapter(router) as engine:
        assert await engine.resolve("ga") == EngineModel("ga", "/m/ga.gguf", True)
        assert await engine.resolve("gz") is None
    asked = [request.url.query for request in router.asked]
    assert asked == [b"", b"reload=1", b"", b"reload=1"]


@pytest.mark.parametrize(
    ("args", "downloaded", "others"),
    [
        ((), True, ()),
        (("--mmproj", "/m/p.gguf", "--lora", "/m/l.gguf"), True, ("/m/p.gguf", "/m/l.gguf")),
        (("--hf-repo", "o/r"), False, ()),
        (("--mmproj-url", "https://h.test/p.gguf"), False, ()),
    ],
)
async def test_what_its_process_would_open_is_read_from_its_arguments(
    args: tuple[str, ...], downloaded: bool, others: tuple[str, ...]
) -> None:
    async with adapter(Router([ga("unloaded", *args)])) as engine:
        found = await engine.resolve("ga")
        assert found == EngineModel("ga", "/m/ga.gguf", downloaded, others)


async def test_a_model_without_a_file_is_not_there() -> None:
    async with adapter(Router([entry("ga", "unloaded", "--hf-repo", "o/r")])) as engine:
        assert await engine.resolve("ga") == EngineModel("ga", None, False)


async def test_a_load_is_followed_to_its_end() -> None:
    loading = [ga("loading")]
    router = Router(loading, loading, [ga("downloading")], [ga("loaded")])
    times: list[int] = []
    async with adapter(router) as engine:
        with pytest.raises(EngineRefused):  # what it became is no load
            await engine.load("ga", {}, lambda: times.append(1))
        await engine.load("ga", {}, lambda: times.append(1))
    assert times == [1, 1]


async def test_a_load_that_another_has_begun_is_waited_for() -> None:
    router = Router([ga("loading")], [ga("loaded")])
    router.answers["/models/load"] = refusal(400, "model is already running")
    async with adapter(router) as engine:
        await engine.load("ga", {}, nothing)
    assert [request.url.path for request in router.asked] == ["/models/load", "/models", "/models"]


@pytest.mark.parametrize("after", [[ga("unloaded", failed=True, exit_code=1)], [ga()], []])
async def test_a_load_that_did_not_end_loaded_has_failed(after: list[Any]) -> None:
    async with adapter(Router([ga("loading")], after)) as engine:
        with pytest.raises(EngineRefused, match="could not load ga"):
            await engine.load("ga", {}, nothing)


@pytest.mark.parametrize(
    "answer", [refusal(500, "model limit reached, try again later"), refusal(404, "File Not Found")]
)
async def test_a_load_that_is_refused_is_not_followed(answer: httpx.Response) -> None:
    router = Router([ga("loaded")])
    router.answers["/models/load"] = answer
    async with adapter(router) as engine:
        with pytest.raises(EngineRefused):
            await engine.load("ga", {}, nothing)
    assert len(router.asked) == 1


@pytest.mark.parametrize("broken", [refusal(503, "busy"), httpx.Response(200, text="?")])
async def test_a_list_that_cannot_be_had_leaves_what_was_sent_unknown(
    broken: httpx.Response,
) -> None:
    """No refusal of the load: it may have been done."""
    async with adapter(Router([ga("loading")], broken)) as engine:
        with pytest.raises(EngineBadAnswer, match="not known"):
            await engine.load("ga", {}, nothing)
    async with adapter(Router([ga("loaded")], broken)) as engine:
        with pytest.raises(EngineBadAnswer, match="not known"):
            await engine.unload("ga", nothing)


async def test_a_router_that_is_gone_after_the_load_was_sent_is_not_unreachable() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json={"success": True})

    async with adapter(answer) as engine:
        with pytest.raises(EngineBadAnswer):
            await engine.load("ga", {}, nothing)


@pytest.mark.parametrize("last", [[ga()], [ga("unloaded", failed=True, exit_code=1)], []])
async def test_an_unload_is_followed_to_its_end(last: list[Any]) -> None:
    router = Router([ga("loaded")], [ga("sleeping")], [ga("loading")], last)
    async with adapter(router) as engine:
        assert await engine.unload("ga", nothing) is True
    assert len(router.asked) == 5


@pytest.mark.parametrize("message", ["model is not running", "model is not found"])
async def test_an_unload_of_what_is_not_there_is_none(message: str) -> None:
    router = Router([ga()])
    router.answers["/models/unload"] = refusal(400, message)
    async with adapter(router) as engine:
        assert await engine.unload("ga", nothing) is False
    assert len(router.asked) == 1


async def test_any_other_refusal_of_an_unload_is_an_error() -> None:
    router = Router([ga("loaded")])
    async with adapter(router) as engine:
        for status, error in ((400, EngineRefused), (401, EngineUnauthorized)):
            router.answers["/models/unload"] = refusal(status, "no")
            with pytest.raises(error):
                await engine.unload("ga", nothing)


async def test_an_unload_that_found_nothing_cancelled_nothing() -> None:
    router = Router([ga("loading")])
    router.answers["/models/unload"] = refusal(400, "model is not running")
    async with adapter(router) as engine:
        is_sent = asyncio.Event()
        load = asyncio.create_task(engine.load("ga", {}, is_sent.set))
        await is_sent.wait()
        assert not await engine.unload("ga", nothing)
        router.lists = [[ga("unloaded", failed=True)]]
        with pytest.raises(EngineRefused, match="could not load"):
            await load


async def test_an_option_is_refused_with_where_it_belongs() -> None:
    async with adapter(Router([])) as engine:
        with pytest.raises(ValueError, match=r"ctx_size .*--models-preset"):
            await engine.load("ga", {"ctx_size": 4096}, nothing)


async def test_a_server_of_one_model_is_no_router() -> None:
    router = Router([])
    router.answers["/props"] = httpx.Response(200, json={"model_path": "/m/ga.gguf"})
    async with adapter(router) as engine:
        with pytest.raises(EngineBadAnswer, match="is no router"):
            await engine.health()


def test_the_readme_starts_it_as_the_tests_do() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    chapter = readme.partition("## A second engine")[2].partition("\n## ")[0]
    command = chapter.partition("llama-server ")[2].partition("\nhal0")[0].replace("\\\n ", "")
    assert " ".join(AS_IN_README) in command
    assert "--models-dir" in command
