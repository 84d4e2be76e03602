"""How a folder, and the names in it, survive a power cut: a file's own sync keeps no name."""

import os
from pathlib import Path


def make_folder(folder: Path, *, mode: int = 0o755) -> None:
    """Make a folder that survives a power cut, and those above it; one that is there is good."""
    if not folder.is_dir():
        make_folder(folder.parent, mode=mode)
        folder.mkdir(mode=mode, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
