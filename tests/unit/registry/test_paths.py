"""Which paths hal0 takes: what a writer names, and what lies in the models folder, by no link."""

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hal0.errors import (
    FileInTheWay,
    FileNotFound,
    InvalidRequest,
    PullError,
    SourceChanged,
    SourceIsALink,
    SourceNotFound,
)
from hal0.registry.files import ModelFile, open_model_file
from hal0.registry.names import check_model_name, final_paths
from hal0.registry.part import Watcher, note_of, open_part, part_of
from hal0.registry.place import bytes_to_copy, ensure_no_link, place
from hal0.registry.sources import MAX_NAME_BYTES, Source, checked_name, checked_path

OTHER_DISK = Path("/dev/shm")
SECRET = b"what only hal0 may read"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "downloads" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF, a model")
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "private" / "secret"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "m" / "model.gguf"
    path.parent.mkdir(parents=True)
    return path


def bring(source: Path, target: Path, *, allow_copy: bool = True) -> str:
    return place(source, target, Watcher(wait_s=0.2), allow_copy=allow_copy).how


@pytest.mark.parametrize(
    "path",
    [
        "/data/../etc/shadow",
        "/../etc/shadow",
        "/data/./a.gguf",
        "/data//a.gguf",
        "//data/a.gguf",
        "/data/..",
        "/data/.",
        "/data/",
        "/",
        "",
        "data/a.gguf",
        "../a.gguf",
        "~/a.gguf",
        "/proc/self/environ",
        "/proc/1/root/etc/shadow",
        "/sys/kernel/notes",
        "/data/a\0b",
        "/data/a\nb",
        "/data/a\udcff.gguf",
        "/" + "x" * 5000,
    ],
)
def test_a_path_says_where_a_file_lies_and_nothing_else(path: str) -> None:
    with pytest.raises(InvalidRequest):
        checked_path(path)
    with pytest.raises(InvalidRequest):
        Source.parse(path)


@pytest.mark.parametrize(
    "url", ["file:///data/%2e%2e/a", "file:///data/%2E./a", "file:///%2fa", "file:///%70roc/1/x"]
)
def test_what_is_coded_in_a_file_url_is_looked_at_decoded(url: str) -> None:
    with pytest.raises(InvalidRequest):
        Source.parse(url)


@pytest.mark.parametrize(
    "path", ["/data/..a", "/data/a..", "/data/.../a", "/proctor/a", "/data/proc/a", "/-a/-b"]
)
def test_a_name_that_only_looks_like_a_way_up_is_a_name(path: str) -> None:
    assert checked_path(path) == path


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../up", "/a", "a\nb", "a\0b", "\udcff", "x" * 201, "\u202e"]
)
def test_a_file_is_given_no_name_that_leads_elsewhere(name: str) -> None:
    with pytest.raises(InvalidRequest):
        checked_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "../up", ".a", "-a", "%2e"])
def test_a_model_is_given_no_name_that_leads_elsewhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        check_model_name(name)
    if name in {"-a", "%2e"}:  # no way out, and refused by the rule for names alone
        return
    with pytest.raises(InvalidRequest):
        final_paths(tmp_path, name, ["a.gguf"])


