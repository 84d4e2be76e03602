"""`hal0 apply` and `hal0 export` against a real API: what they say, and what they leave behind."""

import json
from pathlib import Path
from typing import Any

import pytest

from hal0.db import Database
from tests.rows import ask_load, contents, make_model, make_slot, run_load
from tests.unit.cli.conftest import Run

TINY = '[models.tiny]\nsource = "https://x/tiny.gguf?sig=f00d"\nsize_bytes = 7\n'
CHAT = '[slots.chat]\nmodel = "tiny"\npinned = true\noptions = { ctx_size = 8192 }\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "slots.toml"


def shown(run: Run, noun: str, name: str) -> Any:
    return json.loads(run(noun, "show", name, "--json").out)


@pytest.mark.usefixtures("api_url")
def test_a_dry_run_shows_what_would_change_and_writes_nothing(
    run: Run, db: Database, file: Path
) -> None:
    file.write_text(TINY + CHAT)
    before = contents(db.path)
    done = run("apply", file, "--dry-run")
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            "+ model tiny",
            "    source: https://x/tiny.gguf",
            "    size_bytes: 7",
            "+ slot chat",
            "    model: tiny",
            "    pinned: true",
            "    options.ctx_size: 8192",
            "2 steps to do; nothing was changed",
        ],
    )
    told = json.loads(run("apply", file, "--dry-run", "--json").out)
    assert [(step["act"], step["noun"], step["name"]) for step in told["steps"]] == [
        ("create", "model", "tiny"),
        ("create", "slot", "chat"),
    ]
    assert told["steps"][1]["changes"][0] == {"field": "model", "old": None, "new": "tiny"}
    assert "f00d" not in str(told)
    assert contents(db.path) == before


@pytest.mark.usefixtures("api_url")
def test_what_was_applied_is_there_and_the_second_time_nothing_is_written(
    run: Run, db: Database, file: Path
) -> None:
    make_slot(db, "other")
    file.write_text(TINY + CHAT)
    done = run("apply", file, "--yes")
    assert (done.code, done.out.splitlines()[-1]) == (0, "1 model created, 1 slot created")
    assert done.err == "left alone, for the file does not name it: 1 slot\n"
    slot = shown(run, "slot", "chat")
    assert (slot["wanted_model"], slot["pinned"], slot["options"]["ctx_size"]) == (
        *("tiny", True),
        8192,
    )
    before = contents(db.path)
    again = run("apply", file, "--yes")
    assert (again.code, again.out) == (0, "nothing to do: all is as declared\n")
    assert json.loads(run("apply", file, "--json").out)["steps"] == []
    assert contents(db.path) == before


@pytest.mark.usefixtures("api_url")
def test_where_nobody_can_be_asked_the_diff_is_shown_and_yes_is_needed(
    run: Run, db: Database, file: Path
) -> None:
    file.write_text(CHAT.replace('"tiny"', '"a"') + '[models.a]\nsource = "/a"')
    before = contents(db.path)
    for more in ([], ["--json"]):
        done = run("apply", file, *more)
        assert done.code == 2
        assert "--yes" in done.err
    assert contents(db.path) == before


@pytest.mark.usefixtures("api_url")
def test_prune_deletes_what_the_file_leaves_out(run: Run, db: Database, file: Path) -> None:
    make_model(db, "old")
    make_slot(db, "old", "old")
    file.write_text(TINY + CHAT)
    done = run("apply", file, "--yes", "--prune")
    assert done.out.splitlines()[-1] == (
        "1 model created, 1 model deleted, 1 slot created, 1 slot deleted"
    )
    assert done.err == ""
    assert run("slot", "show", "old").code == 3
    assert run("model", "show", "old").code == 3


@pytest.mark.usefixtures("nobody_answers")
def test_a_file_that_is_wrong_is_refused_as_a_whole_before_anybody_is_asked(
    run: Run, file: Path
) -> None:
    file.write_text('bind = 1\n[slots."../../tmp/pwn"]\n[slots.a]\npriority = "1"\n')
    done = run("apply", file, "--yes")
    assert (done.code, done.out) == (2, "")
    told = done.err.splitlines()
    assert told[0] == f"hal0: {file} cannot be taken as it is"
    assert [line.partition(":")[0] for line in told[1:]] == [
        "  slots.../../tmp/pwn",
        "  slots.a.priority",
        "  bind",
        "  settings stand in another file, hal0.toml of the home folder",
    ]
    file.write_bytes(b"\xff")
    assert run("apply", file).err == f"hal0: {file} is no UTF-8 text\n"
    file.write_text("[slots")
    assert "this is no TOML" in run("apply", file).err
    assert run("apply", file.with_name("none.toml")).code == 2


