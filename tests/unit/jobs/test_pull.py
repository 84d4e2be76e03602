"""A pull from the network: planned, resumed, tried again, noted, and given up when it must be."""

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from sqlalchemy import select

from hal0 import points
from hal0.db import Database
from hal0.jobs.ledger import claims, intake, orders
from hal0.jobs.ledger.intake import Accepted, Wish
from hal0.jobs.ledger.runnable import is_work_waiting
from hal0.jobs.queries import Progress, job_detail
from hal0.registry.catalog import (
    Model,
    RegisteredFile,
    delete_model,
    model_named,
    register,
)
from hal0.settings import Settings
from hal0.states import JobKind, Outcome
from hal0.tables import job_attempts, jobs
from tests.fakes.lemond import Lemond
from tests.fakes.source import Manner, Source
from tests.fakes.source.hub import Hub
from tests.ledger import eventually, history, job, outcomes
from tests.rows import OPERATOR, ask_load, make_model, make_slot, slot_now
from tests.tiny_gguf import tiny_gguf_bytes, write_tiny_gguf, write_tiny_shards
from tests.unit.jobs.conftest import MakeWorker
from tests.worker import Worker, loads

NAME = "tiny.gguf"
LOADED = [
    "offline>pulling fetch_started",
    "pulling>starting checked",
    "starting>warming load_sent",
    "warming>ready loaded",
]


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as server:
        server.put(NAME, tiny_gguf_bytes())
        yield server


@pytest.fixture
def worker(make_worker: MakeWorker) -> Worker:
    """A worker that tries again at once, three times in all."""
    return make_worker(pull_pause_s=0.0, pull_tries=3, pull_stall_s=1.0, load_timeout_s=15)


def add(db: Database, source: str, **facts: Any) -> Model:
    """Register `tiny` from a source and give slot `chat` to it."""
    model = make_model(db, "tiny", source=source, **facts)
    make_slot(db, "chat", "tiny", engine="lemond")
    return model


def model_now(db: Database) -> Model:
    with db.read() as tx:
        return model_named(tx, "tiny")


def ask_pull(db: Database, *, again: bool = False) -> Accepted:
    with db.write() as tx:
        wish = Wish(JobKind.PULL, force=again)
        return intake.request_check(tx, slot_now(db), wish, OPERATOR)


def attempts(db: Database, job_id: int) -> list[tuple[str, str | None]]:
    """Outcome and error code of each ended attempt."""
    with db.read() as tx:
        rows = tx.execute(
            select(job_attempts.c.outcome, job_attempts.c.error)
            .where(job_attempts.c.job_id == job_id)
            .order_by(job_attempts.c.attempt)
        )
        return [(row.outcome, row.error and row.error["code"]) for row in rows]


def gets(source: Source) -> list[str]:
    return [one["path"] for one in source.requests if one["method"] == "GET"]


def part(settings: Settings) -> Path:
    return settings.models / "tiny.gguf.part"


