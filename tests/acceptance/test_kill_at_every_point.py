"""A process that dies at any named point leaves a ledger that converges: one test a point.

The armed process must really die there, by SIGKILL: a point that no code reaches fails its test.
"""

import hashlib
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hal0.points import POINTS, STEPS
from tests.acceptance.house import House
from tests.acceptance.test_kill_while_serving import SERVING
from tests.fakes.lemond import Lemond
from tests.fakes.source import Manner, Source
from tests.fakes.source.hub import Hub
from tests.tiny_gguf import tiny_gguf_bytes

pytestmark = pytest.mark.slow

PULLS = [f"pull.{step}" for step in STEPS["pull"]]
CHECKS = [f"validate.{step}" for step in STEPS["validate"]]
LOADS = [f"load.{step}" for step in STEPS["load"]]
UNLOADS = [f"unload.{step}" for step in STEPS["unload"]]
ALONE = ["queue.claimed", "api.enqueued", "rescue.requeued"]
SETTLING = ["settle.read", "settle.done"]
SCANS = ["scan.read", "scan.done"]
PLACES = ["place.marked", "place.answered"]


def test_every_declared_point_is_killed_at_by_a_test_of_this_file_or_its_neighbour() -> None:
    ours = [*SERVING, *PULLS, *CHECKS, *LOADS, *UNLOADS, *ALONE, *SETTLING, *SCANS, *PLACES]
    assert sorted(ours) == sorted(POINTS)


def dies(process: "subprocess.Popen[bytes]") -> bool:
    return process.wait(40) == -signal.SIGKILL


def loads_sent(lemond: Lemond) -> int:
    return len(lemond.calls("/v1/load"))


def interrupted(house: House) -> list[tuple[Any, ...]]:
    return house.sql(
        "SELECT kind, job_attempts.attempt FROM job_attempts JOIN jobs ON jobs.id = job_id "
        "WHERE job_attempts.outcome = 'interrupted'"
    )


@pytest.mark.parametrize("point", ["queue.claimed", *CHECKS, "load.begun"])
def test_killed_before_the_load_is_sent_another_worker_loads_once(
    house: House, lemond: Lemond, point: str
) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    armed = house.start_worker(f"{point}:kill")
    house.load()
    assert dies(armed)
    house.start_worker()
    house.wait_until("ready")
    house.wait_settled()
    assert loads_sent(lemond) == 1
    assert house.path_of().count("ready") == 1
    expected = 0 if point == "validate.done" else 1
    assert len(interrupted(house)) == expected
    house.check_audit()


@pytest.mark.parametrize("point", ["load.sent", "load.answered", "load.verified", "load.done"])
def test_killed_after_the_load_was_sent_the_next_attempt_watches_and_sends_nothing(
    house: House, lemond: Lemond, point: str
) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    armed = house.start_worker(f"{point}:kill")
    house.load()
    assert dies(armed)
    house.start_worker()
    house.wait_until("ready")
    house.wait_settled()
    assert loads_sent(lemond) == 1
    assert house.path_of() == ["offline", "starting", "warming", "ready"]
    assert interrupted(house) == ([] if point == "load.done" else [("load", 1)])
    house.check_audit()


def test_killed_between_mark_and_send_no_machine_sends_it_and_an_operator_may(
    tmp_path: Path, lemond: Lemond
) -> None:
    """The mark says sent, the engine never got it: only the deadline can tell."""
    with House(tmp_path, lemond.url, HAL0_LOAD_TIMEOUT_S="3", HAL0_ENGINE_SETTLE_S="4") as house:
        house.start_api()
        house.add_model()
        house.add_slot()
        armed = house.start_worker("load.marked:kill")
        jobs = house.load()["jobs"]
        assert dies(armed)
        house.start_worker()
        slot = house.wait_until("error")
        assert slot["error"]["code"] == "preload.load_timeout"
        house.wait_settled()
        assert loads_sent(lemond) == 0
        house.post(f"/api/v1/jobs/{jobs[-1]}/retry")
        house.wait_until("ready")
        house.wait_settled()
        assert loads_sent(lemond) == 1
        house.check_audit()


