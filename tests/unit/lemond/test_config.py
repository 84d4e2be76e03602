"""Which keys of the server's settings are set, and that nothing else is touched."""

import json
import os
import stat
from pathlib import Path

import pytest

from hal0.errors import LemondError
from hal0.lemond.config import configure

MODELS = Path("/data/models")
OURS = {
    "host": "127.0.0.1",
    "max_loaded_models": -1,
    "auto_evict": False,
    "extra_models_dir": "/data/models",
}
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def config_of(folder: Path) -> object:
    return json.loads((folder / "config.json").read_text())


def test_a_server_that_never_ran_gets_a_folder_and_four_settings(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "lemonade"
    assert configure(folder, MODELS) == "written"
    assert config_of(folder) == OURS
    assert stat.S_IMODE(folder.stat().st_mode) & 0o007 == 0
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) & 0o137 == 0
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_other_keys_stay_as_they_are_and_in_their_order(tmp_path: Path) -> None:
    before = {"port": 13399, "host": "0.0.0.0", "llamacpp": {"args": "ü"}, "max_loaded_models": 1}
    (tmp_path / "config.json").write_text(json.dumps(before))
    assert configure(tmp_path, MODELS) == "written"
    assert config_of(tmp_path) == before | OURS
    assert list(json.loads((tmp_path / "config.json").read_text()))[:4] == list(before)


def test_what_is_so_already_is_not_written_again(tmp_path: Path) -> None:
    configure(tmp_path, MODELS)
    before = (tmp_path / "config.json").stat()
    assert configure(tmp_path, MODELS) == "unchanged"
    after = (tmp_path / "config.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("value", [0, "false", None, True])
def test_what_is_only_like_false_to_python_is_set_right(tmp_path: Path, value: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps(OURS | {"auto_evict": value}))
    assert configure(tmp_path, MODELS) == "written"
    assert config_of(tmp_path) == OURS


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_settings_that_cannot_be_read_are_left_as_they_are(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(LemondError, match=r"config\.json cannot be read"):
        configure(tmp_path, MODELS)
    assert (tmp_path / "config.json").read_bytes() == content


def test_no_link_is_followed(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "lemonade"
    precious.write_text("{}")
    folder.mkdir()
    (folder / ".config.json.new").symlink_to(precious)
    assert configure(folder, MODELS) == "written"
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(precious)
    with pytest.raises(LemondError):
        configure(folder, MODELS)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(OSError, match="Not a directory"):
        configure(tmp_path / "link", MODELS)
    assert precious.read_text() == "{}"


@needs_root
def test_what_root_writes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    configure(tmp_path / "lemonade", MODELS)
    for path in (tmp_path / "lemonade", tmp_path / "lemonade" / "config.json"):
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
