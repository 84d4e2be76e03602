"""Which entry of an engine's list is a model's: by its file, else the only one of its names."""

import pytest

from hal0.engines.base import EngineHealth, LoadedModel

NAMES = frozenset({"ga", "mine"})
FILE = "/models/ga.gguf"


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ([("ga", "/models/another.gguf"), ("other", FILE)], "other"),
        ([("other", FILE), ("ga", "/models/another.gguf")], "other"),
        ([("ga", None), ("other", FILE)], "other"),
        ([("ga", None), ("other", None)], "ga"),
        ([("ga", None), ("mine", None)], None),
        ([("other", None)], None),
        ([], None),
    ],
)
def test_the_right_file_under_another_name_comes_before_the_right_name(
    listed: list[tuple[str, str | None]], found: str | None
) -> None:
    health = EngineHealth("1-1", tuple(LoadedModel(name, file) for name, file in listed))
    entry = health.find(NAMES, FILE)
    assert (None if entry is None else entry.name) == found


def test_without_a_file_to_look_for_the_name_alone_counts() -> None:
    health = EngineHealth("1-1", (LoadedModel("other", FILE), LoadedModel("ga", "/elsewhere.gguf")))
    entry = health.find(NAMES, None)
    assert entry is not None
    assert entry.name == "ga"
