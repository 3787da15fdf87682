"""All keys of a Redis at one moment, as one file: taken from a running server, and made a server's data again."""

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import redis

PATIENCE = 120.0  # seconds that a server may be silent
CHUNK = 1 << 20


class CopyFailed(Exception):
    """A Redis did not give its data, or does not take what it was given."""


def fetch(host: str, port: int, into: IO[bytes]) -> None:
    """Write the server's snapshot (RDB), as a replica is given it: it has all keys as they were at one moment, streams
    and what is pending of them too, and the server works on meanwhile. Raises CopyFailed."""
    try:
        with socket.create_connection((host, port), timeout=PATIENCE) as link, link.makefile("rb") as stream:
            link.sendall(b"SYNC\r\n")
            left = _announced(stream)
            while left:
                part = stream.read(min(left, CHUNK))
                if not part:
                    raise CopyFailed(f"the Redis at {host}:{port} broke off, {left} bytes before the end")
                into.write(part)
                left -= len(part)
    except OSError as error:
        raise CopyFailed(f"the Redis at {host}:{port} does not answer: {error}") from error


def _announced(stream: IO[bytes]) -> int:
    """The size of the snapshot, once the server has it; until then it sends empty lines."""
    for line in iter(stream.readline, b""):
        text = line.strip().decode("ascii", "replace")
        if text.startswith("$") and text[1:].isdigit():
            return int(text[1:])
        if text:
            raise CopyFailed(f"Redis gives no snapshot: {text}")
    raise CopyFailed("Redis closed the connection and gave no snapshot")


def plant(server: Path, snapshot: Path, folder: Path, without: Sequence[str] = ()) -> int:
    """Make `folder` the data of a server that starts with the snapshot's keys, but for those of the patterns `without`.

    Returns how many keys there are. Raises CopyFailed when the server cannot read the snapshot.
    """
    with _started(server, snapshot, folder) as client:
        for pattern in without:
            for key in client.scan_iter(pattern, count=1000):
                client.delete(key)
        client.config_set("appendonly", "yes")
        while (now := client.info("persistence"))["aof_rewrite_in_progress"] or now["aof_rewrite_scheduled"]:
            time.sleep(0.02)
        if now["aof_last_bgrewrite_status"] != "ok":
            raise CopyFailed(f"Redis cannot write its data to {folder}")
        return client.dbsize()


@contextlib.contextmanager
def _started(server: Path, snapshot: Path, folder: Path) -> Iterator[Any]:
    """A client of a server that nobody else reaches, and that has read the snapshot."""
    copy = folder / "restored.rdb"
    copy.hardlink_to(snapshot)
    with tempfile.TemporaryDirectory(prefix="halfsure-") as short:  # a socket's path is 100 bytes long at most
        address = f"{short}/redis"
        command = [str(server), "--port", "0", "--unixsocket", address, "--dir", str(folder), "--save", ""]
        child = subprocess.Popen(
            [*command, "--dbfilename", copy.name, "--appendonly", "no"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        client = redis.Redis(unix_socket_path=address, socket_timeout=PATIENCE)
        try:
            _wait(child, client)
            yield client
        finally:
            client.close()
            child.terminate()
            child.wait()
            copy.unlink(missing_ok=True)


def _wait(child: "subprocess.Popen[str]", client: Any) -> None:
    while True:
        with contextlib.suppress(redis.RedisError):
            if client.ping():
                return
        if child.poll() is not None:
            said = (child.stdout.read() if child.stdout else "").strip().splitlines()
            raise CopyFailed("Redis cannot read the snapshot: " + " / ".join(said[-3:]))
        time.sleep(0.02)
