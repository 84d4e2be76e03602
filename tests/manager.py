"""A service manager as far as processes can tell: the socket of NOTIFY_SOCKET, and what came there.

with Manager(tmp_path) as manager:
    start(env={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000"})
    manager.wait_for("READY=1")
"""

import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self


class Manager:
    """Listens from the start; each datagram is heard once."""

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = str(folder / "notify")
        self._socket.bind(f"\0{path}" if abstract else path)
        self.address = f"@{path}" if abstract else path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def heard(self) -> list[str]:
        """Return what came since the last time, without waiting."""
        came = []
        self._socket.setblocking(False)
        while True:
            try:
                came.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return came

    def wait_for(self, line: str, limit_s: float = 30) -> str:
        """Return the next datagram that begins with `line`; what came before it is gone."""
        until = time.monotonic() + limit_s
        while (left_s := until - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                came = self._socket.recv(4096).decode()
            except TimeoutError:
                break
            if came.startswith(line):
                return came
        raise AssertionError(f"no {line} within {limit_s} s")
