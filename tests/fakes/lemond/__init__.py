"""A lemond that can be told to misbehave: a real server in a process of its own.

    with Lemond(models_dir, call_log=tmp_path / "calls.ndjson") as lemond:
        lemond.script(models={"gb": {"load": "hang"}})
        ... lemond.url ... lemond.calls("/v1/load") ... lemond.kill() ... lemond.start()

What can be scripted is in `tests/fakes/lemond/script.py`, how it loads and evicts in `router.py`.
It listens when `start` returns; a second `start` uses the same port. The server itself keeps one
model of each type, as lemond does; `Lemond` raises that to no limit, as hal0's `lemond.service`
does: say `max_loaded_models=1` for lemond as its vendor ships it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import httpx  # of the client alone: the server's process starts without it

ROOT = Path(__file__).parents[3]


class Lemond:
    """The fake's process, from the outside."""

    def __init__(
        self,
        models: Path,
        *,
        call_log: Path | None = None,
        key: str | None = None,
        admin_key: str | None = None,
        port: int = 0,
        max_loaded_models: int = -1,
        script: dict[str, Any] | None = None,
    ) -> None:
        self.models = models
        self.call_log = call_log
        self.key = key
        self.admin_key = admin_key
        self.max_loaded_models = max_loaded_models
        self.port = port
        self.url = ""
        self._first_script = script
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The process to send signals to."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start the server; the script of the constructor is in force before it listens."""
        if self._process is not None:
            self._end()  # it died by its script
        command = [sys.executable, "-m", "tests.fakes.lemond"]
        command += ["--models", str(self.models), "--port", str(self.port)]
        command += ["--max-loaded-models", str(self.max_loaded_models)]
        if self.call_log is not None:
            command += ["--call-log", str(self.call_log)]
        if self._first_script is not None:
            path = self.models.parent / f"lemond-script-{os.getpid()}-{id(self)}.json"
            path.write_text(json.dumps(self._first_script))
            command += ["--script", str(path)]
        keys = {"LEMONADE_API_KEY": self.key, "LEMONADE_ADMIN_API_KEY": self.admin_key}
        env = {**os.environ, **{name: key for name, key in keys.items() if key}}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError(f"the fake did not start: exit code {self._process.wait()}")
        self.port = int(self.url.rpartition(":")[2])
        return self

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after 5 s."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._end()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def _end(self) -> None:
        assert self._process is not None
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def script(self, **changes: Any) -> None:
        """Merge changes into the script in force, model by model; None resets a model."""
        self._ask("POST", "/_script", json=changes).raise_for_status()

    def drop(self, *models: str) -> None:
        """Kill the backends of these models: they vanish from health, as after `kill -9`."""
        self._ask("POST", "/_drop", json={"models": models}).raise_for_status()

    def state(self) -> dict[str, Any]:
        """Return `{"loaded": [name…], "loading": name|None, "waiting": n, …}`, never blocked.

        All keys are in `control_routes.py`.
        """
        state: dict[str, Any] = self._ask("GET", "/_state").raise_for_status().json()
        return state

    def get(self, path: str, timeout_s: float = 30) -> "httpx.Response":
        """Read from the server past hal0, as another client would."""
        return self._ask("GET", path, headers=self._headers(), timeout=timeout_s)

    def post(self, path: str, body: dict[str, Any], timeout_s: float = 30) -> "httpx.Response":
        """Talk to the server past hal0, as another client would."""
        return self._ask("POST", path, json=body, headers=self._headers(), timeout=timeout_s)

    def _ask(self, method: str, path: str, **more: Any) -> "httpx.Response":
        import httpx

        # over plain HTTP; with `verify` each call reads the certificates of the world for 20 ms
        return httpx.request(method, f"{self.url}{path}", verify=False, **more)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def calls(self, path: str | None = None, phase: str = "begin") -> list[dict[str, Any]]:
        """Return the call log so far, oldest first: format in `hal0/embedded/call_log.py`."""
        if self.call_log is None or not self.call_log.exists():
            return []
        lines = [json.loads(line) for line in self.call_log.read_text().splitlines()]
        return [x for x in lines if x["phase"] == phase and path in (None, x["path"])]
