"""How much memory the processes hold when nothing happens: five seconds after start, after a load.

Judged by RSS, which counts pages that are shared with others in full; the private part is shown.
"""

import time
from typing import Any, Final

import psutil

from tests.acceptance.house import House
from tests.bench.table import Row, digits, judged
from tests.bench.workshop import Workshop
from tests.fakes.lemond import Lemond

REST_S: Final = 5.0
TARGET_MB: Final = 110.0
MB: Final = 2**20


def measure(shop: Workshop) -> list[Row]:
    """Weigh an API and a worker at rest, before and after a load."""
    models = shop.folder / "home" / "models"
    models.mkdir(parents=True)
    with Lemond(models) as lemond, House(shop.folder, lemond.url) as house:
        processes = {
            "API": psutil.Process(house.start_api().pid),
            "worker": psutil.Process(house.start_worker().pid),
        }
        time.sleep(REST_S)
        at_start = {name: process.memory_full_info() for name, process in processes.items()}
        house.add_model()
        house.add_slot()
        house.load()
        house.wait_until("ready")
        house.wait_settled()
        time.sleep(REST_S)
        after_load = {name: process.memory_full_info() for name, process in processes.items()}
    return [_row(name, at_start[name], after_load[name]) for name in processes]


def _row(name: str, at_start: Any, after_load: Any) -> Row:
    rss = [at_start.rss / MB, after_load.rss / MB]
    return Row(
        what=f"memory at rest, {name}",
        figure=f"{max(rss):.0f} MB",
        spread=f"{digits(rss[0])} .. {digits(rss[1])} MB",
        to_reach=f"<= {TARGET_MB:g} MB",
        verdict=judged(max(rss) <= TARGET_MB),
        how=f"RSS at start .. after a load; private {after_load.uss / MB:.0f} MB",
        samples={"rss_mb": rss, "uss_mb": [at_start.uss / MB, after_load.uss / MB]},
    )
