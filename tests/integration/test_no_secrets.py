"""No secret in a row, a log or an answer: real processes, real keys, and every slip there is.

A token, the engine's key and the hub's token are used, then sent where they do not belong, then
wrong ones are. After that none of them is found in any byte of the home, in any log or answer.
"""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.house import ROOT, House
from tests.fakes.lemond import Lemond
from tests.fakes.source.hub import Hub
from tests.tiny_gguf import tiny_gguf_bytes

pytestmark = pytest.mark.slow
pytest.importorskip("huggingface_hub", reason="the extra `hub` is missing")

ENGINE_KEY = "engine-canary-8d1f"
WRONG_KEY = "engine-canary-wrong-77a0"
HUB_TOKEN = "hf_hubcanary5e2c"
WRONG_HUB_TOKEN = "hf_hubcanarywrong91b3"
REPO = "org/tiny"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        hub.commit(REPO, {"tiny.gguf": tiny_gguf_bytes()})
        hub.make_private(REPO, HUB_TOKEN)
        yield hub


@pytest.fixture
def lemond(tmp_path: Path) -> Iterator[Lemond]:
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    with Lemond(models, call_log=tmp_path / "calls.ndjson", key=ENGINE_KEY) as fake:
        yield fake


class Closed(House):
    """A house whose API is closed; it keeps every answer that it gets."""

    def __init__(self, folder: Path, lemond: Lemond, hub: Hub) -> None:
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        super().__init__(
            folder,
            lemond.url,
            HAL0_ENGINE_KEY_FILE=self.keep("engine", ENGINE_KEY),
            HAL0_HUB_TOKEN_FILE=self.keep("hub", HUB_TOKEN),
            HAL0_HUB_ENDPOINT=hub.origin,
            HAL0_TOKEN_FILE=str(self.secrets / "token"),
            HAL0_LOG_LEVEL="DEBUG",
            HAL0_PULL_TRIES="1",
        )
        self.token = self.hal0("token", "create", "alice", "--role", "writer").stdout.strip()
        self.keep("token", self.token)
        self.answers: list[str] = []
        self.client.headers["Authorization"] = f"Bearer {self.token}"
        self.client.event_hooks["response"] = [self._note]

    def keep(self, name: str, secret: str) -> str:
        path = self.secrets / name
        path.write_text(f"{secret}\n")
        return str(path)

    def hal0(self, *args: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "hal0", *args],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _note(self, response: httpx.Response) -> None:
        response.read()
        self.answers.append(f"{response.headers}\n{response.text}")

    def everything(self) -> dict[str, str]:
        """Return all that hal0 has written and said, by where."""
        with closing(sqlite3.connect(self.home / "hal0.db")) as connection:
            rows = "\n".join(connection.iterdump())
        files = {
            str(path): path.read_bytes().decode("latin-1")
            for path in self.home.rglob("*")
            if path.is_file()
        }
        answers = {f"answer {number}": text for number, text in enumerate(self.answers)}
        return {**files, **answers, "rows": rows, "log": self.log.read_text(errors="replace")}


