"""A recording that has ended, and the homes that power cuts in it would have left.

    BASE/log            what processes did, what clients were told
    BASE/calls.ndjson   what the engine was asked
    BASE/ports.json     where engine and source were
    BASE/disk/home      the home as it was in the end

It is read from there again by a later run that looks at one cut of it.
"""

import json
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from tests.chaos.evidence import Evidence
from tests.fakes.lemond import Lemond
from tests.fakes.source import Source
from tests.power.disk import Disk, Files, power_cuts
from tests.power.recorder import Kind, Record, Recording, read_log
from tests.power.traffic import SETTINGS, RecordedHouse, Traffic

NS_IN_MS: Final = 1_000_000


class Recorded:
    """A recording in its folder."""

    def __init__(self, base: Path) -> None:
        self.base = base.resolve()
        self.folder = self.base / "disk"
        self.ports: dict[str, int] = json.loads((base / "ports.json").read_text())

    @cached_property
    def records(self) -> list[Record]:
        """What happened, in order."""
        return read_log(self.base / "log")

    @cached_property
    def calls(self) -> list[tuple[int, bytes]]:
        """What the engine was asked, and when in ms of the monotonic clock."""
        lines = (self.base / "calls.ndjson").read_bytes().splitlines()
        return [(json.loads(line)["mono_ms"], line) for line in lines]

    def files(self) -> Files:
        """Return what processes saw in the end, if the recorder missed nothing."""
        disk = Disk()
        for record in self.records:
            disk.take(record)
        return disk.now()

    def cuts(self, seeds: Iterable[int]) -> Iterator["Left"]:
        """Yield what each seed's power cut left, in the order of the cuts."""
        for seed, cut, files in power_cuts(self.records, seeds):
            yield Left(self, seed, cut, files)

    def makings(self) -> Iterator["Left"]:
        """Yield what was there at each sync before the first answer: what `kill -9` would leave."""
        disk = Disk()
        for cut, record in enumerate(self.records, 1):
            disk.take(record)
            if record.kind is Kind.NOTE and json.loads(record.data)["phase"] == "answered":
                return
            if record.kind is Kind.SYNCED:
                yield Left(self, 0, cut, disk.now())


@dataclass(frozen=True, slots=True)
class Left:
    """What one power cut left: after `cut` records of the recording, these files."""

    recorded: Recorded
    seed: int
    cut: int
    files: Files

    def lay_out(self, to: Path) -> Evidence:
        """Write the files below `to`, and both logs as far as they had come; nothing else stays."""
        was = self.recorded.folder
        files = {to / Path(name).relative_to(was): content for name, content in self.files.items()}
        evidence = Evidence(to / "home/hal0.db", to / "answers.ndjson", to / "calls.ndjson")
        files[evidence.answers] = _lines(self._told())
        files[evidence.calls] = _lines(self._called())
        for path in [path for path in to.rglob("*") if path.is_file() and path not in files]:
            path.unlink()
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return evidence

    def _told(self) -> Iterator[bytes]:
        records = self.recorded.records[: self.cut]
        return (record.data for record in records if record.kind is Kind.NOTE)

    def _called(self) -> Iterator[bytes]:
        """Yield what the engine had surely been asked; its clock counts whole milliseconds."""
        last_ms = self.recorded.records[self.cut - 1].at_ns // NS_IN_MS
        return (line for at_ms, line in self.recorded.calls if at_ms < last_ms)


def _lines(parts: Iterable[bytes]) -> bytes:
    return b"".join(part + b"\n" for part in parts)


def record(
    base: Path, shim: Path, *, launcher: str | None = None, swallowed: str | None = None
) -> Recorded:
    """Record an API, two workers and their traffic, from an empty folder to their orderly end."""
    folder = base / "disk"
    folder.mkdir()
    recording = Recording(folder, shim=shim, log=base / "log", swallowed=swallowed)
    calls = base / "calls.ndjson"
    with (
        Lemond(folder / "home" / "models", call_log=calls) as engine,
        Source() as source,
        RecordedHouse(recording, engine.url, launcher, **SETTINGS) as house,
    ):
        house.start("-m", "hal0", "api")
        house.start("-m", "workers")
        house.start("-m", "workers")
        house.wait_for(lambda: house.is_up() and house.living_workers() == 2)
        Traffic(house, source, recording).run()
        for process in house.processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(30) for process in house.processes] == [0, 0, 0]
        ports = {"engine": engine.port, "source": source.port}
    (base / "ports.json").write_text(json.dumps(ports))
    return Recorded(base)
