"""Which adapter serves which kind."""

from pathlib import Path

import pytest

from hal0.engines.connect import KINDS, connect, read_key
from hal0.engines.lemonade import LemonadeEngine
from hal0.errors import EngineUnauthorized, SettingsError


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_adapter(kind: str) -> None:
    assert isinstance(connect(kind, "http://127.0.0.1:1"), LemonadeEngine)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="embedded, lemonade"):
        connect("ollama", "http://127.0.0.1:1")


def test_the_key_is_the_line_in_the_file(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("k1\n")
    assert read_key(key_file) == "k1"
    key_file.write_text("\n")
    assert read_key(key_file) is None
    assert read_key(None) is None


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineUnauthorized, match="missing"):
        connect("lemonade", "http://127.0.0.1:1", tmp_path / "missing")
