"""Who may read what hal0 writes: its user and group alone, whatever umask it was started with."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from hal0.settings import Settings
from tests.acceptance.house import ROOT, free_port
from tests.fakes.source import Manner, Source
from tests.older import make_first_schema
from tests.tiny_gguf import tiny_gguf_bytes

pytestmark = pytest.mark.slow

KINDS = {stat.S_IFDIR: 0o750, stat.S_IFREG: 0o640, stat.S_IFSOCK: 0o660}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HAL0_HOME": str(tmp_path / "home"),
        "HAL0_BIND": f"127.0.0.1:{free_port()}",
        "HAL0_ENGINE_BIND": f"127.0.0.1:{free_port()}",
        "HAL0_ENGINE_CALL_LOG": str(tmp_path / "home" / "engine-calls.ndjson"),
        "HAL0_PULL_PRIVATE_HOSTS": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as server:
        server.put("tiny.gguf", tiny_gguf_bytes())
        yield server


def modes(home: Path) -> dict[str, int]:
    """Return the mode of everything in a home that is not as it should be, and the home itself."""
    wrong = {}
    for path in [home, *home.rglob("*")]:
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_IMODE(status.st_mode) != KINDS[stat.S_IFMT(status.st_mode)]:
            wrong[str(path.relative_to(home))] = stat.S_IMODE(status.st_mode)
    return wrong


def until(is_so: Callable[[], object], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end, f"not so within {limit_s} s"
        time.sleep(0.03)


def hal0(environment: dict[str, str], umask: int, *args: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hal0", *args],
        cwd=ROOT,
        env=environment,
        umask=umask,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("umask", [0o000, 0o077], ids=oct)
def test_all_that_engine_api_and_worker_write_is_closed_to_others(
    tmp_path: Path, environment: dict[str, str], source: Source, umask: int
) -> None:
    home, go_on = tmp_path / "home", threading.Event()
    source.script("tiny.gguf", Manner(hold=go_on))
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "hal0", "up"],
            cwd=ROOT,
            env=environment,
            umask=umask,
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: b"worker runs" in (tmp_path / "up.log").read_bytes())
        with httpx.Client(base_url=f"http://{environment['HAL0_BIND']}", timeout=30) as api:
            model = {"name": "tiny", "source": source.url("tiny.gguf")}
            api.post("/api/v1/models", json=model).raise_for_status()
            api.post("/api/v1/slots", json={"name": "chat", "model": "tiny"}).raise_for_status()
            api.post("/api/v1/slots/chat/load").raise_for_status()
            part = home / "models" / "tiny.gguf.part"
            until(lambda: part.exists() and part.with_name(f"{part.name}.json").exists())
            until(lambda: list((home / "run" / "bells").iterdir()))
            assert modes(home) == {}
            go_on.set()
            until(lambda: api.get("/api/v1/slots/chat").json()["state"] == "ready")
    finally:
        go_on.set()
        up.send_signal(signal.SIGTERM)
        up.wait(40)
    seen = {str(path.relative_to(home)) for path in home.rglob("*")}
    assert {"hal0.db", "up.lock", "migrate.lock", "engine-calls.ndjson", "models/tiny.gguf"} <= seen
    assert modes(home) == {}


def test_what_a_command_writes_is_closed_to_others(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    hal0(environment, 0o077, "token", "create", "ci", "--role", "reader")
    assert modes(tmp_path / "home") == {}
    older = tmp_path / "older"
    make_first_schema(Settings(home=older))
    for path in [*older.rglob("*"), older]:
        path.chmod(0o750 if path.is_dir() else 0o640)
    hal0({**environment, "HAL0_HOME": str(older)}, 0o000, "db", "upgrade")
    assert (older / "hal0.db.0001.backup").exists()
    assert modes(older) == {}
