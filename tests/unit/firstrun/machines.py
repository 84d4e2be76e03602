"""Machines as the kernel shows them, to be written below a root of a test."""

from pathlib import Path

CPU = """\
processor\t: {number}
vendor_id\t: AuthenticAMD
model name\t: AMD RYZEN AI MAX+ 395 w/ Radeon 8060S
physical id\t: 0
core id\t\t: {core}
flags\t\t: fpu sse2 avx avx2 f16c fma avx512f avx512_vnni avx_vnni rdtscp

"""
MEMINFO = "MemTotal:       131072000 kB\nMemFree:  1 kB\nMemAvailable:   98304000 kB\n"


def write(root: Path, path: str, text: str) -> None:
    """Write one file of the kernel's."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def basics(root: Path, threads: int = 4) -> Path:
    """A machine with two threads a core, and nothing else."""
    cpus = (CPU.format(number=number, core=number // 2) for number in range(threads))
    write(root, "proc/cpuinfo", "".join(cpus))
    write(root, "proc/meminfo", MEMINFO)
    return root


def pci(root: Path, kind: str, name: str, uevent: dict[str, str], **files: str) -> Path:
    """A device of a class, with the links that the kernel makes."""
    device = root / "sys/devices/pci0000:00" / uevent["PCI_SLOT_NAME"]
    (device / kind / name).mkdir(parents=True)
    write(device, "uevent", "".join(f"{key}={value}\n" for key, value in uevent.items()))
    for file, text in files.items():
        write(device, file, text)
    (device / kind / name / "device").symlink_to("../..")
    listed = root / "sys/class" / kind
    listed.mkdir(parents=True, exist_ok=True)
    (listed / name).symlink_to(device / kind / name)
    bus = root / "sys/bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    if not (bus / device.name).exists():
        (bus / device.name).symlink_to(device)
    return device


def apu(root: Path) -> Path:
    """An APU: little memory of its own, nearly all of the machine's, and an NPU."""
    basics(root)
    pci(
        root,
        "drm",
        "card1",
        {"DRIVER": "amdgpu", "PCI_ID": "1002:1586", "PCI_SLOT_NAME": "0000:c4:00.0"},
        mem_info_vram_total="536870912\n",
        mem_info_gtt_total="128849018880\n",
    )
    (root / "sys/class/drm/card1-DP-1").mkdir()
    (root / "sys/class/drm/renderD128").mkdir()
    pci(
        root,
        "accel",
        "accel0",
        {"DRIVER": "amdxdna", "PCI_ID": "1022:17F0", "PCI_SLOT_NAME": "0000:c5:00.1"},
    )
    for node in ("kfd", "dri/renderD128", "dri/card1", "accel/accel0", "null"):
        write(root, f"dev/{node}", "")
    return root


def nvidia(root: Path) -> Path:
    """NVIDIA's own driver without its display part: no card among those of `drm`."""
    basics(root)
    device = pci(
        root,
        "drm",
        "card0",
        {"DRIVER": "nvidia", "PCI_ID": "10DE:2684", "PCI_SLOT_NAME": "0000:01:00.0"},
    )
    (root / "sys/class/drm/card0").unlink()
    told = f"proc/driver/nvidia/gpus/{device.name}/information"
    write(root, told, "Model: \t\t NVIDIA GeForce RTX 4090\nIRQ:   \t\t 154\n")
    write(root, "dev/nvidia0", "")
    write(root, "dev/nvidiactl", "")
    return root
