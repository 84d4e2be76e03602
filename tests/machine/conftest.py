"""One home for all plays of a module; time stands still in it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.clock import Clock
from tests.machine.play import Play
from tests.machine.real.world import Real

IN_MEMORY = Path("/dev/shm")
"""Thousands of commits and no power cut: nothing here depends on a disk."""


@pytest.fixture(scope="module")
def real(migrated_file: Path) -> Iterator[Real]:
    folder = IN_MEMORY if IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=folder) as home, Clock() as clock:
        opened = Real(Path(home), migrated_file, clock)
        yield opened
        opened.close()


@pytest.fixture
def play(real: Real) -> Play:
    """Two offline slots, their models' files, two workers, an engine that holds any number."""
    return Play(real)


@pytest.fixture
def small(real: Real) -> Play:
    """As `play`, but the engine holds one model, and drops it for the next."""
    return Play(real, max_models=1)
