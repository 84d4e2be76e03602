"""Many processes over one home: at once, killed in the middle, asleep all together, not woken."""

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.acceptance.house import House, free_port
from tests.acceptance.seen import (
    add_slots,
    check_nobody_died,
    jobs_of,
    loads_sent,
    outcomes,
)
from tests.fakes.lemond import Lemond
from tests.faulty import Faulty

pytestmark = pytest.mark.slow

SLOTS = [f"s{number}" for number in range(6)]
ORDERS = ["load", "unload", "load", "load", "unload", "load"]
ASLEEP_S = 6


@pytest.fixture
def second(house: House) -> Iterator[httpx.Client]:
    """A client of the other API."""
    with httpx.Client(base_url=f"http://127.0.0.1:{free_port()}", timeout=30) as client:
        yield client


def start_second_api(house: House, second: httpx.Client) -> "subprocess.Popen[bytes]":
    first = house.env["HAL0_BIND"]
    house.env["HAL0_BIND"] = second.base_url.netloc.decode()
    process = house.start("-m", "hal0", "api")
    house.env["HAL0_BIND"] = first

    def answers() -> bool:
        try:
            return second.get("/livez").status_code == 200
        except httpx.TransportError:
            return False

    house.wait_for(answers)
    return process


class Client:
    """One client of one slot: asks either API, and the other one again when that gave no answer."""

    def __init__(self, slot: str, apis: list[httpx.Client]) -> None:
        self.slot = slot
        self.chains: list[int] = []
        self._apis = apis
        self._random = random.Random(slot)
        self._count = 0

    def ask(self) -> None:
        """Give all orders, one after the other; wait for the end of about half of them."""
        for order in ORDERS:
            self._count += 1
            headers = {"Idempotency-Key": f"{self.slot}-{self._count}"}
            if self._random.random() < 0.5:
                headers["Prefer"] = "wait=20"
            answer = self._post(f"/api/v1/slots/{self.slot}/{order}", headers)
            assert answer.status_code in (200, 202), answer.text
            self.chains += filter(None, [answer.json()["chain_id"]])

    def _post(self, path: str, headers: dict[str, str]) -> httpx.Response:
        one, other = self._random.sample(self._apis, 2)
        try:
            return one.post(path, json={}, headers=headers)
        except httpx.TransportError:
            return other.post(path, json={}, headers=headers)


def check_order(house: House) -> None:
    """Of each slot one attempt at a time, chain by chain and step by step."""
    for name in SLOTS:
        spans = house.sql(
            "SELECT a.started_at, a.ended_at, j.position, j.step FROM job_attempts a "
            "JOIN jobs j ON j.id = a.job_id JOIN slots s ON s.id = j.slot_id WHERE s.name = ? "
            "ORDER BY a.started_at",
            name,
        )
        assert all(one[1] <= two[0] for one, two in pairwise(spans))
        assert [span[2:] for span in spans] == sorted(span[2:] for span in spans)


def check_each_load_was_sent_once(house: House, lemond: Lemond) -> None:
    for name in SLOTS:
        ((loaded,),) = house.sql(
            "SELECT count(*) FROM jobs j JOIN slots s ON s.id = j.slot_id "
            "WHERE s.name = ? AND j.kind = 'load' AND j.outcome = 'done'",
            name,
        )
        assert loads_sent(lemond).count(f"m-{name}") == loaded


def everything(api: httpx.Client) -> list[Any]:
    paths = ("slots", "jobs?limit=200", "transitions?limit=200", "models", "engines")
    answers = [api.get(f"/api/v1/{path}") for path in paths]
    assert [answer.status_code for answer in answers] == [200] * len(paths)
    told = [answer.json()["items"] for answer in answers]
    for engine in told[-1]:
        engine.pop("last_answered_at", None)
    return told


