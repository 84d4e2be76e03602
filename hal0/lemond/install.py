"""How a Lemonade server is installed by its pin: fetched, verified, unpacked, configured, switched.

The tarball comes the way that a model's file does (`registry/download.py`): taken up where it
broke off, from the hosts that a pull may ask, and believed by its digest alone. Whoever is killed
anywhere leaves the version that was current, or the new one, and the next run does what is left.
hal0 neither starts nor stops the server (ADR-0006): it says what is to be done.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hal0.errors import DigestMismatch, DiskFull, FetchedMismatch, LemondError
from hal0.lemond.archive import unpack
from hal0.lemond.config import Change, configure
from hal0.lemond.pin import Pin
from hal0.lemond.places import Places
from hal0.lemond.versions import Versions
from hal0.registry.checksum import sha256
from hal0.registry.download import Download, download
from hal0.registry.part import Watcher
from hal0.registry.reach import Reach
from hal0.registry.sources import SourceKind
from hal0.settings import Settings


@dataclass(frozen=True, slots=True)
class Installed:
    """What an install did: `switched` to what was there already, or fetched it first."""

    name: str
    state: Literal["installed", "switched", "unchanged"]
    config: Change


def install(
    pin: Pin,
    places: Places,
    settings: Settings,
    watcher: Watcher,
    on_wait: Callable[[], None],
) -> Installed:
    """Make the version of a pin current; nothing is done where it is.

    Raises DigestMismatch, BadTarball and other LemondErrors, DiskFull, and what `download` does.
    `on_wait` is called while another install is waited for.
    """
    versions = Versions(places.programs)
    with written_to(places.programs), versions.lock(on_wait):
        state: Literal["installed", "switched", "unchanged"] = "unchanged"
        if versions.current != pin.name:
            state = "switched"
        if not versions.path_of(pin.name).is_dir():
            _bring(pin, versions, settings, watcher)
            state = "installed"
        with written_to(places.state):
            config = configure(places.state, places.models)
        versions.switch_to(pin.name)
        versions.drop_others()
        _tidy_downloads(versions.downloads)
    return Installed(pin.name, state, config)


def roll_back(folder: Path, on_wait: Callable[[], None]) -> str:
    """Make the previous version current and return its name. Raises NoPreviousVersion."""
    versions = Versions(folder)
    with written_to(folder), versions.lock(on_wait):
        return versions.roll_back()


def _bring(pin: Pin, versions: Versions, settings: Settings, watcher: Watcher) -> None:
    """Fetch a version, unless that was done before, and unpack it under its name."""
    tarball = versions.downloads / f"{pin.name}.tar"
    if not _is_there(tarball, pin.sha256):
        _fetch(pin, tarball, settings, watcher)
    staging = versions.staging_of(pin.name)
    try:
        made = unpack(tarball, staging, reserve_bytes=settings.disk_reserve_bytes)
        versions.add(pin, made)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    tarball.unlink()


def _fetch(pin: Pin, tarball: Path, settings: Settings, watcher: Watcher) -> None:
    wanted = Download(
        pin.source.shown,
        pin.tarball_url,
        tarball,
        sha256=pin.sha256,
        reach=Reach.of(settings, SourceKind.WEB),
    )
    try:
        download(wanted, watcher, stall_s=settings.pull_stall_s)
    except FetchedMismatch as exc:
        evidence = exc.evidence
        raise DigestMismatch(
            f"{pin.source.shown} has the sha256 {evidence['found']}, its pin says {pin.sha256}: "
            f"the file is kept as {evidence['kept_as']}, nothing was unpacked or switched",
            evidence=evidence,
        ) from exc


def _is_there(tarball: Path, expected: str) -> bool:
    try:
        fd = os.open(tarball, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return sha256(fd) == expected
    finally:
        os.close(fd)


def _tidy_downloads(folder: Path) -> None:
    """Take away what was on its way to here, and never came; a `.bad` is the operator's."""
    for path in folder.glob("*"):
        if path.suffix != ".bad":
            path.unlink()


@contextmanager
def written_to(folder: Path) -> Iterator[None]:
    """Turn what the disk says into DiskFull or LemondError."""
    try:
        yield
    except OSError as exc:
        path = Path(folder, exc.filename or "")
        evidence = {"path": str(path), "errno": exc.errno}
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(f"the disk of {folder} is full", evidence=evidence) from exc
        raise LemondError(
            f"{path} cannot be written: {exc.strerror}; run this as its owner, or as root",
            evidence=evidence,
        ) from exc
