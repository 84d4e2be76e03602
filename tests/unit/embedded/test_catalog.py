"""Which files a model's name means to the embedded engine."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.embedded.catalog import ModelFiles, find, list_models


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"GGUF")


def test_a_file_is_named_by_its_stem_with_or_without_prefix(tmp_path: Path) -> None:
    make(tmp_path, "ga.gguf", "v1.5-q4.gguf")
    assert (
        find(tmp_path, "ga") == find(tmp_path, "extra.ga") == ModelFiles("ga", tmp_path / "ga.gguf")
    )
    assert find(tmp_path, "v1.5-q4") == ModelFiles("v1.5-q4", tmp_path / "v1.5-q4.gguf")


def test_shards_are_named_by_the_first_one(tmp_path: Path) -> None:
    make(tmp_path, *(f"big/w-{n:05d}-of-00003.gguf" for n in (1, 2, 3)), "big/mmproj-f16.gguf")
    main, mmproj = tmp_path / "big/w-00001-of-00003.gguf", tmp_path / "big/mmproj-f16.gguf"
    assert find(tmp_path, "big") == ModelFiles("big", main, mmproj)


@pytest.mark.parametrize(
    "files",
    [
        ("m/a.gguf", "m/b.gguf"),
        ("m/w-00002-of-00002.gguf", "m/w-00003-of-00003.gguf"),
        ("m/a-00001-of-00002.gguf", "m/b-00001-of-00002.gguf"),
        ("m/mmproj.gguf",),
        ("m/a.gguf.part", "m/a.bad"),
        ("m/deep/a.gguf",),
    ],
)
def test_a_folder_that_could_mean_two_models_or_none_means_none(
    tmp_path: Path, files: tuple[str, ...]
) -> None:
    make(tmp_path, *files)
    assert find(tmp_path, "m") is None
    assert list_models(tmp_path) == []


def test_what_is_no_regular_file_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "broken.gguf").symlink_to(tmp_path / "nothing")
    (tmp_path / "dir.gguf").mkdir()
    assert [find(tmp_path, name) for name in ("pipe", "broken", "dir")] == [None] * 3
    assert list_models(tmp_path) == []


def test_each_model_is_listed_once(tmp_path: Path) -> None:
    make(
        tmp_path, "b.gguf", "a/x.gguf", "note.txt", "w-00001-of-00002.gguf", "w-00002-of-00002.gguf"
    )
    assert [files.name for files in list_models(tmp_path)] == ["a", "b", "w-00001-of-00002"]
    assert list_models(tmp_path / "missing") == []


@given(st.text())
def test_no_name_reaches_a_file_outside(name: str) -> None:
    folder = Path("/proc/self/no/such/models")
    found = find(folder, name)
    assert found is None


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "a/../../x", "a/b", "/x", "a\\b", "", "extra."]
)
def test_a_name_is_one_part_of_a_path(tmp_path: Path, name: str) -> None:
    make(tmp_path, "x.gguf", "models/x.gguf", "models/a/b.gguf", "models/b.gguf")
    assert find(tmp_path / "models", name) is None


def test_a_file_that_was_written_again_is_another_one(tmp_path: Path) -> None:
    make(tmp_path, "a.gguf")
    files = find(tmp_path, "a")
    assert files is not None
    before = files.identity()
    make(tmp_path, "b.gguf")
    (tmp_path / "b.gguf").replace(tmp_path / "a.gguf")
    assert files.identity() != before
