"""Loads through REST with real processes: behaviours A and B, told by the engine's own call log."""

import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.house import House
from tests.fakes.lemond import Lemond
from tests.tiny_gguf import tiny_gguf_bytes, write_tiny_gguf

pytestmark = pytest.mark.slow


@pytest.fixture
def running(house: House) -> House:
    house.start_api()
    house.start_worker()
    return house


def loads_sent(lemond: Lemond) -> list[str]:
    return [call["body"]["model_name"] for call in lemond.calls("/v1/load")]


def ended(house: House, chain_id: int) -> list[Any]:
    house.wait_for(
        lambda: all(j["state"] not in ("queued", "running") for j in house.chain(chain_id))
    )
    return house.chain(chain_id)


def test_a_file_on_disk_is_loaded_once_and_never_shown_as_pulling(
    running: House, lemond: Lemond
) -> None:
    running.add_model()
    running.add_slot()
    asked = running.load()
    slot = running.wait_until("ready")
    assert running.edges() == [
        (None, "offline", "created"),
        ("offline", "starting", "checked"),
        ("starting", "warming", "load_sent"),
        ("warming", "ready", "loaded"),
    ]
    assert loads_sent(lemond) == ["tiny"]
    assert slot["last_used_at"] is not None
    assert slot["model"] == "tiny"
    kinds = [
        (job["kind"], job["state"], job["outcome"]) for job in ended(running, asked["chain_id"])
    ]
    assert kinds == [
        ("pull", "succeeded", "done"),
        ("validate", "succeeded", "done"),
        ("unload", "succeeded", "skipped"),
        ("load", "succeeded", "done"),
    ]


def test_what_is_loaded_already_needs_no_job_and_other_options_reload_it(
    running: House, lemond: Lemond
) -> None:
    running.add_model()
    running.add_slot()
    running.load()
    running.wait_until("ready")
    again = running.post("/api/v1/slots/chat/load", status=200)
    assert (again["already"], again["jobs"]) == (True, [])
    running.load(options={"ctx_size": 2048})
    running.wait_for(lambda: len(loads_sent(lemond)) == 2)
    running.wait_until("ready")
    assert running.path_of()[3:] == [
        "ready",
        "unloading",
        "offline",
        "starting",
        "warming",
        "ready",
    ]
    assert running.edges()[4] == ("ready", "unloading", "replaced")


def test_an_unchanged_file_is_not_read_again_unless_told_to(running: House) -> None:
    running.add_model()
    running.add_slot()

    def validated(**body: Any) -> Any:
        chain = running.load(**body)["chain_id"]
        assert ended(running, chain)[1]["state"] == "succeeded"
        (row,) = running.sql(
            "SELECT json_extract(result, '$.files[0].remembered') FROM jobs "
            "WHERE chain_id = ? AND kind = 'validate'",
            chain,
        )
        running.post("/api/v1/slots/chat/unload")
        running.wait_until("offline")
        return bool(row[0])

    assert validated() is False
    assert validated() is True
    assert validated(rehash=True) is False


def missing(place: Path) -> None:
    """Nothing lies there."""


def directory(place: Path) -> None:
    place.mkdir()


def fifo(place: Path) -> None:
    os.mkfifo(place)


def broken_link(place: Path) -> None:
    place.symlink_to(place.parent / "nowhere")


def longer(place: Path) -> None:
    place.write_bytes(tiny_gguf_bytes() + b"!")


def shorter(place: Path) -> None:
    place.write_bytes(tiny_gguf_bytes()[:-1])


def flipped(place: Path) -> None:
    content = bytearray(tiny_gguf_bytes())
    content[-1] ^= 1
    place.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (missing, "preload.file_not_found"),
        (directory, "preload.file_not_found"),
        (fifo, "preload.file_not_found"),
        (broken_link, "preload.file_not_found"),
        (longer, "preload.size_mismatch"),
        (shorter, "preload.size_mismatch"),
        (flipped, "preload.checksum_mismatch"),
    ],
)
def test_a_bad_file_is_refused_and_the_engine_never_hears_of_it(
    running: House, lemond: Lemond, spoil: Callable[[Path], None], code: str
) -> None:
    good = tiny_gguf_bytes()
    digest = hashlib.sha256(good).hexdigest()
    file = {"role": "main", "size_bytes": len(good), "sha256": digest}
    spoil(running.models / "tiny.gguf")
    running.post("/api/v1/models", {"name": "tiny", "files": [file]}, status=201)
    running.add_slot()
    chain = running.load()["chain_id"]
    slot = running.wait_until("error")
    assert slot["error"]["code"] == code
    assert slot["error"]["evidence"]["path"].endswith("tiny.gguf")
    assert loads_sent(lemond) == []
    assert "pulling" not in running.path_of()
    failed = ended(running, chain)
    assert [job["state"] for job in failed] == ["succeeded", "failed", "cancelled", "cancelled"]
    assert failed[3]["error"]["job_id"] == failed[1]["id"]