def test_two_apis_and_three_workers_keep_order_while_one_of_each_is_killed(
    house: House, second: httpx.Client, lemond: Lemond
) -> None:
    house.start_api()
    other_api = start_second_api(house, second)
    house.start_worker()
    house.start_worker()
    add_slots(house, *SLOTS)
    dies = house.start_worker("load.sent:kill")
    clients = [Client(slot, [house.client, second]) for slot in SLOTS]
    while other_api.poll() is None or dies.poll() is None:
        with ThreadPoolExecutor(len(SLOTS)) as threads:
            asked = [threads.submit(client.ask) for client in clients]
            house.wait_for(lambda: len(loads_sent(lemond)) >= 3)
            other_api.kill()
            for one in asked:
                one.result(60)
        other_api.wait()
    house.wait_settled(60)
    other_api = start_second_api(house, second)
    assert {
        house.get(f"/api/v1/chains/{chain}")["state"]
        for client in clients
        for chain in client.chains
    } <= {"succeeded", "cancelled"}
    assert dies.returncode == -signal.SIGKILL
    assert [house.slot(name)["state"] for name in SLOTS] == ["ready"] * len(SLOTS)
    assert sorted(lemond.state()["loaded"]) == sorted(f"m-{name}" for name in SLOTS)
    assert jobs_of(house, "failed") == []
    check_order(house)
    check_each_load_was_sent_once(house, lemond)
    house.wait_for(lambda: everything(house.client) == everything(second))
    house.check_audit()


def test_a_host_that_sleeps_longer_than_the_silence_limit_wakes_and_goes_on(
    house: House, lemond: Lemond
) -> None:
    """Who wakes first finds no beat since yesterday, and calls nobody silent for it."""
    house.env["HAL0_SILENCE_S"] = "4"
    house.start_api()
    house.start_worker()
    house.start_worker()
    add_slots(house, "one", "two")
    lemond.script(models={"m-one": {"load": "hang"}})
    house.client.patch("/api/v1/slots/one", json={"load_timeout_s": 120}).raise_for_status()
    load = house.load("one")["jobs"][-1]
    house.wait_until("warming", "one")
    house.load("two")
    owner = "SELECT pid FROM owners JOIN jobs ON owner_id = owners.id WHERE jobs.id = ?"
    ((at_work,),) = house.sql(owner, load)
    see_it_look_around(house, besides=at_work)
    all_of_them = [process.pid for process in house.processes] + [lemond.pid]
    signal_all(all_of_them, signal.SIGSTOP)
    time.sleep(ASLEEP_S)  # the sleep itself is tested
    signal_all([pid for pid in all_of_them if pid != at_work], signal.SIGCONT)
    see_it_look_around(house, besides=at_work)
    signal_all([at_work], signal.SIGCONT)
    lemond.script(models={"m-one": {"load": "ok"}})
    for name in ("one", "two"):
        house.wait_until("ready", name)
    house.wait_settled()
    assert outcomes(house, load) == ["done"]
    assert loads_sent(lemond) == ["m-one", "m-two"]
    check_nobody_died(house, 3)
    house.check_audit()


def see_it_look_around(house: House, besides: int) -> None:
    """Wait for two beats of the worker that is not this process; between them it looked."""
    wait_for_beat(house, besides)
    wait_for_beat(house, besides)


def wait_for_beat(house: House, besides: int) -> None:
    query = "SELECT seen_at FROM owners WHERE kind = 'worker' AND pid <> ?"
    before = house.sql(query, besides)
    house.wait_for(lambda: house.sql(query, besides) != before)


def signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


def test_jobs_run_although_every_bell_is_lost(house: House, lemond: Lemond, faulty: Faulty) -> None:
    house.env |= faulty.env
    faulty.order("send", times=0, act=errno.EAGAIN, path="worker-")
    house.start_api()
    house.start_worker()
    add_slots(house, "one")
    for _ in range(3):  # the first one may meet a worker that has not gone to sleep yet
        house.load("one")
        house.wait_until("ready", "one", limit_s=15)
        house.post("/api/v1/slots/one/unload")
        house.wait_until("offline", "one", limit_s=15)
    assert len(faulty.hits()) > 12, "each commit of a job rang"
    assert loads_sent(lemond) == ["m-one"] * 3


def test_a_run_folder_emptied_under_a_load_declares_nobody_dead(
    house: House, lemond: Lemond
) -> None:
    """Locks and bells come back; until then pid and start tell who lives."""
    house.start_api()
    house.start_worker()
    house.start_worker()
    add_slots(house, "one", "two")
    lemond.script(models={"m-one": {"load": "hang"}})
    load = house.load("one")["jobs"][-1]
    house.wait_until("warming", "one")
    shutil.rmtree(house.home / "run")
    owners = house.home / "run" / "owners"
    house.wait_for(lambda: owners.is_dir() and len(list(owners.iterdir())) == 3)
    house.wait_for(lambda: house.living_workers() == 2)
    house.load("two")
    lemond.script(models={"m-one": {"load": "ok"}})
    for name in ("one", "two"):
        house.wait_until("ready", name)
    assert outcomes(house, load) == ["done"]
    assert loads_sent(lemond) == ["m-one", "m-two"]
    check_nobody_died(house, 3)
