from typing import Any

import httpx
import pytest
from sqlalchemy import select

from hal0.db import Database
from hal0.engines.connect import KINDS
from hal0.errors import ChecksumMismatch
from hal0.firstrun.fit import estimated_memory
from hal0.jobs.ledger import claims
from hal0.registry.catalog import model_by_id, model_named, note_file
from hal0.settings import Settings
from hal0.states import JobKind, Outcome
from hal0.tables import idempotency_keys
from tests.rows import ask_load, claim_next, make_model, make_slot

pytestmark = pytest.mark.anyio
SHA = "AB" * 32


async def test_a_model_of_one_file_is_registered_in_short_and_lies_under_its_own_name(
    api: httpx.AsyncClient, settings: Settings
) -> None:
    body = {"name": "qwen3-0.6b", "source": "/data/Qwen3-0.6B-Q8_0.gguf", "sha256": SHA}
    made = await api.post("/api/v1/models", json=body)
    assert made.status_code == 201
    assert made.headers["location"] == "/api/v1/models/qwen3-0.6b"
    model = made.json()
    assert model == {
        "name": "qwen3-0.6b",
        "format": "gguf",
        "allow_copy": False,
        "files": [
            {
                "role": "main",
                "path": str(settings.models / "qwen3-0.6b.gguf"),
                "source": "/data/Qwen3-0.6B-Q8_0.gguf",
                "has_query": False,
                "size_bytes": None,
                "sha256": SHA.lower(),
                "noted": [],
                "verified_at": None,
            }
        ],
        "source": "/data/Qwen3-0.6B-Q8_0.gguf",
        "on_disk": None,
        "memory_bytes": None,
    }
    assert (await api.get("/api/v1/models/qwen3-0.6b")).json() == model


async def test_a_model_tells_what_memory_it_takes_by_the_sizes_of_all_its_files(
    api: httpx.AsyncClient,
) -> None:
    sizes = [4 * 2**30, 2**30]
    files = [
        {"role": role, "source": f"/data/{role}.gguf", "size_bytes": size_bytes}
        for role, size_bytes in zip(("main", "mmproj"), sizes, strict=True)
    ]
    await api.post("/api/v1/models", json={"name": "big", "files": files})
    told = (await api.get("/api/v1/models/big")).json()["memory_bytes"]
    assert told == estimated_memory(sum(sizes))
    files[1]["size_bytes"] = None
    half = await api.post("/api/v1/models", json={"name": "half", "files": files})
    assert half.json()["memory_bytes"] is None, "of one file nobody knows"


async def test_a_model_of_several_files_lies_in_a_folder_of_its_own(
    api: httpx.AsyncClient, settings: Settings
) -> None:
    files = [
        {"role": "mmproj", "source": "/data/mmproj.gguf"},
        {"role": "shard", "source": "/data/big-00001-of-00002.gguf", "size_bytes": 7},
        {"role": "shard", "source": "file:///data/big%2D00002-of-00002.gguf"},
    ]
    model = (await api.post("/api/v1/models", json={"name": "big", "files": files})).json()
    folder = settings.models / "big"
    assert [(file["role"], file["path"]) for file in model["files"]] == [
        ("shard", str(folder / "big-00001-of-00002.gguf")),
        ("shard", str(folder / "big-00002-of-00002.gguf")),
        ("mmproj", str(folder / "mmproj.gguf")),
    ]


