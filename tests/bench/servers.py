"""Redis and PostgreSQL for the rivals, on free ports of this machine, over folders of their own."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.acceptance.house import free_port
from tests.bench.workshop import NotHere, Workshop, needed, wait_for

DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
"""Debian keeps the server's programs off PATH."""


def start_redis(shop: Workshop, name: str, settings: Mapping[str, str]) -> str:
    """Start a Redis with these settings over its defaults; return its URL."""
    (server,) = needed("redis-server")
    try:
        import redis
    except ImportError as exc:
        raise NotHere("redis for Python not installed") from exc
    folder = shop.folder / name
    folder.mkdir()
    port = free_port()
    given = {"port": str(port), "bind": "127.0.0.1", "dir": str(folder)} | dict(settings)
    shop.start(server, *(word for key, value in given.items() for word in (f"--{key}", value)))
    url = f"redis://127.0.0.1:{port}"
    client = redis.Redis.from_url(url)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    wait_for(answers, f"{name} answers")
    client.close()
    return url


def start_postgres(shop: Workshop) -> str:
    """Start a PostgreSQL with its defaults; return its DSN."""
    initdb, server = needed("initdb", "postgres", folders=DEBIAN)
    try:
        import psycopg
    except ImportError as exc:
        raise NotHere("psycopg not installed") from exc
    folder, nobody = shop.folder / "postgres", _unprivileged()
    folder.mkdir()
    shop.folder.chmod(0o755)
    if nobody:
        shutil.chown(folder, nobody["user"], nobody["group"])
    command = [initdb, "--pgdata", str(folder), "--auth", "trust", "--username", "bench"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **nobody)
    port = free_port()
    dsn = f"postgresql://bench@127.0.0.1:{port}/postgres"
    at = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    shop.start(server, "-D", folder, *at, cwd="/", **nobody)

    def answers() -> bool:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_for(answers, "PostgreSQL answers")
    return dsn


def _unprivileged() -> Mapping[str, Any]:
    """Return how to start a process that refuses to be root's."""
    if os.getuid() != 0:
        return {}
    group = pwd.getpwnam("nobody").pw_gid
    return {"user": "nobody", "group": group, "extra_groups": []}
