"""When nobody listens: only a refused connection on this machine proves that an engine is gone."""

import errno
import socket

import httpx
import pytest

from hal0.engines.lemonade import LemonadeEngine
from hal0.errors import EngineUnreachable

pytestmark = pytest.mark.anyio


class Unconnectable(httpx.AsyncBaseTransport):
    """A transport that cannot connect, for a reason that says nothing about the engine."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("All connection attempts failed") from self.reason


async def _unreachable(engine: LemonadeEngine) -> EngineUnreachable:
    with pytest.raises(EngineUnreachable) as caught:
        await engine.health()
    await engine.close()
    return caught.value


async def test_a_refused_connection_means_that_the_engine_is_gone() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert (await _unreachable(LemonadeEngine(url))).is_gone


@pytest.mark.parametrize(
    "reason",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
        ExceptionGroup("two tries", [ConnectionRefusedError(), OSError(errno.EMFILE, "")]),
    ],
    ids=["descriptors", "ports", "one-of-two"],
)
async def test_any_other_failure_to_connect_says_nothing_about_the_engine(
    reason: Exception,
) -> None:
    engine = LemonadeEngine("http://127.0.0.1:1", transport=Unconnectable(reason))
    assert not (await _unreachable(engine)).is_gone


async def test_a_connect_that_times_out_says_nothing_about_the_engine() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("", request=request)

    engine = LemonadeEngine("http://127.0.0.1:1", transport=httpx.MockTransport(answer))
    assert not (await _unreachable(engine)).is_gone
