"""A systemd of its own, with hal0 installed in it from its wheel: see boot.sh and inside.py.

    with Box(tmp_path) as box:
        box.start()
        report = box.report()

Whatever happens, no process and no mount is left behind: the box lives in namespaces of its own and
dies with the thread that started it.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from hal0.cli.processes import Children, Program
from hal0.clock import utc_now
from tests.tiny_gguf import write_tiny_gguf

ROOT: Final = Path(__file__).parents[3]
HERE: Final = Path(__file__).parent
PYTHON: Final = "/usr/bin/python3"
SYSTEMD: Final = Path("/lib/systemd/systemd")
GROUPS: Final = "hal0-box-"
LIMIT_S: Final = 160
SOABI: Final = "import sysconfig; print(sysconfig.get_config_var('SOABI'))"


def why_not() -> str | None:
    """Return why there can be no box on this machine; None = there can."""
    commands = ("unshare", "mount", "pivot_root", "systemctl", PYTHON)
    missing = [command for command in commands if shutil.which(command) is None]
    if os.geteuid() != 0:
        return "only root may boot one"
    if missing or not SYSTEMD.exists():
        return f"there is no {', '.join(missing) or SYSTEMD} (Debian: systemd, util-linux, mount)"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlayfs"
    if groups() is None:
        return "cgroup2 is not mounted, or no group of it can be made"
    theirs = subprocess.run([PYTHON, "-c", SOABI], capture_output=True, text=True, check=False)
    if (of := theirs.stdout.strip()) != (ours := sysconfig.get_config_var("SOABI")):
        return f"{PYTHON} is {of}, and what is installed here was built for {ours}"
    return None


def groups() -> Path | None:
    """Return where cgroup2 is mounted, beside version 1 or alone; None = nowhere writable."""
    for folder in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (folder / "cgroup.procs").exists() and os.access(folder, os.W_OK):
            return folder
    return None


def build_wheel(to: Path) -> Path:
    """Build hal0's wheel from this tree, with what is installed here alone."""
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "-w", str(to), str(ROOT)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (wheel,) = to.glob("hal0-*.whl")
    return wheel


class Box:
    """One box; it can be run once."""

    def __init__(self, folder: Path) -> None:
        parent = groups()
        assert parent is not None, "why_not() says so"
        self.group = parent / f"{GROUPS}{secrets.token_hex(8)}"
        self._room, self._shared = folder / "room", folder / "shared"
        self._children = Children()

    def __enter__(self) -> Self:
        for group in self.group.parent.glob(f"{GROUPS}*"):
            with contextlib.suppress(OSError):
                if (
                    utc_now().timestamp() - group.stat().st_mtime > 2 * LIMIT_S
                ):  # its test was killed
                    _remove(group)
        for folder in (self.group, self._room, self._shared):
            folder.mkdir()
        return self

    def start(self) -> None:
        """Boot it; inside.py is run."""
        wheel = build_wheel(self._shared)
        for seed, name in enumerate(("smooth", "killed", "halted")):
            write_tiny_gguf(self._shared / f"{name}.gguf", seed=seed)
        shutil.copy(HERE / "inside.py", self._shared)
        places = (self.group, self._room, self._shared, sysconfig.get_path("purelib"))
        program = (PYTHON, "/box/inside.py", f"/box/{wheel.name}")
        argv = ["bash", str(HERE / "boot.sh"), *map(str, places), *program]
        self._children.start(Program("box", argv, log_file=self._shared / "boot.log"))

    @property
    def has_begun(self) -> bool:
        """Whether inside.py runs, or has run."""
        return (self._shared / "said").exists()

    def report(self) -> dict[str, Any]:
        """Wait for its end; return what inside.py reports, with the exit code of the box."""
        until = time.monotonic() + LIMIT_S
        while self._children.is_running("box") and time.monotonic() < until:
            time.sleep(0.1)
        code = self._children.kill("box")
        path = self._shared / "report.json"
        if not path.exists():
            raise AssertionError(f"the box ended with {code} and no report:\n{self._said()}")
        told: dict[str, Any] = json.loads(path.read_text())
        return told | {"exit_code": code}

    def console(self) -> str:
        """Return what its systemd complained of, as a program that it could not execute."""
        return (self._shared / "console").read_text(errors="replace")

    def _said(self) -> str:
        logs = (self._shared / name for name in ("boot.log", "console", "said"))
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(KeyError):  # it has ended
            self._children.kill("box")
        until = time.monotonic() + 10
        while self.group.exists():
            try:
                _remove(self.group)
            except OSError:  # the last processes are on their way out
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)


def _remove(group: Path) -> None:
    for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        folder.rmdir()
    group.rmdir()
