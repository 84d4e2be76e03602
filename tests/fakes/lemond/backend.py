"""One loaded model, and how a load fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hal0.clock import monotonic_ms

NOT_STARTED = "llama-server failed to start"


class LoadError(Exception):
    """A load failed; `code` is lemond's, and gives the status."""

    def __init__(self, message: str, code: str = "model_load_error") -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Backend:
    """A model and the process that serves it; `name` is the public one."""

    name: str
    type: str
    checkpoint: str
    options: dict[str, Any]
    pid: int
    pinned: bool = False
    last_use: int = field(default_factory=monotonic_ms)
    """Milliseconds of the monotonic clock: the start of the last request, never its end."""
    active: int = 0
    streaming: int = 0
    is_downsized: bool = False
    has_died: bool = False

    @property
    def status(self) -> str:
        """Return what health calls it."""
        if self.active:
            return "in_use"
        return "downsized" if self.is_downsized else "ready"

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Be streaming for as long as this lasts."""
        self.streaming += 1
        try:
            yield
        finally:
            self.streaming -= 1

    def touch(self) -> None:
        """Note that it is wanted now."""
        self.last_use = monotonic_ms()
        self.is_downsized = False
