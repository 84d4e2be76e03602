"""Nothing that an engine does beside inference can be reached through hal0, however it is spelt."""

import http.client
import json
from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from hal0.db import open_database
from hal0.jobs.boot import first_act
from hal0.settings import Settings
from tests.acceptance.house import House
from tests.fakes.lemond import Lemond
from tests.rows import ask_load, make_model, make_slot, run_load
from tests.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.slow

CONTROL = (
    *("load", "unload", "pull", "delete", "health", "stats", "system-info", "system-stats"),
    *("models", "models/tiny", "models/tiny/options", "models/tiny/files", "models/register"),
    *("slots", "tokenize", "downloads", "downloads/control", "jobs", "params", "halt"),
    *("log-level", "add-local-model", "reranking", "logs/stream"),
)
ROOT = ("live", "metrics", "status", "mcp", "props", "models/load", "models/unload", "models/sse")
INTERNAL = ("pin", "set", "config", "shutdown", "mcp")
OLLAMA = ("tags", "chat", "generate", "ps", "pull", "delete", "show")
PREFIXES = ("/v1", "/v0", "/api/v1", "/api/v0")
REFUSED = (400, 404, 405, 409, 422)
OWN = ("/v1/models", "/api/v1/models", "/api/v1/slots", "/api/v1/jobs", "/metrics")
"""What hal0 itself answers a GET of, and of what is below."""


@pytest.fixture
def lemond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lemond]:
    folder = tmp_path_factory.mktemp("routes")
    models = folder / "home" / "models"
    write_tiny_gguf(models / "tiny.gguf")
    with Lemond(models, call_log=folder / "calls.ndjson") as fake:
        yield fake


@pytest.fixture
def house(lemond: Lemond) -> Iterator[House]:
    """A slot that is ready; no worker runs, so hal0 itself asks the engine nothing."""
    with House(lemond.models.parents[1], lemond.url) as house:
        db = open_database(Settings(home=house.home, engine_url=lemond.url))
        first_act(db, "test")
        make_model(db, "tiny")
        make_slot(db, "chat", "tiny")
        ask_load(db)
        run_load(db)
        db.close()
        house.start_api()
        house.unchecked = "its load was written by hand, and no engine got it"
        yield house


def spellings(path: str) -> Iterator[str]:
    """Yield a path as it is, and as somebody would write it who wants to get past a list."""
    prefix, _, rest = path.rpartition("/")
    yield path
    yield f"{path}/"
    yield f"{prefix}//{rest}"
    yield f"/{path}"
    yield f"{prefix}/%{ord(rest[0]):02x}{rest[1:]}"
    yield f"{prefix}%2f{rest}"
    yield f"{prefix}/./{rest}"
    yield f"{prefix}/x/../{rest}"
    yield f"{prefix}/chat/completions/../../{rest}"
    yield f"{prefix}/chat/completions/%2e%2e/%2e%2e/{rest}"
    yield f"{prefix}/chat/completions/..%2f..%2f{rest}"
    yield f"{prefix}/chat/completions%3f/../{rest}"
    yield f"{prefix}/chat/completions%00/{rest}"
    yield f"{path}?model=tiny"
    yield f"{path};x"
    yield path.upper()


def everything() -> Iterator[str]:
    paths = [f"{prefix}/{rest}" for prefix in PREFIXES for rest in CONTROL]
    paths += [f"/{rest}" for rest in ROOT]
    paths += [f"/internal/{rest}" for rest in INTERNAL]
    paths += [f"/api/{rest}" for rest in OLLAMA]
    for path in paths:
        yield from spellings(path)


def test_no_spelling_of_a_control_route_reaches_the_engine(house: House, lemond: Lemond) -> None:
    line = http.client.HTTPConnection("127.0.0.1", house.port, timeout=30)
    body = json.dumps({"model": "tiny", "model_name": "tiny"})
    answered: dict[str, int] = {}
    for path in everything():
        for method in ("POST", "GET", "DELETE"):
            line.request(method, path, body, {"Content-Type": "application/json"})
            answer = line.getresponse()
            answer.read()
            is_own = method == "GET" and unquote(path).startswith(OWN)
            assert is_own or answer.status in REFUSED, (method, path, answer.status)
            answered[f"{method} {path}"] = answer.status
    line.close()
    assert len(answered) > 3000
    assert lemond.calls() == []
    asked = {"model": "chat", "messages": []}
    house.post("/v1/chat/completions?autoload=1", asked, status=200)
    (call,) = lemond.calls()
    assert call["path"] == "/v1/chat/completions", "the call log is of this engine"
