"""The embedded engine as a process of its own, for tests.

with EngineProcess(models, home=tmp_path) as engine:
    engine.url … engine.pid … engine.loaded() … engine.calls("/v1/load") … engine.kill()
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

ROOT = Path(__file__).parents[1]


class EngineProcess:
    """`python -m hal0.embedded`, on a free port; a second `start` uses the same port."""

    def __init__(
        self,
        models: Path,
        *,
        home: Path,
        key: str | None = None,
        port: int = 0,
        has_one_cpu: bool = False,
    ) -> None:
        self.models = models
        self.has_one_cpu = has_one_cpu
        """Threads of llama.cpp wait for each other in loops: where other tests keep the machine
        busy, two of them took four times as much of it as one. Not for a test that must be
        faster than a stream: the engine and its models share the one."""
        self.home = home
        self.key = key
        self.port = port
        self.url = ""
        self.call_log = home / "engine-calls.ndjson"
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The engine's process; its children are in `loaded()`."""
        assert self._process is not None
        return self._process.pid

    def environment(self) -> dict[str, str]:
        """Return the settings that it runs with."""
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("HAL0_")},
            "HAL0_HOME": str(self.home),
            "HAL0_MODELS_DIR": str(self.models),
            "HAL0_ENGINE_BIND": f"127.0.0.1:{self.port}",
            "HAL0_ENGINE_CALL_LOG": str(self.call_log),
        }
        if self.key is not None:
            key_file = self.home / "engine.key"
            key_file.write_text(f"{self.key}\n")
            env["HAL0_ENGINE_KEY_FILE"] = str(key_file)
        return env

    def start(self) -> Self:
        """Start it; it listens when this returns."""
        with (self.home / "engine.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hal0.embedded"],
                cwd=ROOT,
                env=self.environment(),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        if self.has_one_cpu:
            cpus = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(self._process.pid, {cpus[self._process.pid % len(cpus)]})
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError((self.home / "engine.log").read_text())
        self.port = int(self.url.rpartition(":")[2])
        return self

    def stop(self) -> int:
        """SIGTERM; return the exit code. SIGKILL after 10 s."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._ended()

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._ended()

    def _ended(self) -> int:
        assert self._process is not None
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()

    def client(self) -> httpx.Client:
        """Return a client with the key; close it."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def loaded(self) -> dict[str, dict[str, Any]]:
        """Return the entries of health by model name."""
        with self.client() as client:
            listed = client.get("/v1/health").raise_for_status().json()["all_models_loaded"]
        return {entry["model_name"]: entry for entry in listed}

    def calls(self, path: str | None = None, phase: str = "begin") -> list[dict[str, Any]]:
        """Return the call log so far, oldest first."""
        if not self.call_log.exists():
            return []
        lines = [json.loads(line) for line in self.call_log.read_text().splitlines()]
        return [x for x in lines if x["phase"] == phase and path in (None, x["path"])]
