"""What the fake does when it is told to lie, to hang or to dribble."""

from collections.abc import Iterator

import httpx
import pytest

from hal0.engines.options import FLAGS
from tests.fakes.lemond import Lemond
from tests.fakes.lemond.options import KNOWN_ARGS, resolved
from tests.fakes.lemond.script import Script
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lemond]:
    models = tmp_path_factory.mktemp("fake") / "models"
    for name in ("ga", "gb"):
        write_tiny_gguf(models / f"{name}.gguf")
    with Lemond(models) as lemond:
        yield lemond


@pytest.fixture
def lemond(running: Lemond) -> Lemond:
    running.script(models={"ga": None, "gb": None}, health="ok", live="ok")
    running.post("/v1/unload", {}).raise_for_status()
    return running


def listed(lemond: Lemond) -> list[str]:
    return [entry["model_name"] for entry in lemond.get("/v1/health").json()["all_models_loaded"]]


def test_it_says_loaded_and_loads_nothing(lemond: Lemond) -> None:
    lemond.script(models={"ga": {"load": "pretend"}})
    answer = lemond.post("/v1/load", {"model_name": "ga"})
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    assert listed(lemond) == []
    assert lemond.state()["loaded"] == []


def test_it_lists_what_it_does_not_have(lemond: Lemond) -> None:
    lemond.script(models={"ga": {"ghost": True}})
    assert listed(lemond) == ["ga"]
    (entry,) = lemond.get("/v1/health").json()["all_models_loaded"]
    assert httpx.get(f"{entry['backend_url'].removesuffix('/v1')}/health").status_code == 503
    assert lemond.post("/v1/unload", {"model_name": "ga"}).status_code == 404


def test_it_lists_a_model_whose_backend_is_dead(lemond: Lemond) -> None:
    lemond.post("/v1/load", {"model_name": "ga"})
    lemond.script(models={"ga": {"backend": "dead"}})
    (entry,) = lemond.get("/v1/health").json()["all_models_loaded"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(entry["backend_url"])


def test_it_lists_another_file_and_another_process_by_the_same_name(lemond: Lemond) -> None:
    lemond.post("/v1/load", {"model_name": "ga"})
    other = {"checkpoint": "/elsewhere/ga.gguf", "entry": {"pid": 7, "last_use": "yesterday"}}
    lemond.script(models={"ga": other})
    (entry,) = lemond.get("/v1/health").json()["all_models_loaded"]
    assert (entry["checkpoint"], entry["pid"]) == ("/elsewhere/ga.gguf", 7)
    assert entry["last_use"] == "yesterday"


def test_its_health_dribbles_until_it_is_told_otherwise(lemond: Lemond) -> None:
    lemond.script(health="dribble")
    with httpx.stream("GET", f"{lemond.url}/v1/health", timeout=30) as answer:
        pieces = answer.iter_text()
        assert next(pieces).strip() == ""
        lemond.script(health="ok")
        assert "".join(pieces).strip() == "{}"


def test_a_model_that_is_reset_behaves_as_all_do() -> None:
    script = Script().merged({"models": {"*": {"chat": "hang"}, "ga": {"chat": "ok"}}})
    assert (script.of("ga").chat, script.of("gb").chat) == ("ok", "hang")
    assert script.merged({"models": {"ga": None}}).of("ga").chat == "hang"


def test_a_context_length_that_is_none_is_the_default() -> None:
    for size in (-1, 0, "big", None, True):
        assert resolved({"ctx_size": size}, {}, 4096)["ctx_size"] == 4096
    assert resolved({"ctx_size": 512}, {"ctx_size": 256}, 4096)["ctx_size"] == 512


def test_it_starts_with_every_argument_that_hal0_passes_on() -> None:
    assert set(FLAGS) <= set(KNOWN_ARGS)