@pytest.mark.parametrize(
    ("broken", "code"), [("magic", "preload.not_a_gguf"), ("truncate", "preload.truncated")]
)
def test_a_file_whose_content_is_wrong_is_refused_although_nothing_was_registered_of_it(
    running: House, lemond: Lemond, broken: Any, code: str
) -> None:
    source = write_tiny_gguf(running.sources / "bad.gguf", broken=broken)
    running.post("/api/v1/models", {"name": "bad", "source": str(source)}, status=201)
    running.add_slot(model="bad")
    running.load()
    assert running.wait_until("error")["error"]["code"] == code
    assert loads_sent(lemond) == []


def test_checks_that_could_not_be_made_are_named_in_the_row(running: House) -> None:
    source = write_tiny_gguf(running.sources / "odd.gguf")
    body = {"name": "odd", "format": "other", "source": str(source)}
    running.post("/api/v1/models", body, status=201)
    running.add_slot(model="odd")
    running.load()
    running.wait_until("ready")
    (row,) = running.sql(
        "SELECT json_extract(result, '$.files[0].skipped') FROM jobs WHERE kind = 'validate'"
    )
    assert row == ('["size","header","checksum"]',)


def test_a_corrupt_file_for_one_slot_leaves_the_other_serving(
    running: House, lemond: Lemond
) -> None:
    running.add_model("good", seed=1)
    running.add_slot("a", "good")
    running.load("a")
    running.wait_until("ready", "a")
    bad = running.add_model("bad", seed=2)
    content = bytearray(bad.read_bytes())
    content[-1] ^= 1
    bad.write_bytes(content)
    running.add_slot("b", "bad")
    running.load("b")
    assert running.wait_until("error", "b")["error"]["code"] == "preload.checksum_mismatch"
    assert running.slot("a")["state"] == "ready"
    chat = {"model": "good", "messages": [{"role": "user", "content": "hello"}]}
    assert lemond.post("/v1/chat/completions", chat).status_code == 200
    assert loads_sent(lemond) == ["good"]


def test_a_bad_model_for_a_slot_that_serves_another_never_moves_it(running: House) -> None:
    running.add_model("good", seed=1)
    running.add_slot("chat", "good")
    running.load()
    running.wait_until("ready")
    source = write_tiny_gguf(running.sources / "bad.gguf", broken="truncate")
    running.post("/api/v1/models", {"name": "bad", "source": str(source)}, status=201)
    before = running.path_of()
    chain = running.load(model="bad")["chain_id"]
    assert ended(running, chain)[1]["error"]["code"] == "preload.truncated"
    assert running.path_of() == before
    assert running.slot()["model"] == "good"


@pytest.mark.parametrize("how", ["hang", "dribble"])
def test_a_load_ends_at_its_wall_clock_limit_and_what_comes_late_is_unloaded(
    running: House, lemond: Lemond, how: str
) -> None:
    lemond.script(models={"tiny": {"load": how}})
    running.add_model()
    running.add_slot(load_timeout_s=2)
    asked = running.load()
    running.wait_until("warming")
    begun = time.monotonic()
    slot = running.wait_until("error")
    took = time.monotonic() - begun
    assert slot["error"]["code"] == "preload.load_timeout"
    assert 1.5 < took < 15  # of wall time: dribbled bytes must not stretch it for ever
    (limit,) = running.sql(
        "SELECT round((julianday(t2.at) - julianday(t1.at)) * 86400) FROM transitions t1 "
        "JOIN transitions t2 ON t2.id = t1.id + 1 WHERE t1.to_state = 'warming'"
    )
    assert limit[0] >= 2
    assert running.sql("SELECT count(*) FROM engine_lane") == [(1,)]
    lemond.script(models={"tiny": {"load": "ok"}})
    running.wait_settled()
    running.wait_for(lambda: lemond.state()["loaded"] == [])
    assert loads_sent(lemond) == ["tiny"]
    assert running.slot()["state"] == "error"
    running.post(f"/api/v1/jobs/{asked['jobs'][-1]}/retry")
    running.wait_until("ready")
    assert loads_sent(lemond) == ["tiny", "tiny"]


