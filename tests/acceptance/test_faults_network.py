"""Networks and servers that fail in the middle of a download, with real processes.

One house for all: each test has its own file, model and slot. Slow sources, wrong digests and
killed workers are in `test_pulls.py`; every bad answer there is, in `test_download.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from tests.acceptance.house import House
from tests.acceptance.seen import IS_FULL_LENGTH, outcomes
from tests.fakes.source import Manner, Source
from tests.tiny_gguf import tiny_gguf_bytes

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults_network")]

STALL_S = 30 if IS_FULL_LENGTH else 2
CONTENT = tiny_gguf_bytes()
HALF = len(CONTENT) // 2
numbers = count()
BREAKS_OFF = Manner(drop_after=HALF, drop_by="fin", method="GET", times=1)


@dataclass
class Pulling:
    """One file at the source, and the slot that pulls it."""

    house: House
    source: Source
    name: str

    def begin(self, *manners: Manner) -> int:
        """Register it, and pull it from a source of these manners; return the job."""
        self.source.put(self.name, CONTENT)
        self.source.script(self.name, *manners)
        url = self.source.url(self.name)
        body = {"name": self.name, "source": url, "size_bytes": len(CONTENT)}
        self.house.post("/api/v1/models", body, status=201)
        self.house.add_slot(self.name, self.name)
        return int(self.house.post(f"/api/v1/slots/{self.name}/pull")["jobs"][0])

    def ended(self, job_id: int) -> Any:
        """Return the job when it is over."""
        self.house.wait_for(lambda: outcomes(self.house, job_id)[-1:] in (["done"], ["failed"]))
        return self.house.get(f"/api/v1/jobs/{job_id}")

    def faults(self, job: Any) -> list[str | None]:
        """Return what ended each attempt."""
        return [(attempt["error"] or {}).get("code") for attempt in job["attempts"]]

    def ranges(self) -> list[str | None]:
        """Return the Range of every GET."""
        mine = [one for one in self.source.requests if one["path"] == self.name]
        return [one["headers"].get("range") for one in mine if one["method"] == "GET"]

    def is_whole(self) -> bool:
        """Whether the file has its name and is the source's."""
        path = self.house.models / f"{self.name}.gguf"
        return self.files() == [path.name] and path.read_bytes() == CONTENT

    def files(self) -> list[str]:
        """Return what lies there of it."""
        return sorted(path.name for path in self.house.models.glob(f"{self.name}.*"))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Nothing of it asks an engine."""
    quick = {"HAL0_PULL_PAUSE_S": "0.1", "HAL0_PULL_TRIES": "3", "HAL0_PULL_STALL_S": str(STALL_S)}
    with House(tmp_path_factory.mktemp("network"), "http://127.0.0.1:9", **quick) as house:
        house.start_api()
        house.start_worker()
        yield house


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with Source() as server:
        yield server


@pytest.fixture
def pulling(house: House, source: Source) -> Pulling:
    house.wait_settled()  # a worker downloads one file at a time
    return Pulling(house, source, f"file-{next(numbers)}")


@pytest.mark.parametrize("drop_by", ["fin", "rst"])
def test_a_network_that_drops_is_asked_again_for_the_rest(pulling: Pulling, drop_by: Any) -> None:
    drops = Manner(drop_after=HALF, drop_by=drop_by, slow=2_000_000, method="GET", times=1)
    job = pulling.ended(pulling.begin(drops))
    assert pulling.faults(job) == ["pull.source_unreachable", None]
    first, again = pulling.ranges()
    assert first is None
    assert again is not None
    assert 0 < int(again.removeprefix("bytes=").removesuffix("-")) <= HALF
    assert pulling.is_whole()


def test_a_source_that_stalls_is_given_up_after_its_time_and_asked_for_the_rest(
    pulling: Pulling,
) -> None:
    job = pulling.ended(pulling.begin(Manner(stall_after=HALF, method="GET", times=1)))
    assert pulling.faults(job) == ["pull.source_stalled", None]
    error = job["attempts"][0]["error"]
    assert error["evidence"]["stall_s"] == STALL_S
    assert pulling.ranges() == [None, f"bytes={HALF}-"]
    assert pulling.is_whole()


@pytest.mark.parametrize(
    "manner",
    [
        Manner(ignore_range=True),
        Manner(when="resume", wrong_range="offset"),
        Manner(when="resume", wrong_range="total"),
        Manner(when="resume", encoding="gzip"),
    ],
    ids=["200 on a resume", "wrong range", "wrong total", "gzip in mid-pull"],
)
def test_a_source_that_does_not_go_on_where_it_broke_off_is_fetched_anew(
    pulling: Pulling, manner: Manner
) -> None:
    """Not a byte of such an answer is put behind what is there."""
    job = pulling.ended(pulling.begin(BREAKS_OFF, manner))
    assert job["state"] == "succeeded", job["error"]
    assert pulling.ranges()[:2] == [None, f"bytes={HALF}-"]
    assert pulling.is_whole()


@pytest.mark.parametrize(
    "manner",
    [Manner(wrong_length=+100), Manner(wrong_length=-100), Manner(encoding="gzip")],
    ids=["too long", "too short", "gzip"],
)
def test_a_source_whose_answer_is_not_the_file_fails_by_name_and_leaves_no_file(
    pulling: Pulling, manner: Manner
) -> None:
    job = pulling.ended(pulling.begin(manner))
    assert pulling.faults(job) == ["pull.bad_answer"]
    assert pulling.files() == []
    assert pulling.house.slot(pulling.name)["state"] == "error"
    pulling.source.script(pulling.name)
    pulling.house.post(f"/api/v1/jobs/{job['id']}/retry")
    pulling.house.wait_for(pulling.is_whole)


def test_redirects_in_a_circle_are_given_up(pulling: Pulling) -> None:
    job = pulling.ended(pulling.begin(Manner(redirect_to=f"/{pulling.name}")))
    assert pulling.faults(job) == ["pull.bad_answer"]
    assert "more than 10 times" in job["error"]["detail"]
    assert pulling.files() == []
