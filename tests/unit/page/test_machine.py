"""In which words a machine is shown, whatever of it is not known."""

from pathlib import Path

from hal0.firstrun.probe import disk_of, machine_at
from hal0.page.machine import lines_of

GPU = {
    "name": "card1",
    "address": "0000:c4:00.0",
    "vendor": "AMD",
    "device": "0x150e",
    "model": None,
    "driver": "amdgpu",
    "vram_bytes": 2**29,
    "gtt_bytes": 24 * 2**30,
}


def told(root: Path, **changes: object) -> list[tuple[str, str]]:
    return list(lines_of({**machine_at(root), "disk": disk_of(root, 0), **changes}))


def test_what_nobody_knows_is_said_to_be_unknown(tmp_path: Path) -> None:
    lines = told(tmp_path)
    assert ("Processor", "unknown") in lines
    assert ("Memory", "unknown of unknown free") in lines
    assert ("GPU", "none seen") in lines


def test_a_gpu_is_told_with_its_memory_and_what_it_may_use_besides(tmp_path: Path) -> None:
    (line,) = [what for name, what in told(tmp_path, gpus=[GPU]) if name == "GPU"]
    assert line == "AMD 0x150e, driver amdgpu, 0.5 GiB of its own, 24.0 GiB of main memory"


def test_each_npu_has_a_line(tmp_path: Path) -> None:
    npu = {**dict.fromkeys(GPU), "driver": "amdxdna"}
    lines = [what for name, what in told(tmp_path, npus=[npu, npu]) if name == "NPU"]
    assert lines == ["unknown, driver amdxdna"] * 2