@pytest.mark.parametrize("point", UNLOADS)
def test_killed_while_unloading_the_slot_ends_offline(
    house: House, lemond: Lemond, point: str
) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    first = house.start_worker()
    house.load()
    house.wait_until("ready")
    assert house.stop(first) == 0
    armed = house.start_worker(f"{point}:kill")
    house.post("/api/v1/slots/chat/unload")
    assert dies(armed)
    house.start_worker()
    house.wait_until("offline")
    house.wait_settled()
    assert lemond.state()["loaded"] == []
    assert house.path_of()[-2:] == ["unloading", "offline"]
    house.check_audit()


@pytest.mark.parametrize("point", ["pull.begun", "pull.linked", "pull.done"])
def test_killed_while_a_file_is_linked_the_load_still_comes_about(
    house: House, lemond: Lemond, point: str
) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    armed = house.start_worker(f"{point}:kill")
    house.load()
    assert dies(armed)
    house.start_worker()
    house.wait_until("ready")
    house.wait_settled()
    assert loads_sent(lemond) == 1
    assert "pulling" not in house.path_of()
    house.check_audit()


DOWNLOADS = ["pull.fetching", "pull.whole", "pull.noted", "pull.fetched"]


@pytest.mark.parametrize("point", ["pull.pinned", *DOWNLOADS])
def test_killed_while_a_file_is_downloaded_it_goes_on_behind_what_is_there(
    house: House, lemond: Lemond, point: str
) -> None:
    content = tiny_gguf_bytes()
    with Hub() as hub:
        commit = hub.commit("org/repo", {"tiny.gguf": content})
        blob = f"blobs/{hashlib.sha256(content).hexdigest()}"
        hub.cdn.script(blob, Manner(slow=len(content)))  # so that there is a first chunk
        house.env["HAL0_HUB_ENDPOINT"] = hub.origin
        house.start_api()
        source = "hf://org/repo/tiny.gguf"
        house.post("/api/v1/models", {"name": "tiny", "source": source}, status=201)
        house.add_slot()
        armed = house.start_worker(f"{point}:kill")
        house.load()
        assert dies(armed)
        assert house.get("/api/v1/models/tiny")["source"] == f"{source}@{commit}"
        hub.cdn.script(blob)
        house.start_worker()
        house.wait_until("ready")
        house.wait_settled()
        asked = [one for one in hub.cdn.requests if one["method"] == "GET"]
    assert (house.models / "tiny.gguf").read_bytes() == content
    assert {path.name for path in house.models.iterdir()} == {"tiny.gguf"}
    assert house.path_of() == ["offline", "pulling", "starting", "warming", "ready"]
    assert loads_sent(lemond) == 1
    assert len(asked) == (2 if point == "pull.fetching" else 1)
    assert ("range" in asked[-1]["headers"]) == (point == "pull.fetching")
    house.check_audit()


@pytest.mark.parametrize("point", DOWNLOADS)
def test_killed_while_a_web_server_is_read_what_was_hashed_is_known_all_the_same(
    house: House, lemond: Lemond, point: str
) -> None:
    """Nobody registered size or digest: they are noted before the file gets its name."""
    content = tiny_gguf_bytes()
    with Source() as source:
        source.put("tiny.gguf", content)
        house.start_api()
        body = {"name": "tiny", "source": source.url("tiny.gguf")}
        house.post("/api/v1/models", body, status=201)
        house.add_slot()
        armed = house.start_worker(f"{point}:kill")
        house.load()
        assert dies(armed)
        house.start_worker()
        house.wait_until("ready")
        house.wait_settled()
    file = house.get("/api/v1/models/tiny")["files"][0]
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert {path.name for path in house.models.iterdir()} == {"tiny.gguf"}
    assert house.path_of() == ["offline", "pulling", "starting", "warming", "ready"]
    assert loads_sent(lemond) == 1
    house.check_audit()


