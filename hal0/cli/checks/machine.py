"""Is this machine fit for hal0: Python, processor, packages, disks."""

import ctypes.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hal0.cli.findings import Finding
from hal0.cli.show import size_of
from hal0.db import prepare_home
from hal0.errors import SettingsError
from hal0.settings import Settings
from hal0.sqlite_errors import has_room

OLDEST_PYTHON: Final = (3, 11)
IMPORT_S: Final = 60


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
        "install hal0 with its extra `embedded`, or set HAL0_ENGINE_URL to another model server",
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


def models(settings: Settings) -> Finding:
    """Look whether a pull would find room."""
    folder = next(one for one in (settings.models, *settings.models.parents) if one.exists())
    free = shutil.disk_usage(folder).free
    detail = f"{size_of(free)} are free on the disk of {settings.models}"
    if free > settings.disk_reserve_bytes:
        return Finding("models", "ok", detail)
    reserve = f"less than the {size_of(settings.disk_reserve_bytes)} that pulls leave free"
    to_do = "make room: every download fails; a smaller HAL0_DISK_RESERVE_BYTES lets the last in"
    return Finding("models", "wrong", f"{detail}, {reserve}", to_do)
