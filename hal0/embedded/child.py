"""How one model is served: the process of one llama.cpp server.

`python -m hal0.embedded.child --parent PID --model FILE …` reads its key as the first line of
stdin, loads, says `{"url": …}` or `{"error": …}` on stdout and serves until stdin ends. It cannot
outlive its parent: the kernel kills it when the parent dies (PR_SET_PDEATHSIG), the parent's death
before that was set shows in the parent's pid, and the pipe on stdin ends. SIGTERM has its default
action, which also ends a load in the middle of C++.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from hal0.embedded.options import CACHE_TYPES, FLASH_ATTENTION, read_child_arguments

if TYPE_CHECKING:
    from xllamacpp import CommonParams

PR_SET_PDEATHSIG: Final = 1
PROMPT_CACHE_MIB: Final = 256
"""llama.cpp would keep up to 8 GiB of old prompts a model."""
LOAD_MODES: Final = {(False, False): -1, (True, False): 0, (False, True): 3, (True, True): 2}
"""(no mmap, mlock) -> llama_load_mode: auto, none, mmap + mlock, mlock."""


def main() -> int:
    """Serve one model; the exit code is 1 when it could not be loaded."""
    given = read_child_arguments(sys.argv[1:])
    _die_with(given.parent)
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no report
    key = sys.stdin.buffer.readline().decode().strip()
    try:
        server, said = _start(given, key)
    except (RuntimeError, ValueError, ImportError) as exc:
        server, said = None, {"error": str(exc)}
    report.write(json.dumps(said) + "\n")
    report.close()
    if server is None:
        return 1
    sys.stdin.buffer.read()
    os._exit(0)  # nothing to save: the destructor would wait for running requests


def _start(given: argparse.Namespace, key: str) -> tuple[Any, dict[str, str]]:
    """Return the server, whose constructor returns when the model is loaded."""
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = given.model
    params.mmproj.path = given.mmproj
    params.model_alias = {given.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.n_ctx = given.ctx_size
    params.offline = True
    params.ui = False
    params.fit_params = False
    params.endpoint_slots = False
    params.cache_ram_mib = PROMPT_CACHE_MIB
    _tune(params, given)
    server = Server(params)
    return server, {"url": server.listening_address}


def _tune(params: "CommonParams", given: argparse.Namespace) -> None:
    params.cpuparams.n_threads = given.threads or len(os.sched_getaffinity(0))
    params.cpuparams_batch.n_threads = given.threads_batch or params.cpuparams.n_threads
    params.n_batch = given.batch_size or params.n_batch
    params.n_ubatch = given.ubatch_size or params.n_ubatch
    params.n_parallel = given.parallel or params.n_parallel
    params.load_mode = LOAD_MODES[given.no_mmap, given.mlock]
    if given.n_gpu_layers is not None:
        params.n_gpu_layers = given.n_gpu_layers
    if given.flash_attn is not None:
        params.flash_attn_type = FLASH_ATTENTION[given.flash_attn]
    if given.cache_type_k is not None:
        params.cache_type_k = CACHE_TYPES[given.cache_type_k]
    if given.cache_type_v is not None:
        params.cache_type_v = CACHE_TYPES[given.cache_type_v]


def _die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL at the parent's death; leave if that has been."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