async def test_a_file_that_lies_in_its_place_already_needs_no_source(
    api: httpx.AsyncClient, settings: Settings
) -> None:
    body = {"name": "qwen3-0.6b", "files": [{"size_bytes": 9}]}
    model = (await api.post("/api/v1/models", json=body)).json()
    assert model["source"] is None
    assert model["files"][0]["path"] == str(settings.models / "qwen3-0.6b.gguf")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"name": "Big", "source": "/a.gguf"}, {"name"}),
        ({"name": "..", "source": "/a.gguf"}, {"name"}),
        ({"name": "m", "source": "a.gguf"}, {"source"}),
        ({"name": "m", "source": "/folder/"}, {"source"}),
        ({"name": "m", "source": "/a\0.gguf"}, {"source"}),
        ({"name": "m", "source": "file://elsewhere/a.gguf"}, {"source"}),
        ({"name": "m", "source": "/a.gguf", "sha256": "ab"}, {"sha256"}),
        ({"name": "m", "source": "/a.gguf", "sha256": SHA + "\n"}, {"sha256"}),
        ({"name": "m", "source": "/a.gguf", "size_bytes": -1}, {"size_bytes"}),
        ({"name": "m", "source": "/a.gguf", "format": "onnx", "x": 1}, {"format", "x"}),
        ({"name": "m", "source": "/a/../b.gguf"}, {"source"}),
        ({"name": "m", "files": [{"role": "head", "source": "/a"}]}, {"files.0.role"}),
        ({"name": "m", "files": [{"name": "../b", "source": "/a"}]}, {"files.0.name"}),
        ({"name": "m"}, {""}),
        ({"name": "m", "files": [], "sha256": SHA}, {""}),
        ({"name": "m", "files": [{"source": "/a"}], "source": "/b"}, {""}),
        ({"name": "m", "files": [{"source": "/a"}, {"source": "/b"}]}, {""}),
        ({"name": "m", "files": [{"role": "mmproj", "source": "/a"}]}, {""}),
        ({"name": "m", "files": [{"role": "shard"}, {"role": "shard"}]}, {""}),
    ],
)
async def test_what_is_no_model_is_refused_by_field(
    api: httpx.AsyncClient, body: dict[str, object], fields: set[str]
) -> None:
    refused = await api.post("/api/v1/models", json=body)
    assert refused.status_code == 422
    assert {one["field"] for one in refused.json()["evidence"]["fields"]} == fields


@pytest.mark.parametrize(
    "source", ["http://x/dir/a.gguf", "hf://org/repo/a.gguf@main", "/data/what?.gguf"]
)
async def test_a_source_is_shown_as_it_was_written(
    api: httpx.AsyncClient, settings: Settings, source: str
) -> None:
    model = (await api.post("/api/v1/models", json={"name": "m", "source": source})).json()
    assert model["source"] == source
    assert model["files"][0]["path"] == str(settings.models / "m.gguf")


@pytest.mark.parametrize("scheme", ["https", "HTTP"])
async def test_a_signature_in_a_url_is_kept_for_pulls_and_shown_to_nobody(
    api: httpx.AsyncClient, db: Database, scheme: str
) -> None:
    source = f"{scheme}://x:8/a.gguf?sig=f00d"
    body, key = {"name": "m", "source": source}, {"Idempotency-Key": "k1"}
    answers = [await api.post("/api/v1/models", json=body, headers=key) for _ in range(2)]
    answers.append(await api.get("/api/v1/models/m"))
    assert {answer.json()["source"] for answer in answers} == {f"{scheme}://x:8/a.gguf"}
    assert [answer.json()["files"][0]["has_query"] for answer in answers] == [True] * 3
    assert "f00d" not in (await api.get("/api/v1/models")).text
    with db.read() as tx:
        assert model_named(tx, "m").main.source == source
        assert "f00d" not in str(tx.execute(select(idempotency_keys)).all())


async def test_each_file_tells_its_source_and_what_of_it_only_a_pull_has_found(
    api: httpx.AsyncClient, db: Database
) -> None:
    files = [
        {"role": "main", "source": "/data/big.gguf", "size_bytes": 7},
        {"role": "mmproj", "source": "hf://org/repo/mmproj.gguf"},
    ]
    body = {"name": "big", "files": files, "allow_copy": True}
    (await api.post("/api/v1/models", json=body)).raise_for_status()
    with db.write() as tx:
        model = model_named(tx, "big")
        note_file(tx, model.id, model.main, model.main.found(7, SHA.lower()))
    shown = (await api.get("/api/v1/models/big")).json()
    assert shown["allow_copy"]
    assert [
        (file["source"], file["size_bytes"], file["sha256"], file["noted"])
        for file in shown["files"]
    ] == [
        ("/data/big.gguf", 7, SHA.lower(), ["sha256"]),
        ("hf://org/repo/mmproj.gguf", None, None, []),
    ]


