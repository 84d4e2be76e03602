"""How a server's process is named."""

import os
import socket
import subprocess
import sys

import httpx
import pytest

from hal0.engines.process import is_loopback, listener_name, process_name

LISTEN = (
    "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1])));"
    "print(s.getsockname()[1], flush=True); sys.stdin.read()"
)


def listening_process(port: int = 0) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("", timeout=10)


def test_a_living_process_has_a_name_that_stays() -> None:
    name = process_name(os.getpid())
    assert name == process_name(os.getpid())
    assert name is not None
    assert name.startswith(f"{os.getpid()}-")


@pytest.mark.parametrize("pid", [-1, 0, 1 << 23])
def test_a_pid_of_nobody_has_no_name(pid: int) -> None:
    assert process_name(pid) is None


def test_the_listener_is_found_and_another_one_has_another_name() -> None:
    first, port = listening_process()
    url = httpx.URL(f"http://127.0.0.1:{port}")
    try:
        assert listener_name(url) == process_name(first.pid)
        assert listener_name(url) == process_name(first.pid)
    finally:
        end(first)
    assert listener_name(url) is None
    second, _ = listening_process(port)
    try:
        assert listener_name(url) == process_name(second.pid)
    finally:
        end(second)


def test_a_process_that_lives_but_no_longer_listens_has_lost_the_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = httpx.URL(f"http://localhost:{listener.getsockname()[1]}")
        assert listener_name(url) == process_name(os.getpid())
    assert listener_name(url) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.8.9.1:1", True),
        ("http://localhost", True),
        ("http://[::1]:1", True),
        ("http://10.0.0.1:1", False),
        ("http://engine.test:1", False),
        ("http://0.0.0.0:1", False),
    ],
)
def test_only_loopback_means_this_machine(url: str, expected: bool) -> None:
    assert is_loopback(httpx.URL(url)) is expected
