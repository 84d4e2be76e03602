"""A model of three shards and an mmproj, one of them wrong: behaviour D15, with real processes.

Each file counts: the one that is wrong is named, the engine does not hear of the model, and after
the repair it finds all of them in their places.
"""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.house import House
from tests.fakes.lemond import Lemond
from tests.tiny_gguf import write_tiny_gguf, write_tiny_shards

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("several_files")]

FIRST, MIDDLE, LAST, MMPROJ = 0, 1, 2, 3
NUMBERS = itertools.count()
LOAD_S = 0.5
"""Long enough to look at the files while the engine loads, on most machines."""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Big:
    """A model of four files: their sources, where they are to be, and the slot that is for it."""

    def __init__(self, house: House, lemond: Lemond, name: str) -> None:
        self.house, self.lemond, self.name = house, lemond, name
        folder = house.sources / name
        shards = write_tiny_shards(folder, name, count=3)
        self.sources = [*shards, write_tiny_gguf(folder / "mmproj.gguf", seed=7)]
        self.good = [path.read_bytes() for path in self.sources]
        self.digests = [sha256(path) for path in self.sources]
        self.places = [house.models / name / path.name for path in self.sources]
        others = {"mmproj": str(self.places[MMPROJ])}
        lemond.script(models={name: {"others": others, "load_delay_s": LOAD_S}})

    def register(self, *which: int, facts: bool = True) -> None:
        """Register these files; without `facts`, neither size nor sha256 of any."""
        files = [
            {"role": "mmproj" if number == MMPROJ else "shard", "source": str(self.sources[number])}
            | (self._facts(number) if facts else {})
            for number in which
        ]
        self.house.post("/api/v1/models", {"name": self.name, "files": files}, status=201)
        self.house.add_slot(self.name, self.name)

    def _facts(self, number: int) -> dict[str, Any]:
        return {"size_bytes": len(self.good[number]), "sha256": self.digests[number]}

    def flip(self, number: int) -> None:
        """Flip the last byte of a file."""
        good = self.good[number]
        self.sources[number].write_bytes(good[:-1] + bytes([good[-1] ^ 1]))

    def mend(self, number: int) -> None:
        """Put the right content back."""
        self.sources[number].write_bytes(self.good[number])

    def load(self) -> Any:
        """Ask for a load that must be refused; return its failed job."""
        chain = self.house.load(self.name)["chain_id"]
        self.house.wait_until("error", self.name)
        (failed,) = [job for job in self.house.chain(chain) if job["state"] == "failed"]
        assert self.house.slot(self.name)["error"]["job_id"] == failed["id"]
        assert self.loads() == []
        return failed

    def retry(self, job: Any) -> None:
        """Retry a job; while the engine loads, each file lies whole in its place."""
        self.house.post(f"/api/v1/jobs/{job['id']}/retry")
        self.house.wait_for(self.loads)
        assert [sha256(path) for path in self.places] == self.digests
        self.house.wait_until("ready", self.name)
        assert len(self.loads()) == 1

    def loads(self) -> list[Any]:
        """Return the loads of this model that the engine was asked for."""
        calls = self.lemond.calls("/v1/load")
        return [call for call in calls if call["body"]["model_name"] == self.name]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Lemond]]:
    folder = tmp_path_factory.mktemp("several")
    (folder / "home" / "models").mkdir(parents=True)
    with (
        Lemond(folder / "home" / "models", call_log=folder / "calls.ndjson") as lemond,
        House(folder, lemond.url) as house,
    ):
        house.start_api()
        house.start_worker()
        yield house, lemond


@pytest.fixture
def big(running: tuple[House, Lemond]) -> Iterator[Big]:
    house, lemond = running
    yield Big(house, lemond, f"big{next(NUMBERS)}")
    house.check_audit()


@pytest.mark.parametrize("number", [FIRST, MIDDLE, LAST, MMPROJ])
def test_one_corrupt_file_of_four_is_named_and_mended(big: Big, number: int) -> None:
    big.register(FIRST, MIDDLE, LAST, MMPROJ)
    big.flip(number)
    failed = big.load()
    assert (failed["kind"], failed["error"]["code"]) == ("validate", "preload.checksum_mismatch")
    assert failed["error"]["evidence"]["path"] == str(big.places[number])
    assert str(big.places[number]) in failed["error"]["detail"]
    assert failed["error"]["evidence"]["expected"] == big.digests[number]
    assert big.house.path_of(big.name) == ["offline", "starting", "error"]
    big.mend(number)
    big.retry(failed)


@pytest.mark.parametrize("number", [FIRST, MIDDLE, LAST, MMPROJ])
def test_one_missing_source_of_four_is_named_and_brought_again(big: Big, number: int) -> None:
    big.register(FIRST, MIDDLE, LAST, MMPROJ)
    big.sources[number].unlink()
    failed = big.load()
    assert (failed["kind"], failed["error"]["code"]) == ("pull", "pull.source_not_found")
    assert str(big.sources[number]) in failed["error"]["detail"]
    big.mend(number)
    big.retry(failed)


@pytest.mark.parametrize("facts", [True, False])
def test_a_model_that_lacks_a_shard_is_refused_by_its_number(big: Big, facts: bool) -> None:
    big.register(FIRST, LAST, MMPROJ, facts=facts)
    failed = big.load()
    assert failed["error"]["code"] == "preload.truncated"
    assert failed["error"]["evidence"]["missing"] == [MIDDLE + 1]
    assert failed["error"]["evidence"]["path"] == str(big.places[FIRST])


@pytest.mark.parametrize("number", [FIRST, MIDDLE, LAST])
@pytest.mark.parametrize(
    ("facts", "code"), [(True, "preload.size_mismatch"), (False, "preload.truncated")]
)
def test_a_shard_of_another_model_is_named_also_when_nothing_is_registered_of_it(
    big: Big, number: int, facts: bool, code: str
) -> None:
    big.register(FIRST, MIDDLE, LAST, MMPROJ, facts=facts)
    strange = write_tiny_shards(big.sources[0].parent / "strange", "strange", layers=1)
    big.sources[number].write_bytes(strange[number].read_bytes())
    failed = big.load()
    assert failed["error"]["code"] == code
    assert failed["error"]["evidence"]["path"] == str(big.places[number])
    big.mend(number)
    big.retry(failed)


@pytest.mark.parametrize("number", [FIRST, LAST])
def test_a_shard_in_the_place_of_another_is_told_by_what_is_missing(big: Big, number: int) -> None:
    big.register(FIRST, MIDDLE, LAST, MMPROJ, facts=False)
    big.sources[number].write_bytes(big.good[MIDDLE])
    failed = big.load()
    assert failed["error"]["code"] == "preload.truncated"
    assert failed["error"]["evidence"]["missing"] == [number + 1]
    assert failed["error"]["evidence"]["path"] == str(big.places[number])
    big.mend(number)
    big.retry(failed)
