"""What a file may declare, and how one that may not is refused: all of it, with its place."""

from pathlib import Path

import pytest

from hal0.declare.document import Document, read
from hal0.errors import InvalidRequest

SLOT = "known are engine, model, options, pinned, priority"


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        read(text)
    fields = caught.value.evidence["fields"]
    return [f"{one['field']}: {one['problem']}" for one in fields]


def test_a_file_declares_models_and_slots_by_name() -> None:
    document = read(
        """
        [models.tiny]
        source = "file:///data/tiny.gguf"
        [models."qwen2.5-0.5b"]
        files = [{ role = "shard", source = "/a.gguf" }, { role = "mmproj", source = "/b.gguf" }]
        [slots.chat]
        model = "tiny"
        idle_after_s = 60
        options = { ctx_size = 8192 }
        """
    )
    assert document.models["tiny"].source == "/data/tiny.gguf"
    assert [one.role for one in document.models["qwen2.5-0.5b"].in_order] == ["shard", "mmproj"]
    assert document.slots["chat"].options.ctx_size == 8192
    assert document.slots["chat"].pinned is False


def test_the_example_of_the_readme_can_be_read() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    part = readme.partition("## Slots and models in a file")[2]
    document = read(part.partition("```toml\n")[2].partition("```")[0])
    assert [*document.models, *document.slots] == ["qwen3", "vision-2.5", "chat"]


def test_an_empty_file_declares_nothing() -> None:
    assert read("# nothing yet\n") == Document()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[slots.chat]\nidle_afer_s = 1", f"slots.chat.idle_afer_s: is unknown; {SLOT}"),
        ("[slots.options]\nfoo = 1", f"slots.options.foo: is unknown; {SLOT}"),
        (
            "[slots.chat]\noptions = { gpu = 1 }",
            "slots.chat.options.gpu: is unknown; known are ctx_size, llamacpp_backend",
        ),
        (
            "[models.m]\nfiles = [{ url = '/a' }]",
            "models.m.files.0.url: is unknown; known are role, source, name, size_bytes, sha256",
        ),
        ("[models.m]\nname = 'x'", "models.m.name: is unknown; known are format, files, source"),
        ("bind = 3", "bind: is unknown; known are models, slots"),
        ("slots = 3", "slots: takes an object, not 3"),
        ('[slots."../../tmp/pwn"]', "slots.../../tmp/pwn: '../../tmp/pwn' is no slot name"),
        ("[slots.Chat]", "slots.Chat: 'Chat' is no slot name"),
        ('[models."a/b"]\nsource = "/a"', "models.a/b: 'a/b' is no model name"),
        ("[slots.chat]\nmodel = '../m'", "slots.chat.model: '../m' is no model name"),
        ("[slots.chat]\nengine = ''", "slots.chat.engine: '' is no engine name"),
        ("[models.m]\nsource = '/a/../b'", "models.m.source: '/a/../b': a path has no part"),
        ("[models.m]\nsource = 'a.gguf'", "models.m.source: 'a.gguf' is not a source"),
        ("[models.m]", "models.m: give either files or source"),
        ("[models.m]\nsource = '/a'\nsize_bytes = '7'", "models.m.size_bytes: takes a whole num"),
        ("[models.qwen2.5]\nsource = '/a'", "models.qwen2.5: a name with a dot stands in quotes"),
        (
            "[models.m]\nfiles = [{role='shard', source='/a/x'}, {role='shard', source='/b/x'}]",
            "models.m: two files of model m have the same name",
        ),
        (
            "[slots.chat]\nidle_after_s = 60\nunload_after_s = 60",
            "slots.chat: idle_after_s (60) must be less than unload_after_s (60)",
        ),
    ],
)
def test_what_cannot_be_is_told_with_its_place_and_what_may_stand_there(
    text: str, told: str
) -> None:
    assert [problem[: len(told)] for problem in problems(text)] == [told]


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = "[models.m]\nsha256 = 'ab'\n[slots.a]\npriority = 1.5\n[slots.b]\nwake = 'now'\nx = 1"
    assert {problem.partition(":")[0] for problem in problems(text)} == {
        "models.m.sha256",
        "slots.a.priority",
        "slots.b.wake",
        "slots.b.x",
    }


def test_what_is_no_toml_is_told_with_its_line() -> None:
    with pytest.raises(InvalidRequest, match=r"no TOML .*line 2"):
        read("[slots.chat]\nmodel = \n")


@pytest.mark.parametrize("value", ["[" * 5000, "{x=" * 3000, "9" * 5000])
def test_what_the_reader_of_toml_gives_up_on_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="no TOML that can be read"):
        read(f"a = {value}")


def test_no_refusal_repeats_a_query() -> None:
    told = problems("[models.m]\nsource = 'https://user:secret@x/a.gguf?sig=f00d'")
    assert "secret" not in str(told)
    assert "f00d" not in str(told)
