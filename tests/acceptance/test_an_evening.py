"""An evening with Lemonade's own app beside hal0: who uses both is surprised by neither.

Three slots are hal0's. Somebody opens the app, unloads, loads, chats, tries a model of their own,
and restarts the server. `app` is what they do there; all else is hal0.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.house import ROOT, House
from tests.acceptance.seen import add_slots
from tests.acceptance.shared_house import loads_of, scans_pass, unloads_of
from tests.fakes.lemond import Lemond
from tests.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.slow
ADOPTED = [
    ("offline", "starting", "checked"),
    ("starting", "warming", "load_sent"),
    ("warming", "ready", "adopted"),
]
LOADED = [
    ("offline", "starting", "checked"),
    ("starting", "warming", "load_sent"),
    ("warming", "ready", "loaded"),
]
RESTORED = [*LOADED[:2], ("warming", "idle", "loaded")]


class App:
    """Lemonade's own app."""

    def __init__(self, lemond: Lemond) -> None:
        self.lemond = lemond

    def load(self, model: str) -> None:
        body = {"model_name": model, "ctx_size": 4096}
        self.lemond.post("/v1/load", body).raise_for_status()

    def unload(self, model: str) -> None:
        self.lemond.post("/v1/unload", {"model_name": model}).raise_for_status()

    def chat(self, model: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": "good evening"}]}
        self.lemond.post("/v1/chat/completions", body).raise_for_status()


@pytest.fixture
def house(tmp_path: Path, lemond: Lemond) -> Iterator[House]:
    times = {"HAL0_IDLE_AFTER_S": "1", "HAL0_UNLOAD_AFTER_S": "2", "HAL0_SCAN_S": "0.9"}
    with House(tmp_path, lemond.url, **times) as house:
        house.unchecked = "somebody else loads models too"
        house.start_api()
        house.start_worker()
        add_slots(house, "chat", "code", "draft")
        yield house


def story_of(house: House, name: str) -> list[tuple[str | None, str, str]]:
    """Return a slot's audit without idle and back, which depends on how fast this machine is."""
    quiet = {"demoted", "used_elsewhere"}
    return [edge for edge in house.edges(name) if edge[2] not in quiet]


def doctors_words(house: House) -> str:
    command = [sys.executable, "-m", "hal0", "doctor", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=house.env, capture_output=True, check=False)
    findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return "\n".join(finding["detail"] for finding in findings)


def test_an_evening_with_lemonades_own_app(house: House, lemond: Lemond) -> None:
    app = App(lemond)
    never = {"unload_after_s": 0, "idle_after_s": 0}
    house.client.patch("/api/v1/slots/chat", json=never).raise_for_status()
    house.client.patch("/api/v1/slots/code", json=never).raise_for_status()
    for name in ("chat", "code"):
        house.load(name)
        house.wait_until("ready", name)
    house.post("/api/v1/slots/draft/pull")  # its file is there, and nothing loads it
    house.wait_settled()

    # They need the memory, and unload one in the app: it stays unloaded.
    app.unload("m-code")
    house.wait_until("offline", "code")
    house.wait_for(lambda: house.slot("code")["desired"] == "unloaded")

    # They load another there: hal0 takes it as it is, and no machine unloads it.
    app.load("m-draft")
    house.wait_for(lambda: house.path_of("draft")[-1] in {"ready", "idle"})
    assert house.slot("draft")["desired"] == "unloaded"

    # They talk to what hal0 loaded, past hal0: that is a use like any other.
    used_at = house.slot("chat")["last_used_at"]
    scans_pass(house, lemond, 1)
    app.chat("m-chat")
    house.wait_for(lambda: house.slot("chat")["last_used_at"] != used_at)

    # They try a model of their own, which is none of hal0's: shown, and never touched.
    write_tiny_gguf(house.models / "theirs.gguf", seed=99)
    app.load("theirs")
    house.wait_for(lambda: strangers(house) == ["theirs"])
    (told,) = house.get("/api/v1/meta")["engines"]
    assert told == {"name": "default", "strangers": ["theirs"]}
    assert "theirs" in doctors_words(house)

    # A while later: what they loaded is idle at most, and theirs is where it was.
    house.wait_until("idle", "draft")
    scans_pass(house, lemond, 3)  # longer than `unload_after_s`
    assert house.slot("draft")["state"] == "idle"
    assert sorted(lemond.state()["loaded"]) == ["m-chat", "m-draft", "theirs"]

    # They restart the server: what hal0 was asked for comes back, what they loaded does not.
    lemond.stop()
    lemond.start()
    house.wait_for(lambda: story_of(house, "chat")[-1][2] == "loaded" and in_use(house) == ["chat"])
    assert house.slot("draft")["state"] == "offline"
    house.wait_for(lambda: strangers(house) == [])

    # They chat with a model that is not loaded, and Lemonade loads it: that is theirs too.
    app.chat("m-code")
    house.wait_until("ready", "code")
    scans_pass(house, lemond, 1)

    check_audit(house)
    assert [loads_of(lemond, model) for model in ("m-chat", "m-code", "m-draft")] == [2, 1, 1]
    assert [unloads_of(lemond, model) for model in ("m-chat", "m-draft", "theirs")] == [0, 0, 0]
    assert unloads_of(lemond, "m-code") == 1, "theirs"


def strangers(house: House) -> list[str]:
    return list(house.get("/api/v1/engines/default")["seen"]["strangers"])


def in_use(house: House) -> list[str]:
    slots = house.get("/api/v1/slots")["items"]
    return [slot["name"] for slot in slots if slot["model"] is not None]


def check_audit(house: House) -> None:
    """What the rows say is what happened."""
    assert story_of(house, "chat") == [
        (None, "offline", "created"),
        *LOADED,
        ("ready", "offline", "engine_restarted"),
        *RESTORED,
    ]
    assert story_of(house, "code") == [
        (None, "offline", "created"),
        *LOADED,
        ("ready", "offline", "unloaded_elsewhere"),
        *ADOPTED,
    ]
    assert story_of(house, "draft") == [
        (None, "offline", "created"),
        *ADOPTED,
        ("idle", "offline", "engine_restarted"),
    ]
    (incident,) = house.get("/api/v1/incidents")["items"]
    assert incident["kind"] == "engine_restarted"
    assert sorted(moved["slot"] for moved in incident["slots"]) == ["chat", "draft"]
    rows = house.get("/api/v1/transitions", slot="draft", limit=50)["items"]
    assert {row["actor"] for row in rows[1:]} == {"reconcile", "scan"}
    assert all(row["job_id"] is None for row in rows)
    house.check_audit()
