"""What a slot says of its times, and of what machines will do about it."""

import re
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from hal0.api.app import create_app
from hal0.db import Database
from hal0.errors import LoadTimeout
from hal0.jobs.losses import forget_held
from hal0.settings import Settings
from hal0.states import Desired
from tests.ledger import fail, make_slots
from tests.mishaps import count_loads, load_all, note_loss, see
from tests.rows import ask_load, ask_unload, make_slot, send_load, slot_now
from tests.unit.api.conftest import BASE

pytestmark = pytest.mark.anyio
Json = dict[str, Any]


async def slot(api: httpx.AsyncClient, name: str = "chat") -> Json:
    answer: Json = (await api.get(f"/api/v1/slots/{name}")).json()
    return answer


async def test_the_times_that_hold_are_told_beside_those_that_were_given(
    api: httpx.AsyncClient,
) -> None:
    given = {"name": "chat", "idle_after_s": 60, "load_timeout_s_per_gb": 2.5}
    made = (await api.post("/api/v1/slots", json=given)).json()
    assert (made["idle_after_s"], made["unload_after_s"]) == (60.0, None)
    assert (made["load_timeout_s"], made["load_timeout_s_per_gb"]) == (None, 2.5)
    assert made["effective"] == {
        "idle_after_s": 60.0,
        "unload_after_s": 330.0,
        "load_timeout_s": 120.0,
        "load_timeout_s_per_gb": 2.5,
        "max_in_flight": 64,
        "max_waiting": 64,
    }
    changes = {"load_timeout_s_per_gb": None, "idle_after_s": 0, "unload_after_s": 0}
    changed = (await api.patch("/api/v1/slots/chat", json=changes)).json()
    assert changed["load_timeout_s_per_gb"] is None
    assert changed["effective"] == {
        "idle_after_s": 0.0,
        "unload_after_s": 0.0,
        "load_timeout_s": 120.0,
        "load_timeout_s_per_gb": 0.0,
        "max_in_flight": 64,
        "max_waiting": 64,
    }


@pytest.fixture
def patient(settings: Settings, db: Database) -> Starlette:
    """An application whose settings are other than the defaults."""
    other = {"idle_after_s": 10.0, "unload_after_s": 0.0, "load_timeout_s": 7.0}
    return create_app(settings.model_copy(update=other), db)


async def test_the_times_that_hold_follow_the_settings_and_are_what_must_not_contradict(
    patient: Starlette,
) -> None:
    transport = httpx.ASGITransport(patient)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as api:
        made = (await api.post("/api/v1/slots", json={"name": "chat"})).json()
        assert made["effective"]["idle_after_s"] == 10.0
        assert made["effective"]["unload_after_s"] == 0.0
        assert made["effective"]["load_timeout_s"] == 7.0
        for unload_after_s, status in ((10, 422), (5, 422), (10.5, 200), (0, 200)):
            change = {"unload_after_s": unload_after_s}
            assert (await api.patch("/api/v1/slots/chat", json=change)).status_code == status
        bad = await api.post("/api/v1/slots", json={"name": "b", "unload_after_s": 9})
        assert (bad.status_code, bad.json()["code"]) == (422, "request.invalid")
        assert "idle_after_s (10)" in bad.json()["detail"]
        assert (await api.get("/api/v1/slots/b")).status_code == 404


@pytest.mark.parametrize("bad", [-1, "1", 1e12])
async def test_seconds_for_each_gb_are_none_or_more(api: httpx.AsyncClient, bad: object) -> None:
    body = {"name": "chat", "load_timeout_s_per_gb": bad}
    refused = await api.post("/api/v1/slots", json=body)
    assert refused.status_code == 422
    assert "load_timeout_s_per_gb" in refused.json()["detail"]