async def test_a_file_may_be_given_another_name_than_at_its_source(
    api: httpx.AsyncClient, settings: Settings
) -> None:
    files = [
        {"role": "shard", "source": "/blobs/f00d", "name": "a-00001-of-00002.gguf"},
        {"role": "shard", "source": "https://x/download?id=2", "name": "a-00002-of-00002.gguf"},
    ]
    model = (await api.post("/api/v1/models", json={"name": "m", "files": files})).json()
    folder = settings.models / "m"
    assert [file["path"] for file in model["files"]] == [
        str(folder / "a-00001-of-00002.gguf"),
        str(folder / "a-00002-of-00002.gguf"),
    ]
    one = {"name": "n", "files": [{"source": "/blobs/f00d", "name": "x.bin"}]}
    model = (await api.post("/api/v1/models", json=one)).json()
    assert model["files"][0]["path"] == str(settings.models / "n.bin")


async def test_two_files_of_one_name_cannot_share_a_folder(api: httpx.AsyncClient) -> None:
    files = [{"source": "/a/x.gguf"}, {"role": "mmproj", "source": "/b/x.gguf"}]
    refused = await api.post("/api/v1/models", json={"name": "m", "files": files})
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")


async def test_a_name_means_one_living_model(api: httpx.AsyncClient, db: Database) -> None:
    make_model(db)
    again = await api.post("/api/v1/models", json={"name": "tiny", "source": "/a.gguf"})
    assert (again.status_code, again.json()["code"]) == (409, "model.exists")
    assert (await api.delete("/api/v1/models/tiny")).status_code == 204
    assert (await api.get("/api/v1/models/tiny")).status_code == 404
    assert (await api.delete("/api/v1/models/tiny")).json()["code"] == "model.not_found"
    again = await api.post("/api/v1/models", json={"name": "tiny", "source": "/a.gguf"})
    assert again.status_code == 201


