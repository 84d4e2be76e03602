"""What pulls refuse, through REST, command line and rows, with an API and a worker that are real.

Sources may be asked at 127.0.0.2 and nowhere else on this machine, so that 127.0.0.1 stands for
what an operator has not allowed.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hal0.cli import main
from hal0.db import Database
from tests.acceptance.house import ROOT, House
from tests.fakes.source import Manner, Source
from tests.rows import make_model
from tests.tiny_gguf import tiny_gguf_bytes, write_tiny_gguf, write_tiny_shards

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.xdist_group("closed_pulls"),
]
NOBODY = "http://127.0.0.1:9"
NAME = "tiny.gguf"
SECRET = "what-only-hal0-may-read"
JSON = {"Content-Type": "application/json"}
NUMBERS = count(1)
Cli = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("closed")
    closed = {"HAL0_PULL_PRIVATE_HOSTS": "127.0.0.2", "HAL0_PULL_TRIES": "3"}
    with House(folder, NOBODY, **closed) as house:
        house.start_api()
        house.start_worker()
        yield house


@pytest.fixture
def hal0(house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line; return its exit code and what it wrote to stderr."""
    monkeypatch.setenv("HAL0_HOME", str(house.home))
    monkeypatch.setenv("HAL0_URL", f"http://127.0.0.1:{house.port}")

    def run(*args: str) -> tuple[int, str]:
        code = main(args)
        return code, " ".join(capsys.readouterr().err.replace("│", " ").split())

    return run