def test_a_failed_load_that_evicts_everything_is_one_incident_and_the_others_come_back(
    running: House, lemond: Lemond
) -> None:
    running.add_model("good", seed=1)
    running.add_slot("a", "good")
    running.load("a")
    running.wait_until("ready", "a")
    lemond.script(models={"evil": {"load_fail": "llama-server failed to start"}})
    running.add_model("evil", seed=2)
    running.add_slot("b", "evil")
    asked = running.load("b")
    slot = running.wait_until("error", "b")
    assert slot["error"]["code"] == "engine.refused"
    assert "llama-server failed to start" in slot["error"]["detail"]
    running.wait_until("idle", "a")
    assert loads_sent(lemond) == ["good", "evil", "good"]
    (row,) = running.sql(
        "SELECT t.job_id, i.kind, i.job_id FROM transitions t JOIN incidents i "
        "ON i.id = t.incident_id WHERE t.cause = 'evicted_by_engine'"
    )
    assert row == (asked["jobs"][-1], "load_failed", asked["jobs"][-1])


def test_a_file_replaced_between_validation_and_load_is_refused(
    house: House, lemond: Lemond
) -> None:
    house.start_api()
    source = house.add_model()
    house.add_slot()
    worker = house.start_worker("unload.begun:stop")
    house.load()
    house.wait_for(lambda: Path(f"/proc/{worker.pid}/stat").read_text().split()[2] == "T")
    with source.open("r+b") as file:
        file.write(b"G")  # the same byte: only time has changed
    os.utime(source)
    worker.send_signal(signal.SIGCONT)
    assert house.wait_until("error")["error"]["code"] == "preload.file_changed"
    assert loads_sent(lemond) == []


def test_without_a_source_and_a_file_the_first_failure_is_the_missing_file(
    running: House, lemond: Lemond
) -> None:
    running.post("/api/v1/models", {"name": "none", "files": [{"role": "main"}]}, status=201)
    running.add_slot(model="none")
    running.load()
    assert running.wait_until("error")["error"]["code"] == "preload.file_not_found"
    assert running.path_of() == ["offline", "starting", "error"]
    assert [call for call in lemond.calls() if call["method"] == "POST"] == []


def test_a_source_that_fails_shows_pulling_then_error_and_the_engine_is_not_called(
    running: House, lemond: Lemond
) -> None:
    running.post("/api/v1/models", {"name": "gone", "source": "/nowhere/gone.gguf"}, status=201)
    running.add_slot(model="gone")
    running.load()
    assert running.wait_until("error")["error"]["code"] == "pull.source_not_found"
    assert running.path_of() == ["offline", "pulling", "error"]
    assert [call for call in lemond.calls() if call["method"] == "POST"] == []


def test_an_engine_that_knows_another_file_by_that_name_is_not_asked_to_load(
    running: House, lemond: Lemond
) -> None:
    other = write_tiny_gguf(running.sources / "other.gguf", seed=9)
    lemond.script(models={"tiny": {"checkpoint": str(other)}})
    running.add_model()
    running.add_slot()
    running.load()
    slot = running.wait_until("error")
    assert slot["error"]["code"] == "preload.engine_file_differs"
    assert slot["error"]["evidence"]["found"] == str(other)
    assert loads_sent(lemond) == []


def test_lone_pulls_and_validations_leave_the_slot_offline(running: House) -> None:
    running.add_model()
    running.add_slot()
    running.post("/api/v1/slots/chat/validate")
    running.wait_settled()
    assert running.edges()[-1][1] == "error"  # nothing has brought the file yet
    running.post("/api/v1/slots/chat/unload")
    running.wait_until("offline")
    assert running.edges()[-1] == ("error", "offline", "cleared")
    running.post("/api/v1/slots/chat/pull")
    running.wait_settled()
    running.post("/api/v1/slots/chat/validate")
    running.wait_settled()
    assert running.edges()[-2:] == [
        ("offline", "starting", "checked"),
        ("starting", "offline", "validated"),
    ]
