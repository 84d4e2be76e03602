"""The CLI's cheap look at the settings finds what the settings say."""

from pathlib import Path

import pytest

from hal0.errors import SettingsError
from hal0.settings import Settings
from hal0.where import whereabouts


@pytest.mark.parametrize("toml", ["", 'bind = "127.0.0.1:1"', 'url = "http://h:2"'])
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HAL0_BIND": "127.0.0.1:3"},
        {"HAL0_URL": "http://there:4"},
        {"HAL0_TOKEN_FILE": "/run/token", "HAL0_MODELS_DIR": "/big/models"},
    ],
)
@pytest.mark.parametrize("is_home_set", [True, False])
def test_both_readers_agree(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    toml: str,
    environment: dict[str, str],
    is_home_set: bool,
) -> None:
    home = tmp_path / "home" if is_home_set else tmp_path / "xdg" / "hal0"
    home.mkdir(parents=True)
    (home / "hal0.toml").write_text(toml)
    if is_home_set:
        monkeypatch.setenv("HAL0_HOME", str(home))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    where, settings = whereabouts(), Settings.load()
    assert (where.url, where.token_file, where.models) == (
        settings.api_url,
        settings.token_file,
        settings.models,
    )


def test_a_file_that_is_no_toml_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hal0.toml").write_text("bind = ")
    monkeypatch.setenv("HAL0_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match=r"hal0\.toml"):
        whereabouts()


def test_a_home_below_a_file_has_no_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who uses the home says that it cannot be made; here nothing is read from it."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HAL0_HOME", str(tmp_path / "file" / "home"))
    assert whereabouts().url == Settings.load().api_url
