"""Every engine that there is here, one after the other, each started once for all tests."""

from collections.abc import AsyncIterator, Iterator

import pytest

from hal0.engines.base import Engine
from tests.integration.engines.rigs import RIGS, Rig
from tests.llama_server import NoServer


@pytest.fixture(scope="module", params=RIGS)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp(str(request.param))
    try:
        with RIGS[request.param](folder) as running:
            yield running
    except NoServer as why:
        pytest.skip(str(why))


@pytest.fixture
async def engine(rig: Rig) -> AsyncIterator[Engine]:
    """The adapter; what a test loaded is unloaded behind it."""
    engine = rig.adapter(rig.url, rig.key)
    yield engine
    for model in (await engine.health()).models or ():
        await engine.unload(model.name, lambda: None)
    rig.mend()
    await engine.close()
