"""What time it is: the one source of UTC, of the monotonic clock and of the boot's name.

Wall time is for people. Whatever is compared or counted down uses `monotonic_ms`, which means
something only together with `boot_id`: after a reboot the monotonic clock starts again.
"""

import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


def utc_now() -> datetime:
    """Return the present instant, aware, in UTC."""
    return datetime.now(UTC)


def monotonic_ms() -> int:
    """Return milliseconds of CLOCK_MONOTONIC: the same for all processes of one boot.

    It stands still while the host is suspended, so no deadline passes in a closed laptop.
    """
    return time.monotonic_ns() // 1_000_000


@cache
def boot_id() -> str:
    """Return the kernel's name for this boot, a UUID in text."""
    return BOOT_ID_FILE.read_text(encoding="ascii").strip()
