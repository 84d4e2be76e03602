"""What befalls the processes of a campaign, one fault after another, by a seeded choice.

Workers are also started armed: such a one kills itself at a named point that it comes to. Whoever
died is started again within half a second; `calm` has everybody up, and nobody armed.
"""

import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import httpx

from hal0.clock import utc_now
from hal0.points import OF_API, POINTS
from tests.acceptance.house import House
from tests.fakes.lemond import Lemond

OF_WORKERS: Final = sorted(POINTS - {*OF_API})
DEAD: Final = frozenset(
    {
        *("kill worker", "kill API", "kill API midway", "kill engine"),
        *("die at a point", "stop worker"),
    }
)
"""Faults that end in a SIGKILL."""
SERVES: Final = "SELECT 1 FROM slots WHERE state = 'serving'"


@dataclass(frozen=True, slots=True)
class Death:
    """A process that was killed, and when."""

    pid: int
    at: datetime


def _killed_at(point: str | None) -> str | None:
    return None if point is None else f"{point}:kill"


@dataclass
class Faults:
    """One house and its engine, to which things happen. One thread only."""

    house: House
    lemond: Lemond
    dice: random.Random
    models: Sequence[str]
    workers: int
    silence_s: float
    count: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    deaths: list[Death] = field(default_factory=list)
    loaded_there: set[str] = field(default_factory=set)
    """Models that somebody loaded past hal0: nobody need have adopted them."""
    _workers: "dict[subprocess.Popen[bytes], str | None]" = field(default_factory=dict)
    _api: "subprocess.Popen[bytes] | None" = None
    _api_point: str | None = None

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return sum(count for what, count in self.count.items() if what in DEAD)

    def start(self) -> None:
        """Start everybody."""
        self._api = self.house.start_api()
        for _ in range(self.workers):
            self._start_worker(None)

    def next(self) -> None:
        """Let one thing happen, and start again whoever is dead."""
        acts: dict[str, tuple[int, Callable[[], bool]]] = {
            "kill worker": (26, self._kill_worker),
            "kill API": (7, self._kill_api),
            "kill API midway": (7, self._kill_api_midway),
            "kill engine": (10, self._kill_engine),
            "stop worker": (4, self._stop_worker),
            "lock database": (8, self._lock),
            "empty run folder": (8, self._empty_run),
            "failing load": (10, self._fail_a_load),
            "slow loads": (10, self._slow_loads),
            "load there": (5, self._load_there),
            "unload there": (4, self._unload_there),
            "drop a backend": (4, self._drop),
        }
        name = self.dice.choices(list(acts), [weight for weight, _ in acts.values()])[0]
        if acts[name][1]():
            self.count[name] += 1
        self.tend()

    def tend(self, *, calm: bool = False) -> None:
        """Start again whoever is dead; often armed, unless it is to be calm."""
        for process, point in list(self._workers.items()):
            if process.poll() is not None:
                self._note_end(process, point)
                del self._workers[process]
        while len(self._workers) < self.workers:
            is_armed = not calm and self.dice.random() < 0.8
            self._start_worker(self.dice.choice(OF_WORKERS) if is_armed else None)
        if self._api is None or self._api.poll() is not None:
            if self._api is not None:
                self._note_end(self._api, self._api_point)
            is_armed = not calm and self.dice.random() < 0.3
            self._start_api(self.dice.choice(OF_API) if is_armed else None)

    def _note_end(self, process: "subprocess.Popen[bytes]", point: str | None) -> None:
        """Count one that has died where it was armed to."""
        if point is not None and process.returncode == -signal.SIGKILL:
            self.count["die at a point"] += 1
            self.points[point] += 1
            self.deaths.append(Death(process.pid, utc_now()))

    def calm(self) -> None:
        """Have everybody up, and nobody armed."""
        self.lemond.script(models={"*": None})
        for process, point in list(self._workers.items()):
            if point is not None and process.poll() is None:
                self._kill(process)
        if self._api is not None and self._api_point is not None:
            self._kill_api()
        self.tend(calm=True)
        self.house.wait_for(self.house.is_up)

    def _start_worker(self, point: str | None) -> None:
        self._workers[self.house.start("-m", "workers", point=_killed_at(point))] = point

    def _start_api(self, point: str | None) -> None:
        self._api = self.house.start("-m", "hal0", "api", point=_killed_at(point))
        self._api_point = point

    def _kill(self, process: "subprocess.Popen[bytes]") -> bool:
        if process.poll() is not None:
            return False
        process.kill()
        process.wait()
        self.deaths.append(Death(process.pid, utc_now()))
        return True

    def _kill_worker(self) -> bool:
        victim = self.dice.choice(list(self._workers))
        self._workers[victim] = None  # it did not die at its point
        return self._kill(victim)

    def _kill_api(self) -> bool:
        self._api_point = None  # it did not die at its point
        return self._api is not None and self._kill(self._api)

    def _kill_api_midway(self) -> bool:
        """Kill it as soon as requests run, if any do soon."""
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            if self.house.sql(SERVES):
                return self._kill_api()
            threading.Event().wait(0.02)
        return False

    def _kill_engine(self) -> bool:
        self.lemond.kill()
        threading.Event().wait(self.dice.uniform(0, 0.7))
        self.lemond.start()
        return True

    def _stop_worker(self) -> bool:
        """Stop a worker for longer than the silence limit; whoever runs a job is killed first."""
        victim = self.dice.choice(list(self._workers))
        self._workers[victim] = None
        if victim.poll() is not None:
            return False
        victim.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 1.5 * self.silence_s
        while victim.poll() is None and time.monotonic() < until:
            threading.Event().wait(0.1)
        if victim.poll() is None:  # it ran nothing, so nobody missed it
            victim.send_signal(signal.SIGCONT)
        else:
            self.deaths.append(Death(victim.pid, utc_now()))
        return True

    def _lock(self) -> bool:
        """Hold the write lock, sometimes for longer than a writer waits."""
        with closing(sqlite3.connect(self.house.home / "hal0.db", timeout=20)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN IMMEDIATE")
            threading.Event().wait(self.dice.choice([0.3, 1.0, 3.0]))
            connection.execute("ROLLBACK")
        return True

    def _empty_run(self) -> bool:
        for folder in ("bells", "owners"):
            shutil.rmtree(self.house.home / "run" / folder, ignore_errors=True)
        return True

    def _fail_a_load(self) -> bool:
        """Let each model's next load fail, which evicts every model."""
        self.lemond.script(models={"*": {"load_fail": "scripted failure", "load_times": 1}})
        return True

    def _load_there(self) -> bool:
        """Load a model in the engine's own app."""
        model = self.dice.choice(self.models)
        self.loaded_there.add(model)
        return self._ask_engine("/v1/load", {"model_name": model, "by": "its own app"})

    def _unload_there(self) -> bool:
        return self._ask_engine("/v1/unload", {"model_name": self.dice.choice(self.models)})

    def _drop(self) -> bool:
        """Let a model's backend die: it vanishes from the list."""
        self.lemond.drop(self.dice.choice(self.models))
        return True

    def _ask_engine(self, path: str, body: dict[str, str]) -> bool:
        try:
            self.lemond.post(path, body, timeout_s=2)
        except httpx.HTTPError:
            return False
        return True

    def _slow_loads(self) -> bool:
        self.lemond.script(models={"*": {"load_delay_s": self.dice.choice([0.0, 0.05, 0.4])}})
        return True
