"""What of the environment and of `hal0.toml` is refused, and in which words."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from hal0.api.schemas import EngineCreate
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
    values["engine_url"] = "http://127.0.0.1:1"
    values |= dict.fromkeys(("pull_hosts", "pull_private_hosts"), "nas.lan")
    for name in Settings.model_fields:
        monkeypatch.setenv(f"HAL0_{name.upper()}", str(values.get(name, "30")))
    assert Settings.load().load_timeout_s == 120


@pytest.mark.parametrize(("silence", "beat"), [("5", "10"), ("29.9", "10"), ("0.2", "0.1")])
def test_a_silence_that_a_healthy_worker_falls_into_is_refused(
    monkeypatch: pytest.MonkeyPatch, silence: str, beat: str
) -> None:
    monkeypatch.setenv("HAL0_SILENCE_S", silence)
    monkeypatch.setenv("HAL0_BEAT_S", beat)
    told = f"silence_s ({silence}) must be at least 3 times beat_s ({beat})"
    with pytest.raises(SettingsError, match=re.escape(told)):
        Settings.load()
    monkeypatch.setenv("HAL0_SILENCE_S", {"10": "30", "0.1": "0.3"}[beat])
    Settings.load()


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
    assert any(re.match("HAL0_WORKER_THREADS: .*, not 'many'", one) for one in told)


def test_what_a_file_of_slots_and_models_holds_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hal0.toml").write_text("[slots.chat]\n")
    monkeypatch.setenv("HAL0_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match="slots: `hal0 apply` takes such a table"):
        Settings.load()


def test_a_file_that_is_no_toml_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hal0.toml").write_text("bind = ")
    monkeypatch.setenv("HAL0_HOME", str(tmp_path))
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert caught.value.detail.startswith(f"{tmp_path / 'hal0.toml'} cannot be read: ")


@pytest.mark.parametrize("models", [".", "run", "run/deep", "..", "../..", "link", "models/.."])
def test_models_may_not_lie_where_one_could_take_the_place_of_what_is_hal0_s(
    tmp_path: Path, models: str
) -> None:
    home = tmp_path / "state" / "hal0"
    home.mkdir(parents=True)
    (home / "link").symlink_to(home)
    with pytest.raises(SettingsError, match="models_dir"):
        Settings.load(home=home, models_dir=home / models)


def test_a_models_folder_that_leads_home_is_refused_by_its_default_name_too(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="models_dir"):
        Settings.load(home=tmp_path)


@pytest.mark.parametrize("models", ["models", "big", "../models", "running"])
def test_models_may_lie_below_home_or_elsewhere(tmp_path: Path, models: str) -> None:
    home = tmp_path / "hal0"
    assert Settings.load(home=home, models_dir=home / models).models == home / models


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:13305",
        "ftp://h",
        "http://u:p@h",
        "http://h/v1",
        "http://h?q",
        "http://h:99999",
        "http://h:0",
        "http://",
    ],
)
def test_an_engine_s_url_is_refused_as_the_api_refuses_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HAL0_ENGINE_URL", url)
    with pytest.raises(SettingsError, match="HAL0_ENGINE_URL: ") as caught:
        Settings.load()
    assert "u:p" not in caught.value.detail
    with pytest.raises(ValidationError):
        EngineCreate.model_validate({"name": "e", "kind": "lemonade", "url": url})


def test_an_engine_s_url_is_kept_without_a_slash_at_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HAL0_ENGINE_URL", "https://h:8/")
    assert Settings.load().default_engine_url == "https://h:8"


def test_a_router_of_llamacpp_is_somebody_s_own(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="llamacpp needs engine_url"):
        Settings.load(home=tmp_path, engine_kind="llamacpp")
    url = "http://127.0.0.1:8080"
    settings = Settings.load(home=tmp_path, engine_kind="llamacpp", engine_url=url)
    assert (settings.default_engine_kind, settings.default_engine_url) == ("llamacpp", url)


@pytest.mark.parametrize(
    ("idle_after_s", "unload_after_s", "is_refused"),
    [(300, 300, True), (301, 300, True), (299, 300, False), (0, 300, False), (300, 0, False)],
)
def test_a_demotion_that_would_not_come_before_the_unload_is_refused_by_both_names(
    tmp_path: Path, idle_after_s: float, unload_after_s: float, is_refused: bool
) -> None:
    times = {"idle_after_s": idle_after_s, "unload_after_s": unload_after_s}
    if not is_refused:
        assert Settings.load(home=tmp_path, **times).idle_after_s == idle_after_s
        return
    with pytest.raises(SettingsError, match=r"idle_after_s .* unload_after_s"):
        Settings.load(home=tmp_path, **times)