async def test_a_model_that_a_slot_wants_is_not_forgotten(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    refused = await api.delete("/api/v1/models/tiny")
    assert (refused.status_code, refused.json()["code"]) == (409, "model.in_use")


def end_next(db: Database, sha256: str | None = SHA.lower(), outcome: str = "done") -> None:
    """Claim the next job and end it: well, or as a validation that found another digest."""
    held = claim_next(db)
    with db.write() as tx:
        if outcome == "failed":
            claims.fail(tx, held, ChecksumMismatch("other bytes"))
            return
        model = model_by_id(tx, held.chain.model_id or 0)
        fact = {"path": str(model.main.path), "sha256": sha256}
        result: dict[str, Any] = {"files": [fact] if held.job.kind is JobKind.VALIDATE else {}}
        claims.finish(tx, held, Outcome(outcome), result)


async def shown(api: httpx.AsyncClient, name: str = "tiny") -> tuple[bool | None, bool]:
    model = (await api.get(f"/api/v1/models/{name}")).json()
    return model["on_disk"], model["files"][0]["verified_at"] is not None


@pytest.fixture
def tiny(db: Database) -> Database:
    make_model(db, sha256=SHA.lower(), size_bytes=7)
    make_slot(db, "chat", "tiny")
    return db


async def test_a_model_is_on_disk_when_its_newest_validation_found_its_files(
    api: httpx.AsyncClient, tiny: Database
) -> None:
    ask_load(tiny)
    end_next(tiny, outcome="skipped")
    assert await shown(api) == (None, False)
    end_next(tiny)
    assert await shown(api) == (True, True)
    assert (await api.get("/api/v1/models")).json()["items"][0]["on_disk"] is True


async def test_the_same_bytes_of_another_model_say_nothing_of_this_one(
    api: httpx.AsyncClient, tiny: Database
) -> None:
    make_model(tiny, "never", sha256=SHA.lower(), size_bytes=7)
    ask_load(tiny)
    end_next(tiny, outcome="skipped")
    end_next(tiny)
    assert await shown(api, "never") == (None, False)


async def test_a_validation_that_fails_takes_an_earlier_one_back(
    api: httpx.AsyncClient, tiny: Database
) -> None:
    for outcome in ("done", "failed"):
        ask_load(tiny, rehash=outcome == "failed")
        end_next(tiny, outcome="skipped")
        end_next(tiny, outcome=outcome)
    assert await shown(api) == (None, False)


async def test_what_a_pull_changed_is_not_what_was_validated(
    api: httpx.AsyncClient, tiny: Database
) -> None:
    for outcome in ("skipped", "done"):
        ask_load(tiny, rehash=outcome == "done")
        end_next(tiny, outcome=outcome)
        if outcome == "skipped":
            end_next(tiny)
    assert await shown(api) == (None, False)


async def test_a_validation_of_another_digest_than_is_registered_now_does_not_count(
    api: httpx.AsyncClient, tiny: Database
) -> None:
    ask_load(tiny)
    end_next(tiny, outcome="skipped")
    end_next(tiny, sha256="cd" * 32)
    assert await shown(api) == (None, False)


async def test_models_are_listed_by_name_in_pages(api: httpx.AsyncClient, db: Database) -> None:
    for name in ("c", "a", "b"):
        make_model(db, name)
    first = (await api.get("/api/v1/models?limit=2")).json()
    make_model(db, "aa")
    second = (await api.get(f"/api/v1/models?limit=2&cursor={first['next_cursor']}")).json()
    assert [model["name"] for model in first["items"] + second["items"]] == ["a", "b", "c"]
    assert second["next_cursor"] is None


async def test_an_engine_is_added_once_and_shown_without_its_key(
    api: httpx.AsyncClient, settings: Settings
) -> None:
    body = {"name": "big", "kind": "lemonade", "url": "http://10.0.0.2:8000/", "key_file": "/k"}
    made = await api.post("/api/v1/engines", json=body)
    assert made.status_code == 201
    engine = made.json()
    assert (engine["url"], engine["settle_s"], engine["key_file"]) == (
        "http://10.0.0.2:8000",
        1200.0,
        "/k",
    )
    assert (await api.get("/api/v1/engines/big")).json() == engine
    again = await api.post("/api/v1/engines", json=body)
    assert (again.status_code, again.json()["code"]) == (409, "engine.exists")
    listed = (await api.get("/api/v1/engines?limit=1")).json()
    assert [one["name"] for one in listed["items"]] == ["big"]
    rest = (await api.get(f"/api/v1/engines?cursor={listed['next_cursor']}")).json()
    assert [one["name"] for one in rest["items"]] == ["default"]
    assert rest["items"][0]["settle_s"] == settings.default_settle_s
    assert (await api.get("/api/v1/engines/zz")).json()["code"] == "engine.not_found"


@pytest.mark.parametrize(
    ("known", "added"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9/"),
        ("http://127.0.0.1:9", "http://localhost:9"),
        ("http://LocalHost:9", "http://[::1]:9"),
        ("http://Box.Lan:9", "http://box.lan:9"),
        ("http://box.lan", "http://box.lan:80"),
        ("https://box.lan:443", "https://box.lan"),
    ],
)
async def test_one_server_is_one_engine(api: httpx.AsyncClient, known: str, added: str) -> None:
    body = {"kind": "lemonade", "url": known}
    assert (await api.post("/api/v1/engines", json={"name": "a", **body})).status_code == 201
    again = await api.post("/api/v1/engines", json={"name": "b", "kind": "llamacpp", "url": added})
    assert (again.status_code, again.json()["code"]) == (409, "engine.exists")
    assert again.json()["evidence"] == {"engine": "a"}
    assert "'a'" in again.json()["detail"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:10", "https://127.0.0.1:9", "http://127.0.0.2:9", "http://box.lan:9"]
)
async def test_another_server_is_another_engine(api: httpx.AsyncClient, url: str) -> None:
    for name, at in (("a", "http://127.0.0.1:9"), ("b", url)):
        body = {"name": name, "kind": "lemonade", "url": at}
        assert (await api.post("/api/v1/engines", json=body)).status_code == 201


async def test_every_kind_of_engine_that_there_is_can_be_added(api: httpx.AsyncClient) -> None:
    for port, kind in enumerate(KINDS, start=9):
        body = {"name": kind, "kind": kind, "url": f"http://127.0.0.1:{port}"}
        assert (await api.post("/api/v1/engines", json=body)).status_code == 201


@pytest.mark.parametrize(
    "url", ["127.0.0.1:9", "ftp://x", "http://", "http://u:p@h", "http://h/?q=1", "http://h h"]
)
async def test_an_address_that_is_none_is_refused(api: httpx.AsyncClient, url: str) -> None:
    body = {"name": "big", "kind": "lemonade", "url": url}
    assert (await api.post("/api/v1/engines", json=body)).status_code == 422
