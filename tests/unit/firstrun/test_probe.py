"""What is found of machines, also of those that say nothing, or nonsense."""

import json
import os
from pathlib import Path

import pytest

from hal0.firstrun.probe import MAX_TEXT, disk_of, machine_at, memory_at
from tests.unit.firstrun.machines import apu, basics, nvidia, write


def test_an_apu_has_a_gpu_that_may_use_main_memory_and_an_npu(tmp_path: Path) -> None:
    found = machine_at(apu(tmp_path))
    assert found["cpu"] == {
        "model": "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S",
        "cores": 2,
        "threads": 4,
        "flags": ["avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni"],
    }
    assert found["memory"] == {"total_bytes": 134217728000, "available_bytes": 100663296000}
    assert found["gpus"] == [
        {
            "name": "card1",
            "address": "0000:c4:00.0",
            "vendor": "AMD",
            "device": "0x1586",
            "model": None,
            "driver": "amdgpu",
            "vram_bytes": 536870912,
            "gtt_bytes": 128849018880,
        }
    ]
    npu = found["npus"][0]
    assert (npu["name"], npu["driver"], npu["vendor"]) == ("accel0", "amdxdna", "0x1022")
    assert found["nodes"] == ["/dev/kfd", "/dev/dri/renderD128", "/dev/accel/accel0"]


def test_an_nvidia_card_is_found_without_its_display_driver(tmp_path: Path) -> None:
    found = machine_at(nvidia(tmp_path))
    assert found["gpus"] == [
        {
            "name": None,
            "address": "0000:01:00.0",
            "vendor": "NVIDIA",
            "device": "0x2684",
            "model": "NVIDIA GeForce RTX 4090",
            "driver": "nvidia",
            "vram_bytes": None,
            "gtt_bytes": None,
        }
    ]
    assert found["nodes"] == ["/dev/nvidia0"]


def test_an_nvidia_card_that_also_shows_pictures_is_told_once(tmp_path: Path) -> None:
    nvidia(tmp_path)
    device = tmp_path / "sys/devices/pci0000:00/0000:01:00.0"
    (tmp_path / "sys/class/drm/card0").symlink_to(device / "drm/card0")
    cards = machine_at(tmp_path)["gpus"]
    assert [(card["name"], card["model"]) for card in cards] == [
        ("card0", "NVIDIA GeForce RTX 4090")
    ]


def test_of_a_machine_that_shows_nothing_nothing_is_known(tmp_path: Path) -> None:
    assert machine_at(tmp_path) == {
        "cpu": {"model": None, "cores": None, "threads": None, "flags": []},
        "memory": {"total_bytes": None, "available_bytes": None},
        "gpus": [],
        "npus": [],
        "nodes": [],
    }


def test_a_processor_of_arm_has_its_own_flags(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n")
    cpu = machine_at(tmp_path)["cpu"]
    assert (cpu["threads"], cpu["flags"]) == (1, ["asimd", "asimddp", "i8mm"])


@pytest.mark.parametrize(
    "text",
    ["", "-1", "9" * 400, "0x1F", "1e9", "\x00\x00", "\udcff", "MemTotal", "MemTotal: lots kB"],
)
def test_what_is_no_number_is_not_known(tmp_path: Path, text: str) -> None:
    apu(tmp_path)
    card = tmp_path / "sys/devices/pci0000:00/0000:c4:00.0"
    (card / "mem_info_vram_total").write_bytes(text.encode(errors="surrogateescape"))
    meminfo = f"MemTotal: {text} kB\nMemAvailable:{text}\n"
    (tmp_path / "proc/meminfo").write_bytes(meminfo.encode(errors="surrogateescape"))
    assert machine_at(tmp_path)["gpus"][0]["vram_bytes"] is None
    assert memory_at(tmp_path) == {"total_bytes": None, "available_bytes": None}


def test_hostile_texts_are_cut_and_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    evil = "\x1b[2J\x07" + "<img onerror=x>" * 1000
    write(tmp_path, "proc/cpuinfo", f"processor : 0\nmodel name : {evil}\n")
    device = apu(tmp_path / "apu") / "sys/devices/pci0000:00/0000:c4:00.0"
    (device / "uevent").write_bytes(b"DRIVER=\x1b]0;x\x07\xff\xfe\nPCI_ID=../../etc\n\x00=\x00\n")
    model = str(machine_at(tmp_path)["cpu"]["model"])
    assert len(model) == MAX_TEXT
    assert model.isprintable()
    found = machine_at(tmp_path / "apu")
    card = found["gpus"][0]
    assert (card["vendor"], card["device"], card["address"]) == (None, None, None)
    assert str(card["driver"]).isprintable()
    json.dumps(found).encode()


def test_a_fifo_a_folder_and_a_broken_link_are_read_by_nobody(tmp_path: Path) -> None:
    basics(tmp_path)
    (tmp_path / "proc/meminfo").unlink()
    os.mkfifo(tmp_path / "proc/meminfo")
    (tmp_path / "proc/cpuinfo").unlink()
    (tmp_path / "proc/cpuinfo").mkdir()
    drm = tmp_path / "sys/class/drm"
    drm.mkdir(parents=True)
    (drm / "card0").symlink_to("nowhere")
    write(tmp_path, "sys/class/accel", "no folder")
    found = machine_at(tmp_path)
    assert (found["memory"]["total_bytes"], found["cpu"]["threads"]) == (None, None)
    assert [card["driver"] for card in found["gpus"]] == [None]
    assert found["npus"] == []


def test_a_link_that_leads_to_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").symlink_to("meminfo")
    (tmp_path / "sys").symlink_to("sys")
    assert machine_at(tmp_path)["gpus"] == []


def test_no_more_devices_are_told_than_a_machine_has_room_for(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"sys/class/drm/card{number}").mkdir(parents=True)
    cards = machine_at(tmp_path)["gpus"]
    assert [card["name"] for card in cards[:3]] == ["card0", "card1", "card2"]
    assert len(cards) == 64


def test_what_pulls_leave_free_is_no_room_for_models(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "not" / "made" / "yet", 1000)
    assert disk["free_bytes"] is not None
    assert disk["room_bytes"] == disk["free_bytes"] - 1000
    assert disk_of(tmp_path, 2**62)["room_bytes"] == 0
    assert disk["path"] == str(tmp_path / "not" / "made" / "yet")


def test_this_machine_is_found_without_an_error() -> None:
    found = machine_at()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]["threads"]
    assert found["memory"]["total_bytes"]
