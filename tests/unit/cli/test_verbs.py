"""What the verbs ask for, what they print, and with which code they end."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from hal0.cli.exits import exit_for
from hal0.db import Database
from hal0.errors import ChecksumMismatch
from hal0.settings import Settings
from tests.rows import ask_load, fail_next, make_model, make_slot, options, run_load, slot_now
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("api_url")


def test_a_slot_is_created_changed_shown_listed_and_deleted(run: Run, db: Database) -> None:
    make_model(db)
    made = run("slot", "create", "chat", "--model", "tiny", "--ctx-size", 512, "--pinned")
    assert (made.code, made.out, made.err) == (0, "slot chat: created, offline\n", "")
    changed = run("slot", "set", "chat", "--unload-after", 0, "--llamacpp-args", "--threads 2")
    assert changed.code == 0
    slot = json.loads(run("slot", "show", "chat", "--json").out)
    assert (slot["pinned"], slot["unload_after_s"], slot["wanted_model"]) == (True, 0.0, "tiny")
    assert slot["options"] == options({"ctx_size": 512, "llamacpp_args": "--threads 2"})
    assert changed.out == "slot chat: changed\n", "nothing is loaded"
    assert run("slot", "set", "chat", "--unload-after", "default", "--no-model").code == 0
    slot = json.loads(run("slot", "show", "chat", "--json").out)
    assert (slot["unload_after_s"], slot["wanted_model"]) == (None, None)
    listed = run("slot", "list")
    assert listed.out.splitlines()[0].split()[:3] == ["NAME", "STATE", "MODEL"]
    assert listed.out.splitlines()[1].split()[:3] == ["chat", "offline", "-"]
    assert [one["name"] for one in json.loads(run("slot", "list", "--json").out)["items"]] == [
        "chat"
    ]
    assert run("slot", "delete", "chat").out == "slot chat: deleted\n"
    assert run("slot", "show", "chat").code == 3


def test_a_word_that_is_no_command_is_answered_with_those_like_it(run: Run) -> None:
    for words, meant in ((["slto"], "slot"), (["slot", "lst"], "list"), (["aply"], "apply")):
        done = run(*words)
        assert done.code == 2
        assert f"'{meant}'" in done.err
    assert "Did you mean" not in run("xyzzy").err


@pytest.mark.parametrize("args", [["chat"], ["chat", "--idle-after", "soon"]])
def test_a_change_that_says_nothing_or_nonsense_is_usage(run: Run, args: list[str]) -> None:
    assert run("slot", "set", *args).code == 2


def test_what_the_api_refuses_is_told_on_stderr_with_its_code(run: Run, db: Database) -> None:
    make_slot(db, "chat")
    for args, code, text in [
        (("slot", "show", "nope"), 3, "slot.not_found"),
        (("slot", "create", "chat"), 5, "slot.exists"),
        (("slot", "create", "CHAT"), 2, "request.invalid"),
        (("slot", "load", "chat"), 5, "slot.no_model"),
        (("job", "show", 99), 3, "job.not_found"),
        (("job", "list", "--slot", "nope"), 3, "slot.not_found"),
        (("model", "show", "nope"), 3, "model.not_found"),
        (("audit", "--cause", "boredom"), 2, "request.invalid"),
    ]:
        done = run(*args)
        assert (done.code, done.out) == (code, ""), args
        assert text in done.err


def test_a_name_cannot_reach_another_route(run: Run, db: Database) -> None:
    make_slot(db, "chat")
    for name in ("../slots/chat", "chat/load", "chat?force=true", ".."):
        assert run("slot", "delete", name).code == 3
    assert slot_now(db).name == "chat"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *[(400, 2), (413, 2), (422, 2), (401, 4), (403, 4), (429, 4), (404, 3), (409, 5)],
        *[(500, 1), (507, 1), (502, 7), (503, 7), (504, 7)],
    ],
)
def test_every_kind_of_refusal_has_its_exit_code(status: int, code: int) -> None:
    assert exit_for(status) == code


def test_an_order_without_wait_is_accepted_and_repeated_as_the_same(run: Run, db: Database) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    first = run("slot", "load", "chat")
    assert (first.code, first.out) == (0, "slot chat: accepted as jobs 1, 2, 3, 4\n")
    again = run("slot", "load", "chat")
    assert again.out == "slot chat: accepted as jobs 1, 2, 3, 4 (asked for before)\n"
    body = json.loads(run("slot", "load", "chat", "--json").out)
    assert (body["deduplicated"], body["jobs"]) == (True, [1, 2, 3, 4])
    run_load(db)
    assert run("slot", "load", "chat").out == "slot chat: ready (tiny) already\n"
    assert run("slot", "load", "chat", "--wait", "--json").code == 0


def test_jobs_are_listed_shown_cancelled_and_retried(run: Run, db: Database) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    assert len(run("job", "list").out.splitlines()) == 5
    listed = json.loads(run("job", "list", "--state", "queued", "--limit", 3, "--json").out)
    assert [job["id"] for job in listed["items"]] == [4, 3, 2]
    assert "job 1 (pull) of this slot" in run("job", "show", 2).out
    cancelled = run("job", "cancel", 2)
    assert (cancelled.code, cancelled.out) == (0, "slot chat: cancelled jobs 1, 2, 3, 4\n")
    assert run("job", "cancel", 2).code == 5
    ask_load(db)
    fail_next(db, ChecksumMismatch("bad bytes"))
    plan = run("job", "retry", "--all", "--dry-run")
    assert (plan.code, "would be" in plan.out) == (0, True)
    assert run("job", "retry", 5).out == "slot chat: accepted as jobs 5, 6, 7, 8\n"
    refused = run("job", "retry", 5)
    assert (refused.code, "job.not_failed" in refused.err) == (5, True)
    assert run("job", "retry", "--all").out.endswith(": nothing to retry\n")
    for bad in ((), (5, "--all"), (5, "--dry-run"), ("--all", "--wait")):
        assert run("job", "retry", *bad).code == 2


def test_the_audit_is_told_oldest_first_and_can_be_narrowed(run: Run, db: Database) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    make_slot(db, "code")
    ask_load(db)
    run_load(db)
    rows = json.loads(run("audit", "--json").out)["items"]
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["to"] for row in json.loads(run("audit", "--limit", 2, "--json").out)["items"]] == [
        "warming",
        "ready",
    ]
    assert len(run("audit", "--slot", "chat").out.splitlines()) == 5
    since = json.loads(run("audit", "--since", 3, "--limit", 1, "--json").out)["items"]
    assert [row["id"] for row in since] == [4]
    caused = json.loads(run("audit", "--cause", "loaded", "--json").out)["items"]
    assert [row["to"] for row in caused] == ["ready"]


def test_a_model_is_added_by_its_file_with_what_the_file_says(
    run: Run, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "Qwen3-0.6B Q8.gguf"
    file.write_bytes(b"GGUF" + b"x" * 100)
    monkeypatch.chdir(tmp_path)
    added = run("model", "add", file.name, "--hash")
    assert (added.code, added.out) == (0, "model qwen3-0.6b-q8: registered\n")
    model = json.loads(run("model", "show", "qwen3-0.6b-q8", "--json").out)
    assert model["source"] == str(file)
    assert model["files"] == [
        {
            "role": "main",
            "path": str(settings.models / "qwen3-0.6b-q8.gguf"),
            "source": str(file),
            "has_query": False,
            "size_bytes": 104,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "noted": [],
            "verified_at": None,
        }
    ]
    assert run("model", "add", file, "--name", "Other").code == 2
    assert run("model", "add", file, "--name", "other", "--sha256", "ab" * 32).code == 0
    assert run("model", "add", file, "--sha256", "ab" * 32, "--hash").code == 2
    assert [line.split()[0] for line in run("model", "list").out.splitlines()] == [
        "NAME",
        "other",
        "qwen3-0.6b-q8",
    ]
    kept = settings.models / "other.gguf"
    deleted = f"model other: forgotten; what lies there is kept:\n  {kept}\n"
    assert run("model", "delete", "other").out == deleted
    assert run("model", "show", "other").code == 3


def test_a_file_that_is_no_gguf_is_registered_with_a_warning(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "README.GGUF"
    page.write_text("# hal0")
    added = run("model", "add", page)
    assert (added.code, added.out) == (0, "model readme: registered\n")
    assert f"{page} does not begin as a GGUF file does" in added.err
    assert run("model", "add", page, "--name", "b", "--format", "other").err == ""


def test_a_change_of_a_loaded_slot_s_options_says_when_it_takes_effect(
    run: Run, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    run_load(db)
    later = "slot chat: changed; takes effect at the next `hal0 slot load chat`\n"
    assert run("slot", "set", "chat", "--ctx-size", 512).out == later
    assert run("slot", "set", "chat", "--priority", 3).out == "slot chat: changed\n"


def test_doctor_says_what_to_do_about_a_locked_database(
    run: Run, settings: Settings, db: Database
) -> None:
    with db.write():
        assert run("slot", "create", "chat").code == 7
        found = json.loads(run("doctor", "--json").out)["findings"]
    api = next(one for one in found if one["check"] == "api")
    assert api["to_do"].startswith("end the program that holds it")


def test_shards_and_a_projector_are_one_model(run: Run, tmp_path: Path) -> None:
    for name in ("big-1.gguf", "big-2.gguf", "eye.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    shards = [tmp_path / "big-1.gguf", tmp_path / "big-2.gguf"]
    made = run("model", "add", *shards, "--mmproj", tmp_path / "eye.gguf", "--name", "big")
    assert made.code == 0
    files = json.loads(run("model", "show", "big", "--json").out)["files"]
    assert [file["role"] for file in files] == ["shard", "shard", "mmproj"]


def test_what_is_no_readable_file_is_refused_before_the_api_is_asked(
    run: Run, tmp_path: Path
) -> None:
    for path in (tmp_path, tmp_path / "nothing.gguf"):
        done = run("model", "add", path)
        assert (done.code, "is no file" in done.err) == (3, True)


def test_a_file_on_another_disk_is_copied_only_when_that_is_said(run: Run, tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm/hal0-test.gguf")
    if not elsewhere.parent.is_dir() or elsewhere.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to put a model on")
    elsewhere.write_bytes(b"GGUF")
    try:
        refused = run("model", "add", elsewhere)
        assert (refused.code, "--copy" in refused.err) == (1, True)
        assert run("model", "add", elsewhere, "--copy").code == 0
    finally:
        elsewhere.unlink()


def test_the_engines_are_listed(run: Run, settings: Settings) -> None:
    assert settings.default_engine_url in run("engine", "list").out


def test_an_engine_is_added_and_a_slot_uses_it(run: Run) -> None:
    url = "http://127.0.0.1:8080"
    added = run("engine", "add", "router", "--kind", "llamacpp", "--url", url)
    assert (added.code, added.out) == (0, "engine router is added; `hal0 doctor` asks it\n")
    assert url in run("engine", "list").out
    assert run("slot", "create", "b", "--engine", "router").code == 0
    refused = run("slot", "create", "c", "--engine", "router", "--ctx-size", "512")
    assert (refused.code, "--models-preset" in refused.err) == (2, True)
    assert run("engine", "add", "other", "--kind", "ollama", "--url", url).code == 2


def test_the_database_is_made_and_described(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAL0_HOME", str(tmp_path / "new"))
    assert json.loads(run("db", "info", "--json").out)["schema_revision"] is None
    assert json.loads(run("db", "upgrade", "--json").out)["before"] is None
    info = json.loads(run("db", "info", "--json").out)
    assert info["schema_revision"] == info["expected_revision"]


def test_doctor_finds_the_api_and_misses_workers_and_engine(run: Run, db: Database) -> None:
    done = run("doctor", "--json")
    found = {one["check"]: one for one in json.loads(done.out)["findings"]}
    assert (done.code, found["api"]["verdict"], found["database"]["verdict"]) == (1, "ok", "ok")
    assert (found["worker"]["verdict"], found["engine default"]["verdict"]) == ("wrong", "wrong")
    assert all(one["to_do"] for one in found.values() if one["verdict"] == "wrong")


def test_doctor_says_that_the_api_is_down(run: Run, nobody_answers: str) -> None:
    done = run("doctor")
    assert done.code == 1
    assert f"the API at {nobody_answers} cannot be reached" in done.out


def test_an_api_that_is_down_is_its_own_exit_code(run: Run, nobody_answers: str) -> None:
    done = run("slot", "list")
    assert (done.code, done.out) == (7, "")
    assert nobody_answers in done.err


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:13310", "ftp://localhost:13310", "http://", "http://localhost:99999"),
        *("http://localhost:x", "http://[::1", "http://a b", "http://user@:1"),
    ],
)
def test_a_bad_address_is_usage(run: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HAL0_URL", url)
    done = run("slot", "list")
    assert (done.code, done.out) == (2, "")
    assert f"at {url}, which is not http(s)://host:port; see HAL0_URL" in done.err


def test_doctor_goes_on_when_the_address_is_bad(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL0_URL", "localhost:13310")
    done = run("doctor", "--json")
    found = {one["check"]: one for one in json.loads(done.out)["findings"]}
    assert (done.code, found["api"]["verdict"], found["database"]["verdict"]) == (1, "wrong", "ok")
    assert "HAL0_URL" in found["api"]["detail"]


class _NotHal0(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_something_else_that_answers_there_is_no_api(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer(("127.0.0.1", 0), _NotHal0) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("HAL0_URL", f"http://127.0.0.1:{server.server_port}")
        done = run("slot", "list")
        thread.join()
    assert (done.code, "is not hal0's API" in done.err) == (7, True)


def test_the_token_file_is_read_and_its_absence_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAL0_TOKEN_FILE", str(tmp_path / "token"))
    assert run("slot", "list").code == 2
    (tmp_path / "token").write_text("secret\n")
    assert run("slot", "list").code == 0