def test_a_model_of_the_network_is_fetched_once_hashed_once_and_known_again(
    db: Database, lemond: Lemond, worker: Worker, source: Source, settings: Settings
) -> None:
    """A1; and what nobody had registered is registered now."""
    add(db, source.url(NAME))
    accepted = ask_load(db)
    worker.work()
    assert history(db) == LOADED
    assert outcomes(db, accepted.job_ids) == ["done", "done", "skipped", "done"]
    assert gets(source) == [NAME]
    content = tiny_gguf_bytes()
    main = model_now(db).main
    assert (main.size_bytes, main.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    checked = job(db, accepted.job_ids[1]).result
    assert checked is not None
    assert checked["files"][0]["remembered"] is True
    assert checked["files"][0]["skipped"] == []
    assert [path.name for path in settings.models.iterdir()] == ["tiny.gguf"]


@pytest.mark.parametrize("manner", [Manner(), Manner(status=503)], ids=str)
def test_a_file_that_a_deleted_model_left_is_not_taken_for_the_sources(
    db: Database,
    lemond: Lemond,
    worker: Worker,
    source: Source,
    settings: Settings,
    manner: Manner,
) -> None:
    """Also when it is as long, and when the source cannot be asked."""
    source.put("other.gguf", tiny_gguf_bytes(seed=3))
    old = make_model(db, "tiny", source=source.url("other.gguf"))
    with db.write() as tx:
        delete_model(tx, old)
    place = settings.models / "tiny.gguf"
    place.write_bytes(tiny_gguf_bytes(seed=3))
    source.script(NAME, manner)
    add(db, source.url(NAME))
    accepted = ask_load(db)
    worker.work()
    assert attempts(db, accepted.job_ids[0]) == [("failed", "pull.file_in_the_way")]
    assert place.read_bytes() == tiny_gguf_bytes(seed=3)
    assert loads(lemond) == []
    assert source.requests == []
    source.script(NAME)
    ask_pull(db, again=True)
    worker.work()
    assert place.read_bytes() == tiny_gguf_bytes()


def test_a_file_that_an_operator_put_there_is_taken_for_the_models(
    db: Database, lemond: Lemond, worker: Worker, source: Source, settings: Settings
) -> None:
    """A2: no other model ever had the name, and the source is not asked."""
    add(db, source.url(NAME))
    settings.models.joinpath("tiny.gguf").write_bytes(tiny_gguf_bytes())
    accepted = ask_load(db)
    worker.work()
    assert outcomes(db, accepted.job_ids) == ["skipped", "done", "skipped", "done"]
    assert source.requests == []


def test_what_a_pull_noted_is_no_demand_on_a_new_download(
    db: Database, lemond: Lemond, worker: Worker, source: Source, settings: Settings
) -> None:
    """Else an honest update at its source, or a bad first download, could never be mended."""
    add(db, source.url(NAME))
    ask_pull(db)
    worker.work()
    assert model_now(db).main.noted == {"size", "sha256"}
    newer = tiny_gguf_bytes(seed=7) + bytes(64)
    source.put(NAME, newer)
    ask_pull(db, again=True)
    worker.work()
    main = model_now(db).main
    assert main.path.read_bytes() == newer
    assert (main.size_bytes, main.sha256) == (len(newer), hashlib.sha256(newer).hexdigest())


def test_the_same_content_again_is_known_as_well_as_before(
    db: Database, lemond: Lemond, worker: Worker, source: Source
) -> None:
    add(db, source.url(NAME))
    ask_pull(db)
    worker.work()
    before = model_now(db).main
    ask_pull(db, again=True)
    worker.work()
    assert model_now(db).main == before
    assert before.noted == {"size", "sha256"}


def test_what_was_registered_is_a_demand_on_every_download(
    db: Database, lemond: Lemond, worker: Worker, source: Source
) -> None:
    add(db, source.url(NAME), size_bytes=len(tiny_gguf_bytes()))
    ask_pull(db)
    worker.work()
    assert model_now(db).main.noted == {"sha256"}
    source.put(NAME, tiny_gguf_bytes(seed=7) + bytes(64))
    pull = ask_pull(db, again=True).job_ids[0]
    worker.work()
    assert attempts(db, pull) == [("failed", "pull.bad_answer")]


def test_a_pull_whose_claim_is_lost_gives_no_file_a_name_and_notes_nothing(
    db: Database, lemond: Lemond, make_worker: MakeWorker, source: Source, settings: Settings
) -> None:
    """Its model may be deleted by now, and the name another model's."""
    worker = make_worker()
    points.arm("pull.whole:sleep=0.7")
    add(db, source.url(NAME))
    pull = ask_pull(db).job_ids[0]
    held = worker.claim()
    with worker.running(held):
        eventually(lambda: points_reached(settings))
        with db.write() as tx:
            orders.cancel(tx, pull, OPERATOR)
    assert [path.name for path in sorted(settings.models.iterdir())] == [
        "tiny.gguf.part",
        "tiny.gguf.part.json",
    ]
    assert model_now(db).main.sha256 is None
    assert attempts(db, pull) == [("cancelled", None)]


def points_reached(settings: Settings) -> bool:
    """Whether the part is whole."""
    whole = part(settings)
    return whole.exists() and whole.stat().st_size == len(tiny_gguf_bytes())


def test_a_second_download_waits_for_a_place_and_a_file_of_this_machine_does_not(
    db: Database, lemond: Lemond, make_worker: MakeWorker, source: Source, tmp_path: Path
) -> None:
    """Downloads last for hours: they must not hold up every load of the worker."""
    worker = make_worker(worker_threads=4)
    go_on = threading.Event()
    source.script(NAME, Manner(hold=go_on, method="GET"))
    add(db, source.url(NAME))
    source.put("second.gguf", tiny_gguf_bytes(seed=1))
    make_model(db, "second", source=source.url("second.gguf"))
    make_slot(db, "second", "second", engine="lemond")
    here = write_tiny_gguf(tmp_path / "here.gguf", seed=2)
    make_model(db, "here", source=str(here))
    make_slot(db, "here", "here", engine="lemond")
    ask_pull(db)
    with worker.running(worker.claim()):
        eventually(lambda: bool(gets(source)))
        second = ask_load(db, "second").job_ids
        worker.run(worker.claim())
        waiting = job(db, second[0])
        assert (waiting.state, waiting.outcome, waiting.fetches) == ("queued", "deferred", 1)
        assert slot_now(db, "second").state == "offline"
        with db.read() as tx:
            assert not is_work_waiting(tx, fetches=False)
            seen = job_detail(tx, second[0]).waiting_for
        assert seen == "another download of its worker to end"
        loaded = ask_load(db, "here").job_ids
        for _ in loaded:
            with db.soft() as tx:
                held = claims.claim(tx, worker.id, fetches=worker.ctx.has_place())
            assert held is not None
            worker.run(held)
        assert slot_now(db, "here").state == "ready"
        go_on.set()
    worker.work()
    assert slot_now(db, "second").state == "ready"
    assert attempts(db, second[0]) == [("deferred", None), ("done", None)]


def test_again_fetches_each_file_once_however_often_another_one_faults(
    db: Database, lemond: Lemond, worker: Worker, source: Source, settings: Settings
) -> None:
    folder = settings.models / "tiny"
    files = []
    for name in ("1.gguf", "2.gguf"):
        source.put(name, tiny_gguf_bytes())
        files.append(RegisteredFile("shard", folder / name, source.url(name), None, None))
    with db.write() as tx:
        register(tx, "tiny", "gguf", files, allow_copy=False)
    make_slot(db, "chat", "tiny", engine="lemond")
    ask_pull(db)
    worker.work()
    source.script("2.gguf", Manner(status=503))
    pull = ask_pull(db, again=True).job_ids[0]
    worker.work()
    assert [outcome for outcome, _ in attempts(db, pull)] == ["deferred", "deferred", "failed"]
    assert gets(source).count("1.gguf") == 2


def test_a_source_that_answers_no_question_about_its_size_is_fetched_all_the_same(
    db: Database, lemond: Lemond, worker: Worker, source: Source
) -> None:
    source.script(NAME, Manner(close_before_answer=True, method="HEAD"))
    add(db, source.url(NAME))
    pull = ask_pull(db).job_ids[0]
    worker.work()
    assert attempts(db, pull) == [("done", None)]


def test_a_fault_of_the_network_is_tried_again_behind_what_is_there(
    db: Database, lemond: Lemond, worker: Worker, source: Source
) -> None:
    source.script(NAME, Manner(drop_after=1000, times=1, method="GET"))
    add(db, source.url(NAME))
    accepted = ask_load(db)
    worker.work()
    pull = accepted.job_ids[0]
    assert attempts(db, pull) == [("deferred", "pull.source_unreachable"), ("done", None)]
    assert history(db) == LOADED
    ranges = [one["headers"].get("range") for one in source.requests if one["method"] == "GET"]
    assert ranges == [None, "bytes=1000-"]
    assert loads(lemond) == ["tiny"]


def test_the_pause_grows_with_each_fault_and_is_never_shorter_than_the_source_asks(
    db: Database, lemond: Lemond, make_worker: MakeWorker, source: Source
) -> None:
    worker = make_worker(pull_pause_s=4.0, pull_tries=9)
    add(db, source.url(NAME), size_bytes=len(tiny_gguf_bytes()))
    pull = ask_pull(db).job_ids[0]
    pauses = []
    for manner in (Manner(status=503), Manner(status=503), Manner(status=503, retry_after="77")):
        source.script(NAME, manner)
        with db.write() as tx:
            tx.execute(jobs.update().values(run_after_ms=None, run_after_boot=None))
        held = worker.claim()
        before = time.monotonic()
        worker.run(held)
        put_back = job(db, pull)
        assert put_back.outcome is Outcome.DEFERRED
        assert put_back.run_after_ms is not None
        pauses.append(put_back.run_after_ms / 1000 - before)
    assert job(db, pull).faults == 3
    assert [round(pause / 4) * 4 for pause in pauses[:2]] == [4, 8]
    assert pauses[2] > 76
    with db.read() as tx:
        waiting = str(job_detail(tx, pull).waiting_for)
    assert waiting.startswith("its next try, after pull.source_unreachable: http")


def test_what_faults_again_and_again_fails_keeps_its_part_and_goes_on_when_retried(
    db: Database, lemond: Lemond, worker: Worker, source: Source, settings: Settings
) -> None:
    source.script(NAME, Manner(drop_after=1000, times=1, method="GET"), Manner(status=503))
    add(db, source.url(NAME))
    accepted = ask_load(db)
    worker.work()
    pull = accepted.job_ids[0]
    assert attempts(db, pull) == [
        ("deferred", "pull.source_unreachable"),
        ("deferred", "pull.source_unreachable"),
        ("failed", "pull.source_unreachable"),
    ]
    slot = slot_now(db)
    assert slot.error is not None
    assert "HAL0_PULL_TRIES" in slot.error["detail"]
    assert history(db)[-1] == "pulling>error job_failed"
    assert part(settings).stat().st_size == 1000
    source.script(NAME)
    with db.write() as tx:
        orders.retry(tx, pull, OPERATOR)
    assert job(db, pull).faults == 0
    worker.work()
    assert history(db)[-1] == "warming>ready loaded"
    assert source.requests[-1]["headers"]["range"] == "bytes=1000-"


@pytest.mark.parametrize("manner", [Manner(no_validator=True), Manner(ignore_range=True)], ids=str)
def test_a_source_that_must_begin_anew_and_never_comes_further_is_given_up(
    db: Database, worker: Worker, lemond: Lemond, source: Source, manner: Manner
) -> None:
    """It always sends something, and that is no gain: no pull goes on like this for ever."""
    from dataclasses import replace

    lengths = [300_000, 100_000, 200_000, 150_000, 250_000, 300_000]
    source.script(NAME, *(replace(manner, drop_after=n, times=1, method="GET") for n in lengths))
    add(db, source.url(NAME), size_bytes=len(tiny_gguf_bytes()))
    pull = ask_pull(db).job_ids[0]
    worker.work()
    assert [outcome for outcome, _ in attempts(db, pull)] == ["deferred", "deferred", "failed"]


def test_a_fault_of_a_try_that_came_further_does_not_count_against_the_source(
    db: Database, worker: Worker, lemond: Lemond, source: Source
) -> None:
    source.script(NAME, Manner(drop_after=len(tiny_gguf_bytes()) // 6, method="GET"))
    add(db, source.url(NAME))
    pull = ask_pull(db).job_ids[0]
    worker.work()
    ended = attempts(db, pull)
    assert len(ended) > worker.settings.pull_tries
    assert ended[-1] == ("done", None)


@pytest.mark.parametrize(
    ("manner", "code"),
    [
        (Manner(status=404), "pull.source_not_found"),
        (Manner(status=403), "pull.source_refused"),
        (Manner(encoding="gzip"), "pull.bad_answer"),
        (Manner(corrupt_at=900), "pull.checksum_mismatch"),
    ],
    ids=str,
)
def test_what_a_repetition_cannot_mend_fails_at_once_and_the_engine_never_hears_of_it(
    db: Database, lemond: Lemond, worker: Worker, source: Source, manner: Manner, code: str
) -> None:
    """A4."""
    content = tiny_gguf_bytes()
    digest = hashlib.sha256(content).hexdigest()
    source.script(NAME, manner)
    add(db, source.url(NAME), size_bytes=len(content), sha256=digest)
    accepted = ask_load(db)
    worker.work()
    assert attempts(db, accepted.job_ids[0]) == [("failed", code)]
    assert history(db) == ["offline>pulling fetch_started", "pulling>error job_failed"]
    assert loads(lemond) == []
    assert not model_now(db).main.path.exists()
    assert model_now(db).main.sha256 == digest


def test_room_is_needed_for_all_files_together_before_the_first_byte(
    db: Database, lemond: Lemond, worker: Worker, source: Source, settings: Settings
) -> None:
    import shutil

    free = shutil.disk_usage(settings.models).free
    each = free * 2 // 3
    for number in (1, 2):
        source.put(f"{number}.gguf", b"x")
    files = [
        RegisteredFile("shard", settings.models / f"{n}.gguf", source.url(f"{n}.gguf"), each, None)
        for n in (1, 2)
    ]
    with db.write() as tx:
        register(tx, "tiny", "gguf", files, allow_copy=False)
    make_slot(db, "chat", "tiny", engine="lemond")
    pull = ask_pull(db).job_ids[0]
    worker.work()
    error = job(db, pull).error
    assert error is not None
    assert error["code"] == "pull.disk_full"
    assert error["evidence"]["needed_bytes"] == 2 * each
    assert len(error["evidence"]["files"]) == 2
    assert gets(source) == []


def test_sizes_that_nobody_registered_are_asked_for_first(
    db: Database, lemond: Lemond, worker: Worker, source: Source
) -> None:
    add(db, source.url(NAME))
    ask_pull(db)
    worker.work()
    assert [one["method"] for one in source.requests] == ["HEAD", "GET"]


def test_shards_and_projector_are_fetched_and_the_progress_is_of_all_of_them(
    db: Database, lemond: Lemond, worker: Worker, source: Source, settings: Settings, tmp_path: Path
) -> None:
    """D15, from the network."""
    shards = write_tiny_shards(tmp_path, "w")
    contents = {path.name: path.read_bytes() for path in shards}
    contents["mmproj.gguf"] = tiny_gguf_bytes(seed=9)
    folder = settings.models / "tiny"
    files = []
    for name, content in contents.items():
        source.put(name, content)
        role = "mmproj" if name == "mmproj.gguf" else "shard"
        files.append(RegisteredFile(role, folder / name, source.url(name), None, None))
    with db.write() as tx:
        register(tx, "tiny", "gguf", files, allow_copy=False)
    make_slot(db, "chat", "tiny", engine="lemond")
    accepted = ask_load(db)
    worker.work()
    assert outcomes(db, accepted.job_ids) == ["done", "done", "skipped", "done"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents
    with db.read() as tx:
        seen = job_detail(tx, accepted.job_ids[0]).progress
    total = sum(map(len, contents.values()))
    assert isinstance(seen, Progress)
    assert (seen.done_bytes, seen.total_bytes) == (total, total)


def test_a_running_pull_that_is_cancelled_stops_within_a_second_and_keeps_its_part(
    db: Database, lemond: Lemond, make_worker: MakeWorker, source: Source, settings: Settings
) -> None:
    """D8."""
    worker = make_worker(pull_stall_s=60)
    source.script(NAME, Manner(stall_after=1000, method="GET"))
    add(db, source.url(NAME))
    pull = ask_pull(db).job_ids[0]
    held = worker.claim()
    with worker.running(held) as thread:
        eventually(lambda: part(settings).exists() and part(settings).stat().st_size >= 1000)
        with db.write() as tx:
            orders.cancel(tx, pull, OPERATOR)
        assert slot_now(db).state == "offline"
        (body,) = worker.ctx.bodies()
        body.lost.set()  # what the supervisor sees within half a second
        begun = time.monotonic()
        thread.join(5)
        assert time.monotonic() - begun < 1
    assert part(settings).stat().st_size == 1000
    assert attempts(db, pull) == [("cancelled", None)]


def test_a_worker_that_is_told_to_stop_puts_its_pull_back_and_the_next_one_goes_on(
    db: Database, lemond: Lemond, make_worker: MakeWorker, source: Source, settings: Settings
) -> None:
    first, second = make_worker(pull_stall_s=60), make_worker()
    source.script(NAME, Manner(stall_after=1000, method="GET", times=1))
    add(db, source.url(NAME))
    pull = ask_pull(db).job_ids[0]
    with first.running(first.claim()):
        eventually(lambda: part(settings).exists() and part(settings).stat().st_size >= 1000)
        first.ctx.stopping.set()
    second.work()
    assert attempts(db, pull) == [("interrupted", None), ("done", None)]
    assert source.requests[-1]["headers"]["range"] == "bytes=1000-"


def test_progress_has_a_rate_and_a_time_that_is_left(
    db: Database, lemond: Lemond, make_worker: MakeWorker, source: Source
) -> None:
    worker = make_worker()
    total = 400_000
    source.put("big.gguf", bytes(total))
    source.script("big.gguf", Manner(slow=100_000, method="GET"))
    add(db, source.url("big.gguf"))
    pull = ask_pull(db).job_ids[0]

    def seen() -> Progress | None:
        with db.read() as tx:
            return job_detail(tx, pull).progress

    with worker.running(worker.claim()) as thread:
        while (now := seen()) is None or now.rate_bytes_s is None:
            assert thread.is_alive()
            time.sleep(0.02)
        assert now.phase == "fetch"
        assert now.total_bytes == total
        assert 20_000 < now.rate_bytes_s < 500_000
        assert now.left_s == pytest.approx((total - now.done_bytes) / now.rate_bytes_s)
        worker.ctx.stopping.set()


def test_what_is_there_is_fetched_again_when_an_operator_says_so(
    db: Database, lemond: Lemond, worker: Worker, source: Source, settings: Settings
) -> None:
    target = settings.models / "tiny.gguf"
    target.write_bytes(b"spoilt")
    add(db, source.url(NAME), size_bytes=len(tiny_gguf_bytes()))
    assert ask_pull(db).deduplicated is False
    worker.work()
    assert target.read_bytes() == b"spoilt"
    again = ask_pull(db, again=True)
    worker.work()
    assert outcomes(db, again.job_ids) == ["done"]
    assert target.read_bytes() == tiny_gguf_bytes()
    assert history(db) == ["offline>pulling fetch_started", "pulling>offline pulled"]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server
    huggingface_hub.close_session()


def test_a_file_of_a_hub_is_pinned_to_the_commit_that_was_found(
    db: Database, lemond: Lemond, make_worker: MakeWorker, hub: Hub
) -> None:
    commit = hub.commit("org/repo", {"q/tiny.gguf": tiny_gguf_bytes()})
    worker = make_worker(hub_endpoint=hub.origin)
    add(db, "hf://org/repo/q/tiny.gguf")
    accepted = ask_load(db)
    worker.work()
    assert history(db) == LOADED
    assert outcomes(db, accepted.job_ids) == ["done", "done", "skipped", "done"]
    main = model_now(db).main
    content = tiny_gguf_bytes()
    assert main.source == f"hf://org/repo/q/tiny.gguf@{commit}"
    assert (main.size_bytes, main.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_hub_that_the_settings_name_is_asked_although_it_is_private_and_no_other_host_for_it(
    db: Database, lemond: Lemond, make_worker: MakeWorker, hub: Hub
) -> None:
    content = tiny_gguf_bytes()
    commit = hub.commit("org/repo", {"tiny.gguf": content})
    add(db, "hf://org/repo/tiny.gguf")
    closed = {"hub_endpoint": hub.origin, "pull_private_hosts": None, "pull_hosts": ()}
    worker = make_worker(**closed)
    with Source(host="127.0.0.2") as elsewhere:
        elsewhere.put(NAME, content)
        moved = Manner(redirect_to=elsewhere.url(NAME), method="GET", times=1)
        hub.script(f"org/repo/resolve/{commit}/tiny.gguf", moved)
        assert pulled(db, worker) == [("failed", "pull.host_not_allowed")]
        assert elsewhere.requests == []
    assert pulled(db, worker) == [("done", None)]


def test_the_public_hub_is_not_asked_where_the_settings_name_other_hosts(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    add(db, "hf://org/repo/tiny.gguf")
    worker = make_worker(pull_hosts=("models.example",))
    assert pulled(db, worker) == [("failed", "pull.host_not_allowed")]
    error = slot_now(db).error
    assert error is not None
    assert "is at huggingface.co, which is none of the hosts of HAL0_PULL_HOSTS" in error["detail"]


def test_a_hub_that_has_another_file_than_registered_is_told_before_the_first_byte(
    db: Database, lemond: Lemond, make_worker: MakeWorker, hub: Hub
) -> None:
    hub.commit("org/repo", {"tiny.gguf": tiny_gguf_bytes()})
    worker = make_worker(hub_endpoint=hub.origin)
    add(db, "hf://org/repo/tiny.gguf@main", sha256="ab" * 32)
    pull = ask_pull(db).job_ids[0]
    worker.work()
    assert attempts(db, pull) == [("failed", "pull.bad_answer")]
    assert hub.cdn.requests == []
    assert model_now(db).main.source == "hf://org/repo/tiny.gguf@main"


def test_the_token_of_a_hub_opens_it_and_is_in_no_row(
    db: Database, lemond: Lemond, make_worker: MakeWorker, hub: Hub, tmp_path: Path
) -> None:
    hub.commit("org/repo", {"tiny.gguf": tiny_gguf_bytes()})
    hub.make_private("org/repo", "hf_secret")
    token = tmp_path / "token"
    add(db, "hf://org/repo/tiny.gguf")
    worker = make_worker(hub_endpoint=hub.origin, hub_token_file=token)
    assert pulled(db, worker) == [("failed", "pull.source_refused")]  # no such file
    token.write_text("wrong\n")
    assert pulled(db, worker)[-1][0] == "failed"
    token.write_text("hf_secret\n")
    assert pulled(db, worker) == [("done", None)]
    assert all("authorization" not in one["headers"] for one in hub.cdn.requests)
    db.close()
    for file in db.path.parent.glob("hal0.db*"):
        assert b"hf_secret" not in file.read_bytes()


def pulled(db: Database, worker: Worker) -> list[tuple[str, str | None]]:
    job_id = ask_pull(db).job_ids[0]
    worker.work()
    return attempts(db, job_id)


def test_a_second_pull_of_the_model_waits_and_finds_the_file(
    db: Database, lemond: Lemond, make_worker: MakeWorker, source: Source
) -> None:
    """D9."""
    worker = make_worker()
    go_on = threading.Event()
    source.script(NAME, Manner(hold=go_on, method="GET"))
    add(db, source.url(NAME))
    make_slot(db, "other", "tiny")
    first = ask_pull(db).job_ids[0]
    with db.write() as tx:
        second = intake.request_check(
            tx, slot_now(db, "other"), Wish(JobKind.PULL), OPERATOR
        ).job_ids[0]
    with worker.running(worker.claim()):
        with db.read() as tx:
            assert not is_work_waiting(tx)
            assert str(job_detail(tx, second).waiting_for).startswith("pull of the same model")
        go_on.set()
    worker.work()
    assert outcomes(db, (first, second)) == ["done", "skipped"]
    assert gets(source) == [NAME]
