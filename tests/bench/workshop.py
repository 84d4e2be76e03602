"""Where one row works: a folder on disk, and processes that do not outlive it."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

ROOT = Path(__file__).parents[2]
LIMIT_S: Final = 60.0
DISK: Final = "/var/tmp"
"""Lies on a disk; /tmp may lie in memory, where a sync costs nothing."""


class NotHere(Exception):  # noqa: N818 - nothing is wrong, it is only not installed
    """A rival is not installed; the message says which part of it."""


class Workshop:
    """A folder of its own; leaving it ends every process that was started here."""

    def __init__(self) -> None:
        where = os.environ.get("TMPDIR", DISK)
        self.folder = Path(tempfile.mkdtemp(prefix="hal0-bench-", dir=where))
        self.log = self.folder / "log"
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in reversed(self._processes):  # clients before workers before servers
            end(process)
        if exc is not None and not isinstance(exc, (KeyboardInterrupt, SystemExit, NotHere)):
            exc.add_note(self.tail())
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(
        self, *command: str | Path, env: Mapping[str, str] | None = None, **how: Any
    ) -> "subprocess.Popen[str]":
        """Start a process in a session of its own, so that Ctrl-C is ours alone to handle."""
        with self.log.open("ab") as log:
            usual: dict[str, Any] = {
                "cwd": ROOT,
                "env": clean_environment() | dict(env or {}),
                "stdin": subprocess.DEVNULL,
                "stdout": log,
                "stderr": log,
            }
            process: subprocess.Popen[str] = subprocess.Popen(
                [str(word) for word in command],
                text=True,
                start_new_session=True,
                **usual | how,
            )
        self._processes.append(process)
        return process

    def python(self, *words: str, **how: Any) -> "subprocess.Popen[str]":
        """Start a module in this Python."""
        return self.start(sys.executable, "-m", *words, **how)

    def tail(self) -> str:
        """Return the end of what the processes said."""
        return self.log.read_text()[-4000:] if self.log.exists() else ""


def clean_environment() -> dict[str, str]:
    """Return this environment without settings of hal0."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HAL0_")}


def end(process: "subprocess.Popen[str]") -> None:
    """SIGTERM, and SIGKILL after five seconds."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def wait_for(is_so: Callable[[], object], what: str) -> None:
    """Poll until a condition holds."""
    until = time.monotonic() + LIMIT_S
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {LIMIT_S:g} s: {what}")
        time.sleep(0.05)


def read_line(pipe: IO[str], what: str) -> str:
    """Return the next line of a pipe that is read line by line."""
    ready, _, _ = select.select([pipe], [], [], LIMIT_S)
    line = pipe.readline() if ready else ""
    if not line:
        raise TimeoutError(f"nothing came within {LIMIT_S:g} s: {what}")
    return line.strip()


def needed(*programs: str, folders: Sequence[Path] = ()) -> list[str]:
    """Return where these programs are; raises NotHere."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    found = {program: shutil.which(program, path=path) for program in programs}
    missing = [program for program, where in found.items() if where is None]
    if missing:
        raise NotHere(f"{', '.join(missing)} not installed")
    return [where for where in found.values() if where is not None]
