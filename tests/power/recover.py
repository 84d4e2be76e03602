"""`python -m tests.power.recover PLAN.json`: hal0 started again on what a power cut left.

Root runs it in namespaces of its own (mounts, network, processes), so that several can run at once:
there the rebuilt home lies where the old one lay, the kernel names another boot, pids begin anew,
and the ports of the old engine and the old source are free. Prints what does not hold, as a JSON
list.
"""

import fcntl
import json
import logging
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from hal0.clock import utc_now
from hal0.tables import TIME_FORMAT
from tests.acceptance.house import House
from tests.fakes.lemond import Lemond
from tests.fakes.source import Source
from tests.power.losses import losses
from tests.power.traffic import REMOTE, SETTINGS, serve

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 1
LIMIT_S: Final = 90
"""For all jobs to end; the longest of them waits out an engine's settle time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is where: `left` has what the cut left, and is to lie where `was` is."""

    left: str
    was: str
    boot_id: str
    engine_port: int
    source_port: int

    def write(self) -> Path:
        """Write the plan into the folder that it is about."""
        path = Path(self.left) / "plan.json"
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return a plan that was written."""
        return cls(**json.loads(path.read_text()))


def move_in(plan: Plan) -> None:
    """Make this namespace the machine after the cut."""
    boot_id = Path(plan.left) / "boot_id"
    boot_id.write_text(f"{plan.boot_id}\n")
    for source, target in ((plan.left, plan.was), (boot_id, BOOT_ID)):
        subprocess.run(["mount", "--bind", source, target], check=True)
    with socket.socket() as any_socket:
        up = struct.pack("16sH14x", b"lo", IFF_UP)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, up)


def recover(plan: Plan) -> list[str]:
    """Start hal0 and wait until nothing is left to do; return what is wrong then.

    The logs of the client and of the engine go on where they were when the power went.
    """
    folder = Path(plan.was)
    calls = folder / "calls.ndjson"
    engine = Lemond(folder / "home" / "models", call_log=calls, port=plan.engine_port)
    with engine, Source(port=plan.source_port) as source:
        for name in REMOTE:
            serve(source, name)
        began = utc_now().strftime(TIME_FORMAT)
        with House(folder, engine.url, **SETTINGS) as house:
            house.start_api()
            house.start_worker()
            house.wait_for(lambda: house.sql(_OWED) == [(0,)], LIMIT_S)
            house.wait_settled(LIMIT_S)
            return [
                *unsettled_slots(house),
                *failed_downloads(house, began),
                *losses(house.evidence, folder / "home", is_quiet=True),
            ]


_OWED: Final = "SELECT count(*) FROM slots WHERE restore IS NOT NULL"
"""What was loaded when the power went, and is wanted, becomes a chain at the first good health."""


def failed_downloads(house: House, began: str) -> Iterator[str]:
    """Yield what a torn part spoilt: the source is well now, so there is no excuse."""
    for job_id, error in house.sql(_FAILED, began):
        yield f"download {job_id} failed: {error}"


_FAILED: Final = """
SELECT jobs.id, job_attempts.error FROM job_attempts JOIN jobs ON jobs.id = job_id
JOIN model_files USING (model_id) WHERE kind = 'pull' AND job_attempts.outcome = 'failed'
AND source LIKE 'http%' AND job_attempts.started_at >= ?
"""


def unsettled_slots(house: House) -> Iterator[str]:
    """Yield slots that are not what is wanted of them, and do not say what is in the way."""
    for slot in house.get("/api/v1/slots")["items"]:
        if not is_settled(slot):
            yield f"slot {slot['name']} is {slot['state']} in the end, and nothing says why"


def is_settled(slot: dict[str, Any]) -> bool:
    """Whether a slot is as it should be, or in an error with a name.

    Whether one that is wanted and offline has a reason for it, the checker says (point 9).
    """
    if slot["state"] == "error":
        return slot["error"] is not None
    is_loaded = slot["state"] in {"ready", "idle"}
    is_as_wanted = is_loaded == (slot["desired"] == "loaded")
    return is_as_wanted or bool(slot["state"] == "offline")


def main() -> int:
    """Carry out one plan."""
    logging.disable(logging.CRITICAL)
    plan = Plan.read(Path(sys.argv[1]))
    move_in(plan)
    print(json.dumps(recover(plan)))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
