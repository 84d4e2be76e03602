"""`hal0 doctor` before a Lemonade server, an embedded engine and a home with what hurts."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import freezegun
import pytest

from hal0.cli import main
from hal0.cli.checks import database, engines, machine, slots, workers
from hal0.cli.findings import Finding
from hal0.clock import monotonic_ms, utc_now
from hal0.db import Database
from hal0.engines.process import process_name
from hal0.errors import LoadTimeout
from hal0.jobs.ledger.breaker import PARKED_AFTER
from hal0.jobs.losses import forget_held
from hal0.jobs.owners import Owner
from hal0.registry.roster import EngineRow, all_engines, note_health
from hal0.settings import Settings
from hal0.slots.queries import slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import engines as engine_rows
from hal0.tables import job_beats
from hal0.tables import slots as slot_rows
from tests.engine_process import ROOT, EngineProcess
from tests.fakes.lemond import Lemond
from tests.ledger import fail
from tests.mishaps import count_loads, note_loss, see
from tests.rows import ask_load, claim_next, make_model, make_slot, send_load
from tests.tiny_gguf import write_tiny_gguf

KEY = "a-key-of-tests"
DIE = """
import os, signal, sys
from hal0.db import open_database
from hal0.jobs.owners import Owner
from hal0.settings import Settings

settings = Settings(home=sys.argv[1])
owner = Owner(settings.run, "worker")
with open_database(settings).write() as tx:
    owner.register(tx)
os.kill(os.getpid(), signal.SIGKILL)
"""
"""A worker that is killed as soon as it is known."""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for seed, name in enumerate(("ga", "gb")):
        write_tiny_gguf(folder / f"{name}.gguf", seed=seed)
    return folder


def is_at(db: Database, url: str, **values: Any) -> None:
    """Let the engine of the home be there."""
    with db.write() as tx:
        row = {"url": url, "kind": "lemonade", "settle_s": 1200.0, **values}
        tx.execute(engine_rows.update().values(**row))


@contextmanager
def keyed(db: Database, models: Path, **more: Any) -> Iterator[Lemond]:
    """Be a Lemonade with a key, which is the home's engine."""
    key_file = models.parent / "engine.key"
    key_file.write_text(KEY)
    with Lemond(models, key=KEY, **more) as lemond:
        is_at(db, lemond.url, key_file=str(key_file))
        yield lemond


def found(settings: Settings) -> dict[str, Finding]:
    """Return what is found of the engine `default`, by what was looked at."""
    seen = list(engines.engines(settings))
    by_check = {one.check.removeprefix("engine default").removeprefix(": "): one for one in seen}
    assert len(by_check) == len(seen)
    assert all(one.to_do for one in seen if one.verdict in ("wrong", "note"))
    return by_check


def verdicts(settings: Settings) -> dict[str, str]:
    return {check: one.verdict for check, one in found(settings).items()}


WELL = {"": "ok", "version": "ok", "key": "ok", "global_timeout": "ok"}


def test_a_lemonade_that_is_as_hal0_wants_it_is_well(
    models: Path, db: Database, settings: Settings
) -> None:
    with keyed(db, models) as lemond:
        assert verdicts(settings) == WELL
        assert found(settings)[""].detail == f"answers at {lemond.url} with 0 models"


def test_what_keeps_fewer_models_than_are_meant_to_be_loaded_is_wrong(
    models: Path, db: Database, settings: Settings
) -> None:
    for name in ("chat", "code"):
        make_slot(db, name, desired="loaded")
    with keyed(db, models, max_loaded_models=1) as lemond:
        room = found(settings)["room"]
        assert room.verdict == "wrong"
        assert room.detail.startswith("holds 1 at once, and 2 slots are meant to be loaded: chat")
        assert "max_loaded_models" in (room.to_do or "")
        assert verdicts(settings) == WELL | {"room": "wrong"}
        lemond.post("/internal/set", {"max_loaded_models": 2})
        assert verdicts(settings) == WELL


def test_what_unloads_by_itself_is_wrong(models: Path, db: Database, settings: Settings) -> None:
    with keyed(db, models, script={"auto_evict": True}):
        assert verdicts(settings) == WELL | {"auto_evict": "wrong"}


def test_a_limit_of_loads_that_hal0_does_not_wait_for_is_wrong_and_one_too_short_is_told(
    models: Path, db: Database, settings: Settings
) -> None:
    make_slot(db, "big", load_timeout_s=500.0)
    with keyed(db, models, script={"global_timeout_s": 601}) as lemond:
        timeout = found(settings)["global_timeout"]
        assert timeout.verdict == "wrong"
        assert timeout.to_do == ("set it to 600 or less in its config.json, and start it again")
        lemond.post("/internal/set", {"global_timeout": 600})
        assert verdicts(settings) == WELL
        lemond.post("/internal/set", {"global_timeout": 499})
        timeout = found(settings)["global_timeout"]
        assert timeout.verdict == "note"
        assert "big may take up to 500 s" in timeout.detail