@pytest.mark.usefixtures("api_url")
def test_what_would_be_refused_is_told_at_once_and_nothing_is_written(
    run: Run, db: Database, file: Path
) -> None:
    make_model(db, "tiny")
    make_model(db, "big")
    make_slot(db, "chat", "tiny")
    ask_load(db)
    run_load(db)
    file.write_text(
        '[slots.chat]\nmodel = "big"\n[slots.b]\nmodel = "nope"\n[slots.c]\nengine = "gpu"\n'
    )
    before = contents(db.path)
    for more in (["--yes"], ["--dry-run"]):
        done = run("apply", file, *more)
        assert (done.code, done.out) == (5, "")
        assert done.err.splitlines() == [
            f"hal0: {file} cannot be applied; nothing was changed",
            "  slot c: there is no engine gpu, only default; `hal0 engine add`",
            "  slot b: model nope is neither declared nor registered",
            (
                "  slot chat is ready, and gets another model or engine at rest: "
                "`hal0 slot unload chat --wait`"
            ),
        ]
    assert contents(db.path) == before
    file.write_text('[slots.chat]\nmodel = "tiny"\noptions = { ctx_size = 512 }')
    done = run("apply", file, "--yes")
    assert done.code == 0
    assert "its options take effect at the next `hal0 slot load chat`" in done.err


@pytest.mark.usefixtures("api_url")
def test_a_step_that_the_api_refuses_is_told_with_what_was_done_and_what_is_left(
    run: Run, file: Path
) -> None:
    mended = "[slots.a]\n[slots.b]\nidle_after_s = 4000\nunload_after_s = 5000\n[slots.c]\n"
    file.write_text(mended.replace("unload_after_s = 5000\n", ""))
    done = run("apply", file, "--yes")
    assert done.code == 2
    assert "must be less than unload_after_s (330)" in done.err
    assert done.err.splitlines()[1:] == [
        "  this was step 2 of 3: + slot b",
        "  done before it: + slot a",
        "  not done: + slot c",
        "  what was done stays; the same command goes on from there",
    ]
    file.write_text(mended)
    done = run("apply", file, "--yes")
    assert (done.code, done.out.splitlines()[-1]) == (0, "2 slots created")


@pytest.mark.usefixtures("api_url")
def test_what_was_exported_is_nothing_to_do_at_home(run: Run, file: Path) -> None:
    file.write_text(TINY + CHAT + "[slots.b]\npriority = -3\n")
    assert run("apply", file, "--yes").code == 0
    exported = run("export").out
    assert "f00d" not in exported
    file.write_text(exported)
    assert run("apply", file, "--prune").out == "nothing to do: all is as declared\n"


@pytest.mark.usefixtures("api_url")
def test_an_export_overwrites_nothing_unless_it_is_told_to(
    run: Run, db: Database, file: Path
) -> None:
    make_slot(db)
    done = run("export", file)
    assert (done.code, done.out, done.err) == (0, "", f"{file}: 0 models, 1 slot\n")
    assert file.read_text() == run("export").out
    file.write_text("mine")
    refused = run("export", file)
    assert (refused.code, file.read_text()) == (5, "mine")
    assert refused.err == f"hal0: {file} exists; --force writes over it\n"
    assert run("export", file, "--force").code == 0
    assert file.read_text() == run("export").out
    assert run("export", file.parent / "none" / "x").code == 1
    assert run("export", file.parent, "--force").code == 1
    assert [path.name for path in file.parent.iterdir() if path.is_file()] == [file.name]


@pytest.mark.usefixtures("nobody_answers")
def test_without_an_api_nothing_is_exported(run: Run, file: Path) -> None:
    assert run("export", file).code == 7
    assert not file.exists()
