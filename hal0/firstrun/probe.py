"""What this machine has, as the kernel shows it in /proc, /sys and /dev.

    CPU       /proc/cpuinfo
    memory    /proc/meminfo
    GPUs      /sys/class/drm/cardN/device: `uevent` names driver, PCI ids and address; amdgpu shows
              `mem_info_vram_total`, and `mem_info_gtt_total`, the part of main memory that its GPU
              may use: of an APU nearly all of it. NVIDIA's own driver shows its cards below
              /proc/driver/nvidia/gpus, by address, and not how much memory they have
    NPUs      /sys/class/accel/accelN/device (amdxdna, intel_vpu)
    nodes     what programs open to use them: /dev/kfd, /dev/nvidiaN, /dev/dri/renderDN, /dev/accel

Everything is read below a root, so that a test can have a machine of its own. Nothing here raises,
whatever those files are or say: what is not known is null. In a container it is the host that most
of these files tell of.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field
from typing_extensions import TypedDict

from hal0.opening import open_regular

MAX_BYTES: Final = 4 * 2**20
"""A machine of 1024 threads has 1.5 MiB of /proc/cpuinfo."""
MAX_DEVICES: Final = 64
MAX_TEXT: Final = 200

FLAGS: Final = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "sve"),
)
"""What llama.cpp has faster code for, of x86 and of ARM."""

VENDORS: Final = {"1002": "AMD", "10DE": "NVIDIA", "8086": "Intel"}
_PCI_ID: Final = re.compile(r"([0-9A-F]{4}):([0-9A-F]{4})")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_NODES: Final = {
    "dev": re.compile(r"kfd|nvidia[0-9]+"),
    "dev/dri": re.compile(r"renderD[0-9]+"),
    "dev/accel": re.compile(r"accel[0-9]+"),
}


class Cpu(TypedDict, closed=True):
    """The processors."""

    model: str | None
    cores: int | None
    threads: int | None
    flags: Annotated[list[str], Field(description="those that matter to inference")]


class Memory(TypedDict, closed=True):
    """The main memory; available = without swapping, what the kernel can give back counted in."""

    total_bytes: int | None
    available_bytes: int | None


class Accelerator(TypedDict, closed=True):
    """A GPU or NPU."""

    name: Annotated[str | None, Field(description="as the kernel numbers it")]
    address: Annotated[str | None, Field(description="on the PCI bus")]
    vendor: str | None
    device: Annotated[str | None, Field(description="its PCI id")]
    model: str | None
    driver: str | None
    vram_bytes: Annotated[int | None, Field(description="memory of its own")]
    gtt_bytes: Annotated[int | None, Field(description="main memory that it may use")]


class Machine(TypedDict):
    """What there is for inference to run on."""

    cpu: Cpu
    memory: Memory
    gpus: list[Accelerator]
    npus: list[Accelerator]
    nodes: Annotated[list[str], Field(description="devices that programs open for them")]


class Disk(TypedDict, closed=True):
    """The disk of the models folder."""

    path: str
    total_bytes: int | None
    free_bytes: int | None
    reserve_bytes: Annotated[int, Field(description="what pulls leave free")]
    room_bytes: Annotated[int | None, Field(description="what is left for models")]


def machine_at(root: Path = Path("/")) -> Machine:
    """Return what the machine whose root this is has."""
    return {
        "cpu": _cpu(root),
        "memory": memory_at(root),
        "gpus": _gpus(root),
        "npus": _devices(root / "sys/class/accel", re.compile(r"accel[0-9]+")),
        "nodes": [
            f"/{folder}/{name}"
            for folder, which in _NODES.items()
            for name in _names(root / folder)
            if which.fullmatch(name)
        ],
    }


def memory_at(root: Path = Path("/")) -> Memory:
    """Return how much main memory there is now."""
    said = _pairs(_text(root / "proc/meminfo"), ":")
    return {
        "total_bytes": _kib(said.get("MemTotal")),
        "available_bytes": _kib(said.get("MemAvailable")),
    }


def disk_of(folder: Path, reserve_bytes: int) -> Disk:
    """Return how much room there is where `folder` is, or is to be."""
    there = next((one for one in (folder, *folder.parents) if one.is_dir()), folder)
    try:
        usage = shutil.disk_usage(there)
    except OSError:
        return {
            "path": str(folder),
            "total_bytes": None,
            "free_bytes": None,
            "reserve_bytes": reserve_bytes,
            "room_bytes": None,
        }
    return {
        "path": str(folder),
        "total_bytes": usage.total,
        "free_bytes": usage.free,
        "reserve_bytes": reserve_bytes,
        "room_bytes": max(0, usage.free - reserve_bytes),
    }


def _cpu(root: Path) -> Cpu:
    text = _text(root / "proc/cpuinfo")
    said = _pairs(text, ":")
    flags = (said.get("flags") or said.get("Features") or "").split()
    sockets, cores = (
        re.findall(rf"^{name}\s*:\s*([0-9]+)", text, re.MULTILINE)
        for name in ("physical id", "core id")
    )
    return {
        "model": _line(said.get("model name")),
        "cores": len(set(zip(sockets, cores, strict=False))) or None,
        "threads": len(re.findall(r"^processor\s*:", text, re.MULTILINE)) or None,
        "flags": [flag for flag in FLAGS if flag in flags],
    }


def _gpus(root: Path) -> list[Accelerator]:
    cards = _devices(root / "sys/class/drm", re.compile(r"card[0-9]+"))
    by_address = {card["address"]: card for card in cards if card["address"]}
    nvidia = root / "proc/driver/nvidia/gpus"
    for address in _names(nvidia):
        if address not in by_address:
            by_address[address] = _device(None, root / "sys/bus/pci/devices" / address)
            cards.append(by_address[address])
        said = _pairs(_text(nvidia / address / "information"), ":")
        card = by_address[address]
        card["vendor"], card["model"] = "NVIDIA", _line(said.get("Model"))
        card["address"] = _line(address)
    return cards[:MAX_DEVICES]


def _devices(folder: Path, which: re.Pattern[str]) -> list[Accelerator]:
    """Return the devices of a class; what else is listed there are their connectors."""
    return [
        _device(name, folder / name / "device") for name in _names(folder) if which.fullmatch(name)
    ]


def _device(name: str | None, folder: Path) -> Accelerator:
    said = _pairs(_text(folder / "uevent"), "=")
    found = _PCI_ID.fullmatch(said.get("PCI_ID", ""))
    vendor, device = found.groups() if found else (None, None)
    return {
        "name": name,
        "address": _line(said.get("PCI_SLOT_NAME")),
        "vendor": vendor and VENDORS.get(vendor, f"0x{vendor.lower()}"),
        "device": device and f"0x{device.lower()}",
        "model": _line(_text(folder / "product_name")),
        "driver": _line(said.get("DRIVER")),
        "vram_bytes": _number(_text(folder / "mem_info_vram_total")),
        "gtt_bytes": _number(_text(folder / "mem_info_gtt_total")),
    }


def _text(path: Path) -> str:
    """Return what a file says; nothing for what is none, or cannot be read."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _names(folder: Path) -> list[str]:
    """Return what is in a folder, card2 before card10."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    return sorted(names, key=lambda name: (len(name), name))[:MAX_DEVICES]


def _pairs(text: str, separator: str) -> Mapping[str, str]:
    """Return what each name is said to be first: of a list of processors, the first one."""
    pairs: dict[str, str] = {}
    for line in text.splitlines():
        name, found, value = line.partition(separator)
        if found:
            pairs.setdefault(name.strip(), value.strip())
    return pairs


def _line(text: str | None) -> str | None:
    """Return what can be shown of a text, None for nothing."""
    shown = "".join(char for char in (text or "").strip() if char.isprintable())
    return shown[:MAX_TEXT] or None


def _number(text: str | None) -> int | None:
    found = _NUMBER.fullmatch((text or "").strip())
    return None if found is None else int(found[0])


def _kib(text: str | None) -> int | None:
    number = _number((text or "").removesuffix("kB"))
    return None if number is None else number * 1024
