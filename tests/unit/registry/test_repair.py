"""What a refused file's message advises, by where the file came from."""

import os
from pathlib import Path

import pytest

from hal0.errors import PreloadError
from hal0.registry.files import FileIdentity, ModelFile
from hal0.registry.preload import Verdict, validate_files
from tests.tiny_gguf import write_tiny_gguf


class NothingKept:
    def recall(self, _of: FileIdentity, _expected: str | None, _format: str) -> Verdict | None:
        return None

    def remember(self, verdict: Verdict, _format: str) -> None:
        pass


def refused(path: Path, source: str | None, **unlike: int | str) -> str:
    """Validate a file as it is not registered and return the message."""
    known = {"size_bytes": path.stat().st_size, "sha256": "0" * 64, **unlike}
    file = ModelFile("main", path, int(known["size_bytes"]), str(known["sha256"]), source)
    with pytest.raises(PreloadError) as caught:
        validate_files([file], format="gguf", verdicts=NothingKept())
    return caught.value.detail


@pytest.mark.parametrize("unlike", [{}, {"size_bytes": 1}])
def test_what_is_one_file_with_its_source_is_put_right_at_the_source(
    tmp_path: Path, unlike: dict[str, int]
) -> None:
    source, path = write_tiny_gguf(tmp_path / "mine.gguf"), tmp_path / "model.gguf"
    os.link(source, path)
    told = refused(path, str(source), **unlike)
    assert f"put the right file at {source}, its source, then `hal0 slot load SLOT" in told
    assert "--again" not in told


@pytest.mark.parametrize("source", ["{folder}/mine.gguf", "{folder}/gone", "https://x/m.gguf"])
def test_what_was_copied_or_downloaded_can_be_brought_again(tmp_path: Path, source: str) -> None:
    write_tiny_gguf(tmp_path / "mine.gguf")
    path = write_tiny_gguf(tmp_path / "model.gguf")
    told = refused(path, source.format(folder=tmp_path))
    assert "`hal0 slot pull SLOT --again --wait`" in told
    assert "`hal0 job retry ID --wait`" in told


def test_what_has_no_source_is_put_there_by_hand(tmp_path: Path) -> None:
    told = refused(write_tiny_gguf(tmp_path / "model.gguf"), None)
    assert "put the registered file there, then `hal0 job retry ID --wait`" in told
    assert "pull" not in told
