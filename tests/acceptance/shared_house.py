"""One house for all tests of a file: to start its processes takes longer than most tests.

A test leaves it without slots, its engine empty and well.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.house import House
from tests.fakes.lemond import Lemond


@contextmanager
def shared_house(folder: Path, **env: str) -> Iterator[tuple[House, Lemond]]:
    """Start engine, API and a worker that is kept out of files as if it was nobody's."""
    models = folder / "home" / "models"
    models.mkdir(parents=True)
    with (
        Lemond(models, call_log=folder / "calls.ndjson") as lemond,
        House(folder, lemond.url, **env) as house,
    ):
        house.start_api()
        house.start("-m", "tests.powerless", "-m", "workers")
        house.wait_for(house.living_workers)
        yield house, lemond


def clear(house: House, lemond: Lemond) -> None:
    """Make the engine well again, unload and delete every slot."""
    told = {name: None for (name,) in house.sql("SELECT name FROM models")}
    lemond.script(models=told, max_loaded_models=-1, health="ok")
    names = [slot["name"] for slot in house.get("/api/v1/slots", limit=100)["items"]]
    for name in names:
        body = {"force": True, "even_if_pinned": True, "drain_timeout_s": 0}
        house.post(f"/api/v1/slots/{name}/unload", body)
    house.wait_settled()
    for name in names:
        house.client.delete(f"/api/v1/slots/{name}").raise_for_status()


def loads_of(lemond: Lemond, model: str) -> int:
    """Count the loads of a model that the engine was sent."""
    return _asked(lemond, "/v1/load", model)


def unloads_of(lemond: Lemond, model: str) -> int:
    """Count the unloads of a model that the engine was sent."""
    return _asked(lemond, "/v1/unload", model)


def restores_asked(house: House) -> list[str]:
    """Return the slots that a machine had loaded again, in the order of their chains.

    Their loads follow that order unless a file of the first one is checked for longer.
    """
    rows = house.sql(
        "SELECT name FROM chains JOIN slots ON slots.id = slot_id WHERE origin = 'restore' "
        "ORDER BY position"
    )
    return [name for (name,) in rows]


def _asked(lemond: Lemond, path: str, model: str) -> int:
    return sum(call["body"].get("model_name") == model for call in lemond.calls(path))


def scans_pass(house: House, lemond: Lemond, scans: int = 3) -> None:
    """Wait until the engine was looked at so often; nothing else asks its health meanwhile."""
    house.wait_settled()
    seen = len(lemond.calls("/v1/health"))
    house.wait_for(lambda: len(lemond.calls("/v1/health")) >= seen + scans)