@pytest.fixture
def source() -> Iterator[Source]:
    """A server that pulls may ask."""
    with Source(host="127.0.0.2") as server:
        server.put(NAME, tiny_gguf_bytes())
        yield server


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that no writer named, in a folder of its own."""
    path = tmp_path / "private" / "secret"
    path.parent.mkdir()
    path.write_text(SECRET)
    return path


@pytest.fixture(autouse=True)
def nothing_is_told_of_a_secret(house: House, secret: Path) -> Iterator[None]:
    """And nothing is linked, written or left beside it, whatever a test does."""
    yield
    assert [path.name for path in secret.parent.iterdir()] == [secret.name]
    assert (secret.read_text(), secret.stat().st_nlink) == (SECRET, 1)
    for file in (*house.home.glob("hal0.db*"), house.log):
        assert SECRET.encode() not in file.read_bytes()
    assert "Traceback" not in house.log.read_text()


def registered(house: House) -> int:
    return int(house.sql("SELECT count(*) FROM models")[0][0])


@pytest.fixture
def name() -> str:
    """A name of a model and of its slot that no other test here has."""
    return f"m{next(NUMBERS):03}"


def pull(house: House, name: str, **model: Any) -> dict[str, Any]:
    """Register, pull, and return the job when it has ended."""
    house.post("/api/v1/models", {"name": name, "format": "other", **model}, status=201)
    house.add_slot(name, name)
    return end_of_pull(house, name)


def end_of_pull(house: House, name: str) -> dict[str, Any]:
    job_id = house.post(f"/api/v1/slots/{name}/pull")["jobs"][-1]
    path = f"/api/v1/jobs/{job_id}"
    house.wait_for(lambda: house.get(path)["state"] not in {"queued", "running"})
    ended: dict[str, Any] = house.get(path)
    return ended


def brought(house: House, name: str) -> list[str]:
    """What lies in the models folder of a model."""
    found = [*house.models.glob(f"*{name}*"), *house.models.glob(f"{name}/*")]
    return sorted(str(path.relative_to(house.models)) for path in found if not path.is_dir())


# -- what is refused when it is registered -------------------------------------------------------

LOCAL = "127.0.0.1:9/a.gguf"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"source": "/data/../etc/shadow"}, "request.invalid"),
    ({"source": "/data/./a"}, "request.invalid"),
    ({"source": "/data//a"}, "request.invalid"),
    ({"source": "../a"}, "request.invalid"),
    ({"source": "file:///data/%2e%2e/etc/shadow"}, "request.invalid"),
    ({"source": "file:///%70roc/self/environ"}, "request.invalid"),
    ({"source": "/proc/self/environ"}, "request.invalid"),
    ({"source": "/sys/kernel/notes"}, "request.invalid"),
    ({"source": "/data/a\0b"}, "request.invalid"),
    ({"source": "/" + "x" * 5000}, "request.invalid"),
    ({"source": "/data/" + "x" * 201}, "request.invalid"),
    ({"source": "/data/a." + "x" * 190, "name": "m" * 64}, "request.invalid"),
    ({"source": "/data/a", "name": ".."}, "request.invalid"),
    ({"source": "/data/a", "name": "%2e%2e%2fetc"}, "request.invalid"),
    ({"source": "/data/a", "name": "a/b"}, "request.invalid"),
    ({"files": [{"source": "/data/a", "name": "../../a"}]}, "request.invalid"),
    ({"files": [{"source": "/data/a", "name": ".."}]}, "request.invalid"),
    ({"files": [{"source": "/data/a", "name": "/etc/cron.d/a"}]}, "request.invalid"),
    ({"source": "hf://org/repo/../../a"}, "request.invalid"),
    ({"source": "hf://../repo/a"}, "request.invalid"),
    ({"source": "https://models.example/%2e%2e%2f"}, "request.invalid"),
    ({"source": "ftp://models.example/a"}, "request.invalid"),
    ({"source": "gopher://models.example/a"}, "request.invalid"),
    ({"source": f"http://{LOCAL}"}, "pull.host_not_allowed"),
    ({"source": "http://169.254.169.254/latest/meta-data"}, "pull.host_not_allowed"),
    ({"source": "http://localhost/a"}, "pull.host_not_allowed"),
    ({"source": "http://[::1]/a"}, "pull.host_not_allowed"),
    ({"source": "http://2130706433/a"}, "pull.host_not_allowed"),
    ({"files": [{"source": "/data/a"}, {"role": "mmproj", "source": "http://10.0.0.1/b"}]},
     "pull.host_not_allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code"), REFUSED, ids=[str(body)[:50] for body, _ in REFUSED])
def test_what_leads_astray_is_not_registered(house: House, body: dict[str, Any], code: str) -> None:
    before = registered(house)
    refused = house.client.post("/api/v1/models", json={"name": "astray", **body})
    assert (refused.status_code, refused.json()["code"]) == (422, code), refused.text
    if code == "pull.host_not_allowed":
        assert "HAL0_PULL_PRIVATE_HOSTS" in refused.text or "no form" in refused.text
    assert registered(house) == before


def test_bytes_that_are_no_text_are_not_registered(house: House) -> None:
    before = registered(house)
    for source in (b"/data/\xff.gguf", b"/data/\\udcff.gguf"):
        body = b'{"name": "astray", "source": "' + source + b'"}'
        refused = house.client.post("/api/v1/models", content=body, headers=JSON)
        assert (refused.status_code, refused.json()["code"]) == (400, "request.not_json")
    assert registered(house) == before


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "..%252f..", "%00", "a%2fb"])
def test_a_way_up_in_a_route_leads_to_no_model(house: House, path: str) -> None:
    for way in (f"/api/v1/models/{path}", f"/api/v1/slots/{path}"):
        assert house.client.get(way).status_code == 404
        assert house.client.delete(way).status_code in {404, 405}


@pytest.mark.parametrize("path", ["engine.key", "/etc/../key", "/proc/self/environ", "/a\nb", "/"])
def test_a_key_file_is_an_absolute_path_and_nothing_else(house: House, path: str) -> None:
    body = {"name": "astray", "kind": "lemonade", "url": NOBODY, "key_file": path}
    refused = house.client.post("/api/v1/engines", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    assert house.sql("SELECT name FROM engines") == [("default",)]


def fifo(place: Path, secret: Path) -> Path:
    os.mkfifo(place)
    return place


def device(place: Path, secret: Path) -> Path:
    return Path("/dev/zero")


def null(place: Path, secret: Path) -> Path:
    return Path("/dev/null")


def folder(place: Path, secret: Path) -> Path:
    place.mkdir()
    return place


def unix_socket(place: Path, secret: Path) -> Path:
    here = Path.cwd()
    os.chdir(place.parent)  # a socket's path has 107 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(place.name)
    finally:
        os.chdir(here)
    return place


def nothing(place: Path, secret: Path) -> Path:
    return place


def broken_link(place: Path, secret: Path) -> Path:
    place.symlink_to(place.with_name("nowhere"))
    return place


def loop(place: Path, secret: Path) -> Path:
    place.symlink_to(place)
    return place


def last_is_link(place: Path, secret: Path) -> Path:
    place.symlink_to(secret)
    return place


def middle_is_link(place: Path, secret: Path) -> Path:
    place.symlink_to(secret.parent)
    return place / secret.name


def too_long(place: Path, secret: Path) -> Path:
    return place.with_name("x" * 200) / ("y" * 200)


NO_FILES = [fifo, device, null, folder, unix_socket, nothing, broken_link, loop, too_long]
Make = Callable[[Path, Path], Path]


@pytest.mark.parametrize("make", NO_FILES)
def test_what_is_no_file_is_not_added_by_the_command_line_and_nothing_hangs(
    house: House, hal0: Cli, tmp_path: Path, secret: Path, make: Make
) -> None:
    before = registered(house)
    code, said = hal0("model", "add", str(make(tmp_path / "wanted", secret)))
    assert (code, "is no file" in said) == (3, True), said
    assert registered(house) == before


def test_what_rest_refuses_the_command_line_refuses_in_the_same_words(
    house: House, hal0: Cli
) -> None:
    before = registered(house)
    code, said = hal0("model", "add", f"http://{LOCAL}")
    assert (code, "127.0.0.1 is private" in said) == (2, True), said
    assert "[pull.host_not_allowed]" in said
    code, said = hal0("model", "add", "/proc/self/environ")
    assert (code, "no files of a disk" in said) == (2, True), said
    code, said = hal0("model", "add", "file:///data/%2e%2e/a")
    assert (code, "no part that is empty" in said) == (2, True), said
    assert registered(house) == before


def test_a_name_of_no_text_is_not_added(house: House, hal0: Cli, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.gguf"))
    odd.write_bytes(b"GGUF")
    before = registered(house)
    code, said = hal0("model", "add", str(odd))
    assert (code, "no UTF-8 text" in said) == (2, True), said
    assert registered(house) == before


# -- what is refused when it is pulled -----------------------------------------------------------


@pytest.mark.parametrize("make", NO_FILES)
def test_a_source_that_is_no_file_fails_its_pull_and_the_worker_goes_on(
    house: House, tmp_path: Path, secret: Path, name: str, make: Make
) -> None:
    job = pull(house, name, source=str(make(tmp_path / "wanted", secret)), allow_copy=True)
    assert (job["state"], job["error"]["code"]) == ("failed", "pull.source_not_found")
    assert house.slot(name)["error"]["code"] == "pull.source_not_found"
    assert brought(house, name) == []


@pytest.mark.parametrize("make", [last_is_link, middle_is_link])
def test_a_source_over_a_link_fails_its_pull_and_the_real_path_is_told(
    house: House, tmp_path: Path, secret: Path, name: str, make: Make
) -> None:
    """Whoever can write in that folder may not have hal0 bring what only hal0 can read."""
    job = pull(house, name, source=str(make(tmp_path / "wanted", secret)), allow_copy=True)
    assert (job["state"], job["error"]["code"]) == ("failed", "pull.source_is_a_link")
    assert f"name the file itself: {secret}" in job["error"]["detail"]
    assert job["error"]["evidence"]["real_path"] == str(secret)
    assert len(job["attempts"]) == 1
    assert brought(house, name) == []


def test_a_redirect_to_what_is_not_allowed_fails_the_pull_at_once(
    house: House, source: Source, name: str
) -> None:
    with Source() as inner:
        inner.put(NAME, SECRET.encode())
        source.script(NAME, Manner(redirect_to=inner.url(NAME)))
        job = pull(house, name, source=source.url(NAME))
        assert inner.requests == []
    assert (job["state"], job["error"]["code"]) == ("failed", "pull.host_not_allowed")
    assert "redirects to 127.0.0.1, whose address 127.0.0.1 is private" in job["error"]["detail"]
    assert len(job["attempts"]) == 1
    assert [path.split(" ")[0] for path in house.path_of(name)] == ["offline", "pulling", "error"]
    assert brought(house, name) == []


def test_a_host_that_is_allowed_is_pulled_from(house: House, source: Source, name: str) -> None:
    assert pull(house, name, source=source.url(NAME))["state"] == "succeeded"
    assert brought(house, name) == [f"{name}.gguf"]


def test_where_nothing_is_set_no_private_host_is_registered_or_asked(
    tmp_path: Path,
) -> None:
    with House(tmp_path, NOBODY) as closed, Source() as inner:
        inner.put(NAME, SECRET.encode())
        del closed.env["HAL0_PULL_PRIVATE_HOSTS"]
        closed.start_api()
        closed.start_worker()
        body = {"name": "tiny", "source": inner.url(NAME)}
        assert closed.post("/api/v1/models", body, 422)["code"] == "pull.host_not_allowed"
        told = subprocess.run(
            [sys.executable, "-m", "hal0", "model", "add", inner.url(NAME)],
            cwd=ROOT,
            env=closed.env,
            capture_output=True,
            check=False,
        )
        assert (told.returncode, b"[pull.host_not_allowed]" in told.stderr) == (2, True)
        assert registered(closed) == 0
        database = Database(closed.home / "hal0.db", 5)
        make_model(database, source=inner.url(NAME))  # as one that was registered when it might
        database.close()
        closed.add_slot()
        job = end_of_pull(closed, "chat")
        assert (job["error"]["code"], len(job["attempts"])) == ("pull.host_not_allowed", 1)
        assert inner.requests == []
        assert brought(closed, "tiny") == []


# -- what lies in the models folder --------------------------------------------------------------


def part_is_link(place: Path, secret: Path) -> None:
    place.symlink_to(secret)


def part_is_fifo(place: Path, secret: Path) -> None:
    os.mkfifo(place)


def part_is_another_file(place: Path, secret: Path) -> None:
    place.hardlink_to(place.with_name("kept"))


@pytest.mark.parametrize("spoil", [part_is_link, part_is_fifo, part_is_another_file])
def test_a_part_that_is_something_else_is_not_written(
    house: House, source: Source, secret: Path, name: str, spoil: Callable[[Path, Path], None]
) -> None:
    kept = house.models / "kept"
    kept.write_text("another file")
    part = house.models / f"{name}.gguf.part"
    spoil(part, secret)
    job = pull(house, name, source=source.url(NAME))
    assert (job["state"], job["error"]["code"]) == ("failed", "pull.failed")
    assert f"{name}.gguf.part" in job["error"]["detail"]
    assert kept.read_text() == "another file"
    part.unlink()
    assert end_of_pull(house, name)["state"] == "succeeded"
    assert brought(house, name) == [f"{name}.gguf"]


def test_links_in_place_of_other_names_of_a_pull_lead_nowhere(
    house: House, source: Source, secret: Path, name: str
) -> None:
    for ending in (".part.json", ".bad"):
        (house.models / f"{name}.gguf{ending}").symlink_to(secret)
    source.script(NAME, Manner(corrupt_at=9, method="GET", times=1))
    file = {"source": source.url(NAME), "sha256": "ab" * 32}
    assert pull(house, name, files=[file])["error"]["code"] == "pull.checksum_mismatch"
    assert not (house.models / f"{name}.gguf.bad").is_symlink()


def test_a_folder_of_several_files_that_is_a_link_is_not_written_into(
    house: House, source: Source, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (house.models / name).symlink_to(outside)
    files = []
    for role, path in zip(("shard", "shard"), write_tiny_shards(tmp_path, "s")[:2], strict=True):
        source.put(path.name, path.read_bytes())
        files.append({"role": role, "source": source.url(path.name)})
    job = pull(house, name, files=files)
    assert (job["state"], job["error"]["code"]) == ("failed", "pull.file_in_the_way")
    assert list(outside.iterdir()) == []
    (house.models / name).unlink()
    assert end_of_pull(house, name)["state"] == "succeeded"


def test_a_model_that_is_a_link_is_not_validated(house: House, tmp_path: Path, name: str) -> None:
    """It leads to a good model, which could be another one a moment later."""
    (house.models / f"{name}.gguf").symlink_to(write_tiny_gguf(tmp_path / NAME))
    house.post("/api/v1/models", {"name": name, "files": [{}]}, status=201)
    house.add_slot(name, name)
    house.load(name)
    error = house.wait_until("error", name)["error"]
    assert error["code"] == "preload.file_not_found"
    assert f"it is a link to {tmp_path / NAME}" in error["detail"]


# -- what a person may still do ------------------------------------------------------------------


def test_the_links_of_a_hubs_cache_are_followed_by_the_command_line_and_keep_their_names(
    house: House, hal0: Cli, tmp_path: Path, name: str
) -> None:
    """What such a link leads to is named by its digest, and llama.cpp needs the names of shards."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "c0ffee"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    links = []
    for number, shard in enumerate(write_tiny_shards(tmp_path, "w")):
        shard.rename(blobs / (digest := f"{number}f" * 32))
        link = snapshot / shard.name
        link.symlink_to(Path("..", "..", "blobs", digest))
        links.append(link)
    assert hal0("model", "add", *map(str, links), "--name", name)[0] == 0
    house.add_slot(name, name)
    code, said = hal0("slot", "pull", name, "--wait", "30")
    assert code == 0, said
    assert brought(house, name) == [f"{name}/{link.name}" for link in links]
    assert all((house.models / name / link.name).samefile(link) for link in links)
