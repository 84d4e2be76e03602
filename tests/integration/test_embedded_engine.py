"""The embedded engine with real inference: real processes, real signals, tiny models."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.engine_process import ROOT, EngineProcess
from tests.tiny_gguf import Size, write_tiny_gguf, write_tiny_shards

pytestmark = pytest.mark.slow

QUESTION = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 6}


def until(is_so: Callable[[], object], limit_s: float = 15) -> None:
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end, f"not so within {limit_s} s"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    write_tiny_gguf(folder / "ga.gguf")
    write_tiny_gguf(folder / "gb.gguf", seed=1)
    return folder


@pytest.fixture
def engine(models: Path, tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(models, home=tmp_path) as running:
        yield running


@pytest.fixture
def client(engine: EngineProcess) -> Iterator[httpx.Client]:
    with engine.client() as client:
        yield client


def load(client: httpx.Client, name: str, **options: object) -> httpx.Response:
    return client.post("/v1/load", json={"model_name": name, **options})


def chat(client: httpx.Client, name: str, **options: object) -> httpx.Response:
    return client.post("/v1/chat/completions", json={"model": name, **QUESTION, **options})


def test_a_loaded_model_answers_a_chat(client: httpx.Client) -> None:
    assert load(client, "ga").status_code == 200
    answer = chat(client, "ga").raise_for_status().json()
    assert answer["model"] == "ga"
    assert len(answer["choices"][0]["message"]["content"].split()) == 6
    completion = client.post("/v1/completions", json={"model": "extra.ga", "prompt": "a b"})
    assert completion.raise_for_status().json()["choices"][0]["text"]


def test_a_stream_ends_with_done(client: httpx.Client) -> None:
    load(client, "ga")
    with client.stream(
        "POST", "/api/v1/chat/completions", json={"model": "ga", **QUESTION, "stream": True}
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[0][6:])["object"] == "chat.completion.chunk"


def test_no_connection_to_a_child_is_kept(engine: EngineProcess, client: httpx.Client) -> None:
    """llama.cpp closes one over which a stream went and says so to nobody."""
    load(client, "ga")
    for is_stream in (True, False):
        chat(client, "ga", stream=is_stream).raise_for_status()
    url = engine.loaded()["ga"]["backend_url"]
    port = httpx.URL(url).port
    until(lambda: port not in {c.raddr.port for c in connections_of(engine.pid)})


def connections_of(pid: int) -> list[Any]:
    """Return the connections of a process."""
    listed = psutil.Process(pid).net_connections(kind="tcp")
    return [c for c in listed if c.status == psutil.CONN_ESTABLISHED]


def test_health_tells_file_process_and_last_use(
    engine: EngineProcess, client: httpx.Client, models: Path
) -> None:
    load(client, "ga", ctx_size=512)
    before = time.monotonic() * 1000
    chat(client, "ga")
    body = client.get("/v1/health").json()
    assert body["pid"] == engine.pid
    (entry,) = body["all_models_loaded"]
    assert entry["checkpoint"] == str(models / "ga.gguf")
    assert entry["pid"] in {child.pid for child in psutil.Process(engine.pid).children()}
    assert before <= entry["last_use"] <= time.monotonic() * 1000
    assert (entry["is_busy"], entry["recipe_options"]["ctx_size"]) == (False, 512)
    backend = entry["backend_url"].removesuffix("/v1")
    assert httpx.get(f"{backend}/health").status_code == 200


def test_a_child_serves_nobody_but_the_engine(engine: EngineProcess, client: httpx.Client) -> None:
    load(client, "ga")
    url = f"{engine.loaded()['ga']['backend_url']}/chat/completions"
    assert httpx.post(url, json=QUESTION).status_code == 401


def test_loading_again_changes_nothing_and_other_options_reload(
    engine: EngineProcess, client: httpx.Client
) -> None:
    load(client, "ga", ctx_size=512)
    first = engine.loaded()["ga"]
    load(client, "extra.ga", ctx_size=512)
    again = engine.loaded()["ga"]
    assert again["pid"] == first["pid"]
    assert again["last_use"] > first["last_use"]
    load(client, "ga", ctx_size=1024, llamacpp_args="--threads 1 --flash-attn on --no-mmap")
    changed = engine.loaded()["ga"]
    assert changed["pid"] != first["pid"]
    assert chat(client, "ga").status_code == 200
    assert not lives(first["pid"])


def test_a_replaced_file_is_loaded_anew(
    engine: EngineProcess, client: httpx.Client, models: Path
) -> None:
    load(client, "ga")
    first = engine.loaded()["ga"]["pid"]
    write_tiny_gguf(models / "new.part", seed=7).replace(models / "ga.gguf")
    load(client, "ga")
    assert engine.loaded()["ga"]["pid"] != first


@pytest.mark.parametrize("broken", ["magic", "truncate", "arch", "missing-tensor", "empty"])
def test_a_corrupt_file_fails_alone(
    engine: EngineProcess, client: httpx.Client, models: Path, broken: str
) -> None:
    write_tiny_gguf(models / "bad.gguf", broken=broken)  # type: ignore[arg-type]
    load(client, "ga")
    before = engine.loaded()["ga"]["pid"]
    answer = load(client, "bad")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "model_load_error"
    assert error["message"].startswith("Failed to load model 'bad': ")
    assert engine.loaded()["ga"]["pid"] == before
    assert chat(client, "ga").status_code == 200


def test_the_reason_of_a_failed_load_is_told(client: httpx.Client, models: Path) -> None:
    write_tiny_gguf(models / "bad.gguf", broken="arch")
    assert "unknown model architecture: 'nosucharch'" in load(client, "bad").text


def test_shards_in_a_folder_are_one_model(client: httpx.Client, models: Path) -> None:
    write_tiny_shards(models / "big", "weights", count=3)
    listed = [entry["id"] for entry in client.get("/v1/models").json()["data"]]
    assert listed == ["big", "ga", "gb"]
    main = load(client, "big").raise_for_status().json()["checkpoint"]
    assert main == str(models / "big" / "weights-00001-of-00003.gguf")
    assert chat(client, "big").status_code == 200


@pytest.mark.parametrize(
    "name", ["../ga", "..", ".", "/etc/passwd", "x/../ga", "", "a\x00b", "ga/"]
)
def test_a_name_cannot_leave_the_folder(client: httpx.Client, models: Path, name: str) -> None:
    write_tiny_gguf(models.parent / "ga.gguf")
    answer = load(client, name)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_a_fifo_is_no_model(client: httpx.Client, models: Path) -> None:
    os.mkfifo(models / "pipe.gguf")
    assert load(client, "pipe").status_code == 404


@pytest.mark.parametrize(
    "body", [b"", b"{bad", b"[]", b"{}", b'{"model_name": ""}', b'{"model_name": 1}']
)
def test_an_unload_without_a_name_is_refused(
    engine: EngineProcess, client: httpx.Client, body: bytes
) -> None:
    load(client, "ga")
    assert client.post("/v1/unload", content=body).status_code == 400
    assert list(engine.loaded()) == ["ga"]


def test_an_unload_ends_the_process(engine: EngineProcess, client: httpx.Client) -> None:
    load(client, "ga")
    pid = engine.loaded()["ga"]["pid"]
    assert client.post("/v1/unload", json={"model_name": "extra.ga"}).status_code == 200
    assert engine.loaded() == {}
    assert not lives(pid)
    again = client.post("/v1/unload", json={"model_name": "ga"})
    assert (again.status_code, again.json()) == (404, {"error": "Model not loaded: ga"})


def test_a_chat_loads_nothing(engine: EngineProcess, client: httpx.Client) -> None:
    answer = chat(client, "ga")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_loaded")
    assert chat(client, "nope").json()["error"]["code"] == "model_not_found"
    assert engine.loaded() == {}


def test_an_unload_waits_for_a_running_stream(
    engine: EngineProcess, client: httpx.Client, models: Path
) -> None:
    write_tiny_gguf(models / "long.gguf", size=Size(embd=256, layers=8, ctx=4096))
    load(client, "long", ctx_size=4096, llamacpp_args="--threads 1")
    asked = {"model": "long", **QUESTION, "max_tokens": 600, "stream": True}
    answers: list[httpx.Response] = []
    with client.stream("POST", "/v1/chat/completions", json=asked) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        entry = engine.loaded()["long"]
        assert (entry["is_busy"], entry["is_streaming"], entry["status"]) == (True, True, "in_use")
        unload = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{engine.url}/v1/unload", json={"model_name": "long"}, timeout=60)
            )
        )
        unload.start()
        until(lambda: engine.loaded().get("long", {}).get("status") != "in_use")
        rest = [line for line in lines if line.startswith("data: ")]
    unload.join(60)
    assert rest[-1] == "data: [DONE]"
    assert answers[0].status_code == 200
    assert engine.loaded() == {}


def test_a_client_that_leaves_a_stream_frees_the_model(
    engine: EngineProcess, client: httpx.Client, models: Path
) -> None:
    write_tiny_gguf(models / "long.gguf", size=Size(embd=256, layers=8, ctx=65536))
    load(client, "long", ctx_size=65536, llamacpp_args="--threads 1")
    asked = {"model": "long", **QUESTION, "max_tokens": 60000, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=asked) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        assert engine.loaded()["long"]["is_busy"]
    until(lambda: not engine.loaded()["long"]["is_busy"])


def test_a_load_goes_on_when_its_caller_has_left(
    engine: EngineProcess, client: httpx.Client
) -> None:
    with socket.create_connection(("127.0.0.1", engine.port)) as connection:
        body = b'{"model_name": "ga"}'
        head = f"POST /v1/load HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        until(lambda: engine.calls("/v1/load"))
    until(lambda: "ga" in engine.loaded())


def test_loads_come_one_after_the_other(engine: EngineProcess) -> None:
    answers: list[int] = []

    def ask(name: str) -> None:
        with engine.client() as own:
            answers.append(load(own, name).status_code)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("ga", "gb", "ga")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [200, 200, 200]
    assert sorted(engine.loaded()) == ["ga", "gb"]
    assert len(psutil.Process(engine.pid).children()) == 2


def test_a_killed_child_vanishes_from_health(engine: EngineProcess, client: httpx.Client) -> None:
    load(client, "ga")
    load(client, "gb")
    os.kill(engine.loaded()["ga"]["pid"], signal.SIGKILL)
    until(lambda: list(engine.loaded()) == ["gb"])
    assert chat(client, "ga").json()["error"]["code"] == "model_not_loaded"
    assert chat(client, "gb").status_code == 200
    assert load(client, "ga").status_code == 200


def test_children_die_with_a_killed_engine(engine: EngineProcess, client: httpx.Client) -> None:
    load(client, "ga")
    load(client, "gb")
    pids = [entry["pid"] for entry in engine.loaded().values()]
    engine.kill()
    until(lambda: not any(map(lives, pids)))


def test_sigterm_leaves_no_process_behind(engine: EngineProcess, client: httpx.Client) -> None:
    load(client, "ga")
    load(client, "gb")
    pids = [entry["pid"] for entry in engine.loaded().values()]
    assert engine.stop() == 0
    assert not any(map(lives, pids))


def test_sigterm_in_the_middle_of_a_stream_ends_in_time(
    engine: EngineProcess, client: httpx.Client, models: Path
) -> None:
    write_tiny_gguf(models / "long.gguf", size=Size(embd=256, layers=8, ctx=65536))
    load(client, "long", ctx_size=65536, llamacpp_args="--threads 1")
    pid = engine.loaded()["long"]["pid"]
    asked = {"model": "long", **QUESTION, "max_tokens": 60000, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=asked) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        began = time.monotonic()
        assert engine.stop() == 0
    assert time.monotonic() - began < 8
    assert not lives(pid)


def test_a_port_in_use_is_said_and_ends_with_1(engine: EngineProcess) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "hal0.embedded"],
        cwd=ROOT,
        env=engine.environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 2
    assert f"HAL0_ENGINE_BIND=127.0.0.1:{engine.port}: cannot listen there" in second.stderr


def test_an_open_address_needs_a_key(engine: EngineProcess) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "hal0.embedded"],
        cwd=ROOT,
        env={**engine.environment(), "HAL0_ENGINE_BIND": "0.0.0.0:0"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 2
    assert "HAL0_ENGINE_KEY_FILE" in second.stderr


def test_the_call_log_tells_begin_and_end_and_no_prompt(
    engine: EngineProcess, client: httpx.Client
) -> None:
    load(client, "ga", ctx_size=512)
    chat(client, "ga")
    (begin,) = engine.calls("/v1/load")
    assert begin["body"] == {"model_name": "ga", "ctx_size": 512}
    (end,) = engine.calls("/v1/load", phase="end")
    assert (end["status"], end["call"], end["pid"]) == (200, begin["call"], engine.pid)
    assert begin["mono_ms"] <= end["mono_ms"]
    assert begin["at"].endswith("Z")
    assert "hello" not in engine.call_log.read_text()
