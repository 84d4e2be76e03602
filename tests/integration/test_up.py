"""`hal0 up` with real processes: what it starts, keeps and leaves behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hal0.cli.processes import answers
from hal0.processes import start_ticks
from tests.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HAL0_HOME": str(tmp_path / "home"),
        "HAL0_BIND": f"127.0.0.1:{_free_port()}",
        "HAL0_ENGINE_URL": f"http://127.0.0.1:{_free_port()}",
    }


def _run_up(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "hal0", "up"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


class Up:
    """A running `hal0 up`, what it said, and the pids it named."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.environment, self.log = environment, log
        self.url = f"http://{environment['HAL0_BIND']}"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hal0", "up"],
                env=environment,
                stdout=output,
                stderr=output,
            )
        _until(lambda: "worker runs" in self.said() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def pid(self, name: str) -> int:
        line = next(line for line in self.said().splitlines() if line.startswith(f"{name} runs"))
        return int(line.rpartition("(pid ")[2].rstrip(")"))

    def hal0(self, *args: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "hal0", *args, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)


def _until(condition: Callable[[], Any], within_s: float = 40) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def up(environment: dict[str, str], tmp_path: Path) -> Iterator[Up]:
    running = Up(environment, tmp_path / "up.log")
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()


def test_up_makes_the_database_and_stops_all_on_sigterm(up: Up) -> None:
    assert answers(f"{up.url}/readyz")
    assert up.hal0("slot", "create", "chat")["state"] == "offline"
    api, worker = up.pid("api"), up.pid("worker")
    up.process.terminate()
    assert up.process.wait(30) == 0, up.said()
    assert start_ticks(api) is None
    assert start_ticks(worker) is None


def test_a_second_up_of_one_home_is_refused(up: Up) -> None:
    again = _run_up(up.environment)
    assert again.returncode == 5
    home = up.environment["HAL0_HOME"]
    assert f"runs already for {home}; stop that one, or set HAL0_HOME" in again.stderr


def test_an_api_that_is_killed_comes_back(up: Up) -> None:
    up.hal0("slot", "create", "chat")
    os.kill(up.pid("api"), signal.SIGKILL)
    _until(lambda: not answers(f"{up.url}/livez"))
    _until(lambda: answers(f"{up.url}/livez"))
    assert "api runs again (pid " in up.said()
    assert [slot["name"] for slot in up.hal0("slot", "list")["items"]] == ["chat"]


def test_nothing_is_left_behind_by_an_up_that_is_killed(up: Up) -> None:
    pids = [up.pid("api"), up.pid("worker")]
    up.process.kill()
    up.process.wait()
    _until(lambda: all(start_ticks(pid) is None for pid in pids))


def _without_what_varies(output: str) -> list[str]:
    """Return the lines of an output without its times and seconds."""
    same = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+", "<time>", output)
    same = re.sub(r"(?<=_s\": )[\d.]+", "<seconds>", same)
    return [" ".join(line.split()) for line in same.splitlines()]


def test_the_quick_start_prints_what_the_readme_says(
    environment: dict[str, str], tmp_path: Path
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    told = re.search(r"In another terminal.*?```\n(.*?)```.*?```\n(.*?)```", readme, re.DOTALL)
    assert told
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    typed = re.sub(r"\S+/\*\.gguf", str(model), told[1]).partition("\n")[2]
    del environment["HAL0_ENGINE_URL"]
    environment["HAL0_ENGINE_BIND"] = f"127.0.0.1:{_free_port()}"
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    up = Up(environment, tmp_path / "up.log")
    try:
        done = subprocess.run(
            ["bash", "-ec", typed], env=environment, capture_output=True, text=True, check=False
        )
    finally:
        up.process.terminate()
        up.process.wait()
    assert done.returncode == 0, done.stderr + up.said()
    assert _without_what_varies(done.stdout) == _without_what_varies(told[2])


def test_up_that_cannot_begin_says_so_and_leaves_nothing(
    environment: dict[str, str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment["HAL0_BIND"] = f"127.0.0.1:{taken.getsockname()[1]}"
        done = _run_up(environment)
    assert done.returncode == 2
    assert f"HAL0_BIND={environment['HAL0_BIND']}: cannot listen" in done.stderr
    assert "runs" not in done.stderr


def test_up_refuses_an_address_that_others_can_reach_without_a_token(
    environment: dict[str, str],
) -> None:
    environment["HAL0_BIND"] = "0.0.0.0:0"
    done = _run_up(environment)
    assert done.returncode == 2
    assert "run `hal0 token create NAME --role writer` first" in done.stderr
