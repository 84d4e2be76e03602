"""An engine that hangs, or answers what nobody can read, with real processes.

Down, dying and restarting engines are in `test_jobs.py`, slow and failing loads in `test_loads.py`.
"""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.acceptance.house import House
from tests.acceptance.seen import add_slots, check_nobody_died, jobs_of, loads_sent, outcomes
from tests.fakes.lemond import Lemond

pytestmark = pytest.mark.slow


@pytest.fixture
def running(house: House) -> House:
    house.env["HAL0_SCAN_S"] = "0.5"
    house.start_api()
    house.start_worker()
    add_slots(house, "one", "two")
    house.load("one")
    house.wait_until("ready", "one")
    return house


@contextmanager
def noise(port: int) -> Iterator[list[bytes]]:
    """Listen where the engine was, and answer each request with bytes that are no HTTP."""
    asked: list[bytes] = []

    def answer() -> None:
        with suppress(OSError):
            while True:
                line, _ = listener.accept()
                with line, suppress(OSError):
                    asked.append(line.recv(65536))
                    line.sendall(b"\x00\xff\x7f no HTTP \r\n\r\n")

    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def check_load_fails(house: House, code: str) -> None:
    """A load of slot two fails by this name; slot one stays what it was."""
    house.load("two")
    assert house.wait_until("error", "two")["error"]["code"] == code
    assert house.slot("one")["state"] == "ready"
    assert house.edges("one")[-1] == ("warming", "ready", "loaded")


def test_an_engine_whose_answers_mean_nothing_loses_no_slot_and_gets_no_load_twice(
    running: House, lemond: Lemond
) -> None:
    """Nothing is concluded from what cannot be read; a load that was answered so is watched."""
    lemond.script(health="garbage")
    check_load_fails(running, "engine.bad_answer")
    seen = len(lemond.calls("/v1/health"))
    running.wait_for(lambda: len(lemond.calls("/v1/health")) > seen + 2)
    assert running.slot("one")["state"] == "ready"
    assert loads_sent(lemond) == ["m-one"]
    lemond.script(health="ok", models={"m-two": {"load": "garbage"}})
    (failed,) = jobs_of(running, "failed")
    running.post(f"/api/v1/jobs/{failed}/retry")
    running.wait_until("ready", "two")
    running.wait_settled()
    assert outcomes(running, failed) == ["failed", "done"]
    assert loads_sent(lemond) == ["m-one", "m-two"]
    check_nobody_died(running, 2)


def test_an_engine_that_speaks_no_http_loses_no_slot(running: House, lemond: Lemond) -> None:
    lemond.kill()
    with noise(lemond.port) as asked:
        check_load_fails(running, "engine.bad_answer")
        seen = len(asked)
        running.wait_for(lambda: len(asked) > seen + 2)
        assert running.slot("one")["state"] == "ready"
    lemond.start()
    running.wait_until("idle", "one")
    (failed,) = jobs_of(running, "failed")
    running.post(f"/api/v1/jobs/{failed}/retry")
    running.wait_until("ready", "two")
    assert loads_sent(lemond) == ["m-one", "m-one", "m-two"]


def test_an_engine_that_hangs_costs_the_load_that_it_has_and_no_slot(
    running: House, lemond: Lemond
) -> None:
    """Stopped, it takes connections and answers nothing; what it loads late is unloaded."""
    running.client.patch("/api/v1/slots/two", json={"load_timeout_s": 2}).raise_for_status()
    lemond.script(models={"m-two": {"load": "hang"}})
    running.load("two")
    running.wait_until("warming", "two")
    os.kill(lemond.pid, signal.SIGSTOP)
    try:
        error = running.wait_until("error", "two")["error"]
        assert error["code"] == "preload.load_timeout"
        assert running.sql("SELECT count(*) FROM engine_lane") == [(1,)]
        assert running.slot("one")["state"] == "ready"
    finally:
        os.kill(lemond.pid, signal.SIGCONT)
    lemond.script(models={"m-two": {"load": "ok"}})
    running.wait_settled()
    assert running.slot("two")["state"] == "error", "what comes late is never adopted"
    assert lemond.state()["loaded"] == ["m-one"]
    assert loads_sent(lemond) == ["m-one", "m-two"]
    check_nobody_died(running, 2)
    running.check_audit()
