"""The command line against a real API on a port of its own."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def serving(
    settings: Settings, db: Database, port: int = 0, *, has_pulse: bool = False
) -> Iterator[str]:
    """Serve the API in a thread; give its URL. A port can be served again.

    It takes requests for engines only with a pulse.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()  # who connects before the server runs is kept waiting
        app = create_app(settings, db)
        config = uvicorn.Config(app, log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        if has_pulse:
            app.state.pulse.start()
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            if has_pulse:
                app.state.pulse.end()


@pytest.fixture
def api_url(settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(settings, db) as url:
        monkeypatch.setenv("HAL0_URL", url)
        monkeypatch.setenv("HAL0_HOME", str(settings.home))
        yield url


@pytest.fixture
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("HAL0_URL", f"http://127.0.0.1:{port}")
    return f"http://127.0.0.1:{port}"