def test_a_large_model_s_limit_of_loads_is_that_of_its_size(
    models: Path, db: Database, settings: Settings
) -> None:
    make_model(db, "ga", models / "ga.gguf", size_bytes=40 * 10**9)
    make_slot(db, "big", "ga", load_timeout_s=100.0, load_timeout_s_per_gb=9.0)
    with keyed(db, models, script={"global_timeout_s": 460}) as lemond:
        assert verdicts(settings) == WELL
        lemond.post("/internal/set", {"global_timeout": 459})
        assert "big may take up to 460 s" in found(settings)["global_timeout"].detail


def test_models_of_other_clients_are_told_and_no_more(
    models: Path, db: Database, settings: Settings
) -> None:
    with keyed(db, models) as lemond:
        lemond.post("/v1/load", {"model_name": "extra.ga"}).raise_for_status()
        strangers = found(settings)["strangers"]
        assert strangers.verdict == "note"
        assert strangers.detail == "has loaded what belongs to no slot: ga"
        make_model(db, "ga", models / "ga.gguf")
        make_slot(db, "chat", "ga")
        assert verdicts(settings) == WELL


def test_a_model_of_a_slot_in_error_that_is_there_still_is_told(
    models: Path, db: Database, settings: Settings
) -> None:
    with keyed(db, models) as lemond:
        make_model(db, "ga", models / "ga.gguf")
        make_slot(db, "chat", "ga")
        ask_load(db)
        fail(db, send_load(db))
        assert verdicts(settings) == WELL
        lemond.post("/v1/load", {"model_name": "extra.ga"}).raise_for_status()
        leftover = found(settings)["leftovers"]
        assert leftover.verdict == "note"
        assert leftover.detail == "has loaded models of slots in error: ga (chat)"
        assert (leftover.to_do or "").startswith("`hal0 slot load chat`")


def test_a_model_that_no_machine_takes_over_since_its_load_was_too_slow_is_told(
    models: Path, db: Database, settings: Settings
) -> None:
    with keyed(db, models) as lemond:
        make_model(db, "ga", models / "ga.gguf")
        make_slot(db, "chat", "ga")
        ask_load(db)
        fail(db, send_load(db), LoadTimeout("too slow"))
        with db.write() as tx:
            slot = slot_named(tx, "chat")
            move(tx, slot, SlotState.OFFLINE, Cause.ENGINE_RETURNED, Act("a test"))
            forget_held(tx, slot.id)
            tx.execute(slot_rows.update().values(engine_process=process_name(lemond.pid)))
        assert verdicts(settings) == WELL
        lemond.post("/v1/load", {"model_name": "extra.ga"}).raise_for_status()
        told = found(settings)["untaken"]
        assert told.verdict == "note"
        assert told.detail.startswith("has models that no machine takes over, for a load")
        assert told.detail.endswith(": ga (chat)")
        assert told.to_do == "`hal0 slot load chat` takes it over"


def test_an_engine_whose_process_hal0_cannot_tell_is_told(
    models: Path, db: Database, settings: Settings
) -> None:
    """It belongs to another user: what its workers see counts, not who asks the doctor."""
    with keyed(db, models):
        with db.read() as tx:
            (row,) = all_engines(tx)
        with db.soft() as tx:
            note_health(tx, row.id, "1-1")
        assert verdicts(settings) == WELL
        with db.soft() as tx:
            note_health(tx, row.id, None)
        process = found(settings)["process"]
        assert process.verdict == "note"
        assert process.detail.startswith("its process cannot be told")


@pytest.mark.parametrize("version", [None, "10.9.1", "nightly"])
def test_a_version_that_hal0_does_not_know_is_told(
    models: Path, db: Database, settings: Settings, version: str | None
) -> None:
    with answering({"all_models_loaded": [], "version": version}) as url:
        is_at(db, url)
        assert found(settings)["version"].verdict == "note"


def test_an_engine_that_gives_no_list_is_wrong(
    models: Path, db: Database, settings: Settings
) -> None:
    with Lemond(models, script={"health": "no_list"}) as lemond:
        is_at(db, lemond.url)
        assert found(settings)[""].verdict == "wrong"


