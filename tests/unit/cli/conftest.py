"""The command line against a real API on a port of its own."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import uvicorn

from hal0.api.app import create_app
from hal0.cli import main
from hal0.db import Database
from hal0.settings import Settings


@dataclass(frozen=True)
class Done:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: object) -> Done:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture
def api_url(settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # who connects before the server runs is kept waiting
        config = uvicorn.Config(create_app(settings, db), log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("HAL0_URL", url)
        monkeypatch.setenv("HAL0_HOME", str(settings.home))
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("HAL0_URL", f"http://127.0.0.1:{port}")
    return f"http://127.0.0.1:{port}"
