"""A command on a terminal: what it writes there, and keys that are pressed."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
LIMIT_S = 30.0


class Terminal:
    """One end of a pseudo-terminal, and the process at the other."""

    def __init__(self, process: "subprocess.Popen[bytes]", number: int) -> None:
        self.process = process
        self.written = b""
        self._number = number

    def press(self, keys: bytes) -> None:
        """Type these keys."""
        os.write(self._number, keys)

    def read(self) -> bool:
        """Take what was written within a moment; False = all is read of a process that ended."""
        has_ended = self.process.poll() is not None
        ready, _, _ = select.select([self._number], [], [], 0.1)
        if ready:
            self.written += os.read(self._number, 65536)
        return bool(ready) or not has_ended

    def until(self, text: str, since: int = 0) -> None:
        """Read until a text was written behind this place."""
        until = time.monotonic() + LIMIT_S
        while text.encode() not in self.written[since:]:
            assert time.monotonic() < until, self.written[since:].decode(errors="replace")
            self.read()

    def end(self) -> int:
        """Read to the end; return the exit code."""
        until = time.monotonic() + LIMIT_S
        while self.read():
            assert time.monotonic() < until, "it does not end"
        return self.process.wait(LIMIT_S)


@contextmanager
def on_a_terminal(command: Sequence[str], env: Mapping[str, str]) -> Iterator[Terminal]:
    """Run `hal0 …` on a terminal of 140 columns, with these variables set too."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [sys.executable, "-m", "hal0", *command],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", **env},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    try:
        yield Terminal(process, ours)
        assert termios.tcgetattr(theirs) == before, "the terminal is left as it was not"
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)