def slips(token: str) -> list[dict[str, Any]]:
    """Return requests that have the token where it does not belong."""
    slots, body = "/api/v1/slots", {"name": "x"}
    return [
        {"method": "GET", "url": slots, "params": {"token": token}},
        {"method": "GET", "url": slots, "params": {"cursor": token}},
        {"method": "GET", "url": slots, "params": {"limit": token}},
        {"method": "GET", "url": slots, "params": {token: "x"}},
        {"method": "GET", "url": "/api/v1/transitions", "params": {"since": f"at {token} or so"}},
        {"method": "GET", "url": f"{slots}/{token}"},
        {"method": "GET", "url": f"/{token}/{'x' * 190}"},
        {"method": "DELETE", "url": f"/api/v1/tokens/{token}"},
        {"method": "POST", "url": slots, "json": {"name": token}},
        {"method": "POST", "url": slots, "json": {**body, token: 1}},
        {"method": "POST", "url": slots, "json": {**body, "priority": token}},
        {"method": "POST", "url": slots, "json": {**body, "model": token}},
        {"method": "POST", "url": slots, "content": f'{{"name": "{token}'},
        {"method": "POST", "url": slots, "content": f'"{token}"'},
        {"method": "POST", "url": slots, "content": token.encode() + b"\xff"},
        {"method": "POST", "url": "/api/v1/tokens", "json": {"name": token, "role": "reader"}},
        {
            "method": "POST",
            "url": "/api/v1/models",
            "json": {"name": "m", "source": f"https://host.example/m.gguf?key={token}"},
        },
        {
            "method": "POST",
            "url": "/api/v1/engines",
            "json": {"name": "e", "kind": "lemonade", "url": "http://h", "key_file": f"/{token}"},
        },
        {"method": "POST", "url": slots, "json": body, "headers": {"X-Request-ID": token}},
        {"method": "POST", "url": slots, "json": body, "headers": {"Idempotency-Key": token}},
        {"method": "POST", "url": slots, "json": body, "headers": {"Origin": f"http://{token}"}},
        {"method": "POST", "url": slots, "json": body, "headers": {"Content-Type": token}},
        {"method": "POST", "url": f"{slots}/chat/unload", "headers": {"Prefer": f"wait={token}"}},
        {"method": "GET", "url": slots, "headers": {"Host": token}},
        {"method": "GET", "url": slots, "headers": {"Authorization": f"Basic {token}"}},
        {"method": "GET", "url": slots, "headers": {"Authorization": f"Bearer {token}x"}},
    ]


def test_no_secret_is_written_or_told_however_it_is_used(
    tmp_path: Path, lemond: Lemond, hub: Hub
) -> None:
    with Closed(tmp_path, lemond, hub) as house:
        house.start_api()
        house.start_worker()
        use_what_is_right(house)
        for slip in slips(house.token):
            assert house.client.request(**slip).status_code != 500, slip
        use_what_is_wrong(house)
        said = [house.hal0(*args) for args in (("doctor",), ("token", "list"), ("job", "list"))]
        assert all(done.returncode in (0, 1) for done in said)
        seen = house.everything() | {f"cli {n}": d.stdout + d.stderr for n, d in enumerate(said)}
        found = {
            (secret, where)
            for secret in (ENGINE_KEY, WRONG_KEY, HUB_TOKEN, WRONG_HUB_TOKEN, house.token[5:])
            for where, text in seen.items()
            if secret in text
        }
        assert found == set()
        assert "Traceback" not in seen["log"]


def use_what_is_right(house: Closed) -> None:
    """Load a model with the hub's token and the engine's key: both are really needed."""
    model = {"name": "tiny", "source": f"hf://{REPO}/tiny.gguf@main"}
    house.post("/api/v1/models", model, status=201)
    house.add_slot()
    house.load()
    house.wait_until("ready")
    assert {row[0] for row in house.sql("SELECT actor FROM chains")} == {"alice"}
    house.post("/api/v1/slots/chat/unload")
    house.wait_until("offline")


def use_what_is_wrong(house: Closed) -> None:
    """Fail a pull with a wrong token, a load with a wrong key, and end with both on rows."""
    house.keep("hub", WRONG_HUB_TOKEN)
    house.post("/api/v1/slots/chat/pull", {"again": True})
    house.wait_until("error")
    assert house.slot()["error"]["code"] == "pull.source_refused"
    key_file = house.keep("another", WRONG_KEY)
    with Lemond(house.models, key=ENGINE_KEY) as other:
        engine = {"name": "other", "kind": "lemonade", "url": other.url}
        house.post("/api/v1/engines", {**engine, "key_file": key_file}, status=201)
        house.post("/api/v1/slots", {"name": "second", "engine": "other"}, status=201)
        house.add_model("local")
        house.load("second", model="local")
        house.wait_until("error", "second")
    assert house.slot("second")["error"]["code"] == "engine.unauthorized"