def test_a_key_that_is_missing_wrong_or_unreadable_is_told_apart(
    models: Path, db: Database, settings: Settings, tmp_path: Path
) -> None:
    key_file = tmp_path / "engine.key"
    with Lemond(models, key=KEY) as lemond:
        is_at(db, lemond.url)
        missing = found(settings)[""]
        assert missing.detail.startswith("wants a key, and hal0 has none for it")
        assert "hal0 engine add NAME --kind lemonade" in (missing.to_do or "")
        assert "hal0 slot set SLOT --engine NAME" in (missing.to_do or "")
        is_at(db, lemond.url, key_file=str(key_file))
        assert "cannot be read" in found(settings)[""].detail
        key_file.write_text("\n")
        assert f"{key_file} is empty" in found(settings)[""].detail
        key_file.write_text("another\n")
        wrong = found(settings)[""]
        assert f"{key_file} holds another one" in wrong.detail
        assert (wrong.verdict, KEY in str(wrong)) == ("wrong", False)
        assert (wrong.to_do or "").endswith(f"into {key_file}; nothing is to be restarted")
        key_file.write_text(f"{KEY}\n")
        assert verdicts(settings) == WELL


@pytest.mark.parametrize("key", [None, "", KEY])
def test_a_lemonade_that_asks_for_no_key_is_told(
    models: Path, db: Database, settings: Settings, tmp_path: Path, key: str | None
) -> None:
    """hal0 may have a key for it all the same."""
    (tmp_path / "engine.key").write_text(key or "")
    with Lemond(models) as lemond:
        is_at(db, lemond.url, key_file=None if key is None else str(tmp_path / "engine.key"))
        assert verdicts(settings) == WELL | {"key": "note"}
        told = found(settings)["key"]
        assert told.detail.startswith("asks for no key: whoever reaches it can have it load")
        assert "LEMONADE_API_KEY" in (told.to_do or "")


def test_a_configuration_for_the_admin_alone_is_unknown_and_told(
    models: Path, db: Database, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "engine.key").write_text(KEY)
    with Lemond(models, key=KEY, admin_key="another", script={"auto_evict": True}) as lemond:
        is_at(db, lemond.url, key_file=str(tmp_path / "engine.key"))
        assert verdicts(settings) == {"": "ok", "version": "ok", "key": "ok", "config": "note"}


def test_an_engine_that_is_gone_is_wrong_and_one_that_hangs_unknown(
    models: Path, db: Database, settings: Settings
) -> None:
    with Lemond(models) as lemond:
        is_at(db, lemond.url)
        os.kill(lemond.pid, signal.SIGSTOP)
        assert verdicts(settings) == {"": "unknown"}
        os.kill(lemond.pid, signal.SIGCONT)
        lemond.kill()
        gone = found(settings)[""]
        assert (gone.verdict, gone.to_do) == ("wrong", f"start it at {lemond.url}")
        is_at(db, lemond.url, kind="embedded")
        assert found(settings)[""].to_do == f"start it at {lemond.url}, or `hal0 up`"


def test_connections_that_an_engine_does_not_close_are_told_beyond_a_handful(
    db: Database, settings: Settings
) -> None:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        is_at(db, f"http://127.0.0.1:{address[1]}")
        row = engine_row(settings)

        def connect() -> None:
            client = socket.create_connection(address)
            stack.enter_context(listener.accept()[0])
            client.close()

        for _ in range(engines.HANDFUL):
            connect()
        assert list(engines.sockets(row)) == []
        connect()
        (sockets,) = engines.sockets(row)
    assert (sockets.check, sockets.verdict) == ("engine default: sockets", "note")
    assert sockets.detail.startswith(f"{engines.HANDFUL + 1} connections to port {address[1]} ")


@pytest.mark.slow
def test_the_embedded_engine_is_asked_nothing_that_only_lemonade_knows(
    models: Path, db: Database, settings: Settings, tmp_path: Path
) -> None:
    with EngineProcess(models, home=tmp_path) as engine:
        is_at(db, engine.url, kind="embedded", settle_s=600.0)
        assert verdicts(settings) == {"": "ok"}


# -- workers, clocks, disks -----------------------------------------------------------------------


