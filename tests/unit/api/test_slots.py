import httpx
import pytest

from hal0.clock import utc_now
from hal0.db import Database
from hal0.tables import leases
from tests.ledger import fail, free_lane
from tests.rows import ask_load, make_model, make_slot, options, run_load, send_load

pytestmark = pytest.mark.anyio
SLOT_FIELDS = (
    "id name state since cause engine model wanted_model desired desired_by options pinned "
    "priority idle_after_s unload_after_s load_timeout_s load_timeout_s_per_gb wake max_in_flight "
    "max_waiting effective last_used_at demotes_at unloads_at in_flight speed job_id error restore "
    "warnings version"
)


async def test_a_new_slot_is_offline_and_nothing_is_loaded(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    made = await api.post("/api/v1/slots", json={"name": "chat", "model": "tiny"})
    assert made.status_code == 201
    assert made.headers["location"] == "/api/v1/slots/chat"
    slot = made.json()
    assert set(slot) == set(SLOT_FIELDS.split())
    assert (slot["state"], slot["cause"], slot["engine"]) == ("offline", "created", "default")
    assert (slot["wanted_model"], slot["model"], slot["desired"]) == ("tiny", None, "unloaded")
    assert slot["options"] == options()
    assert (slot["job_id"], slot["in_flight"], slot["warnings"]) == (None, 0, [])
    assert slot["since"].endswith("Z")
    assert (await api.get("/api/v1/slots/chat")).json() == slot
    assert (await api.get("/api/v1/jobs")).json()["items"] == []


async def test_options_are_stored_complete_and_in_one_form(api: httpx.AsyncClient) -> None:
    given = {"llamacpp_args": "--parallel 2   --threads 4"}
    slot = (await api.post("/api/v1/slots", json={"name": "chat", "options": given})).json()
    assert slot["options"] == {
        "ctx_size": 4096,
        "llamacpp_backend": None,
        "llamacpp_args": "--threads 4 --parallel 2",
    }


async def test_an_option_that_a_change_or_a_load_does_not_name_stays(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    given = {"llamacpp_args": "--threads 4"}
    await api.post("/api/v1/slots", json={"name": "chat", "model": "tiny", "options": given})
    changed = await api.patch("/api/v1/slots/chat", json={"options": {"ctx_size": 512}})
    assert changed.json()["options"] == options({**given, "ctx_size": 512})
    await api.post("/api/v1/slots/chat/load", json={"options": {"llamacpp_backend": "cpu"}})
    slot = (await api.get("/api/v1/slots/chat")).json()
    assert slot["options"] == options({**given, "ctx_size": 512, "llamacpp_backend": "cpu"})


async def test_every_bad_field_of_a_new_slot_is_named_at_once(api: httpx.AsyncClient) -> None:
    body = {
        "name": "Chat Room",
        "colour": "red",
        "pinned": "yes",
        "priority": 10**30,
        "idle_after_s": -1,
        "options": {"ctx_size": 1, "llamacpp_args": "--rpc evil"},
    }
    refused = await api.post("/api/v1/slots", json=body)
    assert refused.status_code == 422
    named = {field["field"] for field in refused.json()["evidence"]["fields"]}
    assert named == {
        "name",
        "colour",
        "pinned",
        "priority",
        "idle_after_s",
        "options.ctx_size",
        "options.llamacpp_args",
    }


async def test_a_name_is_taken_while_its_slot_lives_and_free_again_afterwards(
    api: httpx.AsyncClient,
) -> None:
    assert (await api.post("/api/v1/slots", json={"name": "chat"})).status_code == 201
    again = await api.post("/api/v1/slots", json={"name": "chat"})
    assert (again.status_code, again.json()["code"]) == (409, "slot.exists")
    assert (await api.delete("/api/v1/slots/chat")).status_code == 204
    assert (await api.get("/api/v1/slots/chat")).status_code == 404
    assert (await api.post("/api/v1/slots", json={"name": "chat"})).status_code == 201
    rows = (await api.get("/api/v1/transitions", params={"slot": "chat"})).json()["items"]
    assert [row["cause"] for row in rows] == ["created", "created"]


@pytest.mark.parametrize(
    ("body", "code"),
    [({"model": "nothing"}, "model.not_found"), ({"engine": "nothing"}, "engine.not_found")],
)
async def test_a_slot_cannot_be_set_up_with_what_is_not_there(
    api: httpx.AsyncClient, body: dict[str, str], code: str
) -> None:
    refused = await api.post("/api/v1/slots", json={"name": "chat", **body})
    assert (refused.status_code, refused.json()["code"]) == (404, code)
    assert (await api.get("/api/v1/slots")).json()["items"] == []


async def test_a_model_belongs_to_one_slot_of_an_engine(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    second = await api.post("/api/v1/slots", json={"name": "code", "model": "tiny"})
    assert (second.status_code, second.json()["code"]) == (409, "slot.model_taken")
    assert second.json()["evidence"] == {"slot": "chat", "model": "tiny"}
    assert (await api.post("/api/v1/slots", json={"name": "code"})).status_code == 201
    for refused in (
        await api.patch("/api/v1/slots/code", json={"model": "tiny"}),
        await api.post("/api/v1/slots/code/load", json={"model": "tiny"}),
    ):
        assert (refused.status_code, refused.json()["code"]) == (409, "slot.model_taken")
    other = {"name": "other", "kind": "lemonade", "url": "http://127.0.0.1:9"}
    assert (await api.post("/api/v1/engines", json=other)).status_code == 201
    moved = await api.patch("/api/v1/slots/code", json={"engine": "other", "model": "tiny"})
    assert (moved.status_code, moved.json()["wanted_model"]) == (200, "tiny")


async def test_idle_times_that_contradict_each_other_are_refused_by_both_names(
    api: httpx.AsyncClient,
) -> None:
    bad = await api.post("/api/v1/slots", json={"name": "chat", "idle_after_s": 330})
    assert bad.status_code == 422
    assert "idle_after_s" in bad.json()["detail"]
    assert "unload_after_s" in bad.json()["detail"]
    good = {"name": "chat", "idle_after_s": 330, "unload_after_s": 0}
    assert (await api.post("/api/v1/slots", json=good)).status_code == 201
    back = await api.patch("/api/v1/slots/chat", json={"unload_after_s": None})
    assert back.status_code == 422
    both = {"idle_after_s": None, "unload_after_s": None}
    assert (await api.patch("/api/v1/slots/chat", json=both)).status_code == 200


async def test_a_change_leaves_what_it_does_not_name(api: httpx.AsyncClient) -> None:
    made = {"name": "chat", "pinned": True, "priority": 7, "load_timeout_s": 3}
    before = (await api.post("/api/v1/slots", json=made)).json()
    after = (await api.patch("/api/v1/slots/chat", json={"priority": 9})).json()
    assert after == {**before, "priority": 9, "version": before["version"] + 1}
    nothing = await api.patch("/api/v1/slots/chat", json={"pinned": None})
    assert nothing.status_code == 422
    assert (await api.patch("/api/v1/slots/chat", json={})).json() == after


async def test_model_and_engine_change_only_while_the_slot_is_at_rest(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_model(db, "other")
    make_slot(db, "chat", "tiny")
    ask_load(db)
    busy = await api.patch("/api/v1/slots/chat", json={"model": "other"})
    assert (busy.status_code, busy.json()["code"]) == (409, "slot.busy")
    assert (await api.patch("/api/v1/slots/chat", json={"model": "tiny"})).status_code == 200
    assert (await api.patch("/api/v1/slots/chat", json={"pinned": True})).status_code == 200
    run_load(db)
    held = await api.patch("/api/v1/slots/chat", json={"model": "other"})
    assert (held.status_code, held.json()["code"]) == (409, "slot.not_offline")


async def test_a_slot_with_jobs_is_deleted_only_by_force_which_cancels_them(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    refused = await api.delete("/api/v1/slots/chat")
    assert (refused.status_code, refused.json()["code"]) == (409, "slot.busy")
    assert (await api.delete("/api/v1/slots/chat?force=true")).status_code == 204
    jobs = (await api.get("/api/v1/jobs?slot=chat")).json()["items"]
    assert {job["state"] for job in jobs} == {"cancelled"}


async def test_a_slot_whose_load_was_sent_is_not_deleted_by_force_either(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    send_load(db)
    refused = await api.delete("/api/v1/slots/chat?force=true")
    assert (refused.status_code, refused.json()["code"]) == (409, "job.already_sent")
    assert (await api.get("/api/v1/slots/chat")).json()["state"] == "warming"


async def test_a_loaded_slot_is_unloaded_before_it_is_deleted(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    run_load(db)
    for query in ("", "?force=true"):
        refused = await api.delete(f"/api/v1/slots/chat{query}")
        assert (refused.status_code, refused.json()["code"]) == (409, "slot.busy")
        assert "unload it first" in refused.json()["detail"]


async def test_a_slot_in_error_whose_model_may_be_loaded_still_says_so_and_is_deleted_by_force(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    held = send_load(db)
    fail(db, held)
    free_lane(db, held)
    (warning,) = (await api.get("/api/v1/slots/chat")).json()["warnings"]
    assert "tiny may be loaded still" in warning
    refused = await api.delete("/api/v1/slots/chat")
    assert (refused.status_code, refused.json()["code"]) == (409, "slot.busy")
    assert "unload slot chat first" in refused.json()["detail"]
    assert (await api.delete("/api/v1/slots/chat?force=true")).status_code == 204


async def test_requests_in_flight_are_those_of_the_present_generation(
    api: httpx.AsyncClient, db: Database
) -> None:
    slot = make_slot(db, "chat")
    with db.soft() as tx:
        for owner, generation, count in [("a", 0, 2), ("b", 0, 3), ("a", 1, 7)]:
            row = {"slot_id": slot.id, "owner_id": owner, "at": utc_now()}
            tx.execute(leases.insert(), {**row, "generation": generation, "in_flight": count})
    assert (await api.get("/api/v1/slots/chat")).json()["in_flight"] == 5


async def test_slots_are_listed_by_name_in_pages(api: httpx.AsyncClient, db: Database) -> None:
    for name in ("c", "a", "b"):
        make_slot(db, name)
    first = (await api.get("/api/v1/slots?limit=2")).json()
    assert [slot["name"] for slot in first["items"]] == ["a", "b"]
    make_slot(db, "aa")
    rest = (await api.get(f"/api/v1/slots?limit=2&cursor={first['next_cursor']}")).json()
    assert [slot["name"] for slot in rest["items"]] == ["c"]
    assert rest["next_cursor"] is None
