"""Pulls from the network through REST and CLI with real processes, and what an operator sees."""

import hashlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.house import ROOT, House
from tests.fakes.lemond import Lemond
from tests.fakes.source import Manner, Source
from tests.small_disk import small_disk
from tests.tiny_gguf import tiny_gguf_bytes, write_tiny_gguf, write_tiny_shards

pytestmark = pytest.mark.slow
NAME = "tiny.gguf"


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as server:
        server.put(NAME, tiny_gguf_bytes())
        yield server


@pytest.fixture
def running(tmp_path: Path, lemond: Lemond) -> Iterator[House]:
    quick = {"HAL0_PULL_PAUSE_S": "0.1", "HAL0_PULL_TRIES": "3", "HAL0_PULL_STALL_S": "2"}
    with House(tmp_path, lemond.url, **quick) as house:
        house.start_api()
        house.start_worker()
        yield house


def add(house: House, source: Source, **body: Any) -> None:
    house.post("/api/v1/models", {"name": "tiny", "source": source.url(NAME)} | body, status=201)
    house.add_slot()


def gets(source: Source) -> list[str | None]:
    """The Range of every GET."""
    return [one["headers"].get("range") for one in source.requests if one["method"] == "GET"]


def hal0(house: House, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hal0", *words],
        cwd=ROOT,
        env=house.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def part(house: House) -> Path:
    return house.models / "tiny.gguf.part"


def wait_for_part(house: House, size: int) -> None:
    house.wait_for(lambda: part(house).exists() and part(house).stat().st_size >= size)


def test_a_model_of_the_network_is_loaded_by_two_commands(
    running: House, lemond: Lemond, source: Source
) -> None:
    """A1, by the command line, as it is done for the first time."""
    added = hal0(running, "model", "add", source.url(NAME), "--name", "tiny")
    assert added.returncode == 0, added.stderr
    running.add_slot()
    loaded = hal0(running, "slot", "load", "chat", "--wait", "30")
    assert loaded.returncode == 0, loaded.stderr
    assert "offline → pulling (fetch_started)" in loaded.stderr
    assert running.path_of() == ["offline", "pulling", "starting", "warming", "ready"]
    assert gets(source) == [None]
    file = running.get("/api/v1/models/tiny")["files"][0]
    assert file["sha256"] == hashlib.sha256(tiny_gguf_bytes()).hexdigest()
    assert file["verified_at"] is not None
    running.post("/api/v1/slots/chat/unload")
    running.wait_until("offline")
    running.load()
    running.wait_until("ready")
    assert gets(source) == [None]
    assert running.path_of().count("pulling") == 1


def test_a_source_that_fails_is_told_to_whoever_waits_and_the_engine_never_hears_of_it(
    running: House, lemond: Lemond, source: Source
) -> None:
    """A4."""
    source.script(NAME, Manner(status=404))
    add(running, source)
    loaded = hal0(running, "slot", "load", "chat", "--wait", "30")
    assert loaded.returncode == 1
    assert "pull.source_not_found" in loaded.stderr
    assert source.url(NAME) in loaded.stderr
    assert running.path_of() == ["offline", "pulling", "error"]
    assert running.slot()["error"]["code"] == "pull.source_not_found"
    assert lemond.calls("/v1/load") == []


def test_a_worker_killed_in_the_middle_of_a_download_costs_none_of_it(
    running: House, lemond: Lemond, source: Source
) -> None:
    """D10."""
    half = len(tiny_gguf_bytes()) // 2
    source.script(NAME, Manner(stall_after=half, method="GET", times=1))
    add(running, source)
    (worker,) = running.processes[1:]
    running.load()
    wait_for_part(running, half)
    assert running.slot()["state"] == "pulling"
    running.stop(worker, signal.SIGKILL)
    running.start_worker()
    running.wait_until("ready")
    assert gets(source) == [None, f"bytes={half}-"]
    assert (running.models / "tiny.gguf").read_bytes() == tiny_gguf_bytes()
    assert running.path_of() == ["offline", "pulling", "starting", "warming", "ready"]
    running.check_audit()


def test_a_running_download_that_is_cancelled_stops_within_a_second_and_keeps_its_part(
    running: House, lemond: Lemond, source: Source
) -> None:
    """D8."""
    half = len(tiny_gguf_bytes()) // 2
    source.script(NAME, Manner(slow=half, dribble=False, method="GET", times=1, stall_after=half))
    add(running, source)
    asked = running.load()
    wait_for_part(running, 1)
    begun = time.monotonic()
    cancelled = hal0(running, "job", "cancel", str(asked["jobs"][0]))
    assert cancelled.returncode == 0, cancelled.stderr
    assert running.slot()["state"] == "offline"
    running.wait_for(lambda: "the claim is another's now" in running.log.read_text(), 10)
    took = time.monotonic() - begun
    assert took < 5  # a second of hal0's, and the start of the command on a busy machine
    kept = part(running).stat().st_size
    time.sleep(0.5)
    assert part(running).stat().st_size == kept > 0
    source.script(NAME)
    running.load()
    running.wait_until("ready")
    assert gets(source) == [None, f"bytes={kept}-"]


def test_a_source_that_stalls_is_given_up_and_tried_again(
    running: House, lemond: Lemond, source: Source
) -> None:
    source.script(NAME, Manner(stall_after=1000, method="GET", times=1))
    add(running, source)
    asked = running.load()
    running.wait_until("ready")
    pull = running.get(f"/api/v1/jobs/{asked['jobs'][0]}")
    ends = [(one["outcome"], (one["error"] or {}).get("code")) for one in pull["attempts"]]
    assert ends == [("deferred", "pull.source_stalled"), ("done", None)]
    assert gets(source) == [None, "bytes=1000-"]


def test_a_wrong_digest_is_kept_aside_and_registers_nothing(
    running: House, lemond: Lemond, source: Source
) -> None:
    """D10."""
    digest = hashlib.sha256(tiny_gguf_bytes()).hexdigest()
    source.script(NAME, Manner(corrupt_at=1000))
    add(running, source, sha256=digest)
    asked = running.load()
    error = running.wait_until("error")["error"]
    assert error["code"] == "pull.checksum_mismatch"
    assert {path.name for path in running.models.iterdir()} == {"tiny.gguf.bad"}
    assert lemond.calls("/v1/load") == []
    source.script(NAME)
    retried = hal0(running, "job", "retry", str(asked["jobs"][0]), "--wait", "30")
    assert retried.returncode == 0, retried.stderr
    running.wait_until("ready")


def test_a_bad_file_in_its_place_is_fetched_again_by_one_command(
    running: House, lemond: Lemond, source: Source
) -> None:
    add(running, source)
    running.load()
    running.wait_until("ready")
    running.post("/api/v1/slots/chat/unload")
    running.wait_until("offline")
    place = running.models / "tiny.gguf"
    spoilt = bytearray(place.read_bytes())
    spoilt[-1] ^= 1
    place.write_bytes(spoilt)
    running.load()
    assert running.wait_until("error")["error"]["code"] == "preload.checksum_mismatch"
    again = hal0(running, "slot", "pull", "chat", "--again", "--wait", "30")
    assert again.returncode == 0, again.stderr
    assert place.read_bytes() == tiny_gguf_bytes()
    running.load()
    running.wait_until("ready")
    assert len(lemond.calls("/v1/load")) == 2


def test_shards_and_projector_of_the_network_one_of_them_corrupt(
    running: House, lemond: Lemond, source: Source, tmp_path: Path
) -> None:
    """D15."""
    files = write_tiny_shards(tmp_path, "big")
    files.append(write_tiny_gguf(tmp_path / "mmproj.gguf", seed=5))
    body = []
    for path in files:
        content = path.read_bytes()
        source.put(path.name, content)
        role = "mmproj" if path.name == "mmproj.gguf" else "shard"
        digest = hashlib.sha256(content).hexdigest()
        body.append({"role": role, "source": source.url(path.name), "sha256": digest})
    source.script(files[1].name, Manner(corrupt_at=500, method="GET", times=1))
    running.post("/api/v1/models", {"name": "big", "files": body}, status=201)
    running.add_slot(model="big")
    asked = running.load()
    error = running.wait_until("error")["error"]
    assert error["code"] == "pull.checksum_mismatch"
    assert error["evidence"]["path"].endswith(files[1].name)
    assert lemond.calls("/v1/load") == []
    running.post(f"/api/v1/jobs/{asked['jobs'][0]}/retry")
    running.wait_until("ready")
    assert {path.name for path in (running.models / "big").iterdir()} == {
        *(path.name for path in files),
        f"{files[1].name}.bad",
    }
    whole = [one["path"] for one in source.requests if one["method"] == "GET"]
    assert whole.count(files[0].name) == 1  # what was brought once is not brought again


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, a little smaller than the model."""
    with small_disk(tmp_path / "small", len(tiny_gguf_bytes()) // 4096 * 4096) as disk:
        yield disk


def on(disk: Path) -> dict[str, str]:
    """Have the models there, and nothing else."""
    return {"HAL0_MODELS_DIR": str(disk), "HAL0_DISK_RESERVE_BYTES": "0"}


def test_a_disk_that_fills_up_keeps_the_part_and_goes_on_when_there_is_room(
    tmp_path: Path, lemond: Lemond, source: Source, small: Path
) -> None:
    source.script(NAME, Manner(no_length="chunked"))  # so that nobody knows before
    with House(tmp_path, lemond.url, **on(small)) as house:
        house.start_api()
        house.start_worker()
        add(house, source)
        asked = house.post("/api/v1/slots/chat/pull")
        error = house.wait_until("error")["error"]
        assert error["code"] == "pull.disk_full"
        kept = (small / "tiny.gguf.part").stat().st_size
        assert kept > 0
        source.script(NAME)
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        house.post(f"/api/v1/jobs/{asked['jobs'][0]}/retry")
        house.wait_until("offline")
        assert (small / "tiny.gguf").read_bytes() == tiny_gguf_bytes()
        assert gets(source)[-1] == f"bytes={kept}-"


def test_a_disk_that_is_too_small_is_full_before_the_first_byte(
    tmp_path: Path, lemond: Lemond, source: Source, small: Path
) -> None:
    with House(tmp_path, lemond.url, **on(small)) as house:
        house.start_api()
        house.start_worker()
        add(house, source)
        house.post("/api/v1/slots/chat/pull")
        error = house.wait_until("error")["error"]
        assert error["code"] == "pull.disk_full"
        assert error["evidence"]["needed_bytes"] == len(tiny_gguf_bytes())
        assert gets(source) == []
        assert list(small.iterdir()) == []


def test_progress_is_shown_while_it_lasts(running: House, source: Source) -> None:
    total = 600_000
    source.put(NAME, bytes(total))
    source.script(NAME, Manner(slow=150_000, method="GET"))
    add(running, source, format="other")
    asked = running.post("/api/v1/slots/chat/pull")
    seen: list[Any] = []

    def has_rate() -> bool:
        seen.append(running.get(f"/api/v1/jobs/{asked['jobs'][0]}")["progress"])
        return bool(seen[-1] and seen[-1]["rate_bytes_s"])

    running.wait_for(has_rate)
    shown = seen[-1]
    assert (shown["phase"], shown["total_bytes"]) == ("fetch", total)
    assert 0 < shown["done_bytes"] < total
    assert shown["left_s"] > 0
    watched = hal0(running, "slot", "pull", "chat", "--wait", "30")
    assert watched.returncode == 0, watched.stderr
    assert "/s, 0:0" in watched.stderr


def test_two_slots_that_pull_one_model_download_it_once(running: House, source: Source) -> None:
    """D9."""
    go_on = threading.Event()
    source.script(NAME, Manner(hold=go_on, method="GET"))
    add(running, source)
    engine = {"name": "second", "kind": "lemonade", "url": "http://127.0.0.1:9"}
    running.post("/api/v1/engines", engine, status=201)
    running.add_slot("other", engine="second")
    first = running.post("/api/v1/slots/chat/pull")["jobs"][0]
    wait_for_part(running, 1)
    second = running.post("/api/v1/slots/other/pull")["jobs"][0]
    waiting = running.get(f"/api/v1/jobs/{second}")["waiting_for"]
    assert waiting == f"pull of the same model for slot chat (job {first})"
    go_on.set()
    running.wait_settled()
    outcomes = [running.get(f"/api/v1/jobs/{job}")["outcome"] for job in (first, second)]
    assert outcomes == ["done", "skipped"]
    assert gets(source) == [None]
    assert running.path_of("other") == ["offline"]


def test_downloads_that_last_for_hours_hold_up_no_load(
    house: House, lemond: Lemond, source: Source
) -> None:
    """One worker, three slots: two of them wait for the network, the third for nothing."""
    house.start_api()
    house.start_worker()
    go_on = threading.Event()
    for name in ("a", "b"):
        source.put(f"{name}.gguf", tiny_gguf_bytes(seed=ord(name)))
        source.script(f"{name}.gguf", Manner(hold=go_on, method="GET"))
        body = {"name": name, "source": source.url(f"{name}.gguf")}
        house.post("/api/v1/models", body, status=201)
        house.add_slot(name, name)
    first = house.load("a")["jobs"][0]
    house.wait_for((house.models / "a.gguf.part").exists)
    second = house.load("b")["jobs"][0]
    house.wait_for(
        lambda: (
            house.get(f"/api/v1/jobs/{second}")["waiting_for"]
            == "another download of its worker to end"
        )
    )
    house.add_model("here", seed=9)
    house.add_slot("c", "here")
    house.load("c")
    house.wait_until("ready", "c")
    assert house.slot("a")["state"] == "pulling"
    assert house.slot("b")["state"] == "offline"
    go_on.set()
    house.wait_until("ready", "b")
    house.wait_settled()
    attempts = house.get(f"/api/v1/jobs/{second}")["attempts"]
    assert [one["outcome"] for one in attempts] == ["deferred", "done"]
    assert house.get(f"/api/v1/jobs/{first}")["outcome"] == "done"
