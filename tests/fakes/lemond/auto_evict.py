"""The server's own unloading of idle models, which is off unless somebody asks for it.

Each tick a model that was not used for `downsize_idle_timeout` gives up its context, and after
`evict_idle_timeout` it is dropped; pinned and busy ones are left.
"""

import asyncio

from hal0.clock import monotonic_ms
from tests.fakes.lemond.backend import Backend
from tests.fakes.lemond.router import Router
from tests.fakes.lemond.script import Script


async def watch(router: Router) -> None:
    """Tick for ever."""
    while True:
        await asyncio.sleep(router.told.script.auto_evict_tick_s)
        for backend in list(router.loaded.values()):
            if _is_wanted(backend, router.told.script):
                await _tick(router, backend)


def _is_wanted(backend: Backend, script: Script) -> bool:
    said = backend.options["auto_evict"]
    is_on = script.auto_evict if said is None else said
    return is_on and not backend.pinned and not backend.active


async def _tick(router: Router, backend: Backend) -> None:
    second_ms = router.told.script.auto_evict_second_s * 1000
    idle = (monotonic_ms() - backend.last_use) / second_ms
    if idle >= backend.options["evict_idle_timeout"]:
        await router.evict_idle(backend.name)
    elif idle >= backend.options["downsize_idle_timeout"]:
        backend.is_downsized = True
