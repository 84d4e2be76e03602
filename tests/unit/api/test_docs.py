"""The page that describes the API: it has all that the document has, and needs nobody else."""

import re
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from hal0.access import tokens
from hal0.access.roles import Role
from hal0.api.docs import about_of, kind_of, page_of
from hal0.db import Database
from tests.documented import document_of

pytestmark = pytest.mark.anyio
BASE = "http://127.0.0.1:13310"
VOID = {"meta", "link", "br"}


@pytest.fixture
async def page(app: Starlette) -> str:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
        answer = await client.get("/api/v1/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return answer.text


class Seen(HTMLParser):
    """What stands in a page; refuses one whose elements do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


async def test_it_has_every_route_shape_and_code_of_the_document(page: str, app: Starlette) -> None:
    seen, document = Seen(page), document_of(app).tree
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in seen.words
            assert operation["operationId"] in seen.ids
            assert operation["summary"].replace("`", "") in seen.words
    assert set(document["components"]["schemas"]) <= set(seen.ids)
    for code in document["x-error-codes"]:
        assert code["code"] in seen.words


async def test_its_links_lead_somewhere_on_this_machine_and_it_runs_nothing(page: str) -> None:
    seen = Seen(page)
    assert len(set(seen.ids)) == len(seen.ids)
    for link in seen.links:
        assert link.startswith(("#", "/")), link
        assert not link.startswith("//")
        assert not link.startswith("#") or link[1:] in seen.ids, link
    assert not seen.tags & {"script", "iframe", "img", "style", "object"}
    assert not re.search(r"\bon[a-z]+=|style=", page)


def hostile(tree: Any, key: str = "") -> Any:
    """Return a document in which every text is markup, but for those that lead to another part."""
    if isinstance(tree, dict):
        return {name: hostile(value, name) for name, value in tree.items()}
    if isinstance(tree, list):
        return [hostile(value, key) for value in tree]
    is_text = isinstance(tree, str) and key not in ("$ref", "operationId")
    return f"{tree}<img src=x onerror=alert(1)>\"'`<b>`" if is_text else tree


async def test_markup_in_the_document_is_shown_and_does_nothing(app: Starlette) -> None:
    seen = Seen(page_of(hostile(document_of(app).tree)))
    assert not seen.tags & {"img", "b"}
    assert seen.words.count("<img src=x onerror=alert(1)>") > 100


async def test_a_reader_may_see_it_and_a_client_may_not(app: Starlette, db: Database) -> None:
    with db.write() as tx:
        texts = [
            tokens.create(tx, str(role), role, "local")[1] for role in (Role.READER, Role.CLIENT)
        ]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
        answers = [
            await client.get("/api/v1/docs", headers={"Authorization": f"Bearer {text}"})
            for text in texts
        ]
    assert [answer.status_code for answer in answers] == [200, 403]


def test_what_a_schema_says_is_said_in_words_and_escaped() -> None:
    assert kind_of({"type": "array", "items": {"$ref": "#/components/schemas/Slot"}}) == (
        'list of <a href="#Slot">Slot</a>'
    )
    assert kind_of({"anyOf": [{"type": "string"}, {"type": "null"}]}) == "string or null"
    assert kind_of({"enum": ["a", "<b>"]}) == "<code>a</code> <code>&lt;b&gt;</code>"
    assert about_of({"description": "how many", "minimum": 1, "default": None}) == (
        "how many; at least 1"
    )