@pytest.mark.parametrize("point", ["pull.whole", "pull.noted", "pull.fetched"])
def test_killed_while_a_file_is_replaced_what_is_known_of_it_is_true_of_what_lies_there(
    house: House, lemond: Lemond, point: str
) -> None:
    """The old file stays loadable until the new one has its name."""
    old, new = tiny_gguf_bytes(), tiny_gguf_bytes(seed=4) + bytes(64)
    with Source() as source:
        source.put("tiny.gguf", old)
        house.start_api()
        body = {"name": "tiny", "source": source.url("tiny.gguf")}
        house.post("/api/v1/models", body, status=201)
        house.add_slot()
        first = house.start_worker()
        house.post("/api/v1/slots/chat/pull")
        house.wait_settled()
        house.stop(first)
        source.put("tiny.gguf", new)
        armed = house.start_worker(f"{point}:kill")
        asked = house.post("/api/v1/slots/chat/pull", {"again": True})
        assert dies(armed)
        house.post(f"/api/v1/jobs/{asked['jobs'][0]}/cancel")
        lies = (house.models / "tiny.gguf").read_bytes()
        assert lies == (new if point == "pull.fetched" else old)
        house.start_worker()
        house.load()
        house.wait_until("ready")
    assert loads_sent(lemond) == 1
    house.check_audit()


def test_killed_when_a_bad_file_was_set_aside_it_never_gets_the_name(
    house: House, lemond: Lemond
) -> None:
    content = tiny_gguf_bytes()
    with Source() as source:
        source.put("tiny.gguf", content)
        source.script("tiny.gguf", Manner(corrupt_at=1000))
        house.start_api()
        digest = hashlib.sha256(content).hexdigest()
        body = {"name": "tiny", "source": source.url("tiny.gguf"), "sha256": digest}
        house.post("/api/v1/models", body, status=201)
        house.add_slot()
        armed = house.start_worker("pull.aside:kill")
        house.load()
        assert dies(armed)
        assert {path.name for path in house.models.iterdir()} == {"tiny.gguf.bad"}
        house.start_worker()
        assert house.wait_until("error")["error"]["code"] == "pull.checksum_mismatch"
    assert {path.name for path in house.models.iterdir()} == {"tiny.gguf.bad"}
    assert loads_sent(lemond) == 0
    house.check_audit()


@pytest.mark.parametrize("point", DOWNLOADS)
def test_killed_while_a_file_is_copied_the_copy_is_whole_at_the_end(
    house: House, lemond: Lemond, point: str, tmp_path: Path
) -> None:
    elsewhere = Path("/dev/shm") / f"hal0-{tmp_path.name}-{house.port}"
    if elsewhere.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is on the disk of the models folder: nothing would be copied")
    elsewhere.mkdir()
    try:
        source = house.add_model(register=False)
        there = Path(shutil.copy(source, elsewhere / "tiny.gguf"))
        house.start_api()
        body = {"name": "tiny", "source": str(there), "allow_copy": True}
        house.post("/api/v1/models", body, status=201)
        house.add_slot()
        armed = house.start_worker(f"{point}:kill")
        house.load()
        assert dies(armed)
        house.start_worker()
        house.wait_until("ready")
        house.wait_settled()
        assert (house.models / "tiny.gguf").read_bytes() == source.read_bytes()
        assert house.path_of() == ["offline", "pulling", "starting", "warming", "ready"]
        assert loads_sent(lemond) == 1
        house.check_audit()
    finally:
        shutil.rmtree(elsewhere)


def test_an_api_killed_between_commit_and_answer_has_lost_nothing(
    house: House, lemond: Lemond
) -> None:
    first = house.start_api()
    house.add_model()
    house.add_slot()
    house.stop(first)
    armed = house.start_api("api.enqueued:kill")
    with pytest.raises(Exception, match=r"(?i)disconnect|reset|refused|broken"):
        house.load()
    assert dies(armed)
    house.start_api()
    house.start_worker()
    house.wait_until("ready")
    house.wait_settled()
    again = house.load()
    assert again["already"] is True
    assert loads_sent(lemond) == 1


def test_a_rescuer_killed_after_its_commit_has_lost_nothing(house: House, lemond: Lemond) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    first = house.start_worker("load.sent:kill")
    house.load()
    assert dies(first)
    rescuer = house.start_worker("rescue.requeued:kill")
    assert dies(rescuer)
    house.start_worker()
    house.wait_until("ready")
    house.wait_settled()
    assert loads_sent(lemond) == 1
    house.check_audit()


