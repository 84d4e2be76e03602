"""How lemond downloads, where no capture shows it, and what it calls two models of one name."""

import httpx
import pytest

from tests.fakes.lemond import Lemond
from tests.integration.lemonade_contract.facts import health, load, until
from tests.integration.lemonade_contract.wire import Folders

TINY = {"model_name": "user.Tiny", "checkpoint": "owner/Tiny-GGUF:Q4_K_M", "recipe": "llamacpp"}
JOB = {**TINY, "stream": True, "subscribe": False}


def downloaded(lemond: Lemond) -> bool:
    answer = lemond.get("/v1/models/user.Tiny")
    return answer.status_code == 200 and answer.json()["downloaded"] is True


def test_a_client_that_leaves_its_stream_ends_the_download(lemond: Lemond) -> None:
    lemond.script(offline=False, download_chunks=40, download_chunk_delay_s=0.05)
    with (
        httpx.Client(base_url=lemond.url, timeout=60) as client,
        client.stream("POST", "/v1/pull", json={**TINY, "stream": True}) as answer,
    ):
        lines = answer.iter_lines()
        until(lambda: '"percent": 0' not in next(line for line in lines if "data:" in line))
    lemond.script(download_chunk_delay_s=0)
    assert not downloaded(lemond)
    again = lemond.post("/v1/pull", {**TINY, "stream": True}).text
    assert '"bytes_previously_downloaded": 0' not in again.split("event: progress")[2]
    assert downloaded(lemond)


@pytest.mark.parametrize(("action", "status"), [("cancel", "cancelled"), ("remove", "cancelled")])
def test_a_job_is_stopped(lemond: Lemond, action: str, status: str) -> None:
    lemond.script(offline=False, download_chunks=40, download_chunk_delay_s=0.05)
    job = lemond.post("/v1/pull", JOB).json()["id"]
    answer = lemond.post("/v1/downloads/control", {"id": job, "action": action}).json()
    assert answer["status"] == status
    listed = {each["id"] for each in lemond.get("/v1/downloads").json()}
    assert (job in listed) is (action == "cancel")
    assert not downloaded(lemond)
    lemond.script(download_chunk_delay_s=0)
    assert lemond.post("/v1/pull", TINY).status_code == 200


def test_a_job_ends_and_stays_listed(lemond: Lemond) -> None:
    lemond.script(offline=False)
    lemond.post("/v1/pull", JOB).raise_for_status()
    until(lambda: lemond.get("/v1/downloads").json()[-1]["complete"])
    assert downloaded(lemond)


def test_two_models_of_one_name_keep_their_prefixes(lemond: Lemond, folders: Folders) -> None:
    path = folders.own / "v:1" / "gemma.gguf"
    body = {"model_name": "user.ga", "checkpoint": str(path), "source": "local_path"}
    answer = lemond.post("/v1/models/register", {**body, "recipe": "llamacpp"})
    assert answer.json()["model_name"] == "user.ga"
    assert load(lemond, "ga").status_code == 404
    assert load(lemond, "extra.ga").status_code == 200
    assert list(health(lemond)) == ["extra.ga"]
