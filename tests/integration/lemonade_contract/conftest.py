"""One fake for many stories, cleared before each."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.fakes.lemond import Lemond
from tests.integration.lemonade_contract.scene import AS_CAPTURED, clear, make_folders
from tests.integration.lemonade_contract.stage import Stage
from tests.integration.lemonade_contract.wire import Folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return make_folders(tmp_path_factory.mktemp("wire"))


@pytest.fixture(scope="module")
def shared(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lemond]:
    calls = tmp_path_factory.mktemp("calls") / "calls.ndjson"
    with Lemond(folders.extra, call_log=calls, script=AS_CAPTURED) as lemond:
        yield lemond


@pytest.fixture
def lemond(shared: Lemond, folders: Folders) -> Lemond:
    """A server on which nothing is loaded or registered, and nothing scripted."""
    clear(shared, folders)
    return shared


@pytest.fixture
def cleared(lemond: Lemond, folders: Folders) -> Iterator[Stage]:
    with closing(Stage(lemond, folders)) as stage:
        yield stage
