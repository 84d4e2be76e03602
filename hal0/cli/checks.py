"""The checks of `hal0 doctor`, one a function: what is looked at, what to do when it is wrong."""

import asyncio
import ctypes.util
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hal0.cli.findings import Finding
from hal0.clock import boot_id
from hal0.db import open_database, prepare_home, revision
from hal0.engines.connect import connect
from hal0.errors import EngineError, EngineTimeout, Hal0Error, SettingsError
from hal0.jobs.owners import is_alive, living_rows
from hal0.processes import is_stopped
from hal0.registry.roster import EngineRow, all_engines
from hal0.settings import Settings
from hal0.slots.queries import slots_of_engine
from hal0.sqlite_errors import database_errors, has_room
from hal0.tables import REVISION

OLDEST_PYTHON: Final = (3, 11)
IMPORT_S: Final = 60
ENGINE_S: Final = 5.0


def python() -> Finding:
    """Look at the version of Python."""
    found = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "wrong", f"this is Python {found}", "use Python 3.11 or newer")
    return Finding("python", "ok", f"Python {found}")


def embedded_engine() -> Iterator[Finding]:
    """Look at what the embedded engine needs: AVX2, libgomp, and its package."""
    if platform.machine() in {"x86_64", "AMD64"}:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if " avx2 " in flags.replace("\n", " "):
            yield Finding("cpu", "ok", "has AVX2")
        else:
            yield Finding(
                "cpu",
                "wrong",
                "has no AVX2, which the embedded engine is built for",
                "set HAL0_ENGINE_URL to a model server built for this CPU",
            )
    if ctypes.util.find_library("gomp") is None:
        yield Finding(
            "libgomp", "note", "was not found", "install libgomp1 (Debian) or libgomp (Fedora)"
        )
    # In a process of its own: a build for another CPU dies of an illegal instruction.
    tried = subprocess.run(
        [sys.executable, "-c", "import xllamacpp"],
        capture_output=True,
        text=True,
        timeout=IMPORT_S,
        check=False,
    )
    if tried.returncode == 0:
        yield Finding("embedded engine", "ok", "can be imported")
        return
    why = (tried.stderr.strip().splitlines() or [f"it ended with {tried.returncode}"])[-1]
    yield Finding(
        "embedded engine",
        "wrong",
        f"cannot be imported: {why}",
        "install `hal0[embedded]`, or set HAL0_ENGINE_URL to another model server",
    )


def home(settings: Settings) -> Finding:
    """Look whether the home can be written."""
    try:
        prepare_home(settings)
    except SettingsError as exc:
        return Finding("home", "wrong", exc.detail)
    if not has_room(settings.database):
        return Finding("home", "wrong", f"the disk of {settings.home} is full", "make room")
    return Finding("home", "ok", f"{settings.home} can be written")


def database(settings: Settings) -> Iterator[Finding]:
    """Look at the schema, then at every page of the file."""
    path, found = settings.database, revision(settings.database)
    if found is None:
        yield Finding("database", "note", f"{path} is not there yet", "`hal0 up` makes it")
        return
    if found != REVISION:
        to_do = "install the newer hal0" if found > REVISION else "run `hal0 db upgrade`"
        detail = f"{path} has schema {found}, this hal0 knows {REVISION}"
        yield Finding("database", "wrong", detail, to_do)
        return
    with database_errors(path):
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
    if result == "ok":
        yield Finding("database", "ok", f"{path} is whole, schema {found}")
    else:
        yield Finding("database", "wrong", f"{path} is damaged: {result}", "restore a backup")


def workers(settings: Settings) -> Iterator[Finding]:
    """Look for the processes that carry out jobs."""
    if revision(settings.database) != REVISION:
        return
    db = open_database(settings)
    try:
        with db.read() as tx:
            rows = [row for row in living_rows(tx) if row.kind == "worker"]
    finally:
        db.close()
    living = [row for row in rows if is_alive(row, settings.run)]
    for row in living:
        if is_stopped(row.pid, row.pid_start):
            to_do = f"let it go on (kill -CONT {row.pid}) or end it (kill -KILL {row.pid})"
            yield Finding("worker", "wrong", f"process {row.pid} lies stopped", to_do)
        else:
            yield Finding("worker", "ok", f"process {row.pid} runs")
    for row in rows:
        if row not in living:
            when = "before the last boot" if row.boot_id != boot_id() else "without a word"
            yield Finding(
                "worker", "note", f"process {row.pid} ended {when}; its jobs are taken over"
            )
    if not living:
        yield Finding("worker", "wrong", "none runs: jobs stay queued", "start `hal0 up`")


def engines(settings: Settings) -> Iterator[Finding]:
    """Ask every engine whether it lives."""
    if revision(settings.database) != REVISION:
        return
    db = open_database(settings)
    try:
        with db.read() as tx:
            held = [
                (row, sum(slot.is_dispatchable for slot in slots_of_engine(tx, row.id)))
                for row in all_engines(tx)
            ]
    finally:
        db.close()
    for row, slots in held:
        yield asyncio.run(_engine(row, slots))


async def _engine(row: EngineRow, slots: int) -> Finding:
    """Ask one engine, which `slots` slots say they have a model of."""
    name = f"engine {row.name}"
    try:
        engine = connect(row.kind, row.url, row.key_path)
        try:
            async with asyncio.timeout(ENGINE_S):
                health = await engine.health()
        finally:
            await engine.close()
    except (EngineTimeout, TimeoutError):
        detail = f"does not answer at {row.url} within {ENGINE_S:g} s"
        return Finding(name, "unknown", detail, "it may be busy; ask again")
    except EngineError as exc:
        return Finding(name, "wrong", exc.detail, f"start it at {row.url}, or `hal0 up`")
    except Hal0Error as exc:
        return Finding(name, "wrong", exc.detail)
    loaded = "an unknown number of" if health.models is None else len(health.models)
    if health.models is not None and len(health.models) < slots:
        detail = f"has {loaded} models, {slots} slots say that theirs is loaded"
        return Finding(name, "note", detail, "the next reconcile mends it; see `hal0 audit`")
    return Finding(name, "ok", f"answers at {row.url} with {loaded} models")
