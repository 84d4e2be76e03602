"""A house as the page's visitors find it: slots in the states that cards differ by."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.house import House
from tests.acceptance.shared_house import shared_house

SLOTS = ("chat", "embed", "vision", "spare", "other", "loose", "alone")


@contextmanager
def page_house(folder: Path) -> Iterator[House]:
    """`chat` and `spare` are ready, `embed` is in error by its file; nobody else is loaded."""
    with shared_house(folder) as (house, lemond):
        lemond.script(max_loaded_models=-1)
        for seed, slot in enumerate(SLOTS):
            house.add_model(slot, seed=seed)
            house.add_slot(slot, slot)
        (house.sources / "embed.gguf").write_bytes(b"no model")
        for slot, state in (("embed", "error"), ("chat", "ready"), ("spare", "ready")):
            house.load(slot)
            house.wait_until(state, slot)
        yield house


def close(house: House) -> str:
    """Return a writer's token, which closes the house; its own client bears it from now on."""
    text = str(house.post("/api/v1/tokens", {"name": "laptop", "role": "writer"})["token"])
    house.client.headers["Authorization"] = f"Bearer {text}"
    return text
