"""hal0 as its users run it: API and workers as real processes over one home, an engine beside them.

    with House(tmp_path, engine.url) as house:
        house.start_api()
        house.start_worker()
        house.post("/api/v1/slots/chat/load")
        house.wait_for(lambda: house.slot("chat")["state"] == "ready")

Only public surfaces are used: REST, and SQL on the database for what an auditor would read. When a
test leaves its house, the checker of the campaigns reads what is left: nothing may be lost,
whatever the test was about.
"""

import hashlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.chaos.checker import check
from tests.chaos.client import AnswersLog
from tests.chaos.evidence import Evidence
from tests.tiny_gguf import write_tiny_gguf

ROOT = Path(__file__).parents[2]
QUICK = {
    "HAL0_LOAD_TIMEOUT_S": "20",
    "HAL0_UNLOAD_TIMEOUT_S": "10",
    "HAL0_ENGINE_WAIT_S": "20",
    "HAL0_ENGINE_SETTLE_S": "60",
    "HAL0_BEAT_S": "0.5",
    "HAL0_SILENCE_S": "3",
    "HAL0_PULL_PRIVATE_HOSTS": "127.0.0.1",  # where the sources of tests are
}


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class House:
    """One home, its processes, and how to ask them."""

    def __init__(self, folder: Path, engine_url: str, **env: str) -> None:
        self.home = folder / "home"
        self.models = self.home / "models"
        self.models.mkdir(parents=True, exist_ok=True)
        self.sources = folder / "sources"
        self.sources.mkdir(exist_ok=True)
        self.log = folder / "hal0.log"
        self.port = free_port()
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("HAL0_")},
            "HAL0_HOME": str(self.home),
            "HAL0_ENGINE_URL": engine_url,
            "HAL0_BIND": f"127.0.0.1:{self.port}",
            "PYTHONUNBUFFERED": "1",
            **QUICK,
            **env,
        }
        self.evidence = Evidence(
            self.home / "hal0.db", folder / "answers.ndjson", folder / "calls.ndjson"
        )
        self.unchecked: str | None = None
        """Why the history of this house cannot be true: set by a test that falsifies it."""
        self._answers = AnswersLog(self.evidence.answers, f"house-{self.port}")
        self.client = httpx.Client(base_url=self.url, timeout=30, event_hooks=self._answers.hooks())
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self._answers.close()
        if kind is None and self.unchecked is None and self.evidence.database.exists():
            assert check(self.evidence, is_quiet=False) == []

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}"

    # -- processes ----------------------------------------------------------------------------

    def start(self, *command: str, point: str | None = None) -> "subprocess.Popen[bytes]":
        """Start a process of hal0, armed at `point` when one is given."""
        env = self.env if point is None else {**self.env, "HAL0_POINT": point}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=env, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def start_api(self, point: str | None = None) -> "subprocess.Popen[bytes]":
        """Start the API; it answers when this returns."""
        process = self.start("-m", "hal0", "api", point=point)
        self.wait_for(self.is_up)
        return process

    def is_up(self) -> bool:
        """Whether the API answers."""
        try:
            return self.client.get("/livez").status_code == 200
        except httpx.TransportError:
            return False

    def start_worker(self, point: str | None = None) -> "subprocess.Popen[bytes]":
        """Start a worker; it has its bell when this returns."""
        before = self.living_workers()
        process = self.start("-m", "workers", point=point)
        self.wait_for(lambda: self.living_workers() > before or process.poll() is not None)
        return process

    def living_workers(self) -> int:
        """How many bells hang."""
        bells = self.home / "run" / "bells"
        return len(list(bells.iterdir())) if bells.is_dir() else 0

    def stop(self, process: "subprocess.Popen[bytes]", number: int = signal.SIGTERM) -> int:
        """Send a signal to a process of ours and return its exit code."""
        process.send_signal(number)
        return process.wait(30)

    # -- asking -------------------------------------------------------------------------------

    def get(self, path: str, **query: Any) -> Any:
        """GET, which must succeed."""
        response = self.client.get(path, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: Any = None, status: int | None = None) -> Any:
        """POST; any 2xx is good unless `status` names the one expected."""
        response = self.client.post(path, json={} if body is None else body)
        good = response.is_success if status is None else response.status_code == status
        assert good, f"{response.status_code}: {response.text}"
        return response.json()

    def slot(self, name: str = "chat") -> Any:
        """Return a slot."""
        return self.get(f"/api/v1/slots/{name}")

    def chain(self, chain_id: int) -> list[Any]:
        """Return the jobs of a chain in order."""
        return list(self.get(f"/api/v1/chains/{chain_id}")["jobs"])

    def edges(self, name: str = "chat") -> list[tuple[str | None, str, str]]:
        """Return the audit of the last slot of this name, oldest first: (from, to, cause)."""
        rows = self.sql(
            "SELECT from_state, to_state, cause FROM transitions "
            "WHERE slot_id = (SELECT max(id) FROM slots WHERE name = ?) ORDER BY id",
            name,
        )
        return [(row[0], row[1], row[2]) for row in rows]

    def path_of(self, name: str = "chat") -> list[str]:
        """Return the states that a slot went through."""
        return [to for _, to, _ in self.edges(name)]

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read the database as anyone can."""
        connection = sqlite3.connect(self.home / "hal0.db", timeout=10)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def wait_for(self, is_so: Callable[[], object], limit_s: float = 40) -> None:
        """Poll until a condition holds; the log of all processes is shown when it never does."""
        began = time.monotonic()
        until = began + limit_s
        while not is_so():
            if time.monotonic() > until:
                log = self.log.read_text() if self.log.exists() else ""
                raise AssertionError(f"not within {limit_s} s; log:\n{log[-6000:]}")
            waited_s = time.monotonic() - began
            time.sleep(0.03 if waited_s < 1 else 0.1)  # who is asked has to work for each answer

    def wait_until(self, state: str, name: str = "chat", limit_s: float = 40) -> Any:
        """Wait for a slot's state and return the slot."""
        self.wait_for(lambda: self.slot(name)["state"] == state, limit_s)
        return self.slot(name)

    def wait_settled(self, limit_s: float = 40) -> None:
        """Wait until no job is unfinished and no lane is held."""
        self.wait_for(
            lambda: (
                self.sql(
                    "SELECT (SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')) "
                    "+ (SELECT count(*) FROM engine_lane)"
                )
                == [(0,)]
            ),
            limit_s,
        )

    # -- things to work with --------------------------------------------------------------------

    def add_model(
        self, name: str = "tiny", *, seed: int = 0, register: bool = True, **body: Any
    ) -> Path:
        """Write a real tiny GGUF outside the models folder and register it, size and sha256 too."""
        source = write_tiny_gguf(self.sources / f"{name}.gguf", seed=seed)
        if register:
            facts = {
                "name": name,
                "source": str(source),
                "size_bytes": source.stat().st_size,
                "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            }
            self.post("/api/v1/models", facts | body, status=201)
        return source

    def add_slot(self, name: str = "chat", model: str | None = "tiny", **body: Any) -> Any:
        """Create a slot."""
        return self.post("/api/v1/slots", {"name": name, "model": model} | body, status=201)

    def load(self, name: str = "chat", **body: Any) -> Any:
        """Ask for a load."""
        return self.post(f"/api/v1/slots/{name}/load", body)

    def check_audit(self) -> None:
        """Each row begins where the one before ended; the slot is where the last one ends."""
        for (name,) in self.sql("SELECT name FROM slots"):
            rows = self.edges(name)
            assert [row[0] for row in rows] == [None, *[row[1] for row in rows[:-1]]]
            assert self.sql("SELECT state FROM slots WHERE name = ?", name) == [(rows[-1][1],)]
