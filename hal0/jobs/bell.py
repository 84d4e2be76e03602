"""How a commit wakes idle workers at once: one datagram to each socket in `run/bells`.

A lost datagram costs a second, never a job: workers look for themselves that often. Who rings is
never blocked and never fails.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FOLDER: Final = "bells"
MAX_NAME: Final = 108  # sun_path, Linux


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """Give a name for `path` that fits into a socket address however deep the home lies."""
    if len(os.fsencode(path)) < MAX_NAME:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def ring(run: Path) -> int:
    """Wake every worker of this run folder; return how many bells took the datagram."""
    heard = 0
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for path in (run / FOLDER).iterdir():
            with contextlib.suppress(OSError), _address(path) as address:
                sender.sendto(b"!", address)
                heard += 1
    return heard


class Bell:
    """The socket on which one worker process is woken; each datagram wakes one waiting thread."""

    def __init__(self, run: Path, owner_id: str) -> None:
        self.path = run / FOLDER / owner_id
        self._hang()

    def _hang(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with _address(self.path) as address:
            self._socket.bind(address)
        self.path.chmod(0o660)

    def wait(self, timeout_s: float) -> bool:
        """Wait for a ring; False = none came in time."""
        self._socket.settimeout(timeout_s)
        try:
            self._socket.recv(1)
        except OSError:  # nobody rang, or the bell was hung anew meanwhile
            return False
        return True

    def ring_self(self) -> None:
        """Wake one more thread of this process: where one job is, there may be another."""
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
            _address(self.path) as address,
        ):
            sender.setblocking(False)
            sender.sendto(b"!", address)

    def is_hung(self) -> bool:
        """Whether others can find this bell; an emptied run folder takes it away."""
        return self.path.exists()

    def rehang(self) -> None:
        """Make the socket's name again after the run folder was emptied."""
        old = self._socket
        self._hang()
        old.close()

    def close(self) -> None:
        """Take the bell down."""
        self.path.unlink(missing_ok=True)
        self._socket.close()
