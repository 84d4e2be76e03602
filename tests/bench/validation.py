"""What the checks of a large file cost: beside OpenSSL on the same bytes, and the second time.

The file is a real small GGUF with noise behind it, one GiB of written blocks in all, warm in the
page cache. hal0's side is a fresh process each time, which measures itself between its imports and
its end, through the code that a worker's `validate` uses, verdicts in a real database.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from hal0.db import open_database
from hal0.jobs.boot import first_act
from hal0.registry.catalog import StoredVerdicts
from hal0.registry.preload import ModelFile, validate_files
from hal0.settings import Settings
from tests.bench.table import Row, Spread, judged, ratios
from tests.bench.workshop import ROOT, Workshop, clean_environment, needed
from tests.tiny_gguf import tiny_gguf_bytes

SIZE: Final = 2**30
ROUNDS: Final = 7
SPEED: Final = 0.9
GROWTH_MB: Final = 20.0
AGAIN: Final = 0.01


def measure(shop: Workshop) -> list[Row]:
    """Validate and digest the same file in turn."""
    (openssl,) = needed("openssl")
    model = shop.folder / "model.gguf"
    sha256 = _write(model)
    sides = (partial(_openssl, openssl, model), partial(_ours, shop, model, sha256))
    took: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for side in reversed(sides) if number % 2 else sides:
            for name, value in side().items():
                took.setdefault(name, []).append(value)
    return [_speed(took), _memory(took), _again(took)]


def _speed(took: dict[str, list[float]]) -> Row:
    speed = ratios(took["openssl"], took["first"])
    cpu = ratios(took["first_cpu"], took["openssl_cpu"])
    return Row(
        what="speed of validation, 1 GiB, warm / openssl dgst -sha256",
        figure=f"{speed.p50:.2f} x",
        spread=str(speed),
        to_reach=f">= {SPEED} x",
        verdict=judged(speed.p50 >= SPEED),
        how=f"{SIZE / Spread.of(took['first']).p50 / 1e6:.2f} GB/s, CPU {cpu.p50:.2f} x",
        samples=took,
    )


def _memory(took: dict[str, list[float]]) -> Row:
    growth = Spread.of(took["growth_mb"])
    return Row(
        what="memory that validation grows by",
        figure=f"{growth.p50:.1f} MB",
        spread=str(growth),
        to_reach=f"< {GROWTH_MB:g} MB",
        verdict=judged(max(took["growth_mb"]) < GROWTH_MB),
        how="peak of a fresh process over its size before",
    )


def _again(took: dict[str, list[float]]) -> Row:
    again = ratios(took["second"], took["first"])
    read = max(took["read_again"])
    return Row(
        what="second validation of the unchanged file / first",
        figure=f"{again.p50:.2g} x, {read:.0f} bytes",
        spread=str(again),
        to_reach=f"<= {AGAIN} x, 0 bytes",
        verdict=judged(again.p50 <= AGAIN and read == 0),
        how=f"{Spread.of(took['second']).p50:.1f} ms; all bytes that the process read",
    )


def _write(model: Path) -> str:
    """Write the file, all of its blocks; return its sha256."""
    digest, left = hashlib.sha256(), SIZE
    noise, head = os.urandom(2**20), tiny_gguf_bytes()
    with model.open("wb") as out:
        while left:
            chunk = (head or noise)[:left]
            head = b""
            digest.update(chunk)
            left -= out.write(chunk)
        os.fsync(out.fileno())
    return digest.hexdigest()


def _openssl(program: str, model: Path) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_ns = time.monotonic_ns()
    subprocess.run([program, "dgst", "-sha256", str(model)], check=True, stdout=subprocess.DEVNULL)
    took_ms = (time.monotonic_ns() - began_ns) / 1e6
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"openssl": took_ms, "openssl_cpu": _cpu_ms(before, after)}


def _ours(shop: Workshop, model: Path, sha256: str) -> dict[str, float]:
    home = shop.folder / "home"
    command = [sys.executable, "-m", "tests.bench.validation", str(home), str(model), sha256]
    done = subprocess.run(
        command, check=True, capture_output=True, cwd=ROOT, env=clean_environment()
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _cpu_ms(before: Any, after: Any) -> float:
    spent_s: float = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent_s * 1e3


# -- in the process that validates ---------------------------------------------------------------


def main(home: Path, model: Path, sha256: str) -> None:
    """Validate the file twice; print what it took."""
    db = open_database(Settings(home=home))
    first_act(db, "bench")
    file, verdicts = ModelFile("main", model, SIZE, sha256), StoredVerdicts(db)

    def validate(*, rehash: bool) -> bool:
        checked = validate_files([file], format="gguf", verdicts=verdicts, rehash=rehash)
        return checked[0].is_remembered

    _forget_peak()
    size_mb, before = _status_mb("VmRSS"), resource.getrusage(resource.RUSAGE_SELF)
    began_ns = time.monotonic_ns()
    assert not validate(rehash=True)
    first_ms = (time.monotonic_ns() - began_ns) / 1e6
    after = resource.getrusage(resource.RUSAGE_SELF)
    growth_mb = _status_mb("VmHWM") - size_mb
    validate(rehash=False)  # the database's own pages are in its cache now
    cost_of_looking = _bytes_read() - _bytes_read()
    read, began_ns = _bytes_read(), time.monotonic_ns()
    assert validate(rehash=False)
    second_ms = (time.monotonic_ns() - began_ns) / 1e6
    read_again = _bytes_read() - read + cost_of_looking
    db.close()
    figures = {
        "first": first_ms,
        "first_cpu": _cpu_ms(before, after),
        "growth_mb": growth_mb,
        "second": second_ms,
        "read_again": read_again,
    }
    sys.stdout.write(json.dumps(figures))


def _forget_peak() -> None:
    """Let the peak of this process be its present size."""
    Path("/proc/self/clear_refs").write_text("5")


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def _bytes_read() -> int:
    """Return the bytes that this process has read by system calls, from whatever file."""
    return int(Path("/proc/self/io").read_text().split()[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
