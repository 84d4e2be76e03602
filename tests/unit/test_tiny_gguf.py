"""The tests' own model writer."""

from hashlib import sha256
from pathlib import Path

from tests.fakes.lemond.gguf_check import Verdict, judge
from tests.tiny_gguf import Broken, write_tiny_gguf, write_tiny_shards


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_everywhere(tmp_path: Path) -> None:
    first = write_tiny_gguf(tmp_path / "a.gguf")
    assert digest(first) == "97dfafd2d484504a911971b119eb548c699e7e28adcd3bf2fb38f311f7d98176"
    other = write_tiny_gguf(tmp_path / "b.gguf", seed=1)
    assert digest(other) != digest(first)
    assert other.stat().st_size == first.stat().st_size


def test_padding_lengthens_the_file_and_costs_no_disk(tmp_path: Path) -> None:
    plain = write_tiny_gguf(tmp_path / "a.gguf").stat()
    padded = write_tiny_gguf(tmp_path / "b.gguf", pad_bytes=1 << 30).stat()
    assert padded.st_size == plain.st_size + (1 << 30)
    assert padded.st_blocks < plain.st_blocks + 64


def test_the_fake_judges_files_as_llama_cpp_does(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    assert judge(write_tiny_gguf(path)) is Verdict.GOOD
    assert judge(write_tiny_gguf(path, pad_bytes=5000)) is Verdict.GOOD
    for shard in write_tiny_shards(tmp_path, "big"):
        assert judge(shard) is Verdict.GOOD
    broken: tuple[Broken, ...] = ("truncate", "version", "arch")
    for what in broken:
        assert judge(write_tiny_gguf(path, broken=what)) is Verdict.BROKEN
    no_gguf: tuple[Broken, ...] = ("magic", "empty")
    for what in no_gguf:
        assert judge(write_tiny_gguf(path, broken=what)) is Verdict.NO_GGUF
    assert judge(tmp_path / "missing") is Verdict.NO_GGUF
