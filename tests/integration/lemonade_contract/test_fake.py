"""The fake answers as the captured lemond does, in every story that was captured."""

from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.fakes.lemond import Lemond
from tests.integration.lemonade_contract.scene import AS_CAPTURED
from tests.integration.lemonade_contract.stage import Stage
from tests.integration.lemonade_contract.stories import ON_A_NEW_SERVER, STORIES, WITH_KEYS
from tests.integration.lemonade_contract.wire import CAPTURES, INDEX, WIRE, Folders


@pytest.mark.parametrize("story", STORIES)
def test_the_fake_answers_as_lemond(cleared: Stage, story: str) -> None:
    cleared.play(STORIES[story])


@pytest.mark.parametrize("story", ON_A_NEW_SERVER)
def test_a_new_fake_answers_as_a_new_lemond(folders: Folders, tmp_path: Path, story: str) -> None:
    calls = tmp_path / "calls.ndjson"
    lemond = Lemond(folders.extra, call_log=calls, script=AS_CAPTURED)
    with lemond, closing(Stage(lemond, folders)) as stage:
        stage.play(ON_A_NEW_SERVER[story])


def test_the_fake_keeps_its_doors_as_lemond(folders: Folders) -> None:
    lemond = Lemond(folders.extra, key="k1", admin_key="adm", script=AS_CAPTURED)
    with lemond, closing(Stage(lemond, folders)) as stage:
        stage.play(WITH_KEYS)


def test_with_the_keys_of_an_admin_alone_the_rest_is_open(folders: Folders) -> None:
    with Lemond(folders.extra, admin_key="adm") as lemond:
        assert httpx.get(f"{lemond.url}/v1/health").status_code == 200
        assert httpx.get(f"{lemond.url}/internal/config").status_code == 401


def test_no_capture_is_left_out() -> None:
    stories = [*STORIES.values(), *ON_A_NEW_SERVER.values(), WITH_KEYS]
    played = {word for story in stories for step in story for word in step.split()}
    assert played & set(CAPTURES) == {entry["file"][:3] for entry in INDEX}
    files = {path.name for path in WIRE.glob("*.json")} - {"INDEX.json"}
    assert files == {entry["file"] for entry in INDEX}
