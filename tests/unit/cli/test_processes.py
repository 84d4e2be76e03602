"""How child processes are kept."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hal0.cli import processes
from hal0.cli.processes import Children, DidNotStart, Program
from hal0.processes import start_ticks

DEAF_CODE = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""
SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
DEAF = (sys.executable, "-c", DEAF_CODE)


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as kept:
        yield kept


def _until(condition: Callable[[], bool], within_s: float = 20) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def test_a_child_runs_until_it_is_stopped(children: Children) -> None:
    pid = children.start(Program("one", SLEEP))
    assert children.is_running("one")
    with pytest.raises(ValueError, match="runs already"):
        children.start(Program("one", SLEEP))
    assert children.stop("one") == -signal.SIGTERM
    assert start_ticks(pid) is None


def test_a_child_that_does_not_listen_to_sigterm_is_killed(
    children: Children, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    children.start(Program("one", DEAF, log_file=log))
    _until(lambda: log.exists() and "up" in log.read_text())
    assert children.stop("one", within_s=0.2) == -signal.SIGKILL


def test_a_stopped_child_hears_that_it_should_end(children: Children) -> None:
    children.start(Program("one", SLEEP))
    children.signal("one", signal.SIGSTOP)
    assert children.stop("one") == -signal.SIGTERM


def test_a_child_is_ready_when_it_answers(children: Children) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
    children.start(Program("web", argv, f"http://127.0.0.1:{port}/"))
    children.wait_ready("web", 20)
    assert processes.answers(f"http://127.0.0.1:{port}/")


def test_a_child_that_dies_or_is_silent_is_not_ready(children: Children) -> None:
    dead = Program("dead", (sys.executable, "-c", "raise SystemExit(3)"), "http://127.0.0.1:9/")
    children.start(dead)
    with pytest.raises(DidNotStart, match="ended with 3"):
        children.wait_ready("dead", 20)
    children.start(Program("silent", SLEEP, "http://127.0.0.1:9/"))
    with pytest.raises(DidNotStart, match="does not answer"):
        children.wait_ready("silent", 0.1)


def test_a_dead_child_is_started_again_after_pauses_that_double(
    children: Children, caplog: pytest.LogCaptureFixture
) -> None:
    children.start(Program("one", (sys.executable, "-c", "")))
    children.start(Program("other", SLEEP))
    other = children.pid("other")
    starts: list[float] = []
    last = children.pid("one")

    def tend() -> bool:
        nonlocal last
        children.tend()
        if children.pid("one") != last:
            last = children.pid("one")
            starts.append(time.monotonic())
        return len(starts) == 3

    with caplog.at_level("INFO"):
        _until(tend)
    assert f"one runs again (pid {last})" in caplog.text
    assert starts[1] - starts[0] >= 0.4
    assert starts[2] - starts[1] >= 0.8
    assert children.pid("other") == other


def test_a_killed_child_is_left_alone(children: Children) -> None:
    pid = children.start(Program("one", SLEEP))
    assert children.kill("one") == -signal.SIGKILL
    children.tend()
    assert start_ticks(pid) is None
    assert children.start(Program("one", SLEEP)) != pid


KEEPER = """
import sys, time
from hal0.cli.processes import Children, Program
children = Children()
print(children.start(Program("one", sys.argv[1:])), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_keeper_however_it_dies(how: int) -> None:
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPER, *SLEEP], stdout=subprocess.PIPE, text=True
    )
    assert keeper.stdout is not None
    pid = int(keeper.stdout.readline())
    assert start_ticks(pid) is not None
    os.kill(pid, signal.SIGSTOP)
    keeper.send_signal(how)
    keeper.communicate(timeout=20)
    _until(lambda: start_ticks(pid) is None)
