"""`hal0 setup` from its first word to its last, with an engine that talks as it is told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sqlalchemy import update

from hal0.access import tokens
from hal0.db import Database
from hal0.jobs.owners import Owner
from hal0.settings import Settings
from hal0.tables import engines
from tests.rows import ask_load, make_model, make_slot, run_load
from tests.unit.cli.conftest import Run, serving


class Talker(BaseHTTPRequestHandler):
    """An engine that is there, and answers a chat."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"status": "ok", "version": "11.7.0", "all_models_loaded": []})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"choices": [{"message": {"role": "assistant", "content": "Hello to you."}}]})

    def _answer(self, said: dict[str, object]) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def talker(db: Database, settings: Settings) -> Iterator[None]:
    """The engine `default` as one that talks; its slot `chat` is loaded, by a worker."""
    owner = Owner(settings.run, "worker")
    with ThreadingHTTPServer(("127.0.0.1", 0), Talker) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with db.write() as tx:
            tx.execute(update(engines).values(url=url, kind="lemonade"))
            owner.register(tx)
        make_model(db)
        make_slot(db, "chat", "tiny")
        ask_load(db)
        run_load(db)
        yield
        server.shutdown()
        thread.join()
        owner.close()


def test_the_walk_ends_with_an_answer_and_the_token_that_was_asked_for(
    run: Run,
    talker: None,
    settings: Settings,
    db: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(settings, db, has_pulse=True) as url:
        monkeypatch.setenv("HAL0_URL", url)
        done = run("setup", "--yes", "--token", "me")
    assert done.code == 0, done.err
    parts = [
        "slot chat: has model tiny already",
        "A: Hello to you.",
        "\ntoken me, ",
        "\ndone. Next",
    ]
    places = [done.out.find(part) for part in parts]
    assert -1 not in places, done.out
    assert places == sorted(places)
    with db.read() as tx:
        assert [token.name for token in tokens.all_tokens(tx).rows] == ["me"]
