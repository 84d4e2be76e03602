"""How processes are kept: started by name, waited for, started again when they die, stopped.

`hal0 up`, the demo and the tests use it. A child dies with the process that started it (Linux,
PR_SET_PDEATHSIG), so nothing is left behind even after SIGKILL. Each child leads a process group of
its own: Ctrl-C on the terminal reaches the keeper alone, which then stops them in order.
"""

import ctypes
import http.client
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG: Final = 1
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0
STEADY_S: Final = 30.0
"""Alive so long, a child's next death counts as its first."""

STOP_S: Final = 25.0
"""Longer than a worker takes to put back what it runs (workers.process)."""

LITTLE_S: Final = 2.0
LOOK_EVERY_S: Final = 0.05
ASK_S: Final = 2.0


class DidNotStart(Exception):  # noqa: N818 - what the user reads is not the class's name
    """A child died or was silent before it was ready."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a child runs; it is ready when a GET of `ready_url` answers 200 (None: at once)."""

    name: str
    argv: Sequence[str]
    ready_url: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of the keeper."""

    log_file: Path | None = None
    """Where its output goes, at the end; None = to the keeper's."""


@dataclass(slots=True)
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    started_at: float
    pause_s: float = FIRST_PAUSE_S
    restart_at: float | None = None


class Children:
    """The child processes of this process, by name. Use from one thread, as a context manager."""

    def __init__(self) -> None:
        self._children: dict[str, _Child] = {}
        self._libc = ctypes.CDLL(None)

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop_all()

    def start(self, program: Program) -> int:
        """Start it and return its pid. Raises ValueError while one of this name runs."""
        known = self._children.get(program.name)
        if known is not None and known.process.poll() is None:
            raise ValueError(f"{program.name} runs already as {known.process.pid}")
        process = self._spawn(program)
        self._children[program.name] = _Child(program, process, time.monotonic())
        return process.pid

    def pid(self, name: str) -> int:
        """Return the pid of the child of this name as it was last started."""
        return self._children[name].process.pid

    def is_running(self, name: str) -> bool:
        """Tell whether it runs now."""
        return self._children[name].process.poll() is None

    def wait_ready(self, name: str, timeout_s: float) -> None:
        """Wait until it answers; raises DidNotStart when it dies or is silent for too long."""
        child, until = self._children[name], time.monotonic() + timeout_s
        while child.program.ready_url is not None and not answers(child.program.ready_url):
            code = child.process.poll()
            if code is not None:
                raise DidNotStart(f"{name} ended with {code} before it was ready")
            if time.monotonic() >= until:
                raise DidNotStart(f"{name} does not answer at {child.program.ready_url}")
            time.sleep(LOOK_EVERY_S)
        if (code := child.process.poll()) is not None:  # then another process answered
            raise DidNotStart(f"{name} ended with {code} before it was ready")

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a child that runs."""
        self._children[name].process.send_signal(number)

    def kill(self, name: str) -> int:
        """SIGKILL it, wait, and return its exit code; it is not started again by itself."""
        return self._end(self._children.pop(name), within_s=0)

    def stop(self, name: str, within_s: float = STOP_S) -> int:
        """SIGTERM it, after `within_s` SIGKILL; return its exit code."""
        return self._end(self._children.pop(name), within_s)

    def tend(self) -> None:
        """Start again whoever died, after a pause that doubles with each death in a row."""
        now = time.monotonic()
        for name, child in self._children.items():
            code = child.process.poll()
            if code is None:
                continue
            if child.restart_at is None:
                if now - child.started_at >= STEADY_S:
                    child.pause_s = FIRST_PAUSE_S
                child.restart_at = now + child.pause_s
                log.warning("%s ended with %s; again in %.1f s", name, code, child.pause_s)
            elif now >= child.restart_at:
                child.process = self._spawn(child.program)
                child.started_at, child.restart_at = now, None
                child.pause_s = min(LONGEST_PAUSE_S, child.pause_s * 2)
                log.info("%s runs again (pid %d)", name, child.process.pid)

    def stop_all(self, within_s: float = STOP_S) -> None:
        """Stop them one by one, the last one started first; after `within_s` they get little time.

        So a worker puts its jobs back while the engine that it talks to still lives.
        """
        until = time.monotonic() + within_s
        while self._children:
            _, child = self._children.popitem()
            self._end(child, max(LITTLE_S, until - time.monotonic()))

    def _end(self, child: _Child, within_s: float) -> int:
        if within_s > 0:
            child.process.send_signal(signal.SIGTERM)
            child.process.send_signal(signal.SIGCONT)  # a stopped one would not hear it
            try:
                return child.process.wait(within_s)
            except subprocess.TimeoutExpired:
                log.warning("%s did not end in %.0f s: killed", child.program.name, within_s)
        child.process.kill()
        return child.process.wait()

    def _spawn(self, program: Program) -> subprocess.Popen[bytes]:
        keeper, libc = os.getpid(), self._libc

        def die_with_keeper() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != keeper:  # it died before this was asked for
                os._exit(1)

        output: IO[Any] | None = None
        if program.log_file is not None:
            output = program.log_file.open("ab")
        try:
            return subprocess.Popen(  # noqa: S603
                list(program.argv),
                env={**os.environ, **program.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                preexec_fn=die_with_keeper,  # noqa: PLW1509  (one thread; nothing is imported in it)
            )
        finally:
            if output is not None:
                output.close()


def answers(url: str) -> bool:
    """Tell whether a GET of this http URL answers 200 within two seconds."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ASK_S)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
