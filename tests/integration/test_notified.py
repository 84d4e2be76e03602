"""What a service manager hears of real processes: ready when they serve, alive while they work."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from hal0.cli.processes import answers
from tests.acceptance.house import House, free_port
from tests.manager import Manager

pytestmark = pytest.mark.slow

WATCHDOG_S: Final = 1.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path) as manager:
        yield manager


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    watched = {"WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000)), "HAL0_BUSY_TIMEOUT_S": "0.2"}
    with House(tmp_path, f"http://127.0.0.1:{free_port()}", **watched) as house:
        yield house


def start(
    house: House, manager: Manager, *command: str, point: str | None = None
) -> "subprocess.Popen[bytes]":
    """Start one process, which says that it is ready before this returns."""
    house.env["NOTIFY_SOCKET"] = manager.address
    process = house.start("-m", *command, point=point)
    manager.wait_for("READY=1")
    return process


def are_fed(managers: Sequence[Manager], times: int = 4) -> None:
    """Wait until every watchdog was fed so often: for longer than it would wait."""
    for one in managers:
        one.heard()
    for _ in range(times):
        for one in managers:
            one.wait_for("WATCHDOG=1")


def are_starving(managers: Sequence[Manager]) -> None:
    """Wait until every watchdog would have ended its process."""
    until = time.monotonic() + 30
    for one in managers:
        one.heard()
    while time.monotonic() < until:
        time.sleep(2 * WATCHDOG_S)
        if not any("WATCHDOG=1" in one.heard() for one in managers):
            return
    raise AssertionError("a watchdog is still fed")


def test_api_and_worker_are_alive_while_their_database_can_be_read(
    house: House, manager: Manager, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    with Manager(tmp_path / "second") as second:
        api = start(house, manager, "hal0", "api")
        assert answers(f"http://127.0.0.1:{house.port}/readyz"), "it said that it was ready"
        worker = start(house, second, "workers")
        assert house.living_workers() == 1, "it said that it was ready"
        both = (manager, second)
        are_fed(both)
        database = house.home / "hal0.db"
        with closing(sqlite3.connect(database, isolation_level=None, timeout=20)) as other:
            other.execute("BEGIN EXCLUSIVE")
            are_fed(both)  # who waits for another to write is not dead
        database.rename(house.home / "aside")
        are_starving(both)
        (house.home / "aside").rename(database)
        are_fed(both)
        for process, its_manager in ((worker, second), (api, manager)):
            assert house.stop(process) == 0
            its_manager.wait_for("STOPPING=1")


def test_the_engine_is_ready_when_it_listens_and_its_watchdog_is_fed(
    tmp_path: Path, manager: Manager
) -> None:
    port = free_port()
    env = {
        **os.environ,
        "HAL0_HOME": str(tmp_path / "home"),
        "HAL0_ENGINE_BIND": f"127.0.0.1:{port}",
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000)),
    }
    command = [sys.executable, "-m", "hal0.embedded"]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as engine:
        try:
            manager.wait_for("READY=1")
            assert answers(f"http://127.0.0.1:{port}/live")
            are_fed([manager])
            engine.send_signal(signal.SIGTERM)
            manager.wait_for("STOPPING=1")
            assert engine.wait(30) == 0
        finally:
            engine.kill()


def test_a_worker_whose_supervisor_hangs_is_not_alive(house: House, manager: Manager) -> None:
    """Its threads would go on with jobs for which nobody beats."""
    api = start(house, manager, "hal0", "api")
    house.add_model()
    house.add_slot()
    house.load()
    dead = house.start("-m", "workers", point="validate.begun:kill")
    assert dead.wait(30) == -signal.SIGKILL
    assert house.stop(api) == 0
    start(house, manager, "workers", point="rescue.requeued:sleep")  # in the supervisor's thread
    house.wait_for(lambda: "rescue.requeued reached" in house.log.read_text())
    are_starving([manager])
