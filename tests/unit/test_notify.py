"""What a service manager hears of a process, over a real socket."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hal0 import notify
from hal0.errors import DatabaseLocked
from tests.manager import Manager


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    with Manager(tmp_path, abstract=request.param == "abstract") as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
        yield manager


def test_ready_and_stopping_are_one_datagram_each(manager: Manager) -> None:
    notify.ready("serves chat")
    notify.stopping()
    assert manager.heard() == ["READY=1\nSTATUS=serves chat", "STOPPING=1"]


def test_a_status_stays_one_line(manager: Manager) -> None:
    notify.ready("at\nMAINPID=1")
    assert manager.heard() == ["READY=1\nSTATUS=at MAINPID=1"]


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/at/all", "@" + "x" * 200])
def test_outside_of_a_service_manager_nothing_is_said_and_nothing_fails(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify.ready("serves")
    notify.stopping()


def test_a_manager_that_reads_nothing_any_more_holds_nobody_up(manager: Manager) -> None:
    name = manager.address.replace("@", "\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as crowd, suppress(BlockingIOError):
        crowd.setblocking(False)
        while True:
            crowd.sendto(b"STATUS=more", name)
    notify.stopping()
    assert "STOPPING=1" not in manager.heard()


def test_the_watchdog_is_fed_three_times_in_its_time(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    watchdog = notify.Watchdog()
    assert watchdog.every_s == pytest.approx(0.1)
    watchdog.feed_if_due(lambda: None)
    watchdog.feed_if_due(lambda: None)
    assert manager.heard() == ["WATCHDOG=1"], "the second one was not due"
    time.sleep(0.1)  # the time itself is tested
    watchdog.feed_if_due(lambda: None)
    assert manager.heard() == ["WATCHDOG=1"]


def test_the_watchdog_is_not_fed_while_the_process_cannot_work(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    watchdog = notify.Watchdog()

    def cannot() -> None:
        raise DatabaseLocked("another process holds it")

    watchdog.feed_if_due(cannot)
    assert manager.heard() == []
    watchdog.feed_if_due(lambda: None)
    assert manager.heard() == ["WATCHDOG=1"], "what was not fed stays due"


@pytest.mark.parametrize(
    ("usec", "pid"),
    [(None, None), ("", None), ("0", None), ("soon", None), ("3000000", "1"), ("3000000", "?")],
)
def test_without_a_watchdog_for_this_process_nothing_is_looked_at(
    manager: Manager, usec: str | None, pid: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    looked: list[bool] = []
    watchdog = notify.Watchdog()
    assert watchdog.every_s is None
    watchdog.feed_if_due(lambda: looked.append(True))
    assert (manager.heard(), looked) == ([], [])
