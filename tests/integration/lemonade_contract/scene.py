"""What the captured server had around it, put up for the fake."""

from pathlib import Path
from typing import Any

from tests.fakes.lemond import Lemond
from tests.integration.lemonade_contract.wire import Folders
from tests.tiny_gguf import write_tiny_gguf

AS_CAPTURED: dict[str, Any] = {
    "max_loaded_models": -1,
    "ctx_size": 1024,
    "offline": True,
    "watch_s": 0,
    "evict_grace_s": 5,
    "global_timeout_s": 600,
    "health": "ok",
    "auto_evict": False,
    "auto_evict_tick_s": 0.02,
    "auto_evict_second_s": 0.2,
    "download_chunks": 8,
    "download_chunk_delay_s": 0,
    "hub": {
        "owner/Tiny-GGUF": {"gemma-Q4_K_M.gguf": "good"},
        "owner/Bad-GGUF": {"bad-Q4_K_M.gguf": "truncated"},
    },
}
"""The script that makes the fake the captured server, but for the pace of its idle clock."""


def make_folders(home: Path) -> Folders:
    """Put down the files that the captured server had, and a model of another kind."""
    folders = Folders(home / "extra", home / "models")
    for seed, name in enumerate(("ga", "gb", "gc")):
        write_tiny_gguf(folders.extra / f"{name}.gguf", seed=seed)
    write_tiny_gguf(folders.extra / "garbage.gguf", broken="magic")
    write_tiny_gguf(folders.extra / "truncated.gguf", broken="truncate")
    (folders.extra / "badmagicok.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 64)
    write_tiny_gguf(folders.own / "v:1" / "gemma.gguf", seed=3)
    write_tiny_gguf(folders.own / "v:1" / "vanish.gguf", seed=4)
    return folders


def clear(lemond: Lemond, folders: Folders) -> None:
    """Take away what a story left behind."""
    write_tiny_gguf(folders.own / "v:1" / "vanish.gguf", seed=4)
    names = {model["id"] for model in lemond.get("/v1/models?show_all=true").json()["data"]}
    lemond.script(**AS_CAPTURED, models=dict.fromkeys({*names, "*"}))
    lemond.post("/v1/unload", {}).raise_for_status()
    for model in lemond.get("/v1/models?show_all=true").json()["data"]:
        if model["source"] != "extra_models_dir" and "custom" in model["labels"]:
            lemond.post("/v1/delete", {"model_name": model["id"]}).raise_for_status()