def test_a_running_job_that_has_not_beaten_for_too_long_is_wrong(
    db: Database, settings: Settings
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    with closing_owner(settings, db) as owner:
        held = claim_next(db, owner.id)
        assert list(workers.beats(settings)) == []
        beat(db, held.job.id, held.job.attempt - 1, ago_s=1000)
        assert list(workers.beats(settings)) == []
        beat(db, held.job.id, held.job.attempt, ago_s=settings.silence_s - 10)
        assert list(workers.beats(settings)) == []
        beat(db, held.job.id, held.job.attempt, ago_s=settings.silence_s + 5)
        (silent,) = workers.beats(settings)
        assert (silent.check, silent.verdict) == (f"job {held.job.id}", "wrong")
        assert "this pull of slot chat runs, and has not beaten for 3" in silent.detail
        assert f"kill -KILL {os.getpid()}" in (silent.to_do or "")


def test_what_dead_processes_left_in_the_run_folder_is_told(
    db: Database, settings: Settings
) -> None:
    assert list(workers.leftovers(settings)) == []
    with closing_owner(settings, db):
        assert [one.verdict for one in workers.leftovers(settings)] == ["ok"]
        died = subprocess.run([sys.executable, "-c", DIE, settings.home], cwd=ROOT, check=False)
        assert died.returncode == -signal.SIGKILL
        (told,) = workers.leftovers(settings)
    assert (told.verdict, told.detail.startswith("1 locks and bells in ")) == ("note", True)


def test_a_slot_that_no_machine_loads_any_more_is_told(db: Database, settings: Settings) -> None:
    for name in ("chat", "other"):
        make_model(db, name)
        make_slot(db, name, name, desired="loaded")
        note_loss(db, name)
    count_loads(db, PARKED_AFTER - 1)
    assert list(slots.parked(settings)) == []
    count_loads(db, 1)
    (told,) = slots.parked(settings)
    assert (told.check, told.verdict) == ("slot chat", "note")
    assert told.detail == "is parked after 5 automatic loads: load it to begin anew"
    assert told.to_do == "`hal0 slot load chat`"


def test_a_clock_that_was_set_back_is_wrong(db: Database, settings: Settings) -> None:
    make_slot(db, "chat")
    assert [one.verdict for one in database.clock(settings)] == ["ok"]
    with freezegun.freeze_time(utc_now() - timedelta(hours=2)):
        (wrong,) = database.clock(settings)
    assert wrong.verdict == "wrong"
    assert wrong.detail.startswith("the newest rows are 72")


def test_a_monotonic_clock_of_another_namespace_is_wrong(db: Database, settings: Settings) -> None:
    see(db)
    assert [one.verdict for one in database.clock(settings)] == ["ok"]
    with db.write() as tx:
        tx.execute(engine_rows.update().values(scanned_ms=monotonic_ms() + 60_000))
    (wrong,) = database.clock(settings)
    assert (wrong.verdict, "monotonic clock" in wrong.detail) == ("wrong", True)


def test_a_disk_without_room_for_a_pull_is_wrong(settings: Settings) -> None:
    assert machine.models(settings).verdict == "ok"
    needy = settings.model_copy(update={"disk_reserve_bytes": 2**62})
    wrong = machine.models(needy)
    assert (wrong.verdict, wrong.to_do is not None) == ("wrong", True)


def test_every_finding_reaches_the_command_and_its_exit_code(
    models: Path,
    db: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HAL0_HOME", str(settings.home))
    with Lemond(models, script={"auto_evict": True}) as lemond:
        monkeypatch.setenv("HAL0_ENGINE_URL", lemond.url)
        is_at(db, lemond.url)
        code = main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    by_check = {one["check"]: one["verdict"] for one in told["findings"]}
    assert (code, told["well"]) == (1, False)
    expected = {"home": "ok", "models": "ok", "database": "ok", "clock": "ok"}
    expected |= {"engine default": "ok", "engine default: auto_evict": "wrong"}
    assert expected.items() <= by_check.items()


# -- builders -------------------------------------------------------------------------------------


def engine_row(settings: Settings) -> EngineRow:
    with database.reading(settings) as tx:
        return all_engines(tx)[0]


@contextmanager
def closing_owner(settings: Settings, db: Database) -> Iterator[Owner]:
    """Be a worker."""
    owner = Owner(settings.run, "worker")
    try:
        with db.write() as tx:
            owner.register(tx)
        yield owner
    finally:
        owner.close()


def beat(db: Database, job_id: int, attempt: int, ago_s: float) -> None:
    """Let the last beat of a job be so long ago."""
    at = utc_now() - timedelta(seconds=ago_s)
    with db.write() as tx:
        tx.execute(job_beats.delete())
        row = {"job_id": job_id, "attempt": attempt, "beat": 1, "at": at}
        tx.execute(job_beats.insert().values(**row))


@contextmanager
def answering(health: dict[str, Any]) -> Iterator[str]:
    """Serve this health, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_health = self.path == "/v1/health"
            body = json.dumps(health if is_health else {"error": "none"}).encode()
            self.send_response(200 if is_health else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
