"""The two ends that proxies are measured between, written in Go (`wire/`): upstream and load.

Both are fast enough that no proxy in Python waits for them. The load sends what an order asks for;
what it found comes back as one `Outcome`.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tests.bench.workshop import ROOT, NotHere, Workshop, clean_environment, needed, read_line

SOURCE: Final = ROOT / "tests" / "bench" / "wire"
CACHE: Final = ROOT / ".cache" / "go"
BESIDE_PYTHON: Final = Path(sys.executable).parent
CHUNK_LIMIT_MS: Final = 5_000
"""How long the upstream waits to be told that a chunk has arrived, until it counts as held back."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the load is to send: JSON, or streams of so many chunks."""

    concurrency: int
    requests: int = 0
    for_s: float = 0.0
    """Instead of a number of requests."""
    chunks: int = 0
    pace_us: int = 0
    is_gated: bool = False
    """Each chunk is sent when the one before it has arrived."""
    is_held: bool = False
    """All streams stay open at their first chunk until `Load.run`."""
    limit_ms: int = CHUNK_LIMIT_MS


@dataclass(frozen=True)
class Outcome:
    """What became of an order."""

    elapsed_s: float
    took_ms: list[float]
    """From a request to its last byte."""
    first_ms: list[float]
    chunks: int
    held: int
    """Chunks that had not arrived after `limit_ms`."""
    errors: list[str]

    @cached_property
    def p50_ms(self) -> float:
        return statistics.median(self.took_ms)

    @cached_property
    def p99_ms(self) -> float:
        return statistics.quantiles(self.took_ms, n=100, method="inclusive")[-1]

    @property
    def chunks_s(self) -> float:
        return self.chunks / self.elapsed_s


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, by whose token, to which model."""

    url: str
    token: str = "none"
    model: str = "chat"


class Load:
    """The process that sends requests."""

    def __init__(self, shop: Workshop, wire: Path, upstream: str) -> None:
        self._process = shop.start(wire, "load", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._upstream = upstream

    def prepare(self, target: Target, order: Order) -> None:
        """Connect and warm up; held streams are open at their first chunk when this returns."""
        self._tell(json.dumps(asdict(order) | asdict(target) | {"upstream": self._upstream}))
        ready = self._read(f"the connections to {target.url}")
        assert ready == "ready", ready

    def run(self) -> Outcome:
        """Send what was prepared; raises AssertionError if anything failed."""
        self._tell("")
        found: Mapping[str, Any] = json.loads(self._read("the outcome of an order"))
        outcome = Outcome(**found)
        assert not outcome.errors, outcome.errors[:3]
        return outcome

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _read(self, what: str) -> str:
        assert self._process.stdout is not None
        return read_line(self._process.stdout, what)


def build_wire() -> Path:
    """Return the program of both ends, built if its source is newer; raises NotHere."""
    (go,) = needed("go", folders=[BESIDE_PYTHON])
    program = CACHE / "wire"
    sources = [*SOURCE.glob("*.go"), SOURCE / "go.mod"]
    if program.exists() and program.stat().st_mtime > max(p.stat().st_mtime for p in sources):
        return program
    env = clean_environment() | {
        "CGO_ENABLED": "0",
        "GOCACHE": str(CACHE),
        "GOPATH": str(CACHE / "path"),
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false",
    }
    command = [go, "build", "-o", str(program), "."]
    done = subprocess.run(command, check=False, cwd=SOURCE, env=env, capture_output=True, text=True)
    if done.returncode:
        raise NotHere(f"go does not build: {done.stderr.strip()[-200:]}")
    return program


def start_server(shop: Workshop, wire: Path, *words: str) -> tuple[str, int]:
    """Start one of the servers in `wire`; return its URL and its process."""
    process = shop.start(wire, *words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return read_line(process.stdout, f"wire {words[0]}"), process.pid


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, by its threads that live.

    The scheduler's nanoseconds; `/proc/<pid>/stat` knows hundredths of a second only.
    """
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