@pytest.mark.parametrize("name", ["..", ".", "../b.gguf", "a/b.gguf", "/b.gguf", ".b.gguf"])
def test_no_file_of_several_leaves_the_folder_of_its_model(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        final_paths(tmp_path, "m", ["a.gguf", name])


def test_a_name_that_the_ending_makes_too_long_is_refused_when_it_is_registered(
    tmp_path: Path,
) -> None:
    ending = "." + "e" * (MAX_NAME_BYTES - 2)
    with pytest.raises(InvalidRequest, match="too long"):
        final_paths(tmp_path, "model", [f"m{ending}"])
    assert final_paths(tmp_path, "m", [f"m{ending}"]) == (tmp_path / f"m{ending}",)


@pytest.mark.parametrize("name", ["a\uff0fb.gguf", "\uff0e\uff0e", "-rf.gguf", "a\\..\\b.gguf"])
def test_what_looks_like_a_slash_or_dots_is_a_letter_of_a_name(name: str, tmp_path: Path) -> None:
    path = final_paths(tmp_path, "m", ["a.gguf", Source.parse(f"/data/{name}").file_name])[1]
    assert path.parent == tmp_path / "m"
    path.parent.mkdir()
    path.touch()
    assert [one.name for one in path.parent.iterdir()] == [name]


# -- sources -------------------------------------------------------------------------------------


def last(source: Path) -> Path:
    link = source.with_name("link.gguf")
    link.symlink_to(source)
    return link


def middle(source: Path) -> Path:
    link = source.parent.with_name("folder")
    link.symlink_to(source.parent)
    return link / source.name


def chain(source: Path) -> Path:
    one, two = source.with_name("one"), source.with_name("two")
    two.symlink_to("model.gguf")
    one.symlink_to(two)
    return one


@pytest.mark.parametrize("link", [last, middle, chain])
def test_a_source_over_a_link_is_refused_and_its_real_path_is_told(
    source: Path, target: Path, link: Callable[[Path], Path]
) -> None:
    named = link(source)
    with pytest.raises(SourceIsALink, match="name the file itself") as caught:
        bring(named, target)
    assert caught.value.evidence["real_path"] == str(source)
    assert list(target.parent.iterdir()) == []
    assert source.stat().st_nlink == 1
    assert bring(Path(caught.value.evidence["real_path"]), target) == "linked"


def nothing(place: Path) -> None:
    pass


def broken_link(place: Path) -> None:
    place.symlink_to("nowhere")


def loop(place: Path) -> None:
    place.symlink_to(place)


def link_to_device(place: Path) -> None:
    place.symlink_to("/dev/zero")


def folder(place: Path) -> None:
    place.mkdir()


def unix_socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(place))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (nothing, "No such file"),
        (broken_link, "to no regular file"),
        (loop, "to no regular file"),
        (link_to_device, "to no regular file"),
        (folder, "a folder, not a regular file"),
        (os.mkfifo, "a FIFO, not a regular file"),
        (unix_socket, "a socket, not a regular file"),
    ],
)
def test_a_source_that_is_no_regular_file_is_not_found_and_nothing_hangs(
    tmp_path: Path,
    target: Path,
    make: Callable[[Path], None],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has 107 bytes at most
    named = tmp_path / "wanted.gguf"
    make(named)
    assert bytes_to_copy(named, target) == 0
    with pytest.raises(SourceNotFound, match=what):
        bring(named, target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty", "/etc"])
@pytest.mark.timeout(20)
def test_a_device_is_not_opened(path: str, target: Path) -> None:
    with pytest.raises(SourceNotFound, match="not a regular file"):
        bring(Path(path), target)


def test_a_name_too_long_for_any_disk_is_not_found(target: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="File name too long"):
        bring(tmp_path / ("x" * 300), target)
    with pytest.raises(SourceNotFound, match="Not a directory"):
        bring(Path("/etc/passwd/x"), target)


def test_a_file_of_the_kernel_that_ends_before_its_size_is_not_taken_for_whole(
    target: Path,
) -> None:
    """Only the database could name it: `Source.parse` refuses it."""
    odd = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not odd.is_file():
        pytest.skip(f"{odd} is not here")
    with pytest.raises(SourceChanged):
        bring(odd, target)
    assert not target.exists()


def test_what_is_swapped_for_a_link_after_it_was_looked_at_is_never_brought(
    source: Path, secret: Path, target: Path
) -> None:
    """Whoever can write in the source's folder tries it a thousand times a second."""
    kept, swap, stop = source.with_name("kept"), source.with_name("swap"), threading.Event()
    kept.hardlink_to(source)

    def swap_on() -> None:
        while not stop.is_set():
            swap.unlink(missing_ok=True)
            swap.symlink_to(secret)
            swap.replace(source)
            swap.unlink(missing_ok=True)
            swap.hardlink_to(kept)
            swap.replace(source)

    thread = threading.Thread(target=swap_on)
    thread.start()
    ends = set()
    try:
        for _ in range(1000):
            target.unlink(missing_ok=True)
            try:
                ends.add(bring(source, target))
            except (SourceIsALink, SourceNotFound) as refusal:
                ends.add(refusal.code)
            if target.exists():
                assert not target.is_symlink()
                assert target.samefile(kept)
    finally:
        stop.set()
        thread.join()
    assert secret.stat().st_nlink == 1
    assert {"linked", "pull.source_is_a_link"} <= ends


# -- the models folder ---------------------------------------------------------------------------


@pytest.fixture
def far_source(tmp_path: Path) -> Iterator[Path]:
    """A file on another disk, which is copied by way of its part."""
    if not OTHER_DISK.is_dir() or OTHER_DISK.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(f"{OTHER_DISK} is not a disk apart from {tmp_path}: nothing to copy across")
    place = Path(tempfile.mkdtemp(prefix="hal0-test-", dir=OTHER_DISK)) / "model.gguf"
    place.write_bytes(b"GGUF, from far away")
    yield place
    shutil.rmtree(place.parent)


@pytest.mark.parametrize("suffix", [".part", ".part.json", ".bad", ".link"])
@pytest.mark.parametrize("to", ["a file", "nowhere", "a folder"])
def test_a_link_in_place_of_a_file_on_its_way_leads_nothing_out_of_the_folder(
    far_source: Path, secret: Path, target: Path, suffix: str, to: str
) -> None:
    there = {"a file": secret, "nowhere": secret.with_name("new"), "a folder": secret.parent}[to]
    name = f".{target.name}.link" if suffix == ".link" else f"{target.name}{suffix}"
    target.with_name(name).symlink_to(there)
    try:
        bring(far_source, target)
    except PullError:
        assert not target.exists()
    else:
        assert target.read_bytes() == far_source.read_bytes()
        assert not target.is_symlink()
    assert secret.read_bytes() == SECRET
    assert [path.name for path in secret.parent.iterdir()] == [secret.name]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", [".part", ".part.json", ".bad"])
def test_a_fifo_in_the_models_folder_holds_nobody_up(
    far_source: Path, target: Path, suffix: str
) -> None:
    os.mkfifo(target.with_name(f"{target.name}{suffix}"))
    if suffix == ".part":
        with pytest.raises(PullError, match="no regular file of its own"):
            bring(far_source, target)
    else:
        assert bring(far_source, target) == "copied"
        assert target.read_bytes() == far_source.read_bytes()


def test_a_part_that_is_another_file_too_is_not_written(
    far_source: Path, secret: Path, target: Path
) -> None:
    part_of(target).hardlink_to(secret)
    with pytest.raises(PullError, match="no regular file of its own"):
        bring(far_source, target)
    assert secret.read_bytes() == SECRET
    assert not target.exists()


def test_a_note_that_is_a_link_is_not_read_and_not_written_through(
    secret: Path, target: Path
) -> None:
    note_of(target).symlink_to(secret)
    with open_part(target, Watcher()) as part:
        assert part.beginning is None
    assert secret.read_bytes() == SECRET


def a_folder(place: Path, _: Path) -> None:
    place.mkdir()


def a_FIFO(place: Path, _: Path) -> None:  # noqa: N802 - as the message calls it
    os.mkfifo(place)


def a_link(place: Path, source: Path) -> None:
    place.symlink_to(source)


@pytest.mark.parametrize("make", [a_folder, a_FIFO, a_link])
def test_what_is_no_file_in_the_place_of_one_is_named_and_stays(
    source: Path, target: Path, make: Callable[[Path, Path], None]
) -> None:
    """Also a link to the source itself, which is not the source in its place."""
    make(target, source)
    before = target.lstat()
    with pytest.raises(FileInTheWay, match=f"^{target} is {make.__name__.replace('_', ' ')}"):
        bring(source, target)
    assert target.lstat().st_ino == before.st_ino
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_link_in_place_of_a_models_own_folder_is_refused(tmp_path: Path, target: Path) -> None:
    ensure_no_link(target.parent)
    outside = tmp_path / "outside"
    target.parent.rename(outside)
    target.parent.symlink_to(outside)
    with pytest.raises(FileInTheWay, match=r"a link to .*outside"):
        ensure_no_link(target.parent)


def checked(path: Path, *, has_folder: bool = False) -> bytes:
    fd = open_model_file(ModelFile("main", path, None, None), has_folder=has_folder)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def test_a_link_in_the_models_folder_is_no_file_wherever_it_leads(
    tmp_path: Path, target: Path
) -> None:
    target.write_bytes(b"GGUF")
    link = target.with_name("link.gguf")
    link.symlink_to(target)
    with pytest.raises(FileNotFound, match=f"it is a link to {target}: the models folder"):
        checked(link)
    folder = tmp_path / "models" / "linked"
    folder.symlink_to(target.parent)
    with pytest.raises(FileNotFound, match=f"its folder {folder} is a link to"):
        checked(folder / target.name, has_folder=True)
    assert checked(target, has_folder=True) == b"GGUF"


def test_the_models_folder_itself_may_be_a_link_of_the_administrators(
    tmp_path: Path, target: Path, source: Path
) -> None:
    linked = tmp_path / "linked"
    linked.symlink_to(target.parents[1])
    single, shared = linked / "m.gguf", linked / "m" / "model.gguf"
    assert bring(source, single) == "linked"
    assert bring(source, shared) == "linked"
    assert checked(single) == checked(shared, has_folder=True) == source.read_bytes()
