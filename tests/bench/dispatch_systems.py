"""The proxies that stand in one table: each in front of the same upstream, each started once."""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.acceptance.house import House, free_port
from tests.bench.dispatch_wire import Load, Target, build_wire, cpu_s, start_server
from tests.bench.workshop import NotHere, Workshop, needed, wait_for
from tests.fakes.lemond import Lemond

HAL0: Final = "hal0"
DIRECT: Final = "no proxy"
BARE: Final = "bare ASGI, aiohttp"
STARLETTE: Final = "Starlette + httpx"
GO: Final = "Go's ReverseProxy"
NGINX: Final = "nginx"
OTHER_CLIENTS: Final = {
    "bare ASGI, httptools by hand": "httptools",
    "bare ASGI, httpx2": "httpx2",
    "bare ASGI, httpx": "httpx",
}
"""By how the table calls them; see `systems/clients.py`."""

NGINX_CONF: Final = """
daemon off; master_process off; worker_processes 1;
pid {folder}/pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream engine {{ server {engine}; keepalive 1024; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        keepalive_requests 1000000;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
        }}
    }}
}}
"""
"""As it is set up for streams: nothing buffered, connections kept."""


@dataclass(frozen=True, slots=True)
class System:
    """One proxy at work."""

    target: Target
    pid: int

    @property
    def cpu_s(self) -> float:
        """CPU seconds that it has used so far."""
        return cpu_s(self.pid)


@dataclass(frozen=True, slots=True)
class Bench:
    """All proxies that are here, what the others lack, and who sends the requests."""

    load: Load
    house: House
    systems: Mapping[str, System]
    missing: Mapping[str, str]


@contextmanager
def systems_at_work(shop: Workshop) -> Iterator[Bench]:
    """Start upstream, load and every proxy that can be had; raises NotHere without Go."""
    wire = build_wire()
    with ExitStack() as stack:
        house, upstream, engine_pid = _house(shop, wire, stack)
        makers: dict[str, Callable[[], System]] = {
            HAL0: lambda: _hal0(house),
            DIRECT: lambda: System(Target(upstream), engine_pid),
            BARE: lambda: _pass_through(shop, "aiohttp", upstream),
            STARLETTE: lambda: _python(shop, "starlette_httpx", upstream),
            GO: lambda: System(*_go(shop, wire, upstream)),
            NGINX: lambda: _nginx(shop, upstream),
        }
        makers |= {
            name: lambda key=key: _pass_through(shop, key, upstream)  # type: ignore[misc]
            for name, key in OTHER_CLIENTS.items()
        }
        systems, missing = {}, {}
        for name, make in makers.items():
            try:
                systems[name] = make()
            except NotHere as exc:
                missing[name] = str(exc)
        yield Bench(Load(shop, wire, upstream), house, systems, missing)


def _house(shop: Workshop, wire: Path, stack: ExitStack) -> tuple[House, str, int]:
    """Start hal0 with everything on, in front of a Lemonade whose chats the upstream answers."""
    models = shop.folder / "home" / "models"
    models.mkdir(parents=True)
    lemond = stack.enter_context(Lemond(models, call_log=shop.folder / "calls.ndjson"))
    upstream, pid = start_server(shop, wire, "upstream", lemond.url)
    env = {"HAL0_MAX_IN_FLIGHT": "1000", "HAL0_BEAT_S": "10", "HAL0_SILENCE_S": "30"}
    house = stack.enter_context(House(shop.folder, upstream, **env))
    return house, upstream, pid


def _hal0(house: House) -> System:
    api = house.start_api()
    house.start_worker()
    house.add_model()
    house.add_slot()
    house.load()
    house.wait_until("ready")
    house.wait_settled()
    made = house.post("/api/v1/tokens", {"name": "bench", "role": "writer"}, status=201)
    house.client.headers["Authorization"] = f"Bearer {made['token']}"
    return System(Target(house.url, made["token"]), api.pid)


def _pass_through(shop: Workshop, client: str, upstream: str) -> System:
    if find_spec(client) is None:
        raise NotHere(f"{client} not installed")
    return _python(shop, "pass_through", client, upstream)


def _python(shop: Workshop, module: str, *words: str) -> System:
    port = free_port()
    env = {"no_proxy": "*"}  # httpx, as it comes, would ask a proxy of the environment
    process = shop.python(f"tests.bench.systems.{module}", *words, str(port), env=env)
    _wait_for_port(port, module)
    return System(Target(f"http://127.0.0.1:{port}"), process.pid)


def _go(shop: Workshop, wire: Path, upstream: str) -> tuple[Target, int]:
    url, pid = start_server(shop, wire, "proxy", upstream)
    return Target(url), pid


def _nginx(shop: Workshop, upstream: str) -> System:
    (nginx,) = needed("nginx", folders=[Path("/usr/sbin")])
    folder, port = shop.folder / "nginx", free_port()
    folder.mkdir()
    conf = folder / "nginx.conf"
    conf.write_text(
        NGINX_CONF.format(folder=folder, port=port, engine=upstream.removeprefix("http://"))
    )
    process = shop.start(nginx, "-p", folder, "-c", conf)
    _wait_for_port(port, "nginx")
    return System(Target(f"http://127.0.0.1:{port}"), process.pid)


def _wait_for_port(port: int, what: str) -> None:
    def listens() -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens, f"{what} listens")
