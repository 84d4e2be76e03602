"""The engines of the conformance suite, and what a test can do to each from the outside.

A rig is an engine that runs, with the models ga, gb and `truncated`. What an engine cannot suffer
is said by its flags; a test that needs it is skipped with that.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

import httpx
import psutil

from hal0.engines.base import Engine
from hal0.engines.lemonade import LemonadeEngine
from hal0.engines.llamacpp import LlamaCppEngine
from tests.engine_process import EngineProcess
from tests.fakes.lemond import Lemond
from tests.llama_server import LlamaServer
from tests.tiny_gguf import Size, write_tiny_gguf

KEY: Final = "k1"
LONG: Final = Size(layers=6, ctx=8192)
"""A model that talks for seconds, if it is let."""

# Read here, for each test begins without the variables of hal0.
REAL_URL: Final = os.environ.get("HAL0_TEST_LEMONADE_URL")
REAL_MODELS: Final = os.environ.get("HAL0_TEST_LEMONADE_MODELS")
REAL_KEY: Final = os.environ.get("HAL0_TEST_LEMONADE_KEY")


def write_models(folder: Path) -> Path:
    """Write ga, gb and truncated."""
    for seed, name in enumerate(("ga", "gb")):
        write_tiny_gguf(folder / f"{name}.gguf", seed=seed, size=LONG)
    write_tiny_gguf(folder / "truncated.gguf", broken="truncate")
    return folder


class Rig(Protocol):
    """An engine that runs."""

    url: str
    models: Path
    key: str | None
    adapter: Callable[[str, str | None], Engine]
    is_ours: bool
    """Whether its processes may be killed."""
    keeps_others: bool
    """Whether a failed load costs nothing but itself."""

    def start(self) -> Self:
        """Start it, or start it again at the same address."""
        ...

    def stop(self) -> None:
        """End it."""
        ...

    def kill_backend(self, name: str, pid: int | None) -> None:
        """Let the process of a loaded model die."""
        ...

    def mend(self) -> None:
        """Let what is loaded from now on live."""
        ...


class _Rig:
    key: str | None = KEY
    is_ours = True
    keeps_others = True

    def __init__(self, folder: Path) -> None:
        self.models = write_models(folder / "home" / "models")

    def __enter__(self) -> Self:
        return self.start()

    def start(self) -> Self:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def mend(self) -> None:
        """A process that died is dead for itself alone."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class FakeLemondRig(_Rig):
    """The double of Lemonade."""

    adapter = LemonadeEngine
    keeps_others = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.process = Lemond(self.models, key=KEY, call_log=folder / "calls.ndjson")

    def start(self) -> Self:
        self.process.start()
        slow = {"chat_tokens": 20, "chat_token_delay_s": 0.03}
        self.process.script(max_loaded_models=-1, models={"*": slow})
        self.url = self.process.url
        return self

    def stop(self) -> None:
        self.process.stop()

    def kill_backend(self, name: str, pid: int | None) -> None:
        self.process.script(models={name: {"backend": "refuse"}})

    def mend(self) -> None:
        self.process.script(models={"ga": None, "gb": None})


class EmbeddedRig(_Rig):
    """The engine that comes with hal0."""

    adapter = LemonadeEngine

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.process = EngineProcess(self.models, home=folder, key=KEY)

    def start(self) -> Self:
        self.process.start()
        self.url = self.process.url
        return self

    def stop(self) -> None:
        self.process.stop()

    def kill_backend(self, name: str, pid: int | None) -> None:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)


class LlamaServerRig(_Rig):
    """llama.cpp's own router."""

    adapter = LlamaCppEngine

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.process = LlamaServer(self.models, home=folder, key=KEY)
        self.url = self.process.url

    def start(self) -> Self:
        self.process.start()
        return self

    def stop(self) -> None:
        self.process.stop()

    def kill_backend(self, name: str, pid: int | None) -> None:
        child = self.process.child(name)
        child.kill()
        psutil.wait_procs([child], timeout=10)


class RealLemondRig(_Rig):
    """A lemond that somebody runs; the models are put where it looks for them."""

    adapter = LemonadeEngine
    is_ours = False
    keeps_others = False

    def __init__(self, folder: Path) -> None:
        assert REAL_URL is not None
        assert REAL_MODELS is not None, "HAL0_TEST_LEMONADE_MODELS is its extra_models_dir"
        self.models = write_models(Path(REAL_MODELS))
        self.url, self.key = REAL_URL, REAL_KEY

    def start(self) -> Self:
        return self

    def stop(self) -> None:
        for name in ("ga", "gb", "truncated"):
            (self.models / f"{name}.gguf").unlink(missing_ok=True)

    def kill_backend(self, name: str, pid: int | None) -> None:
        raise NotImplementedError


RIGS: Final[dict[str, Callable[[Path], Any]]] = {
    "fake-lemond": FakeLemondRig,
    "embedded": EmbeddedRig,
    "llama-server": LlamaServerRig,
    **({"real-lemond": RealLemondRig} if REAL_URL is not None else {}),
}


def chat(rig: Rig, model: str, max_tokens: int = 2) -> httpx.Response:
    """Ask past hal0, as another client would."""
    return httpx.post(
        f"{rig.url}/v1/chat/completions",
        json=question(model, max_tokens),
        headers=headers(rig),
        timeout=30,
    )


def question(model: str, max_tokens: int) -> dict[str, Any]:
    """Return the body of a chat."""
    messages = [{"role": "user", "content": "hello"}]
    greedy = {"temperature": 0}  # the tiny models never end before `max_tokens` then
    return {"model": model, "messages": messages, "max_tokens": max_tokens, **greedy}


def headers(rig: Rig) -> dict[str, str]:
    """Return what a client with the key sends."""
    return {"Authorization": f"Bearer {rig.key}"} if rig.key else {}
