"""The web application over a real database, spoken to without a socket."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette

from hal0.api.app import create_app
from hal0.db import Database
from hal0.settings import Settings
from tests.documented import document_of

BASE = "http://127.0.0.1:13310"


@pytest.fixture
def app(settings: Settings, db: Database) -> Starlette:
    return create_app(settings, db)


@pytest.fixture
async def api(app: Starlette, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client for which every answer must be as the document of the application tells."""
    transport = httpx.ASGITransport(app)
    document = document_of(app)

    async def check(response: httpx.Response) -> None:
        await response.aread()
        document.check(response)

    hooks = {"response": [check]}
    async with httpx.AsyncClient(
        transport=transport, base_url=BASE, timeout=30, event_hooks=hooks
    ) as client:
        yield client
