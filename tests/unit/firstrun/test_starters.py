"""The list of models that a first run offers: the one that comes along, and one of an operator."""

from pathlib import Path

import pytest

from hal0.errors import SettingsError, SourceNotFound, StarterNotFound
from hal0.firstrun.starters import packaged_model, read_starters, starter_named
from hal0.registry.checksum import sha256
from hal0.registry.sources import Source, SourceKind
from hal0.settings import Settings

HUB = """
[[starter]]
name = "tiny"
about = "tests"
parameters = "1M"
licence = "none"
source = "hf://org/repo/tiny.gguf"
"""


def listed(settings: Settings, text: str | bytes) -> Settings:
    file = settings.home / "starters.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return settings.model_copy(update={"starters_file": file})


def test_the_list_that_comes_along_is_whole(settings: Settings) -> None:
    starters = read_starters(settings)
    assert 5 <= len(starters) <= 10
    assert len({starter.name for starter in starters}) == len(starters)
    assert starters[0].package is not None
    for starter in starters:
        assert starter.licence
        assert starter.about
        if starter.source is not None:
            source = Source.parse(starter.source)
            assert source.kind is SourceKind.HUB
            assert source.file_name.endswith(".gguf")
            assert (starter.size_bytes, starter.sha256, starter.memory_bytes) == (None, None, None)


def test_what_is_said_of_the_package_was_measured(settings: Settings) -> None:
    starter = read_starters(settings)[0]
    path = packaged_model(str(starter.package))
    with path.open("rb") as file:
        assert sha256(file.fileno()) == starter.sha256
    assert path.stat().st_size == starter.size_bytes
    assert starter.memory_bytes is not None
    assert starter.size_bytes < starter.memory_bytes < 10 * starter.size_bytes


def test_an_operator_may_have_another_list(settings: Settings) -> None:
    starters = read_starters(listed(settings, HUB))
    assert [starter.name for starter in starters] == ["tiny"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[starter]", "is no TOML"),
        (b"\xff\xfe", "is no TOML"),
        ("", "starter: Field required"),
        ("starter = []", "starter: List should have at least 1 item"),
        (HUB + HUB, "there are two starters tiny"),
        (HUB.replace('"tiny"', '"../../etc/passwd"'), "starter.0.name: '../../etc/passwd' is no"),
        (HUB.replace("hf://", "https://host/"), "starter.0.source: takes a file of a hub"),
        (HUB.replace("tiny.gguf", "../x"), "starter.0.source: 'hf://org/repo/../x'"),
        (HUB.replace("licence", "license"), "starter.0.licence: Field required"),
        (HUB.replace("licence", "colour"), "starter.0.colour: Extra inputs"),
        (HUB.replace('"1M"', '"a\\u001b[2J"'), "starter.0.parameters: String should match"),
        (HUB + 'package = "x"', "give either source or package"),
        (HUB + "size_bytes = 5", "its hub's to say"),
        (HUB.replace('source = "hf://org/repo/tiny.gguf"', 'package = "x"'), "as measured"),
        (HUB.replace('source = "hf://org/repo/tiny.gguf"', 'package = "os.path"'), "package"),
        ("x = " + "[" * 100_000, "is no TOML"),
    ],
)
def test_a_bad_list_is_refused_and_says_where(
    settings: Settings, text: str | bytes, problem: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read_starters(listed(settings, text))
    assert problem in refused.value.detail
    assert "HAL0_STARTERS_FILE=" in refused.value.detail


def test_a_list_that_is_not_there_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"cannot be read: No such file"):
        read_starters(settings.model_copy(update={"starters_file": Path("/nowhere/list.toml")}))


def test_an_unknown_starter_is_refused_with_those_that_there_are(settings: Settings) -> None:
    with pytest.raises(StarterNotFound, match=r"no starter '\.\./x'; there are smollm2-135m, "):
        starter_named(settings, "../x")


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(SourceNotFound, match=r"no_such_package"):
        packaged_model("no_such_package")
