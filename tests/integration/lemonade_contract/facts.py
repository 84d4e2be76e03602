"""How the tests of single facts talk with the fake."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import httpx

from tests.fakes.lemond import Lemond

LIMIT_S = 60
QUESTION: list[dict[str, str]] = [{"role": "user", "content": "hello"}]


def load(lemond: Lemond, name: str, **options: Any) -> httpx.Response:
    """Ask for a load and wait for its answer."""
    return lemond.post("/v1/load", {"model_name": name, **options}, LIMIT_S)


def chat(lemond: Lemond, name: str, **options: Any) -> httpx.Response:
    """Ask a model and wait for its answer."""
    body = {"model": name, "messages": QUESTION, **options}
    return lemond.post("/v1/chat/completions", body, LIMIT_S)


def unload(lemond: Lemond, name: str) -> httpx.Response:
    """Unload a model and wait for its end."""
    return lemond.post("/v1/unload", {"model_name": name}, LIMIT_S)


def health(lemond: Lemond) -> dict[str, Any]:
    """Return name -> entry of what health lists."""
    body = lemond.get("/v1/health", LIMIT_S).raise_for_status().json()
    return {entry["model_name"]: entry for entry in body["all_models_loaded"]}


def until(is_so: Callable[[], object]) -> None:
    """Wait until it is so."""
    end = monotonic() + LIMIT_S
    while not is_so():
        assert monotonic() < end, "waited in vain"
        sleep(0.01)


@contextmanager
def aside() -> Iterator[Callable[..., Future[Any]]]:
    """Run calls in threads: `asked = start(chat, lemond, "ga")`."""
    with ThreadPoolExecutor(8) as threads:
        yield threads.submit


@contextmanager
def talking(lemond: Lemond, name: str) -> Iterator[Future[httpx.Response]]:
    """Let a model talk until the end of the block, and hush it then."""
    lemond.script(models={name: {"chat_tokens": 100_000, "chat_token_delay_s": 0.05}})
    with aside() as start:
        answer = start(chat, lemond, name, stream=True)
        try:
            until(lambda: lemond.state()["streaming"] == [name])
            yield answer
        finally:
            lemond.script(models={name: {"chat_tokens": 1}}, evict_grace_s=0)