@pytest.mark.parametrize("point", ["settle.read", "settle.done"])
def test_killed_while_a_late_load_is_settled_another_settles_it(
    tmp_path: Path, lemond: Lemond, point: str
) -> None:
    lemond.script(models={"tiny": {"load_delay_s": 3}})
    with House(tmp_path, lemond.url, HAL0_LOAD_TIMEOUT_S="1") as house:
        house.start_api()
        house.add_model()
        house.add_slot()
        armed = house.start_worker(f"{point}:kill")
        house.load()
        slot = house.wait_until("error")
        assert slot["error"]["code"] == "preload.load_timeout"
        assert dies(armed)
        house.start_worker()
        house.wait_settled()
        assert lemond.state()["loaded"] == []
        assert loads_sent(lemond) == 1
        assert house.path_of() == ["offline", "starting", "warming", "error"]
        house.check_audit()


@pytest.mark.parametrize("point", SCANS)
def test_killed_when_a_restarted_engine_was_noticed_the_slot_is_loaded_again_once(
    tmp_path: Path, lemond: Lemond, point: str
) -> None:
    with House(tmp_path, lemond.url, HAL0_SCAN_S="0.5") as house:
        house.start_api()
        house.add_model()
        house.add_slot()
        armed = house.start_worker(f"{point}:kill")
        house.load()
        house.wait_until("ready")
        house.wait_settled()
        lemond.kill()
        lemond.start()
        assert dies(armed)
        assert house.path_of()[-1] == ("offline" if point == "scan.done" else "ready")
        house.start_worker()
        house.wait_until("idle")
        house.wait_settled()
        assert loads_sent(lemond) == 2
        assert house.path_of().count("ready") == 1
        assert house.sql("SELECT kind FROM incidents") == [("engine_restarted",)]
        house.check_audit()


def load_there(house: House, lemond: Lemond) -> None:
    """Let somebody load the model in the engine's own app, once its file is where that looks."""
    first = house.start_worker()
    house.post("/api/v1/slots/chat/pull")
    house.wait_settled()
    house.stop(first)
    lemond.post("/v1/load", {"model_name": "tiny", "by": "its own app"}).raise_for_status()


@pytest.mark.parametrize("point", SCANS)
def test_killed_when_somebodys_model_is_adopted_it_is_adopted_once_and_nothing_is_sent(
    tmp_path: Path, lemond: Lemond, point: str
) -> None:
    with House(tmp_path, lemond.url, HAL0_SCAN_S="0.5") as house:
        house.start_api()
        house.add_model()
        house.add_slot()
        load_there(house, lemond)
        assert dies(house.start_worker(f"{point}:kill"))
        house.start_worker()
        house.wait_until("ready")
        assert house.path_of() == ["offline", "starting", "warming", "ready"]
        assert loads_sent(lemond) == 1, "somebody's"


@pytest.mark.parametrize("point", PLACES)
def test_killed_while_a_place_is_made_free_the_load_is_sent_once(
    tmp_path: Path, lemond: Lemond, point: str
) -> None:
    """Whoever comes next waits until the engine owes no unload of the slot any more."""
    with House(tmp_path, lemond.url, HAL0_ENGINE_SETTLE_S="4") as house:
        house.start_api()
        house.add_model()
        house.add_slot()
        load_there(house, lemond)
        lemond.script(models={"tiny": {"backend": "refuse"}})
        armed = house.start_worker(f"{point}:kill")
        house.load()
        assert dies(armed)
        lemond.script(models={"tiny": {"backend": "ok"}})
        house.start_worker()
        house.wait_until("ready")
        house.wait_settled()
        sent = loads_sent(lemond)
        assert sent == (2 if point == "place.answered" else 1), "else what was there is adopted"


@pytest.mark.parametrize("kind", ["pull", "validate"])
def test_killed_when_a_failure_is_written_it_stays_written_and_nothing_follows_it(
    house: House, lemond: Lemond, kind: str
) -> None:
    house.start_api()
    source = house.add_model()
    house.add_slot()
    if kind == "pull":
        source.unlink()
    else:
        source.write_bytes(bytes(reversed(source.read_bytes())))
    armed = house.start_worker(f"{kind}.done:kill")
    asked = house.load()
    assert dies(armed)
    house.start_worker()
    house.wait_settled()
    failed = [job for job in house.chain(asked["chain_id"]) if job["state"] == "failed"]
    assert [(job["kind"], len(job["attempts"])) for job in failed] == [(kind, 1)]
    assert loads_sent(lemond) == 0
    house.check_audit()
