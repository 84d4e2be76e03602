"""What of the environment and of `hal0.toml` is refused, and in which words."""

from pathlib import Path

import pytest

from hal0.errors import SettingsError
from hal0.settings import Settings


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("HAL0_LOAD_TIMOUT_S", "HAL0_LOAD_TIMOUT_S is no setting of hal0; did you mean HAL0_LOAD_"),
        ("HAL0_HOMES", "HAL0_HOMES is no setting of hal0; did you mean HAL0_HOME?"),
        ("HAL0_bind", "HAL0_bind is no setting of hal0; did you mean HAL0_BIND"),
        ("hal0_bind", "hal0_bind is no setting of hal0; did you mean HAL0_BIND"),
        ("HAL0_", "HAL0_ is no setting of hal0; README lists them"),
        ("HAL0_COLOUR_OF_THE_SKY", "HAL0_COLOUR_OF_THE_SKY is no setting of hal0; README lists"),
    ],
)
def test_a_name_in_the_environment_that_is_no_setting_is_refused_with_those_like_it(
    monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.setenv(name, "127.0.0.1:1")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert caught.value.detail.startswith(words)


def test_every_setting_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = Settings().model_dump(mode="json", exclude_none=True)
    values |= {"engine_kind": "lemonade", "hub_endpoint": "https://hub.example"}
    values |= dict.fromkeys(("pull_hosts", "pull_private_hosts"), "nas.lan")
    for name in Settings.model_fields:
        monkeypatch.setenv(f"HAL0_{name.upper()}", str(values.get(name, "30")))
    assert Settings.load().load_timeout_s == 120


@pytest.mark.parametrize("value", ["30", "ftp://h", "https://", "https://u:p@h", "https://h/?q"])
def test_a_hub_that_is_no_web_server_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HAL0_HUB_ENDPOINT", value)
    with pytest.raises(SettingsError, match="HAL0_HUB_ENDPOINT"):
        Settings.load()


def test_names_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HAL", "HAL01_BIND", "XHAL0_BIND", "HALO_BIND"):
        monkeypatch.setenv(name, "x")
    Settings.load()


def test_everything_that_is_wrong_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hal0.toml").write_text('beat = 5\nworker_threads = "many"\n')
    monkeypatch.setenv("HAL0_HOME", str(tmp_path))
    monkeypatch.setenv("HAL0_CRASH_LIMITS", "3")
    monkeypatch.setenv("HAL0_BIND", "here")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    told = caught.value.detail.split("; ")
    assert "HAL0_CRASH_LIMITS is no setting of hal0" in told
    assert "did you mean HAL0_CRASH_LIMIT?" in told
    assert "HAL0_BEAT is no setting of hal0" in told
    assert "HAL0_BIND: 'here' is not address:port, as in 127.0.0.1:13310" in told
    assert any(one.startswith("HAL0_WORKER_THREADS: ") for one in told)


def test_a_file_that_is_no_toml_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hal0.toml").write_text("bind = ")
    monkeypatch.setenv("HAL0_HOME", str(tmp_path))
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert caught.value.detail.startswith(f"{tmp_path / 'hal0.toml'} cannot be read: ")