async def test_a_slot_that_lost_nothing_is_to_have_nothing_again(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat")
    load_all(db, "chat")
    assert ((await slot(api))["restore"], (await slot(api))["warnings"]) == (None, [])


async def test_what_a_machine_is_to_load_again_is_told_with_its_reason(
    api: httpx.AsyncClient, db: Database
) -> None:
    (made,) = make_slots(db, "chat")
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE slots SET desired = 'loaded' WHERE id = ?", (made.id,))
    note_loss(db, job_id=7)
    assert (await slot(api))["restore"] == {
        "cause": "evicted_by_engine",
        "model": "m-chat",
        "because_of_job_id": 7,
        "sent": 0,
        "opens_at": None,
        "is_parked": False,
    }
    assert (await slot(api))["warnings"] == []


async def test_when_a_machine_may_load_again_is_told_also_without_a_note(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat")
    ask_load(db)  # so it is wanted, and no machine has to do with it
    count_loads(db, 2)
    restore = (await slot(api))["restore"]
    assert (restore["cause"], restore["model"], restore["sent"]) == (None, None, 2)
    assert (restore["opens_at"] is not None, restore["is_parked"]) == (True, False)
    assert (await slot(api))["warnings"] == []


async def test_a_slot_that_is_wanted_says_when_a_machine_may_load_it_and_when_it_is_parked(
    api: httpx.AsyncClient, db: Database
) -> None:
    (made,) = make_slots(db, "chat")
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE slots SET desired = 'loaded' WHERE id = ?", (made.id,))
    note_loss(db)
    count_loads(db, 1)
    (warning,) = (await slot(api))["warnings"]
    assert re.fullmatch(
        r"a machine loads m-chat again no earlier than [-\d]+T[:\d]+Z \(1 automatic load so far\)",
        warning,
    )
    count_loads(db, 4)
    parked = await slot(api)
    assert parked["warnings"] == ["parked after 5 automatic loads: load it to begin anew"]
    restore = parked["restore"]
    assert (restore["sent"], restore["opens_at"], restore["is_parked"]) == (5, None, True)


async def test_a_slot_that_has_its_model_is_not_told_that_it_is_parked(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat")
    load_all(db, "chat")
    count_loads(db, 5)
    assert (await slot(api))["warnings"] == []


async def test_a_slot_whose_load_was_too_slow_says_that_the_engine_has_its_model(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat")
    ask_load(db)
    fail(db, send_load(db), LoadTimeout("too slow"))
    with db.write() as tx:
        forget_held(tx, slot_now(db).id)
    for others in ([], ["m-other"]):
        see(db, models=others)
        assert (await slot(api))["warnings"] == []
    see(db, models=["m-chat"])
    (warning,) = (await slot(api))["warnings"]
    assert warning == (
        "the engine has m-chat, and no machine takes it over, for a load of it was too slow: "
        "`hal0 slot load chat` does"
    )
    ask_load(db)
    assert (await slot(api))["warnings"] == []


async def test_an_engine_that_cannot_hold_all_that_is_meant_to_be_loaded_is_named_with_both_numbers(
    api: httpx.AsyncClient, db: Database
) -> None:
    wanted = {"desired": Desired.LOADED}
    make_slot(db, "a", **wanted)
    make_slot(db, "b", **wanted)
    see(db, max_models=2)
    assert (await slot(api, "a"))["warnings"] == []
    see(db, max_models=1)
    told = [
        (await api.post("/api/v1/slots", json={"name": "c"})).json(),
        (await api.patch("/api/v1/slots/a", json={"priority": 1})).json(),
        await slot(api, "b"),
    ]
    for one in told:
        (warning,) = one["warnings"]
        assert "engine default holds no more than 1 at once, and 2 slots" in warning
    see(db, max_models=None)
    assert (await slot(api, "a"))["warnings"] == []


async def test_a_slot_that_nobody_wants_loaded_any_more_has_nothing_to_fear_of_a_full_engine(
    api: httpx.AsyncClient, db: Database
) -> None:
    for name in ("a", "b"):
        make_slot(db, name, desired=Desired.LOADED)
    make_slots(db, "chat")
    load_all(db, "chat")
    ask_unload(db)
    see(db, max_models=1)
    assert len((await slot(api, "a"))["warnings"]) == 1
    assert (await slot(api))["warnings"] == []
