"""Names that are paths: whatever route they are sent to, no file and no row comes of them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydantic import BaseModel
from starlette.applications import Starlette

from hal0.api.auth import TABLE
from hal0.api.operations import OPERATIONS
from hal0.db import Database
from hal0.settings import Settings
from tests.rows import contents, make_model, make_slot
from tests.unit.api.conftest import BASE

pytestmark = pytest.mark.anyio

EVIL = (
    "../../tmp/pwn",
    "../../etc/passwd",
    "../../x",
    "..",
    ".",
    "pwn\x00.gguf",
    "pwn\n",
    "",
)
ODD = ("a/b", "..\\..\\pwn", "%2e%2e%2fpwn", "~root")
"""No names of ours; a file that somebody brings may be called so."""
HERE = "HERE"
FILE = {"role": "main", "source": "/data/tiny.gguf"}
ENGINE = {"name": "other", "kind": "lemonade", "url": "http://127.0.0.1:9"}
BEGIN = {"model": "new", "source": "/data/tiny.gguf", "slot": "new", "engine": "default"}
JSON: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "/api/v1/slots", {"name": HERE}),
    ("POST", "/api/v1/slots", {"name": "new", "model": HERE}),
    ("POST", "/api/v1/slots", {"name": "new", "engine": HERE}),
    ("PATCH", "/api/v1/slots/chat", {"model": HERE}),
    ("PATCH", "/api/v1/slots/chat", {"engine": HERE}),
    ("POST", "/api/v1/slots/chat/load", {"model": HERE}),
    ("POST", "/api/v1/jobs/retry", {"filter": {"slot": HERE}}),
    ("POST", "/api/v1/models", {"name": HERE, "source": "/data/tiny.gguf"}),
    ("POST", "/api/v1/models", {"name": "new", "source": HERE}),
    ("POST", "/api/v1/models", {"name": "new", "source": f"hf://org/repo/{HERE}"}),
    ("POST", "/api/v1/models", {"name": "new", "files": [{**FILE, "name": HERE}]}),
    ("POST", "/api/v1/models", {"name": "new", "files": [{**FILE, "source": HERE}]}),
    ("POST", "/api/v1/engines", {**ENGINE, "name": HERE}),
    ("POST", "/api/v1/engines", {**ENGINE, "key_file": HERE}),
    ("POST", "/api/v1/tokens", {"name": HERE, "role": "reader"}),
    *(("POST", path, {"model": HERE}) for _, path in TABLE if path.startswith("/v1/")),
)
FORMS: tuple[tuple[str, dict[str, str]], ...] = (
    ("/page/slots/chat/load", {"model": HERE}),
    ("/page/setup/engine", {**ENGINE, "name": HERE}),
    ("/page/setup/look", {"starter": HERE}),
    *(("/page/setup/begin", {**BEGIN, field: HERE}) for field in BEGIN),
    ("/page/setup/token", {"name": HERE}),
)
NAMES = {"name", "model", "engine", "slot", "source", "starter", "key_file", "files"}


def with_name(value: Any, name: str) -> Any:
    """Return a body with this name in its place."""
    if isinstance(value, dict):
        return {key: with_name(one, name) for key, one in value.items()}
    if isinstance(value, list):
        return [with_name(one, name) for one in value]
    return value.replace(HERE, name) if isinstance(value, str) else value


def files_below(folder: Path) -> dict[str, object]:
    """Return every file of the sandbox with what is in it; the rows are compared as rows."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not path.name.startswith("hal0.db")
    }


@pytest.fixture
async def api(app: Starlette, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of all that the API serves, its page too."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=BASE, timeout=30) as client,
    ):
        yield client


@pytest.fixture
def nothing_is_written(tmp_path: Path, settings: Settings, db: Database) -> Iterator[None]:
    """A home with something in it, and a folder `tmp` where `../../tmp` leads from its models."""
    make_model(db)
    make_slot(db, "chat", "tiny")
    (tmp_path / "tmp").mkdir()
    (settings.models / "tiny.gguf").write_bytes(b"GGUF")
    assert (settings.models / "../../tmp").resolve() == tmp_path / "tmp"
    files, rows = files_below(tmp_path), contents(db.path)
    yield
    assert files_below(tmp_path) == files
    assert contents(db.path) == rows
    assert not Path("/tmp/pwn").exists()


def must_refuse(answer: httpx.Response) -> None:
    assert 400 <= answer.status_code < 500, (answer.request.url, answer.status_code, answer.text)
    assert "root:x:" not in answer.text


@pytest.mark.parametrize("name", [*EVIL, *ODD])
async def test_no_body_is_taken_in_which_a_name_is_a_path(
    api: httpx.AsyncClient, nothing_is_written: None, name: str
) -> None:
    for method, path, body in JSON:
        if name in ODD and path == "/api/v1/models" and body["name"] != HERE:
            continue
        must_refuse(await api.request(method, path, json=with_name(body, name)))


@pytest.mark.parametrize("name", EVIL)
async def test_no_form_is_taken_in_which_a_name_is_a_path(
    api: httpx.AsyncClient, nothing_is_written: None, name: str
) -> None:
    for path, form in FORMS:
        must_refuse(await api.post(path, data=with_name(form, name)))


@pytest.mark.parametrize("name", [name for name in (*EVIL, *ODD) if name.strip(".")])
async def test_no_address_is_taken_in_which_a_name_is_a_path(
    api: httpx.AsyncClient, nothing_is_written: None, name: str
) -> None:
    for method, path in TABLE:
        if "{" not in path:
            continue
        for one in {quote(name, safe=""), quote(quote(name, safe=""), safe="")}:
            way = "/".join(one if "{" in part else part for part in path.split("/"))
            must_refuse(await api.request(method, way))


async def test_a_filter_that_names_a_path_finds_nothing(
    api: httpx.AsyncClient, nothing_is_written: None
) -> None:
    for path in ("/api/v1/jobs", "/api/v1/transitions", "/api/v1/transitions.csv", "/page/record"):
        answer = await api.get(path, params={"filter": "slot:../../tmp/pwn"})
        assert answer.status_code in (200, 404, 422)
        assert "root:x:" not in answer.text


def test_every_body_that_holds_a_name_is_tried() -> None:
    def names_in(schema: type[BaseModel]) -> set[str]:
        return set(schema.model_fields) & NAMES

    tried = {f"{method} {path.replace('/chat', '/{slot}')}" for method, path, _ in JSON}
    for operation, known in OPERATIONS.items():
        if known.body is not None and names_in(known.body):
            assert operation in tried, operation
