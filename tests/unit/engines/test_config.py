"""How Lemonade is set up, as far as it says."""

from typing import Any

import httpx
import pytest

from hal0.engines.base import EngineConfig
from hal0.engines.connect import connect
from hal0.engines.lemonade import LemonadeEngine
from hal0.errors import EngineBadAnswer, EngineRefused

pytestmark = pytest.mark.anyio


def answering(status: int, body: Any) -> LemonadeEngine:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("GET", "/internal/config")
        assert request.headers["authorization"] == "Bearer k"
        return httpx.Response(status, json=body)

    return LemonadeEngine("http://127.0.0.1:9", "k", httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"auto_evict": True, "global_timeout": 600}, EngineConfig(True, 600)),
        ({"global_timeout": 1.5}, EngineConfig(False, 1.5)),  # lemond shows it where it was set
        ({"auto_evict": "yes", "global_timeout": "600"}, EngineConfig(None, None)),
        ({"auto_evict": False, "global_timeout": True}, EngineConfig(False, None)),
    ],
)
async def test_what_is_not_understood_is_unknown(body: Any, told: EngineConfig) -> None:
    assert await answering(200, body).config() == told


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_who_may_not_look_learns_nothing(status: int) -> None:
    assert await answering(status, {"error": "no"}).config() is None


async def test_what_went_wrong_is_an_error_as_of_every_call() -> None:
    with pytest.raises(EngineRefused):
        await answering(500, {"error": "no"}).config()
    with pytest.raises(EngineBadAnswer):
        await answering(200, [1]).config()


async def test_a_router_of_llama_cpp_tells_nothing_and_is_not_asked() -> None:
    engine = connect("llamacpp", "http://127.0.0.1:9")
    assert await engine.config() is None
    await engine.close()
